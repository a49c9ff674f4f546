"""A Ctrl-C that ends a command, and the ones after it, which must not break off what it tells."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ended_by_one", "ignore_ctrl_c"]


@contextlib.contextmanager
def ended_by_one() -> Iterator[None]:
    """Where Ctrl-C ends the block, ignore every later one: the process is about to end.

    Another one would land in the middle of the last message, or of a report's file.
    """
    try:
        yield
    except KeyboardInterrupt:
        ignore_ctrl_c()
        raise


def ignore_ctrl_c() -> None:
    """Ignore Ctrl-C for as long as the process lasts.

    Does nothing in other threads than the main one, which no Ctrl-C reaches.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # one that has come is dealt with first
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return
