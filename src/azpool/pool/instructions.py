"""What a scheduler tells its supervisor to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from azpool.pool.jobs import Chunk, Job, Why


class Start(NamedTuple):
    """Start a node; answer with `hello` or `died`."""

    node: int
    incarnation: int


class Send(NamedTuple):
    """Send a chunk to a node; `queued` behind another one, it may be revoked until it begins."""

    node: int
    chunk: Chunk
    queued: bool


class Revoke(NamedTuple):
    """Try to take a queued chunk back; answer with `revoked`."""

    node: int
    chunk: Chunk


class Interrupt(NamedTuple):
    """Interrupt a chunk that may be running."""

    node: int
    seq: int


class Kill(NamedTuple):
    """End a node at once, for a reason that its error shall give; answer with `died`."""

    node: int
    reason: str = ""


class Stop(NamedTuple):
    """Say goodbye to a node that has nothing left to do."""

    node: int


class Check(NamedTuple):
    """Read the node's status page and answer with `began`."""

    node: int


class Look(NamedTuple):
    """See whether a signal has stopped a node that owes an answer; answer with `looked`."""

    node: int


class Lost(NamedTuple):
    """Items start..stop-1 will have no result."""

    job: Job
    start: int
    stop: int
    why: Why
    node: int


class Finished(NamedTuple):
    """Every item of a job is answered or lost."""

    job: Job


class Broken(NamedTuple):
    """Nodes fail to start; every job is lost."""


class Refused(NamedTuple):
    """The nodes that were to be added fail to start; the pool has the size that it had."""

    size: int


Instruction = (
    Start
    | Send
    | Revoke
    | Interrupt
    | Kill
    | Stop
    | Check
    | Look
    | Lost
    | Finished
    | Broken
    | Refused
)
