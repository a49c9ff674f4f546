"""The courier: one lazily started thread on which other people's code runs.

Callbacks of futures, hooks for events and the printing of nodes' output may be slow, may raise,
and may use the pool themselves; none of them may hold up the I/O thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("azpool.pool")
IDLE_SECONDS = 5.0  # then the thread ends; the next errand starts another


class Courier:
    """Runs calls one after another, in order, on a thread that exists only while there are any."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._errands: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None]
        self._errands = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        """Queue a call and return at once."""
        with self._lock:
            self._errands.put((function, args))
            if not self._closed:
                self._need_thread()

    def _need_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter ends: the next errand tries
                return
            self._thread = thread

    def _work(self) -> None:
        while True:
            try:
                errand = self._errands.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._errands.empty():
                        self._thread = None
                        return
                continue
            if errand is None:
                return
            _run(*errand)
            del errand  # nothing is kept alive while the thread waits

    def close(self, timeout_seconds: float) -> None:
        """Finish what is queued, within a time, and end the thread.

        Where no thread can be started for it, it runs here, as a callback does that comes late; in
        no time, as on the I/O thread, it is left to who closes again.
        """
        with self._lock:
            self._closed = True
            if not self._errands.empty():
                self._need_thread()
            thread = self._thread
            if thread is not None:
                self._errands.put(None)
        if thread is None:
            self._run_here(timeout_seconds)
        elif thread is not threading.current_thread():
            thread.join(timeout_seconds)

    def _run_here(self, timeout_seconds: float) -> None:
        ends_at = time.monotonic() + timeout_seconds
        with contextlib.suppress(queue.Empty):
            while time.monotonic() < ends_at:
                errand = self._errands.get_nowait()
                if errand is not None:
                    _run(*errand)


def _run(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        function(*args)
    except Exception:
        _log.exception("a callback of the pool failed")
