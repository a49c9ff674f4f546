"""Write what has ended to the ledger, many rows together, at the latest half a second after."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azpool.storage._ledger import Ledger, Settled

__all__ = ["Settler"]

SETTLE_SECONDS = 0.5
SETTLE_ROWS = 5000


class Settler:
    """Writes what has ended to the ledger, many rows together.

    A journal is written by a thread of its own, each half second: results may not come for minutes.
    """

    def __init__(self, ledger: Ledger, *, timed: bool) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()  # of writing; queues need none
        self._ended: deque[Settled] = deque()
        self._parts: deque[tuple[int, int]] = deque()
        self.add = self._ended.append
        self._flushed = time.monotonic()
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if timed:
            self._thread = threading.Thread(target=self._run, name="azpool-journal", daemon=True)
            self._thread.start()

    def add_part(self, place: int, number: int) -> None:
        self._parts.append((place, number))

    def turn(self) -> None:
        """Write where it is due.

        Raises:
            LocalFileError: the journal's own thread could not write.
        """
        if self._error is not None:
            raise self._error
        due = self._thread is None and time.monotonic() - self._flushed >= SETTLE_SECONDS
        if due or len(self._ended) >= SETTLE_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write all that has ended until now; what can't be written stays here."""
        with self._lock:
            self._flushed = time.monotonic()
            ended = [self._ended.popleft() for _ in range(len(self._ended))]
            parts = [self._parts.popleft() for _ in range(len(self._parts))]
            if not ended and not parts:
                return
            try:
                self._ledger.settle(ended, parts)
            except BaseException:
                self._ended.extendleft(reversed(ended))
                self._parts.extendleft(reversed(parts))
                raise

    def _run(self) -> None:
        while not self._stop.wait(SETTLE_SECONDS):
            try:
                self.flush()
            except BaseException as error:
                self._error = error
                return

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()
