"""The errors of items that will have no result: what happened, to which node, what to do."""

from __future__ import annotations

import signal
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from azpool.errors import NodeDied, PoolClosed, PoolError, TaskTimeout

if TYPE_CHECKING:
    from azpool.pool.engines.base import Death


def how_it_ended(death: Death) -> str:
    """Say by what a node ended: its exit code, or the signal by name."""
    if death.exit_code < 0:
        try:
            return f"killed by {signal.Signals(-death.exit_code).name}"
        except ValueError:
            return f"killed by signal {-death.exit_code}"
    return f"exit code {death.exit_code}"


def _last_words(death: Death) -> str:
    lines = death.stderr.splitlines() or [""]
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    return (fatal or lines[-1:])[0]


def _died(text: str, index: int, death: Death) -> NodeDied:
    last = _last_words(death)
    said = f"; its last words: {last}" if last else ""
    return NodeDied(
        text.replace("{how}", f"{how_it_ended(death)}{said}"),
        node=index,
        pid=death.pid,
        signal=-death.exit_code if death.exit_code < 0 else None,
        exit_code=death.exit_code if death.exit_code >= 0 else None,
        begun=True,
        stderr=death.stderr,
    )


def node_died(index: int, death: Death, item: int) -> NodeDied:
    """Build the error of an item whose node died while it ran, or before its result had left."""
    error = _died(
        f"cannot finish the item: node {index} (process {death.pid}) ended while it ran,"
        " {how}; the item is not repeated unless retries= says so",
        index,
        death,
    )
    error.add_note(f"azpool: item {item}, on node {index}")
    return error


def setup_died(index: int, death: Death) -> NodeDied:
    """Build the error of an export, or another step of the log, that ended a node."""
    return _died(
        f"cannot set up the nodes: node {index} (process {death.pid}) ended while it loaded what"
        " was sent, {how}; it was taken back from every node",
        index,
        death,
    )


def timed_out(index: int, seconds: float, item: int) -> TaskTimeout:
    """Build the error of an item that passed its deadline."""
    error = TaskTimeout(
        f"cannot finish the item: it ran longer than its deadline of {seconds:g} s;"
        " its node was killed and replaced",
        node=index,
        seconds=seconds,
    )
    error.add_note(f"azpool: item {item}, on node {index}")
    return error


def pool_broken(reason: str, cause: BaseException | None, item: int) -> PoolError:
    """Build the error of whatever needs a node where none starts."""
    from azpool.errors import PoolBroken

    error: PoolError = PoolBroken(
        f"cannot start nodes: {reason or 'they end at once'};"
        " mend the cause, then init_pool(restart=True)"
    )
    error.__cause__ = cause
    return error


def cancelled(item: int) -> BaseException:
    """Build the error of an item that was cancelled after it had begun."""
    return CancelledError()


def closed(item: int) -> PoolClosed:
    """Build the error of work that reached a closed pool."""
    return PoolClosed("cannot use this pool: it is closed; make another")


def no_node(index: int | None) -> PoolError:
    """Build the error of a call to a node that the pool has not."""
    return PoolError(f"cannot use node {index}: the pool has no such node; see pool.size")
