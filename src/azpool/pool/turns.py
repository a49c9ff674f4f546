"""The loop of a pool without threads: whoever waits for the pool does its work meanwhile.

    call      changes state: queued, then run in the calling thread, or by who is at it already
    run_until lets nodes work, one frame at a time, until what the caller waits for is there
    errands   callbacks, hooks: between two turns of a node, never while state changes

State is changed by one thread at a time, with Ctrl-C held back. User code runs outside of that, one
item at a time in the whole process: nodes share its exports and its random generators.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from azpool import _waits
from azpool.errors import PoolError
from azpool.pool import context, ctrl_c

__all__ = ["InlineCourier", "InlineLoop"]

_log = logging.getLogger("azpool.pool")


class _Baton:
    """Who holds it may let a node work. Handed on in the order of asking; a thread may nest it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._depth = 0
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    def take(self, timeout_seconds: float | None) -> bool:
        """Wait for it, open to Ctrl-C meanwhile; False when the time has passed."""
        me = threading.get_ident()
        with self._guard:
            if self._owner is None or self._owner == me:
                self._owner = me
                self._depth += 1
                return True
            ticket = (me, threading.Lock())
            ticket[1].acquire()
            self._waiting.append(ticket)
        try:
            held = ctrl_c.let_go()
            _waits.wait(partial(_acquire, ticket[1]), timeout_seconds)
            if held:
                ctrl_c.hold()
        except BaseException:
            ctrl_c.hold()
            if not self._withdrawn(ticket):
                self.give()
            raise
        return not self._withdrawn(ticket)

    def _withdrawn(self, ticket: tuple[int, threading.Lock]) -> bool:
        """Ask for it no more; False where it was handed over already."""
        with self._guard:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                return True
            return False

    def give(self) -> None:
        """Hand it on."""
        with self._guard:
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._waiting:
                self._owner, lock = self._waiting.popleft()
                self._depth = 1
                lock.release()

    @property
    def is_nested(self) -> bool:
        """Whether its owner, which asks, took it while it held it."""
        return self._depth > 1


def _acquire(lock: threading.Lock, seconds: float | None) -> bool:
    return lock.acquire(timeout=-1 if seconds is None else seconds)


_baton = _Baton()


class InlineLoop:
    """See the module, and `loop.Loop`, of which it is the sibling. Any thread may use it."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._last: dict[Callable[[], None], None] = {}
        self._turn = threading.Lock()
        self._changes_in: int | None = None  # the thread that changes state
        self._forgotten = False  # this is a fork of the process whose pool it was
        self.thread: threading.Thread | None = None
        self.due: Callable[[], float] = lambda: math.inf
        self.is_calm: Callable[[], bool] = lambda: False  # it never waits for what comes
        self.is_idle: Callable[[], bool] = lambda: False
        self.light: frozenset[Callable[..., None]] = frozenset()
        self.on_due: Callable[[], None] = lambda: None
        self.on_rest: Callable[[], None] = lambda: None  # nor does it sleep
        self.on_crash: Callable[[], None] = lambda: None
        self.step: Callable[[], bool] = lambda: False  # one frame for one node; the engine's
        self.errands = InlineCourier(self)

    def start(self, name: str) -> None:
        """Do nothing: there is no thread."""

    def stop(self) -> None:
        """Do nothing: there is no thread."""

    def forget(self) -> None:
        """In a fork: another thread of the parent may have been at it."""
        self._turn = threading.Lock()
        self._changes_in = None
        self._forgotten = True

    @property
    def in_thread(self) -> bool:
        """Whether the caller is what changes state, and must not wait for it."""
        return self._changes_in == threading.get_ident()

    # -- state ---------------------------------------------------------------------------------

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Run a call that changes state, now, or before whoever changes state has done with it."""
        held = ctrl_c.hold()  # Ctrl-C comes before the call, or after it
        try:
            self._calls.append((function, args))
            # Who has the turn looks again after leaving it, so that no call is left behind.
            while self._calls and self._turn.acquire(blocking=False):
                self._change()
        finally:
            if held:
                ctrl_c.let_go()

    def _change(self) -> None:
        """Run what is queued and give the turn back, which the caller has taken."""
        self._changes_in = threading.get_ident()
        try:
            while self._calls:
                while self._calls:
                    function, args = self._calls.popleft()
                    function(*args)
                    del function, args
                while self._last:
                    last, self._last = self._last, {}
                    for each in last:
                        each()
        except BaseException:
            _log.critical("the pool's state failed to change; a bug in azpool", exc_info=True)
            self.on_crash()
        finally:
            self._changes_in = None
            self._turn.release()

    def at_end(self, function: Callable[[], None]) -> None:
        """Call `function` when the calls that are queued are done, once."""
        self._last[function] = None

    def check_time(self) -> None:
        """Do what is due; while state changes."""
        if self.due() <= time.monotonic():
            self.on_due()

    # -- work ----------------------------------------------------------------------------------

    def run_until(self, condition: Callable[[], object], ends_at: float | None = None) -> bool:
        """Let nodes work in this thread until `condition()` holds; True where `ends_at` passed.

        A node is never cut short: the last frame may end later.

        Raises:
            KeyboardInterrupt: Ctrl-C came, also where it interrupted an item.
            PoolError: the caller runs inside of what it waits for.
        """
        if self.in_thread or condition():  # a finalizer must not wait for what it interrupts
            return False
        baton = _baton
        held = ctrl_c.hold()
        try:
            while not condition() and not self._forgotten:
                left = None if ends_at is None else ends_at - time.monotonic()
                if left is not None and left <= 0:
                    return True
                if ctrl_c.is_pending():  # before a node begins what it would interrupt
                    return False
                if not baton.take(left):
                    return True
                try:
                    if not condition() and not self.step():
                        self._rest(condition, left)
                finally:
                    if held:
                        ctrl_c.hold()  # it was let go where it raised
                    baton.give()
                self.errands.run_all()
            return ends_at is not None and time.monotonic() >= ends_at
        finally:
            if held:
                ctrl_c.let_go()
            self.errands.run_all()

    lead_until = run_until  # each caller leads

    def on_thread(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function`: there is no thread."""
        function(*args)

    def _rest(self, condition: Callable[[], object], left: float | None) -> None:
        """Nodes have nothing to do: wait for what is due, where anything can come of it."""
        self._turn.acquire()  # another thread may be at the calls of this one
        self._calls.append((self.check_time, ()))
        self._change()
        if condition() or self.step():
            return
        pause = min(self.due() - time.monotonic(), math.inf if left is None else left)
        if _baton.is_nested or pause == math.inf:
            raise PoolError(
                "cannot wait for this pool here: what is waited for can't begin before what waits"
                " has ended; inside of tasks and handlers use the pool functions, as pool_map"
            )
        held = ctrl_c.let_go()
        try:
            time.sleep(max(0.0, pause))
        finally:
            if held:
                ctrl_c.hold()


class InlineCourier:
    """Runs other people's code in the thread of whoever waits; see `courier.Courier`."""

    def __init__(self, loop: InlineLoop) -> None:
        self._loop = loop
        self._errands: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._busy = threading.Lock()

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a call, or queue it while state changes."""
        self._errands.append((function, args))
        if not self._loop.in_thread:
            self.run_all()

    def run_all(self) -> None:
        """Run what is queued, in order; not inside a task, whose exports these calls must not see.

        Raises:
            KeyboardInterrupt: Ctrl-C came during a call; the others run later.
        """
        if not self._errands or context.runner() is not None:
            return
        while self._errands and self._busy.acquire(blocking=False):
            held = False
            try:
                held = ctrl_c.let_go()
                while self._errands:
                    function, args = self._errands.popleft()
                    try:
                        function(*args)
                    except Exception:
                        _log.exception("a callback of the pool failed")
                    del function, args
            finally:
                self._busy.release()
                if held:
                    ctrl_c.hold()

    def close(self, timeout_seconds: float) -> None:
        """Run what is queued."""
        self.run_all()


def _after_fork() -> None:
    global _baton
    _baton = _Baton()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)
