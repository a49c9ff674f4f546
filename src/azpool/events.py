"""What happened, as frozen records, and the one hook that gets them.

    with azpool.events.listen(print):
        ...

Hooks are called on azpool's courier thread, one event at a time, in order; an exception that a hook
raises is logged and ends nothing. Records hold no arguments, no results and no secrets.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from azpool.errors import UsageError

__all__ = [
    "Event",
    "Hook",
    "NodeEnded",
    "NodeStarted",
    "PoolReset",
    "PoolStarted",
    "PoolStopped",
    "StateLost",
    "listen",
]

_log = logging.getLogger("azpool.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events."""

    at: float = field(default_factory=time.time)  # seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStarted(Event):
    """A pool is there and all its nodes have answered."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReset(Event):
    """Every node was replaced by a fresh one."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStopped(Event):
    """The pool and its nodes are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted(Event):
    """A node has answered for the first time."""

    node: int
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnded(Event):
    """A node ended that had not been told to."""

    node: int
    incarnation: int
    pid: int
    exit_code: int  # negative: the number of the signal
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLost(Event):
    """A node that held state outside the log was replaced: that state is gone."""

    node: int


Hook = Callable[[Event], None]

_hooks: list[Hook] = []


def active() -> bool:
    """Whether anybody listens."""
    return bool(_hooks)


def publish(event: Event) -> None:
    """Give an event to every hook, in the calling thread."""
    for hook in tuple(_hooks):
        try:
            hook(event)
        except Exception:
            _log.exception("a hook failed on %s", type(event).__name__)


@contextlib.contextmanager
def listen(hook: Hook) -> Iterator[None]:
    """Call `hook` with every event of every pool of this process while the block runs.

    Events that are on their way when the block ends are not given to it any more.

    Raises:
        UsageError: `hook` can't be called.
    """
    if not callable(hook):
        raise UsageError(f"cannot call {hook!r}: give a callable(event)")
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)
