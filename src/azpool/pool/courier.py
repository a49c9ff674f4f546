"""The courier: one lazily started thread on which other people's code runs.

Callbacks of futures, hooks for events and the printing of nodes' output may be slow, may raise,
and may use the pool themselves; none of them may hold up the I/O thread.
"""

from __future__ import annotations

import logging
import queue
import threading
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
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter ends: the next one tries
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
            function, args = errand
            try:
                function(*args)
            except Exception:
                _log.exception("a callback of the pool failed")
            del errand, function, args  # nothing is kept alive while the thread waits

    def close(self, timeout_seconds: float) -> None:
        """Finish what is queued, within a time, and end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._errands.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)
