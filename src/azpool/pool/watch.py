"""What a node owes, and when it is ended for it: its hello, an answer to the log, a beginning.

Pure rules over a `NodeSlot` for the scheduler: no I/O, the time is passed in. An import or an
initializer takes the time that it takes; only what can't go on by itself is bounded. A node that a
signal has stopped (SIGSTOP) is ended when three looks in a row found it so; one that runs an item
is left alone, since an item's bound is its deadline. A node that owes nothing is not looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from azpool.pool.instructions import Kill, Look
from azpool.pool.jobs import NodeState

if TYPE_CHECKING:
    from azpool.pool.instructions import Instruction
    from azpool.pool.jobs import NodeSlot

START_SECONDS = 60.0  # from birth to hello: takes 3 ms, 0.2 s by exec, and more on a loaded machine
LOOK_SECONDS = 1.0  # between two looks at a node that owes something
STOPPED_LOOKS = 3  # one look may fall into a pause that a debugger makes
WORK_LOOK_SECONDS = 5.0  # and between two at a node that has only items to run


def started(slot: NodeSlot, now: float) -> None:
    """A node is being started: it owes its hello."""
    clear(slot)
    slot.look_at = now + LOOK_SECONDS


def born(slot: NodeSlot, now: float) -> None:
    """Its process is there; before, an import where it is forked from may have taken its time."""
    slot.hello_by = now + START_SECONDS


def owes(slot: NodeSlot, now: float) -> None:
    """A step of the log was sent to it."""
    slot.owes = True
    slot.look_at = min(slot.look_at, now + LOOK_SECONDS)


def answered(slot: NodeSlot) -> None:
    """It has done every step of the log."""
    slot.owes = False
    slot.owes_by = math.inf


def clear(slot: NodeSlot) -> None:
    """Nothing is owed: the node is gone, or a new one."""
    answered(slot)
    slot.hello_by = slot.look_at = math.inf
    slot.stopped_looks = 0


def due(slot: NodeSlot) -> float:
    """When `check` wants to be called."""
    return min(slot.hello_by, slot.owes_by, slot.look_at)


def check(slot: NodeSlot, now: float) -> Instruction | None:
    """Return what is to be done about a node now."""
    if slot.hello_by <= now:
        slot.hello_by = math.inf
        return Kill(slot.index, f"it had not answered within {START_SECONDS:g} s of its birth")
    if slot.owes_by <= now:
        slot.owes_by = math.inf
        return Kill(slot.index, "it went on with what was interrupted")
    if slot.look_at <= now:
        owes = slot.state is NodeState.STARTING or slot.owes or slot.chunks
        slot.look_at = now + LOOK_SECONDS if owes else math.inf
        return Look(slot.index) if owes else None
    return None


def looked(slot: NodeSlot, chunk: int, now: float, *, stopped: bool) -> Instruction | None:
    """Take in what a look saw: the chunk on the page, and whether a signal has stopped the node."""
    runs = bool(slot.chunks) and slot.chunks[0].seq == chunk
    slot.stopped_looks = slot.stopped_looks + 1 if stopped and not runs else 0
    if slot.state is NodeState.STARTING or slot.owes or (slot.chunks and not runs):
        slot.look_at = now + LOOK_SECONDS
    else:
        slot.look_at = now + WORK_LOOK_SECONDS if runs else math.inf
    if slot.stopped_looks < STOPPED_LOOKS:
        return None
    slot.stopped_looks = 0
    return Kill(slot.index, "a signal had stopped it, and nothing woke it")
