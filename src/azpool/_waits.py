"""Waits in which no Ctrl-C is missed.

A signal that comes between the interpreter's last look for one and the system call that sleeps is
noticed when that sleep ends. A thread that has just given others work is often preempted right
there (1 of 14 waits on busy cores, measured), so the main thread, which alone gets signals, sleeps
in pieces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["piece", "result", "wait", "wait_for"]

LOOK_SECONDS = 0.05  # the first piece of a wait; each that follows is twice as long
LOOK_SECONDS_LATER = 1.0  # up to this: a lone wait is rarely preempted

T = TypeVar("T")


def wait(sleep: Callable[[float | None], T], seconds: float | None = None) -> T:
    """Call `sleep(seconds)`, in pieces where Ctrl-C may come meanwhile, and return what it said.

    `sleep` returns something true when what it waits for has come, else when the time has passed.
    It looks before it sleeps: a notification that comes between two pieces is not repeated.

    Raises:
        KeyboardInterrupt: Ctrl-C came, at most a second ago.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return sleep(seconds)
    ends_at = None if seconds is None else time.monotonic() + seconds
    pause = LOOK_SECONDS
    while True:
        left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        if left is not None and left <= pause:
            return sleep(left)
        came = sleep(pause)
        if came:
            return came
        pause = min(2 * pause, LOOK_SECONDS_LATER)


def piece(seconds: float | None) -> float | None:
    """Answer how long to sleep at once, of `seconds`, for a loop that looks after each sleep."""
    if threading.get_ident() != threading.main_thread().ident:
        return seconds
    return LOOK_SECONDS_LATER if seconds is None else min(seconds, LOOK_SECONDS_LATER)


def result(future: Future[T]) -> T:
    """Wait for a future and return its result.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile.
        Exception: what the future holds.
    """
    wait_for(future)
    return future.result()


def wait_for(future: Future[Any], seconds: float | None = None) -> bool:
    """Wait until a future is done; False when the time has passed.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile.
    """
    return future.done() or wait(partial(_is_done, future), seconds)


def _is_done(future: Future[Any], seconds: float | None) -> bool:
    from concurrent.futures import CancelledError, Future  # loaded by whoever has one

    try:
        Future.exception(future, seconds)
    except TimeoutError:  # of the wait: what the call raised is returned
        return False
    except CancelledError:
        pass
    return True
