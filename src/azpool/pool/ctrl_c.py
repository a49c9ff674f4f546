"""Ctrl-C, held back from this process's main thread while the state of a pool changes in it.

Where a pool has an I/O thread no signal can find its state half changed. A pool without one changes
it in the caller's thread: `hold` before, `let_go` after, and around the user's code the other way
about. The user's own handler is in place whenever the user's code runs.
"""

from __future__ import annotations

# signal's own functions make enums of all that they touch, which takes 25 times as long.
import _signal  # type: ignore[import-not-found]  # typeshed has it not
import os
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["hold", "is_only_handler", "is_pending", "let_go"]

SIGINT = _signal.SIGINT
OTHERS = tuple(sorted(set(_signal.valid_signals()) - {SIGINT}))

_handler: Callable[..., Any] | None = None  # the user's, while Ctrl-C is held
_came = False


def hold() -> bool:
    """Hold Ctrl-C from now on; True where this call did it, and has to let go again.

    False in other threads, which no signal interrupts, and where Ctrl-C is held or ignored anyway.
    """
    global _handler
    if _handler is not None or not _in_main_thread() or not callable(_signal.getsignal(SIGINT)):
        return False
    _handler = _signal.signal(SIGINT, _on_signal)
    return True


def let_go() -> bool:
    """Hold Ctrl-C no more; True where it was held.

    Raises:
        KeyboardInterrupt: it came meanwhile, and the user's handler raises that.
    """
    global _came, _handler
    if _handler is None or not _in_main_thread():
        return False
    handler, _handler = _handler, None
    _signal.signal(SIGINT, handler)
    if _came:
        _came = False
        _signal.raise_signal(SIGINT)
    return True


def is_pending() -> bool:
    """Whether Ctrl-C came while this thread held it: `let_go` will call the user's handler."""
    return _came and _handler is not None and _in_main_thread()


def is_only_handler() -> bool:
    """Whether no signal but Ctrl-C can run Python code in this thread, between two lines of it."""
    if not _in_main_thread():
        return True
    return not any(map(callable, map(_signal.getsignal, OTHERS)))


def _in_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _on_signal(_number: int, _frame: Any) -> None:
    global _came
    _came = True


def _after_fork() -> None:
    # Another thread forked while the main one held Ctrl-C, and only the other one is here now.
    global _came, _handler
    handler, _handler, _came = _handler, None, False
    if handler is not None:
        _signal.signal(SIGINT, handler)


os.register_at_fork(after_in_child=_after_fork)
