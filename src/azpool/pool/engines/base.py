"""The contract between the supervisor and an engine: what every kind of node can do.

An engine starts, addresses and ends nodes. It knows frames as bytes and decides nothing: which node
gets what, what a death means and when to start another are the scheduler's and the supervisor's.
All methods and all callbacks run on the supervisor's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from azpool.pool.wire import Frame, Message


class NodeKey(NamedTuple):
    """One node of an engine, for ever: its generation, its index, its incarnation."""

    generation: int
    node: int
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a node ended."""

    exit_code: int  # negative: the number of the signal
    pid: int
    stderr: str  # the last lines of its raw standard error
    chunk: int  # from its status page: the chunk that ran, or 0
    item: int  # and the item of it that had begun
    had_state: bool = False  # its exports held what a replacement does not have
    verdict: str = ""  # why the master ended it, where it did


class Listener(Protocol):
    """What an engine calls back."""

    def on_frame(self, key: NodeKey, frame: Frame) -> None:
        """A frame arrived; HELLO is the first of each node."""

    def on_output(self, key: NodeKey, text: str) -> None:
        """Raw output (of C code, subprocesses or a crash) arrived."""

    def on_death(self, key: NodeKey, death: Death) -> None:
        """A node is gone. All frames that it had sent have been delivered before."""

    def on_preloaded(self, seconds: float, said: str) -> None:
        """All that `preload` was asked for was tried.

        `seconds` is how long the imports took; 0 where the nodes to come have nothing of them.
        `said` is what the modules wrote.
        """

    def on_born(self, key: NodeKey) -> None:
        """A node's process is there, before it has said anything."""

    def on_unborn(self, key: NodeKey, reason: str) -> None:
        """A node could not be started for want of something; there is no process of it."""


class Engine(Protocol):
    """Runs nodes."""

    def start(self, keys: list[NodeKey]) -> None:
        """Start nodes, all at once. Each answers with HELLO, or `on_unborn` is called."""

    def send(self, key: NodeKey, message: Message, *, own: bool = False) -> None:
        """Send a frame, in order; to a node that is gone it is dropped.

        `own=True` closes the message's descriptors afterwards.
        """

    def grant(self, key: NodeKey) -> None:
        """Allow the node to begin one more queued chunk; to be called before it is sent."""

    def revoke(self, key: NodeKey) -> bool:
        """Take one grant back. True: the last queued chunk that was sent will not begin."""

    def interrupt(self, key: NodeKey, chunk: int) -> None:
        """Raise KeyboardInterrupt in the node's running code, if it still runs that chunk."""

    def began(self, key: NodeKey) -> tuple[int, int, float]:
        """Read the status page: running chunk, item, and when that began (time.monotonic())."""

    def preload(self, modules: list[str]) -> bool:
        """Import modules where later nodes are forked from; False where that can't be done.

        `on_preloaded` follows. No node starts meanwhile. What fails to be imported, starts threads
        or ends the process is left to the nodes, and not tried again.
        """

    def renew(self) -> None:
        """Start the nodes to come from a new interpreter."""

    def is_stale(self) -> bool:
        """Whether a source file of what was preloaded has changed since."""

    def forget(self) -> None:
        """In a fork of the master: close the copies of the descriptors, touch no process."""

    def kill(self, key: NodeKey, verdict: str = "") -> None:
        """End a node at once, for the reason that its `Death` shall give; `on_death` follows."""

    def is_stopped(self, key: NodeKey) -> bool:
        """Whether a signal has stopped the node. What has yet to bear it is woken if it is."""

    def traffic(self, key: NodeKey) -> tuple[int, int]:
        """Return the bytes that went to the node and that came from it."""

    def close(self) -> None:
        """End every node and whatever runs them, and free all descriptors. Blocks briefly."""
