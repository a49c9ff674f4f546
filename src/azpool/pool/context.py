"""Where code finds itself: on a node, inline in the master, or in neither.

`emit`, `ask` and `current_node` are what a task may call; they find their way by this module alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Protocol

from azpool.errors import PoolError

__all__ = ["Runner", "ask", "current_node", "emit", "running_inline", "set_process_runner"]


class Runner(Protocol):
    """What runs the current task."""

    index: int

    @property
    def home(self) -> object: ...  # the engine whose node it is, where that is in this process
    def emit(self, value: Any) -> None: ...
    def ask(self, name: str, request: Any) -> Any: ...


_process_runner: Runner | None = None
_thread = threading.local()


def set_process_runner(runner: Runner | None) -> None:
    """Make this process a node (its every thread runs under `runner`)."""
    global _process_runner
    _process_runner = runner


class running_inline:  # noqa: N801 - used as a `with` statement only
    """Run a block of the master's code as a task of `runner`, in this thread."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.ended = False
        self._outer: running_inline | None = None

    def __enter__(self) -> None:
        self._outer = _block()
        _thread.block = self

    def __exit__(self, *_: object) -> None:
        _thread.block = self._outer
        self.ended = True


def _block() -> running_inline | None:
    return getattr(_thread, "block", None)


def runner() -> Runner | None:
    """What runs the current task, or None outside of any task."""
    block = _block()
    if block is not None:
        return block.runner
    return _process_runner or _inherited()


def is_inherited() -> bool:
    """Whether the caller is a thread that a task in the master's process has started."""
    return _block() is None and _inherited() is not None


def inherit() -> None:
    """Let threads that tasks start in this process belong to them, while they last.

    On a node that is a process it is so anyway. Python tells nobody who has started a thread, so
    `Thread.start` is wrapped, once.
    """
    global _start
    if _start is not None:
        return
    _start = threading.Thread.start

    @functools.wraps(_start)
    def start(self: threading.Thread) -> None:
        found = _block() or _inherited_block()
        if found is not None:
            self.__dict__["_azpool_block"] = found
        assert _start is not None
        _start(self)

    threading.Thread.start = start  # type: ignore[method-assign]


_start: Callable[[threading.Thread], None] | None = None


def _inherited_block() -> running_inline | None:
    if _start is None:
        return None
    block: running_inline | None = threading.current_thread().__dict__.get("_azpool_block")
    return None if block is None or block.ended else block


def _inherited() -> Runner | None:
    block = _inherited_block()
    return None if block is None else block.runner


def on_node() -> bool:
    """Whether pool functions called here run inline: on a node, or in an inline task."""
    return runner() is not None


def current_node() -> int | None:
    """Return the index of the node that runs the calling task, or None in the master."""
    found = runner()
    return None if found is None else found.index


def emit(value: Any) -> None:
    """Send a value from a running task to the master, before the task returns.

    The master's `on_emit` callable gets it with the item's index, in the thread that reads the
    results and before that item's own result. A value that nobody waits for is dropped.

    Raises:
        PoolError: the caller is not a task.
        CannotPickle: the value can't travel.
    """
    _required("emit a value").emit(value)


def ask(name: str, request: Any = None) -> Any:
    """Ask the master's service `name` and wait for its answer.

    Raises:
        PoolError: the caller is not a task, or the master is gone.
        Exception: whatever the service's handler raised, with its traceback as the cause.
    """
    return _required(f"ask {name!r}").ask(name, request)


def _required(verb: str) -> Runner:
    found = runner()
    if found is None:
        raise PoolError(
            f"cannot {verb}: this is not a task of a pool; call it in a function on a node"
        )
    return found
