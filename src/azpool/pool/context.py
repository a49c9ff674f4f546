"""Where code finds itself: on a node, inline in the master, or in neither.

`emit`, `ask` and `current_node` are what a task may call; they find their way by this module alone.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from azpool.errors import PoolError

__all__ = ["Runner", "ask", "current_node", "emit", "running_inline", "set_process_runner"]


class Runner(Protocol):
    """What runs the current task."""

    index: int

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
        self._runner = runner
        self._outer: Runner | None = None

    def __enter__(self) -> None:
        self._outer = getattr(_thread, "runner", None)
        _thread.runner = self._runner

    def __exit__(self, *_: object) -> None:
        _thread.runner = self._outer


def runner() -> Runner | None:
    """What runs the current task, or None outside of any task."""
    return getattr(_thread, "runner", None) or _process_runner


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
