"""The I/O loop: one thread, one epoll, a queue of calls from other threads, one timer.

It sleeps until something happens: no polling, and no wake-up while nothing is due. Each system call
that a round trip does without is a chance less for the interpreter's lock to change hands, so the
wake-up is edge-triggered and never read.

While one call at a time goes there and back, the thread parks and its caller makes the turns: two
changes of threads less. One thread has the lead at a time, and all state is the leader's. A caller
does only what `light` and `light=True` name, leaves the rest to the thread, and leads where no
handler of a signal but Ctrl-C's, which it holds back, could end a turn half way.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from azpool.pool import ctrl_c

_log = logging.getLogger("azpool.pool")

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
# Two threads share one lock, and the loop gives it up at each system call: a caller that submits
# 50,000 calls in a loop saw 3,000 answered meanwhile, and 10,000 since it gives way.
DEEP_CALLS = 256
YIELD_SECONDS = 0.001
LOOK_SECONDS = 0.0002  # as a node does, and for the same reason: see there
LEAD_SECONDS = 0.002  # a call that takes longer gains nothing from its caller's lead
PARK_SECONDS = 0.001  # without a leader: as long may a call wait whose caller does not wait for it
HEADROOM = 200  # frames of the stack for a turn: it takes 20, and users' objects are loaded in it
Handler = Callable[[int], None]


class _WakeUp:
    """An eventfd, closed when nobody can write to it any more: its number may be another's then."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it now; for who knows that no other thread is about to write."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Loop:
    """See the module. `call` and `lead_until` are for any thread, the rest for the leader alone."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wake_up: _WakeUp | None = _WakeUp(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._epoll.register(self._wake_up.fd, READ | select.EPOLLET)
        self._asleep = False
        self._soon = False  # what came last came at once: so may the next
        self._ended = False
        self._lead = threading.Lock()  # whose holder makes the turns
        self._leader: int | None = None
        self._led = 0  # times that a caller had the lead
        self._parked = False
        self._wished = False  # a caller would have led since the thread parked last
        self._handed = threading.Lock()  # released where a caller hands the lead to the thread
        self._handed.acquire()
        self._light_fds = {self._wake_up.fd}
        self.light: frozenset[Callable[..., None]] = frozenset()  # calls that a caller may make
        self._stopped = threading.Event()
        self.due: Callable[[], float] = lambda: math.inf
        self.is_calm: Callable[[], bool] = lambda: False  # at most one call is under way
        self.is_idle: Callable[[], bool] = lambda: False  # and none at all
        self.on_due: Callable[[], None] = lambda: None
        self.on_rest: Callable[[], None] = lambda: None  # it is about to sleep
        self.on_crash: Callable[[], None] = lambda: None
        self._last: dict[Callable[[], None], None] = {}  # what the turn does at its end, once each
        self.thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        """Run the loop in a daemon thread of its own."""
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)
        self.thread.start()

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Queue a call for the loop's thread. Safe against signals: one append, then a wake-up.

        A caller that is far ahead of the loop lets it work for a moment. When the loop has ended
        the call is made here, so that nobody waits for ever.
        """
        self._calls.append((function, args))
        if self._asleep:
            wake_up = self._wake_up  # held: the loop may end before it is written to
            if wake_up is not None:
                os.eventfd_write(wake_up.fd, 1)
        elif self._ended:
            self._run_calls()
        elif self._parked and len(self._calls) > 1:  # whoever waits for them, it is not one caller
            self._hand_over()
        elif len(self._calls) > DEEP_CALLS and not self.in_thread:
            time.sleep(YIELD_SECONDS)

    def run_until(self, condition: Callable[[], object], ends_at: float | None = None) -> bool:
        """Return False: the loop's own thread does what callers wait for; see `turns`."""
        return False

    def lead_until(self, condition: Callable[[], object], ends_at: float | None = None) -> bool:
        """Make turns in this thread for a moment until `condition()` holds, where the loop's parks.

        To be called before each wait for what one call answers; returns False, and never raises but
        what Ctrl-C does.
        """
        self._wished = True
        if not self._parked or self.in_thread or not _can_lead():
            return False
        held = ctrl_c.hold()
        try:
            if self._lead.acquire(blocking=False):
                self._be_leader(condition, math.inf if ends_at is None else ends_at)
        finally:
            if held:
                ctrl_c.let_go()
        return False

    def _be_leader(self, condition: Callable[[], object], ends_at: float) -> None:
        self._led += 1
        self._leader = threading.get_ident()
        done = False
        try:
            done = self._make_turns(condition, ends_at)
        except BaseException:
            self._crash()
        finally:
            self._leader = None
            self._lead.release()
            if self._calls or not done:
                self._hand_over()

    def _make_turns(self, condition: Callable[[], object], ends_at: float) -> bool:
        """Do what comes for one call; False where anything is left to the thread."""
        calls, poll = self._calls, self._epoll.poll
        began = time.monotonic()
        ends_at = min(ends_at, began + LEAD_SECONDS)
        looks_until = began + LOOK_SECONDS
        while True:
            while calls and calls[0][0] in self.light:
                function, args = calls.popleft()
                function(*args)
                del function, args
            self._finish_turn()
            now = time.monotonic()
            if condition():
                return self.is_idle() and not self._stopped.is_set()
            if calls or not self.is_calm() or min(ends_at, self.due()) <= now:
                return False
            if now < looks_until:
                ready = poll(0.0)
            else:
                self._asleep = True
                ready = poll(0.0 if calls else ends_at - now)
                self._asleep = False
            if not self._light_fds.issuperset([fd for fd, _ in ready]):
                return False
            for fd, mask in ready:
                if (handler := self._handlers.get(fd)) is not None:
                    handler(mask)
            if not ready:
                os.sched_yield()

    def _park(self) -> None:
        """Let callers make the turns; return with the lead when none has for a while."""
        self._handed.acquire(blocking=False)
        self._leader, self._parked = None, True
        self._lead.release()
        seen = -1
        while seen != self._led and not self._calls:
            seen = self._led
            if self._handed.acquire(timeout=PARK_SECONDS):
                break
        self._lead.acquire()
        self._leader, self._parked = threading.get_ident(), False
        self._soon = self._wished = False

    def _hand_over(self) -> None:
        """Wake the thread, which then takes the lead."""
        with contextlib.suppress(RuntimeError):  # it was handed over already
            self._handed.release()

    def on_thread(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function` on the loop's own thread: now, or before its next turn."""
        if self.thread is None or self.thread.ident == threading.get_ident():
            function(*args)
        else:
            self._calls.appendleft((function, args))

    def at_end(self, function: Callable[[], None]) -> None:
        """Call `function` at the end of this turn, once, however often it is asked for."""
        self._last[function] = None

    def register(self, fd: int, handler: Handler, *, light: bool = False) -> None:
        """Call `handler(mask)` whenever `fd` can be read; callers' threads call `light` ones."""
        self._handlers[fd] = handler
        if light:
            self._light_fds.add(fd)
        self._epoll.register(fd, READ)

    def want_write(self, fd: int, *, wanted: bool) -> None:
        """Also call the handler when `fd` can be written, or no longer."""
        self._epoll.modify(fd, READ | WRITE if wanted else READ)

    def unregister(self, fd: int) -> None:
        """Watch a descriptor no more; to be called before it is closed."""
        del self._handlers[fd]
        self._light_fds.discard(fd)
        self._epoll.unregister(fd)

    def stop(self) -> None:
        """End the loop after the current turn; from the loop's thread."""
        self._stopped.set()

    def run(self) -> None:
        """Run until `stop`."""
        calls = self._calls
        self._lead.acquire()
        self._leader = threading.get_ident()
        try:
            while not self._stopped.is_set():
                while calls:
                    function, args = calls.popleft()
                    function(*args)
                    del function, args  # nothing is kept alive while the loop sleeps
                self._finish_turn()
                if self._stopped.is_set():
                    break
                if self._soon and self._wished and self.is_idle():
                    self._park()
                    continue
                self._turn()
                self._finish_turn()
        except BaseException:
            self._crash()
        finally:
            self._asleep = False
            self._ended = True
            self._epoll.close()
            self._wake_up = None  # closed, unless a call is about to write to it: then after that
            self._run_calls()  # of those that came too late: each finds its pool closed

    def _crash(self) -> None:
        _log.critical("the pool's I/O thread failed; this is a bug in azpool", exc_info=True)
        self._stopped.set()
        self.on_crash()

    def _run_calls(self) -> None:
        while self._calls:
            try:
                function, args = self._calls.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                function(*args)
            except Exception:
                _log.exception("a call to a pool that has ended failed")

    def forget(self) -> None:
        """In a fork: close the copies of the descriptors; the parent's stay as they are."""
        self._epoll.close()
        if self._wake_up is not None:
            self._wake_up.close()  # a thread of the parent's may hold it, and never let go here
            self._wake_up = None
        self._parked = False

    def _finish_turn(self) -> None:
        # Each write lets other threads run and wakes somebody: one for many frames, not one each.
        while self._last:
            last, self._last = self._last, {}
            for function in last:
                function()

    def _turn(self) -> None:
        due = self.due()
        began = time.monotonic()
        ready = self._look_out(began + LOOK_SECONDS) if self._soon else []
        if not ready and not self._calls:
            if due != math.inf:
                self.on_rest()
                due = self.due()
            timeout = None if due == math.inf else max(0.0, due - time.monotonic())
            self._asleep = True
            # A call queued before this line is seen here; one queued after writes to the eventfd.
            ready = self._epoll.poll(0.0 if self._calls or self._last else timeout)
            self._asleep = False
            self._soon = self.is_calm() and time.monotonic() < began + LOOK_SECONDS
        handlers = self._handlers
        for fd, mask in ready:
            handler = handlers.get(fd)  # an earlier handler of this turn may have removed it
            if handler is not None:
                handler(mask)
        if due != math.inf and time.monotonic() >= due:  # what is due by now, the next turn sees
            self.on_due()

    def _look_out(self, until: float) -> list[tuple[int, int]]:
        """Wait for what comes next awake, while one call at a time goes there and back.

        Whoever else wants the core gets it meanwhile, and one miss ends it: an idle loop sleeps.
        """
        poll, calls = self._epoll.poll, self._calls
        while not (ready := poll(0.0)) and not calls:
            if time.monotonic() >= until:
                self._soon = False
                return ready
            os.sched_yield()
        self._soon = self.is_calm()
        return ready

    @property
    def in_thread(self) -> bool:
        """Whether the caller makes the loop's turns, and must not wait for them."""
        return self._leader == threading.get_ident()


def _can_lead() -> bool:
    """Whether nothing but Ctrl-C can end a turn in this thread half way."""
    try:
        sys._getframe(max(0, sys.getrecursionlimit() - HEADROOM))
    except ValueError:  # the stack is less deep
        return ctrl_c.is_only_handler()
    return False
