"""The session's shared pool: the ten functions of the origin, and what packages build on.

One pool for a session, made by `init_pool`, used by everything, ended by `delete_pool` or the end
of the process. Inside a task, and inside a service's handler, every function runs inline.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, TypeVar

from azpool.errors import UsageError
from azpool.pool import context
from azpool.pool.checks import DEFAULT_SIZE, checked_size
from azpool.pool.engines import launch

if TYPE_CHECKING:
    from typing import TypeAlias

    from azpool.pool.engines.inline import InlinePool
    from azpool.pool.pool import Pool
    from azpool.pool.progress import Progressing

    AnyPool: TypeAlias = Pool | InlinePool

__all__ = [
    "delete_pool",
    "ensure_pool",
    "get_pool",
    "init_pool",
    "pool_call",
    "pool_evalq",
    "pool_exists",
    "pool_export",
    "pool_lapply",
    "pool_map",
    "pool_sapply",
    "pool_size",
]

T = TypeVar("T")

_lock = threading.RLock()
_shared: Pool | None = None


def _existing() -> AnyPool | None:
    return _inline() if context.on_node() else _own()


def _inline() -> InlinePool:
    from azpool.pool.engines.inline import InlinePool

    return InlinePool()


def _own() -> Pool | None:
    shared = _shared
    return None if shared is None or shared.closed else shared


def init_pool(
    size: int | None = None,
    restart: bool = False,  # noqa: FBT001, FBT002 - as the origin has it
    *,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    preload: Sequence[str] = (),
    engine: str | None = None,
) -> AnyPool:
    """Make the session's pool, or give it back its original state.

    Afterwards every node is fresh: a new process with the master's working directory, environment
    and sys.path of this moment, and nothing exported. Never waits for running jobs: calls begun
    earlier finish on the old nodes. Inside a task it changes nothing and returns the inline pool.

    Args:
        size: number of nodes; None is 10 for a new pool and the present size for one that exists. A
            smaller pool is grown, a larger one never shrunk.
        restart: start from a new interpreter, not only from new processes.
        initializer: called on every node before anything else, after each reset too.
        initargs: its arguments.
        preload: modules to import once for all nodes, where the pool is made here. What the first
            calls need is imported so unasked.
        engine: what runs the nodes of a pool that is made here, `"process"` or `"inline"`; see
            `Pool`. None is the environment's AZPOOL_ENGINE, or the engine of the pool that exists.

    Raises:
        UsageError: `size` is not a whole number of at least 1, there is no such engine, or the pool
            that exists has another one.
        PoolBroken: nodes do not start; the message says why.
    """
    global _shared
    if size is not None:
        checked_size(size)
    if context.on_node():
        return _inline()
    with _lock:
        found = _own()
        if found is None:
            with launch.ahead(engine):
                _shared = _pool_class()(
                    DEFAULT_SIZE if size is None else size,
                    initializer=initializer,
                    initargs=initargs,
                    preload=preload,
                    engine=engine,
                )
            return _shared
        _check_engine(found, engine)
        found.reset(size, restart=restart)
        if initializer is not None:
            found.add_initializer(initializer, *initargs)
        return found


def _pool_class() -> type[Pool]:
    """Load what pools are made of."""
    global _before_logging
    from azpool.pool.pool import Pool

    if _before_logging:
        _before_logging = False
        atexit.unregister(_at_exit)
        atexit.register(_at_exit)
    return Pool


def _check_engine(found: Any, engine: str | None) -> None:
    if engine is None or context.on_node():
        return
    from azpool.pool.pool import checked_engine

    checked_engine(engine)
    if found.engine != engine:
        raise UsageError(
            f"cannot use engine={engine!r}: the session's pool has engine {found.engine!r};"
            " call delete_pool() first"
        )


def delete_pool() -> None:
    """End the session's pool: what is queued is cancelled, what runs is interrupted, then killed.

    Harmless without a pool.
    """
    global _shared
    with _lock:
        shared, _shared = _shared, None
    if shared is not None and not context.on_node():
        shared.delete()


def pool_exists() -> bool:
    """Return whether the session has a pool."""
    return _existing() is not None


def pool_size() -> int:
    """Return the number of nodes, 0 without a pool."""
    found = _existing()
    return 0 if found is None else found.size


def get_pool() -> AnyPool:
    """Return the session's pool.

    Raises:
        NoPool: there is none; `init_pool()` makes one.
    """
    return _existing_for("use the pool")


def ensure_pool(
    size: int = DEFAULT_SIZE,
    *,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    preload: Sequence[str] = (),
    engine: str | None = None,
) -> AnyPool:
    """Return the session's pool with at least `size` nodes, made or grown as needed, never reset.

    This is for packages that share the pool: nodes keep their state.

    Args:
        size: number of nodes, at least.
        initializer: called once on every node, now and whenever one starts, after a reset too.
            Several packages may each add one.
        initargs: its arguments.
        preload: modules to import once for all nodes, where the pool is made here.
        engine: what runs the nodes, where the pool is made here; None leaves it to the user.

    Raises:
        UsageError: `size` is not a whole number of at least 1, there is no such engine, or the pool
            that exists has another one.
        PoolBroken: nodes do not start.
        Exception: what `initializer` raised on a node; it was not added.
    """
    checked_size(size)
    found = _existing()
    if found is None:
        with _lock:
            found = _existing() or init_pool(size, preload=preload, engine=engine)
    _check_engine(found, engine)
    found.grow(size)
    if initializer is not None:
        found.add_initializer(initializer, *initargs)
    return found


def _pool_for(name: str) -> AnyPool:
    return _existing_for(f"run {name}")


def _existing_for(verb: str) -> AnyPool:
    found = _existing()
    if found is None:
        from azpool.pool.pool import no_pool

        raise no_pool(verb)
    return found


def pool_export(*names: str, **values: Any) -> None:
    """Send variables to every node: by name from the caller's locals, then globals, or as given.

        >>> x = 42
        >>> pool_export("x", y=2)

    Functions that are sent later see them as globals; imported functions find them in
    `azpool.exports`. They are snapshots, last until the next `init_pool`, and reach a node that
    replaces a dead one. Returns when every node has them.

    Raises:
        NoPool: there is no pool.
        NameError: the caller has no such variable; nothing was sent.
        CannotPickle: a value can't travel; nothing was sent.
    """
    found = _pool_for("pool_export")
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"cannot export {name!r}: give names as strings, or name=value")
    if not names and not values:
        raise UsageError('cannot export nothing: give names, pool_export("x"), or values, y=2')
    from azpool.pool.namespace import value_in

    caller = sys._getframe(1)
    taken = {name: value_in(caller, name) for name in names}
    found.export({**taken, **values})


def pool_lapply(items: Iterable[Any], f: Callable[..., T], /, *args: Any, **kwargs: Any) -> list[T]:
    """Return `[f(item, *args, **kwargs) for item in items]`, computed on the nodes.

    Blocks until all are done. The first item that failed, in order, raises its exception.

    Raises:
        NoPool: there is no pool.
    """
    found = _pool_for("pool_lapply")
    _check_items(items, f)
    call = functools.partial(_with_more, f, args, kwargs) if args or kwargs else f
    return found.collect(call, items)


def pool_sapply(
    items: Iterable[Any],
    f: Callable[..., T],
    /,
    *args: Any,
    simplify: Callable[[list[T]], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Return the same as `pool_lapply`, simplified by a callable such as `numpy.array`.

    Without `simplify` the answer is the list: Python has no vectors to simplify to.

    Raises:
        NoPool: there is no pool.
    """
    _pool_for("pool_sapply")
    results = pool_lapply(items, f, *args, **kwargs)
    return results if simplify is None else simplify(results)


def pool_map(
    f: Callable[..., T],
    *iterables: Iterable[Any],
    more_args: Mapping[str, Any] | None = None,
    progress: Progressing = None,
    seed: int | None = None,
) -> list[T]:
    """Return `[f(a, b, ..., **more_args) for a, b, ... in zip(*iterables)]`, computed on the nodes.

    Blocks until all are done. The first item that failed, in order, raises its exception.
    `progress` and `seed` are those of `Pool.map`; the other functions hand every keyword on to `f`.

    Raises:
        NoPool: there is no pool.
        UsageError: the iterables differ in length.
    """
    found = _pool_for("pool_map")
    if not callable(f):
        raise UsageError(f"cannot call {f!r}: give the function first, then its iterables")
    _check_lengths(iterables)
    call = functools.partial(f, **more_args) if more_args else f
    return found.collect(call, *iterables, progress=progress, seed=seed)


def pool_call(f: Callable[..., T], /, *args: Any, replay: bool = False, **kwargs: Any) -> list[T]:
    """Call `f(*args, **kwargs)` once on every node and return the answers by node index.

    With `replay=True` a node that starts later, until the next reset, makes the call too before
    anything else.

    Raises:
        NoPool: there is no pool.
        ExceptionGroup: calls failed on some nodes; each error's note names its node.
    """
    return _pool_for("pool_call").call(f, *args, replay=replay, **kwargs)


def pool_evalq(code: str, *, replay: bool = False) -> list[Any]:
    """Run code on every node, in the namespace of the exports; returns the values by node index.

    The value is that of the last line, where it is an expression, else None. What the code assigns
    stays on the nodes and is seen by later calls. With `replay=True` a node that starts later,
    until the next reset, runs it too before anything else.

        >>> pool_evalq("import os; pid = os.getpid()")
        >>> pids = pool_evalq("pid")

    Raises:
        NoPool: there is no pool.
        UsageError: the code does not parse; nothing was run.
        ExceptionGroup: it failed on some nodes.
    """
    return _pool_for("pool_evalq").evalq(code, replay=replay)


def _with_more(f: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], item: Any) -> T:
    return f(item, *args, **kwargs)


def _check_items(items: Any, f: Any) -> None:
    if not callable(f):
        raise UsageError(f"cannot call {f!r}: give the items first, then the function")
    if not isinstance(items, Iterable):
        raise UsageError(f"cannot go over a {type(items).__name__}: give an iterable of items")


def _check_lengths(iterables: tuple[Iterable[Any], ...]) -> None:
    if not iterables:
        raise UsageError("cannot map over nothing: give at least one iterable after the function")
    for iterable in iterables:
        if not isinstance(iterable, Iterable):
            raise UsageError(
                f"cannot go over a {type(iterable).__name__}: give iterables; constants go into"
                " more_args={...}"
            )
    lengths = [len(iterable) for iterable in iterables if isinstance(iterable, Sized)]
    if len(set(lengths)) > 1:
        raise UsageError(
            f"cannot map over iterables of lengths {', '.join(map(str, lengths))}: they must be"
            " equal; constants go into more_args={...}"
        )


def _after_fork() -> None:
    global _lock, _shared
    _lock = threading.RLock()  # another thread of the parent may have held it
    _shared = None


os.register_at_fork(after_in_child=_after_fork)


# What ends the pools may log, so it is registered again behind logging's own end.
_before_logging = "logging" not in sys.modules


@atexit.register
def _at_exit() -> None:
    """End every pool within a second, and say what was still to be done."""
    pools = sys.modules.get("azpool.pool.pool")
    stopped = 0 if pools is None else sum(one.abort() for one in pools.live_supervisors())
    if stopped and sys.stderr is not None:
        jobs = "job was" if stopped == 1 else "jobs were"
        sys.stderr.write(f"azpool: {stopped} unfinished {jobs} stopped at exit\n")
