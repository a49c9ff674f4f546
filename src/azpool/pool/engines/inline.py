"""The inline pool: every call runs at once, in the caller's thread, in this process.

It is what the pool functions use inside a task (a node never starts a pool of its own) and inside a
service's handler. It keeps a pool's contract: results in order, exports, one answer for each node.
A whole pool whose nodes run in this process is another thing: see `virtual`.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from azpool.errors import PoolClosed
from azpool.pool import context, node
from azpool.pool.namespace import exports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from azpool.pool.progress import Meter, Progressing

T = TypeVar("T")
_initialized: list[tuple[Callable[..., object], tuple[Any, ...]]] = []


class _InlineRunner:
    """What tasks of an inline pool reach by `emit` and `ask`."""

    def __init__(self, outer: context.Runner | None, on_emit: Callable[[Any], None] | None) -> None:
        self.index = 0 if outer is None else outer.index
        self.home = None if outer is None else outer.home
        self._outer = outer
        self._on_emit = on_emit

    def emit(self, value: Any) -> None:
        if self._on_emit is not None:
            self._on_emit(value)

    def ask(self, name: str, request: Any) -> Any:
        if self._outer is None:
            return context.ask(name, request)
        return self._outer.ask(name, request)


class InlinePool(Executor):
    """A pool of one node, which is the process itself."""

    def __init__(self) -> None:
        self._shut = False

    @property
    def size(self) -> int:
        """Always 1: calls run one after another, here."""
        return 1

    @property
    def closed(self) -> bool:
        return self._shut

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the call now; the future is done when this returns."""
        if self._shut:
            raise PoolClosed("cannot use this pool: it is closed; make another")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(self._run(fn, args, kwargs, None))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        on_emit: Callable[[Any], None] | None,
    ) -> T:
        with context.running_inline(_InlineRunner(context.runner(), on_emit)):
            return fn(*args, **kwargs)

    def submit_to(
        self, index: int, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> Future[T]:
        """Run the call now, whatever the index."""
        return self.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        return_exceptions: bool = False,
        on_emit: Callable[[int, Any], None] | None = None,
        progress: Progressing = None,
        seed: int | None = None,
        **options: Any,
    ) -> Iterator[T]:
        """Run each item when it is asked for; options that schedule have nothing to do."""
        meter = None if progress is None else _meter(progress, iterables, fn)
        try:
            if meter is not None:
                meter.begin()
            for item, args in enumerate(zip(*iterables, strict=False)):
                emitted = None if on_emit is None else _numbered(on_emit, item)
                failed = False
                try:
                    with nullcontext() if seed is None else _seeded(seed, item):
                        value = self._run(fn, args, {}, emitted)
                except Exception as error:
                    if not return_exceptions:
                        raise
                    value, failed = error, True  # type: ignore[assignment]
                if meter is not None:
                    meter.add(1, int(failed))
                yield value
        finally:
            if meter is not None:
                meter.end()

    def collect(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        progress: Progressing = None,
        seed: int | None = None,
    ) -> list[T]:
        """Return `list(map(...))`."""
        return list(self.map(fn, *iterables, progress=progress, seed=seed))

    def call(
        self, fn: Callable[..., T], /, *args: Any, replay: bool = False, **kwargs: Any
    ) -> list[T]:
        """Call `fn` once: there is one node, which nothing replaces."""
        return [self._run(fn, args, kwargs, None)]

    def evalq(self, code: str, *, replay: bool = False) -> list[Any]:
        """Run code in the namespace of the exports."""
        return self.call(node.evaluate, code)

    def export(self, values: dict[str, Any]) -> None:
        """Make variables visible as exports of this process."""
        exports.namespace.update(values)

    def grow(self, size: int) -> None:
        """Do nothing: an inline pool has one node."""

    def add_initializer(self, fn: Callable[..., object], /, *args: Any) -> None:
        """Call `fn` now, once in the life of this process."""
        if (fn, args) not in _initialized:
            fn(*args)
            _initialized.append((fn, args))

    def reset(self, size: int | None = None, *, restart: bool = False) -> None:
        """Do nothing: the process is somebody else's node."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as Executor has it
        self._shut = True

    def close(self) -> None:
        """Take no more calls."""
        self._shut = True


def _numbered(on_emit: Callable[[int, Any], None], item: int) -> Callable[[Any], None]:
    return lambda value: on_emit(item, value)


def _meter(progress: Progressing, iterables: tuple[Any, ...], fn: Any) -> Meter | None:
    from azpool.pool import progress as progress_module

    return progress_module.meter(progress, iterables, fn)


def _seeded(seed: int, item: int) -> AbstractContextManager[None]:
    from azpool.pool.randomness import checked_seed, seeded_item

    return seeded_item(checked_seed(seed) or 0, item)
