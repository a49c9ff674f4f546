"""`Pool`: addressable, persistent background processes behind `concurrent.futures.Executor`.

    caller -> Pool.submit/map/call -> Supervisor (one I/O thread) -> nodes

Arguments and functions are pickled in the caller's thread, so what can't travel is an error at the
call. A `Pool` is safe to use from any number of threads.
"""

from __future__ import annotations

import ast
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from azpool import _waits, events
from azpool.errors import NoPool, PoolClosed, PoolError, UsageError
from azpool.pool import context, namespace, node
from azpool.pool.arguments import Arguments, Columns, Items, OneCall, take_whole
from azpool.pool.checks import (
    DEFAULT_SIZE,
    check_callable,
    check_exports,
    check_map,
    check_service,
    checked_index,
    checked_size,
    checked_whole,
)
from azpool.pool.engines.inline import InlinePool
from azpool.pool.generation import Work, ship
from azpool.pool.guard import Guard, count_of_nodes
from azpool.pool.loop import Loop
from azpool.pool.namespace import NOTHING_EXPORTED, Dumped, ExportedNames
from azpool.pool.reading import MapReading, OnEmit
from azpool.pool.scheduler import GRACE_SECONDS
from azpool.pool.sinks import FutureSink, MapSink, PoolFuture
from azpool.pool.supervisor import Supervisor
from azpool.pool.turns import InlineLoop
from azpool.pool.wire import ATOMIC, SHARE_BYTES, out_of_band

if TYPE_CHECKING:
    from azpool.pool.generation import Shipment
    from azpool.pool.progress import Meter, Progressing
    from azpool.pool.statistics import PoolStatistics

__all__ = ["Pool"]

T = TypeVar("T")
ENGINES = ("process", "inline")
STARTERS = ("zygote", "spawn")
BUFFER_PER_NODE = 4  # items of a stream that are pulled ahead of the reader, for each node

_live: weakref.WeakSet[Supervisor] = weakref.WeakSet()


def _choose(value: str | None, variable: str, what: str, choices: tuple[str, ...]) -> str:
    """Return what was given, else what the environment says, else the first choice."""
    given = os.environ.get(variable) if value is None else None
    found = value or given or choices[0]
    if found not in choices:
        name = f"{variable}={given}" if given else f"{what}={value!r}"
        raise UsageError(f"cannot use {name}: give one of {', '.join(choices)}")
    return found


def checked_engine(engine: str | None, start: str | None = None) -> str:
    """Return the engine to use, `engine` or the environment's AZPOOL_ENGINE.

    Raises:
        UsageError: there is no such engine, or no such way to start its nodes.
    """
    if start is not None:
        _choose(start, "AZPOOL_START", "start", STARTERS)
        if engine is not None and engine != "process":
            raise UsageError(
                f"cannot use start={start!r} with engine={engine!r}: it starts no processes;"
                " leave start= out"
            )
    return _choose(engine, "AZPOOL_ENGINE", "engine", ENGINES)


def _make_supervisor(
    engine: str, start: str | None, preload: Sequence[str], guard: Guard
) -> Supervisor:
    if isinstance(preload, str) or not all(isinstance(name, str) for name in preload):
        raise UsageError(f"cannot preload {preload!r}: give a list of module names")
    if engine == "inline":
        from azpool.pool.engines.virtual import InlineEngine

        turns = InlineLoop()
        return Supervisor(lambda s: InlineEngine(turns, s, s.services), "azpool", guard, turns)
    starter = _choose(start, "AZPOOL_START", "start", STARTERS)
    if starter == "spawn":
        from azpool.pool.engines.spawn import SpawnEngine

        loop = Loop()
        return Supervisor(lambda s: SpawnEngine(loop, s), "azpool", guard, loop)
    from azpool.pool.engines.process import ProcessEngine

    modules = tuple(preload)
    loop = Loop()
    return Supervisor(lambda s: ProcessEngine(loop, s, preload=modules), "azpool", guard, loop)


class Pool(Executor):
    """A pool of background processes ("nodes") that keep their state between calls.

    Starting blocks until every node has answered. Calls are queued at once and run in order, each
    on the first node that is free; a node that dies fails what it was running and is replaced.

    Args:
        size: number of nodes.
        initializer: called on every node before anything else runs there, after a reset too.
        initargs: its arguments.
        preload: modules that are imported once, before any node is forked. One that starts threads
            or can't be imported is logged, and left to the nodes. What the first calls need is
            preloaded unasked.
        max_items_per_node: a node is replaced by a fresh one after so many items, between two.
        max_node_rss_bytes: a node is replaced when it has grown beyond that, between two items.
        start: `"zygote"` forks nodes from a small interpreter; `"spawn"` starts an interpreter for
            each, which is slower and preloads nothing. None is the environment's AZPOOL_START, or
            else `"zygote"`.
        engine: what runs the nodes. `"process"` are processes of this machine. `"inline"`, for
            debugging, starts no process and no thread: nodes are objects here, and what they run
            runs in the thread that calls or reads, one item at a time; see the guide for what
            follows. None is the environment's AZPOOL_ENGINE, or else `"process"`.

    Raises:
        UsageError: `size` is not a whole number of at least 1, or there is no such engine.
        PoolBroken: nodes do not start; the message says why.
    """

    def __init__(
        self,
        size: int = DEFAULT_SIZE,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        preload: Sequence[str] = (),
        max_items_per_node: int | None = None,
        max_node_rss_bytes: int | None = None,
        start: str | None = None,
        engine: str | None = None,
    ) -> None:
        self._closed = True
        number = checked_size(size)
        self._engine = checked_engine(engine, start)
        for name, limit in (
            ("max_items_per_node", max_items_per_node),
            ("max_node_rss_bytes", max_node_rss_bytes),
        ):
            if limit is not None:
                checked_whole(limit, name)
        started = None if initializer is None else _initializer(initializer, initargs)
        began = time.monotonic()
        self._inline = self._engine == "inline"
        guard = Guard(
            max_items_per_node=max_items_per_node,
            # What nodes in the master hold, a new node does not free.
            max_node_rss_bytes=None if self._inline else max_node_rss_bytes,
        )
        self._supervisor = _make_supervisor(self._engine, start, preload, guard)
        self._reset_at = began
        _live.add(self._supervisor)
        self._finalizer = weakref.finalize(self, _close_unclosed, self._supervisor, number)
        self._finalizer.atexit = False
        try:
            if started is not None:
                _waits.result(self._supervisor.add_initializer(started))
            _waits.result(self._supervisor.reset(number))
        except BaseException:
            self._finalizer.detach()
            self._supervisor.close(cancel_running=True)
            if self._supervisor.wait_closed(GRACE_SECONDS):
                self._supervisor.join()
            raise
        self._closed = False
        if events.active():
            seconds = time.monotonic() - began
            self._supervisor.courier.run(
                events.publish, events.PoolStarted(size=number, seconds=seconds)
            )

    # -- facts ---------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of nodes, 0 when closed."""
        generation = self._supervisor.current
        return 0 if self._closed or generation is None else generation.size

    @property
    def engine(self) -> str:
        """What runs its nodes: `"process"` or `"inline"`."""
        return self._engine

    @property
    def closed(self) -> bool:
        """Whether the pool takes no more work from this process."""
        return self._closed or self._supervisor.pid != os.getpid()

    def pids(self) -> list[int]:
        """Return the process ids of the nodes, by index; 0 for one that is not there yet, or again.

        Raises:
            PoolClosed: the pool is closed.
        """
        generation = self._open().current
        assert generation is not None
        # One that the pool is just about to start has no key yet.
        keys = [generation.keys.get(index) for index in range(generation.size)]
        return [0 if key is None else generation.pids.get(key, 0) for key in keys]

    @property
    def nodes(self) -> tuple[PoolNode, ...]:
        """The nodes, by index; none when closed."""
        return tuple(PoolNode(self, index) for index in range(self.size))

    def __getitem__(self, index: int) -> PoolNode:
        """Return one node, to submit to it: `pool[2].submit(f)`.

        Raises:
            PoolClosed: the pool is closed.
            UsageError: there is no such node.
        """
        return PoolNode(self, self._checked_index(index))

    def statistics(self) -> PoolStatistics:
        """Return what the pool and its nodes are doing now; prints as a table.

        Frozen, at once, and without asking the nodes.

        Raises:
            PoolClosed: the pool is closed.
        """
        from azpool.pool.statistics import PoolStatistics

        facts = _waits.result(self._open().facts())
        return PoolStatistics.of(facts, time.monotonic() - self._reset_at)

    def __rich__(self) -> Any:
        return repr(self) if self._closed else self.statistics().__rich__()

    def _repr_html_(self) -> str:
        return f"<pre>{repr(self)[1:-1]}</pre>" if self._closed else self.statistics()._repr_html_()

    def __repr__(self) -> str:
        inline = ", inline" if self._inline else ""
        return f"<azpool.Pool: {'closed' if self._closed else count_of_nodes(self.size) + inline}>"

    def _open(self) -> Supervisor:
        if self._supervisor.pid != os.getpid():
            raise PoolClosed(
                f"cannot use this pool: it belongs to process {self._supervisor.pid}, of which this"
                " one is a fork; make one here"
            )
        if self._closed or self._supervisor.closed.is_set():  # the I/O thread may have failed
            raise PoolClosed("cannot use this pool: it is closed; make another")
        return self._supervisor

    def _within(self) -> InlinePool | None:
        """Return the pool of the node that runs this code, where that is a node of this pool.

        Only nodes in this process can have the pool that they are of.
        """
        runner = context.runner() if self._inline else None
        if runner is None:
            return None
        own = runner.home is self._supervisor.engine
        return InlinePool() if own or context.is_inherited() else None

    def _exported(self) -> ExportedNames:
        generation = self._supervisor.current
        return NOTHING_EXPORTED if generation is None else generation.exported

    # -- single calls --------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue one call for any node and return its future at once.

        Calls start in order and may finish in any order. If the node dies the future fails with
        `NodeDied`; the call is not repeated.

        Raises:
            PoolClosed: the pool is closed.
            CannotPickle: the function or an argument can't travel; nothing was sent.
        """
        return self._submit(fn, args, kwargs, None)[0]

    def submit_to(
        self, index: int, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> Future[T]:
        """Queue one call for the node at `index`; its replacement runs it if that node dies before.

        Raises:
            PoolClosed: the pool is closed.
            UsageError: there is no such node.
            CannotPickle: the function or an argument can't travel; nothing was sent.
        """
        return self._submit(fn, args, kwargs, self._checked_index(index))[0]

    def _checked_index(self, index: int) -> int:
        self._open()
        return checked_index(index, self.size)

    def _submit(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        index: int | None,
        modules: frozenset[str] = frozenset(),
        made: list[tuple[Future[T], Work | None]] | None = None,
    ) -> tuple[Future[T], Work | None]:
        """Queue a call; `modules` is what it imports besides what is seen when it is pickled.

        `made` gets it before it is queued, so that Ctrl-C, wherever it comes, leaves none unknown.
        """
        supervisor = self._open()
        check_callable(fn)
        within = self._within() if self._inline else None
        if within is not None:
            ended = within.submit(fn, *args, **kwargs), None
            if made is not None:
                made.append(ended)
            return ended
        exported = self._exported()
        shipment = ship(fn, exported)
        if not kwargs and args and ATOMIC.issuperset(map(type, args)):
            arguments: Arguments = Columns([[value] for value in args])
            if arguments.item_bytes >= SHARE_BYTES:
                arguments = OneCall(args, kwargs, exported)
        else:
            arguments = OneCall(args, kwargs, exported)
        if modules:
            arguments.modules |= modules
        future: Future[T] = PoolFuture(
            supervisor.courier, supervisor.on_io_thread, supervisor.run_until
        )
        work = Work(arguments, FutureSink(future), 1, pinned=index, single=True)
        if made is not None:
            made.append((future, work))
        try:
            supervisor.submit(work, shipment)
            if self._inline:
                supervisor.run_until(future.done)
        except BaseException:  # nobody gets the future
            supervisor.cancel(work)
            raise
        return future, work

    def call(
        self, fn: Callable[..., T], /, *args: Any, replay: bool = False, **kwargs: Any
    ) -> list[T]:
        """Call `fn` once on every node and return the answers by node index.

        Blocks until every node has answered; each node first finishes what it runs. With
        `replay=True` a node that starts later, until the next reset, makes the call too before it
        runs anything else.

        Raises:
            PoolClosed: the pool is closed.
            CannotPickle: the function or an argument can't travel; nothing was sent.
            ExceptionGroup: calls failed on some nodes; each error's note names its node. With
                `replay=True` nothing is added to the log then.
        """
        what = getattr(fn, "__qualname__", repr(fn))
        return self._call(fn, args, kwargs, what, replay=replay)

    def _call(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        what: str,
        *,
        replay: bool,
        modules: frozenset[str] = frozenset(),
    ) -> list[T]:
        self._open()
        within = self._within()
        if within is not None:
            return within.call(fn, *args, **kwargs)
        called, given = (node.logged, (fn, *args)) if replay else (fn, args)
        calls: list[tuple[Future[T], Work | None]] = []
        try:
            for index in range(self.size):
                self._submit(called, given, kwargs, index, modules, calls)
            self._wait([future for future, _ in calls])
        except KeyboardInterrupt:
            self._interrupted(calls)
            raise
        futures = [future for future, _ in calls]
        failed = [error for future in futures if (error := future.exception()) is not None]
        if failed:
            raise BaseExceptionGroup(
                f"{what} failed on {len(failed)} of {len(futures)} nodes", failed
            )
        if replay:
            dumped = namespace.dump((fn, args, kwargs), self._exported(), what="the call")
            _waits.result(self._supervisor.log_call(dumped))
        return [future.result() for future in futures]

    def _wait(self, futures: Sequence[Future[Any]]) -> None:
        if self._supervisor.on_io_thread():
            raise PoolError("cannot wait for the pool on its own I/O thread; use another thread")
        for future in futures:
            _waits.wait_for(future)

    def _interrupted(self, calls: Sequence[tuple[Future[Any], Work | None]]) -> None:
        """After Ctrl-C let running calls end; the grace's end, or a second one, kills them."""
        works = [work for _, work in calls if work is not None]
        for work in works:
            self._supervisor.cancel(work)
        try:
            ends_at = time.monotonic() + GRACE_SECONDS + 1.0
            for future, _ in calls:
                _waits.wait_for(future, max(0.0, ends_at - time.monotonic()))
        except KeyboardInterrupt:
            for work in works:
                self._supervisor.hurry(work)

    def _settle(self, change: Callable[..., Future[None]], *args: Any) -> None:
        """Make a change of the pool and wait for it; one that is interrupted is taken back."""
        done: Future[None] = Future()  # known before Ctrl-C can come between asking and waiting
        try:
            change(*args, done=done)
            _waits.result(done)
        except BaseException:
            if not done.done():
                self._supervisor.withdraw(done)
            raise

    def evalq(self, code: str, *, replay: bool = False) -> list[Any]:
        """Run code on every node, in the namespace of the exports; see `pool_evalq` and `call`.

        Raises:
            PoolClosed: the pool is closed.
            UsageError: the code does not compile; nothing was run.
            ExceptionGroup: it failed on some nodes.
        """
        if not isinstance(code, str):
            raise UsageError(f"cannot evaluate a {type(code).__name__}: give the code as a string")
        try:
            tree = ast.parse(code, "<pool_evalq>", "exec")
            compile(tree, "<pool_evalq>", "exec")  # it knows more: `return` outside of a function
        except SyntaxError as error:
            raise UsageError(
                f"cannot evaluate the code: {error.msg} (line {error.lineno}); nothing was run"
            ) from error
        modules = frozenset(_imported_first(tree))
        what = "the code"
        return self._call(node.evaluate, (code,), {}, what, replay=replay, modules=modules)

    # -- maps ----------------------------------------------------------------------------------

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        return_exceptions: Literal[True],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        deadline_seconds: float | None = None,
        retries: int = 0,
        on_emit: OnEmit | None = None,
        progress: Progressing = None,
        seed: int | None = None,
    ) -> Iterator[T | BaseException]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        deadline_seconds: float | None = None,
        retries: int = 0,
        return_exceptions: bool = False,
        on_emit: OnEmit | None = None,
        progress: Progressing = None,
        seed: int | None = None,
    ) -> Iterator[T]: ...

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        deadline_seconds: float | None = None,
        retries: int = 0,
        return_exceptions: bool = False,
        on_emit: OnEmit | None = None,
        progress: Progressing = None,
        seed: int | None = None,
    ) -> Iterator[Any]:
        """Call `fn` on every item and iterate over the results as they come.

        Work begins at the call. Inputs that have a length are taken whole then; others are read as
        results are, `buffersize` items ahead, in the caller's thread. The shortest input ends the
        map. Closing the iterator, or Ctrl-C while it waits, cancels what is left.

        Args:
            fn: called with one item of each iterable.
            iterables: the items.
            timeout: seconds from the call until `TimeoutError`; None waits for ever.
            chunksize: items sent together; None adapts to how long they prove to take.
            buffersize: items of an input without a length that are under way at once.
            ordered: results in the order of the items, else as they come.
            deadline_seconds: an item that runs longer fails with `TaskTimeout`; its node is killed.
            retries: how often an item is tried again that raised, timed out or lost its node.
            return_exceptions: give an item's error in the place of its result, instead of raising.
            on_emit: called with (item, value) for what items `emit`, in the caller's thread.
            progress: True for a bar on a terminal's standard error (lines elsewhere), an object
                like tqdm's, or a callable that is told (done, total); in the caller's thread.
            seed: what an item draws from `random`, `numpy.random` and `azpool.rng()` depends on the
                seed and the item's position alone; None draws afresh.

        Raises:
            PoolClosed: the pool is closed; or it was closed later, and items that had not been
                pulled from an input without a length will have no result.
            UsageError: an option that can mean nothing.
            CannotPickle: the function or an item can't travel; nothing was sent.
            TimeoutError: `timeout` has passed; the rest is cancelled.
            Exception: what an item raised, when its turn comes; the rest is cancelled. `NodeDied`
                and `TaskTimeout` are such.
        """
        within = self._within()
        if within is not None:
            return within.map(
                fn,
                *iterables,
                return_exceptions=return_exceptions,
                on_emit=on_emit,
                progress=progress,
                seed=seed,
            )
        reading, shipment = self._prepare_map(
            fn,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            ordered=ordered,
            deadline_seconds=deadline_seconds,
            retries=retries,
            on_emit=on_emit,
            progress=progress,
            seed=seed,
        )
        try:
            reading.start(shipment)
        except KeyboardInterrupt:
            reading.interrupted()
            raise
        results = reading.results(return_exceptions=return_exceptions)
        if not reading.taken_whole:  # a generator that nobody began has no `finally` to run
            weakref.finalize(results, reading.abandoned).atexit = False
        return results

    def collect(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        progress: Progressing = None,
        seed: int | None = None,
    ) -> list[T]:
        """Return `list(map(...))`, and leave nothing running however it is interrupted."""
        within = self._within()
        if within is not None:
            return within.collect(fn, *iterables, progress=progress, seed=seed)
        reading, shipment = self._prepare_map(fn, iterables, progress=progress, seed=seed)
        try:
            reading.start(shipment)
            return list(reading.results(return_exceptions=False))
        except KeyboardInterrupt:  # it may have come before the results were waited for
            reading.interrupted()
            raise

    def _prepare_map(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        deadline_seconds: float | None = None,
        retries: int = 0,
        on_emit: OnEmit | None = None,
        progress: Progressing = None,
        seed: int | None = None,
    ) -> tuple[MapReading, Shipment]:
        """Check and pickle all that a map needs; nothing is sent yet."""
        supervisor = self._open()
        check_callable(fn)
        check_map(
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            deadline_seconds=deadline_seconds,
            retries=retries,
            on_emit=on_emit,
        )
        meter = None if progress is None else _meter(progress, iterables, fn)
        exported = self._exported()
        shipment = ship(fn, exported)
        sink = MapSink(wants_emitted=on_emit is not None)
        sized = buffersize is None and all(isinstance(part, Sized) for part in iterables)
        rest: Iterator[tuple[Any, ...]] | None = None
        if sized:
            arguments, count = take_whole(iterables, exported)
        else:
            arguments, count = Items(exported), 0
            rest = zip(*iterables, strict=False)
        work = Work(
            arguments,
            sink,
            count,
            # Who waits for one result runs one item.
            chunksize=1 if self._inline else chunksize,
            deadline_seconds=deadline_seconds,
            retries=retries,
            sealed=sized,
            seed=None if seed is None else _checked_seed(seed),
        )
        ahead = buffersize or BUFFER_PER_NODE * max(1, self.size)
        reading = MapReading(
            supervisor, work, sink, rest, ahead, on_emit, meter, timeout=timeout, ordered=ordered
        )
        return reading, shipment

    # -- state ---------------------------------------------------------------------------------

    def export(self, values: dict[str, Any]) -> None:
        """Send variables to every node under their names; returns when every node has them.

        They are snapshots, replayed on a node that replaces a dead one, and dropped by a reset.
        Blocks while nodes finish what they run. An export reaches all nodes or is taken back.

        Raises:
            PoolClosed: the pool is closed.
            UsageError: `values` is no dict of names.
            CannotPickle: a value can't travel; nothing was sent.
            Exception: a node could not load it, or died of it; it was taken back.
        """
        supervisor = self._open()
        check_exports(values)
        if not values:
            return
        within = self._within()
        if within is not None:
            within.export(values)
            return
        what = f"the export {', '.join(values)}"
        shared = {name: out_of_band(value) for name, value in values.items()}
        self._settle(supervisor.export, values, namespace.dump(shared, what=what))

    def reset(self, size: int | None = None, *, restart: bool = False) -> None:
        """Replace every node by a fresh one; calls begun earlier finish on the old ones.

        Returns when the new nodes have answered. The pool never shrinks here; `size` may grow it.
        `restart=True` renews the zygote too. Initializers are run again; exports and what else was
        in the log are dropped.

        Raises:
            PoolClosed: the pool is closed.
            UsageError: `size` is not a whole number of at least 1.
            PoolBroken: the new nodes do not start; the pool goes on with the old ones.
        """
        supervisor = self._open()
        wanted = self.size if size is None else max(self.size, checked_size(size))
        began = time.monotonic()
        if restart:
            _waits.result(supervisor.renew())
        self._settle(supervisor.reset, wanted)
        self._reset_at = began
        if events.active():
            seconds = time.monotonic() - began
            supervisor.courier.run(events.publish, events.PoolReset(size=wanted, seconds=seconds))

    def resize(self, size: int) -> None:
        """Have `size` nodes; returns when new ones have answered.

        Nodes beyond `size` finish what they run and what was addressed to them, then end, which
        is not waited for; the ones that stay keep their state.

        Raises:
            PoolClosed: the pool is closed.
            UsageError: `size` is not a whole number of at least 1.
            PoolBroken: the nodes to be added do not start; the pool has the size that it had.
        """
        self._settle(self._open().resize, checked_size(size))

    def grow(self, size: int) -> None:
        """Have at least `size` nodes; the ones there are keep their state. See `resize`."""
        if checked_size(size) > self.size:
            self.resize(size)

    def add_initializer(self, fn: Callable[..., object], /, *args: Any) -> None:
        """Call `fn` on every node, and on every node that will ever start in this pool.

        Returns when all nodes have run it. Several may be added, each is run once a node, in order;
        adding the same call again does nothing.

        Raises:
            Exception: what it raised on a node; it was not added.
        """
        supervisor = self._open()
        within = self._within()
        if within is not None:
            within.add_initializer(fn, *args)
        else:
            self._settle(supervisor.add_initializer, _initializer(fn, args))

    def serve(self, name: str, handler: Callable[[Any], Any]) -> None:
        """Answer what nodes `ask` under `name` with `handler(request)`, on threads of the master.

        Each question has a thread of its own, so many nodes may ask at once. Inside a handler the
        pool functions run inline. What it raises is raised on the node that asked. Serving a name
        again replaces its handler.

        Raises:
            PoolClosed: the pool is closed.
            UsageError: the name is no string, or the handler can't be called.
        """
        services = self._open().services
        check_service(name, handler)
        services.serve(name, handler)

    # -- the end -------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as Executor has it
        """Take no more work; end the nodes when what is queued is done.

        Args:
            wait: block until the nodes, the zygote and the I/O thread are gone.
            cancel_futures: cancel what has not begun.
        """
        if not self._closed:
            self._closed = True
            self._finalizer.detach()
            self._supervisor.close(cancel_pending=cancel_futures)
        if wait and not self._supervisor.on_io_thread():
            self._supervisor.join()

    def close(self) -> None:
        """Finish what is queued and end the pool; the same as `shutdown(wait=True)`.

        Harmless on a pool that is closed.
        """
        self.shutdown()

    def delete(self) -> None:
        """End the pool: what is queued is cancelled, what runs is interrupted, then killed.

        Blocks until all is gone, a few seconds at most.
        """
        if not self._closed:
            self._closed = True
            self._finalizer.detach()
            self._supervisor.close(cancel_running=True)
        self._supervisor.join()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.delete()


class PoolNode:
    """One node of a pool, by its index: whatever process is behind it."""

    __slots__ = ("_pool", "index")

    def __init__(self, pool: Pool, index: int) -> None:
        self._pool = pool
        self.index = index

    @property
    def pid(self) -> int:
        """Its process id, 0 while it is not there yet, or again."""
        return self._pool.pids()[self.index]

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue one call for this node; see `Pool.submit_to`."""
        return self._pool.submit_to(self.index, fn, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<azpool node {self.index}>"


def _initializer(fn: Callable[..., object], args: tuple[Any, ...]) -> Dumped:
    check_callable(fn)
    name = getattr(fn, "__qualname__", repr(fn))
    return namespace.dump((fn, tuple(args), {}), what=f"the initializer {name}")


def _imported_first(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that code imports before it does anything else."""
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield statement.module
        else:
            return


def _meter(progress: Progressing, iterables: tuple[Any, ...], fn: Any) -> Meter | None:
    from azpool.pool import progress as progress_module

    return progress_module.meter(progress, iterables, fn)


def _checked_seed(seed: Any) -> int | None:
    from azpool.pool.randomness import checked_seed

    return checked_seed(seed)


def no_pool(verb: str) -> NoPool:
    """Build the error for a session without a pool."""
    return NoPool(f"cannot {verb}: there is no pool; call init_pool() first")


def on_node() -> bool:
    """Whether the pool functions run inline here."""
    return context.on_node()


def live_supervisors() -> list[Supervisor]:
    """Supervisors of this process that have not ended."""
    return [supervisor for supervisor in list(_live) if not supervisor.closed.is_set()]


def _close_unclosed(supervisor: Supervisor, size: int) -> None:
    """End a pool that was collected: what is queued is done first, as by `close`."""
    if supervisor.pid == os.getpid() and not supervisor.closing:
        supervisor.close()
        warnings.warn(
            f"unclosed pool of {count_of_nodes(size)}: use `with Pool(...)`, or close it",
            ResourceWarning,
            stacklevel=2,
        )


def _forget_after_fork() -> None:
    for supervisor in list(_live):
        if not supervisor.closed.is_set():
            supervisor.forget()
    _live.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
