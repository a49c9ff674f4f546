"""Waits for futures that Ctrl-C ends: see `_waits`, which is also for those who have none."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, TypeVar

from azpool import _waits

__all__ = ["result", "wait_for"]

T = TypeVar("T")


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
    return future.done() or _waits.wait(partial(_is_done, future), seconds)


def _is_done(future: Future[Any], seconds: float | None) -> bool:
    try:
        Future.exception(future, seconds)
    except TimeoutError:  # of the wait: what the call raised is returned
        return False
    except CancelledError:
        pass
    return True
