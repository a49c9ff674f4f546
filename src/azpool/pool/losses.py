"""The errors of items that will have no result: what happened, to which node, what to do."""

from __future__ import annotations

import signal
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from azpool.errors import NodeDied, PoolClosed, PoolError, TaskTimeout
from azpool.pool.scheduler import UNBEGUN_DEATHS

if TYPE_CHECKING:
    from azpool.pool.engines.base import Death


def how_it_ended(death: Death) -> str:
    """Say by what a node ended: its exit code, or the signal by name, and why azpool sent that."""
    how = f"exit code {death.exit_code}"
    if death.exit_code < 0:
        try:
            how = f"killed by {signal.Signals(-death.exit_code).name}"
        except ValueError:
            how = f"killed by signal {-death.exit_code}"
    return f"{how}, because {death.verdict}" if death.verdict else how


def _last_words(death: Death) -> str:
    lines = death.stderr.splitlines() or [""]
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    return (fatal or lines[-1:])[0]


def _died(text: str, index: int, death: Death, *, begun: bool = True) -> NodeDied:
    last = _last_words(death)
    said = f"; its last words: {last}" if last else ""
    return NodeDied(
        text.replace("{how}", f"{how_it_ended(death)}{said}"),
        node=index,
        pid=death.pid,
        signal=-death.exit_code if death.exit_code < 0 else None,
        exit_code=death.exit_code if death.exit_code >= 0 else None,
        begun=begun,
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


def never_begun(index: int, death: Death, item: int) -> NodeDied:
    """Build the error of an item whose nodes end before it can begin: it is too large for them."""
    error = _died(
        f"cannot begin the item: {UNBEGUN_DEATHS} nodes ended before they could, the last was node"
        f" {index} (process {death.pid}), {{how}}; it may be too large for a node",
        index,
        death,
        begun=False,
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


def _no_start(verb: str, reason: str, cause: BaseException | None, what_then: str) -> PoolError:
    from azpool.errors import PoolBroken

    mend = "mend the cause"
    if "open files" in reason.lower():
        mend = "close files or raise the limit (ulimit -n)"
    error: PoolError = PoolBroken(
        f"cannot {verb} nodes: {reason or 'they end at once'}; {mend}{what_then}"
    )
    error.__cause__ = cause
    return error


def pool_broken(reason: str, cause: BaseException | None, item: int) -> PoolError:
    """Build the error of whatever needs a node where none starts."""
    return _no_start("start", reason, cause, ", then init_pool(restart=True)")


def no_node_starts(reason: str, cause: BaseException | None, item: int) -> PoolError:
    """Build the error of what no node is there for, until one can be started again."""
    return _no_start("start", reason, cause, ", and call again")


def not_reset(reason: str, cause: BaseException | None) -> PoolError:
    """Build the error of a reset whose nodes do not start."""
    return _no_start("start", reason, cause, "; the pool goes on with the nodes that it had")


def not_added(reason: str, cause: BaseException | None, size: int) -> PoolError:
    """Build the error of a growth whose nodes do not start."""
    return _no_start("add", reason, cause, f"; the pool has its {size} nodes as before")


def cancelled(item: int) -> BaseException:
    """Build the error of an item that was cancelled after it had begun."""
    return CancelledError()


def closed(item: int) -> PoolClosed:
    """Build the error of work that reached a closed pool."""
    return PoolClosed("cannot use this pool: it is closed; make another")


def closed_meanwhile() -> PoolClosed:
    """Build the error of an export whose nodes ended with the pool."""
    return PoolClosed("cannot set up the nodes: the pool was closed meanwhile")


def no_node(index: int, item: int) -> PoolError:
    """Build the error of a call to a node that the pool has not."""
    return PoolError(f"cannot use node {index}: the pool has no such node; see pool.size")
