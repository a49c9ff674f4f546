"""What this process shares, by handle: alive as long as somebody holds it, or a pool may.

A handle is a random name. Here it leads to a source; in a node of this process's pools, by way of
`shared.py`, to an answer of this process; anywhere else to nothing. Once pickled, a registration is
pinned until the last pool of the process is closed: its handle may be on any node.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol

from azpool.identity.tokens import SERVICE

if TYPE_CHECKING:
    from azpool.identity.tokens import Ask, Token

__all__ = ["Registration", "Source", "all_here", "dead_handles", "find", "pin", "register"]

MANY_PINS = 1000  # without a pool nobody else holds them


class Source(Protocol):
    """What tokens come from.

    Attributes:
        immediate: `fetch` neither blocks nor runs foreign code.
        lease_seconds: how long a process may go on without asking whether a token was replaced.
    """

    immediate: bool
    lease_seconds: float

    def fetch(self, ask: Ask, claims: str | None) -> Token:
        """Sign in; blocks. Never called twice at the same time."""
        ...


class Registration:
    """One source under its handle, with what the broker needs to run it."""

    __slots__ = ("__weakref__", "handle", "holder", "source", "todo", "working")

    def __init__(self, source: Source) -> None:
        self.handle = os.urandom(8).hex()
        self.source = source
        self.holder: Any = None  # shared.py's: what this process holds of it
        self.todo: deque[tuple[Ask, str | None]] = deque()
        self.working = False
        # Called by the collector, anywhere: it may only append.
        weakref.finalize(self, dead_handles.append, self.handle).atexit = False


dead_handles: deque[str] = deque()  # whose tokens the broker may forget
_lock = threading.RLock()
_by_handle: weakref.WeakValueDictionary[str, Registration] = weakref.WeakValueDictionary()
_by_thing: weakref.WeakValueDictionary[Hashable, Registration] = weakref.WeakValueDictionary()
_pins: dict[str, Registration] = {}


def register(thing: Hashable, make_source: Callable[[], Source]) -> Registration:
    """Answer the registration of `thing`, which is made if there is none: one thing, one handle.

    `thing` has to stay what it is as long as the source lives: a value, or the id of an object that
    the source holds.
    """
    with _lock:
        found = _by_thing.get(thing)
        if found is None:
            found = Registration(make_source())
            _by_handle[found.handle] = _by_thing[thing] = found
        return found


def find(handle: str) -> Registration | None:
    """Answer what this process shares under a handle, or None."""
    return _by_handle.get(handle)


def all_here() -> list[Registration]:
    """Answer all that this process shares."""
    return list(_by_handle.values())


def pin(registration: Registration) -> None:
    """Keep a registration until the last pool of this process is closed: its handle travels."""
    if registration.handle in _pins:
        return
    from azpool.pool import everywhere  # in the master alone: nodes pickle no handle of their own

    everywhere.serve_everywhere(SERVICE, _answer)
    everywhere.at_last_close(_unpin)
    if len(_pins) >= MANY_PINS:
        _unpin()
    with _lock:
        _pins[registration.handle] = registration


def _answer(request: Any) -> Any:
    from azpool.identity.broker import answer  # with the first question

    return answer(request)


def _unpin() -> None:
    from azpool.pool import everywhere

    let_go: list[Registration] = []
    with _lock:
        if not everywhere.any_open():  # another pool may have been made since the last one closed
            let_go += _pins.values()
            _pins.clear()
    del let_go  # outside of the lock: it may run code of credentials


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for registration in list(_by_handle.values()):
        registration.todo.clear()
        registration.working = False


os.register_at_fork(after_in_child=_after_fork)
