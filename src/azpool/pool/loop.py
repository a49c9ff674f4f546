"""The I/O loop: one thread, one selector, a queue of calls from other threads, one timer.

It sleeps until something happens: no polling, and no wake-up while nothing is due.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("azpool.pool")


class Loop:
    """See the module. `call` may be used from any thread, everything else from the loop's alone."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asleep = False
        self._stopped = threading.Event()
        self.due: Callable[[], float] = lambda: math.inf
        self.on_due: Callable[[], None] = lambda: None
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)
        self.thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        """Run the loop in a daemon thread of its own."""
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)
        self.thread.start()

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Queue a call for the loop's thread. Safe against signals: one append, then a wake-up."""
        self._calls.append((function, args))
        if self._asleep:
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the loop may have ended and closed it
            os.eventfd_write(self._wake_fd, 1)

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def register(self, fd: int, handler: Callable[[int], None]) -> None:
        """Call `handler(mask)` whenever `fd` can be read."""
        self._selector.register(fd, selectors.EVENT_READ, handler)

    def want_write(self, fd: int, handler: Callable[[int], None], *, wanted: bool) -> None:
        """Also call the handler when `fd` can be written, or no longer."""
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        self._selector.modify(fd, mask, handler)

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def stop(self) -> None:
        """End the loop after the current turn; from the loop's thread."""
        self._stopped.set()

    def run(self) -> None:
        """Run until `stop`."""
        calls = self._calls
        try:
            while not self._stopped.is_set():
                while calls:
                    function, args = calls.popleft()
                    function(*args)
                if self._stopped.is_set():
                    break
                self._turn()
        except BaseException:
            _log.critical("the pool's I/O thread failed; this is a bug in azpool", exc_info=True)
            raise
        finally:
            self._selector.close()
            os.close(self._wake_fd)

    def _turn(self) -> None:
        due = self.due()
        timeout = None if due == math.inf else max(0.0, due - time.monotonic())
        self._asleep = True
        # A call queued before this line is seen here; one queued after it writes to the eventfd.
        ready = self._selector.select(0.0 if self._calls else timeout)
        self._asleep = False
        for key, mask in ready:
            key.data(mask)
        if due != math.inf and time.monotonic() >= self.due():
            self.on_due()

    @property
    def in_thread(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        return threading.current_thread() is self.thread
