"""Randomness of tasks: the streams of a seeded map's items, and fresh entropy everywhere else.

The streams of an item are functions of (seed, index) alone, so they are the same whatever the
pool's size, the chunks and the order. `random` and numpy's legacy global are reseeded before each
item; `rng()` makes the item's Generator when it is first asked for. After the last item of a chunk
the process goes on with fresh entropy. Without a seed nothing of this runs, and numpy is touched
only where it is loaded already.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

from azpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from numpy.random import Generator

__all__ = ["SeededItems", "by_reference", "checked_seed", "refresh", "rng", "seeded_item"]

NUMPY_WORDS = 8  # 256 bits, as numpy's own seeding from the operating system takes at least


class Streams:
    """What one item draws from."""

    __slots__ = ("generator", "index", "seed")

    def __init__(self, seed: int, index: int) -> None:
        self.seed = seed
        self.index = index
        self.generator: Generator | None = None

    def begin(self) -> None:
        """Seed `random` and numpy's legacy global for this item."""
        random.seed(f"{self.seed}/{self.index}")  # a text is hashed whole, the same on any version
        legacy = sys.modules.get("numpy.random")
        if legacy is None:
            _wait_for_numpy()
        else:
            self.begin_legacy(legacy)

    def begin_legacy(self, legacy: ModuleType) -> None:
        """Seed numpy's legacy global for this item."""
        words = random.Random(f"{self.seed}/{self.index}/numpy").getrandbits(32 * NUMPY_WORDS)
        legacy.seed([words >> 32 * n & 0xFFFFFFFF for n in range(NUMPY_WORDS)])


_of_process: Streams | None = None  # the item that this node runs
_of_thread = threading.local()  # .streams: the item that an inline pool runs in this thread
_fresh: Generator | None = None
_awaited = False


def _running() -> Streams | None:
    return getattr(_of_thread, "streams", None) or _of_process


def checked_seed(seed: Any) -> int | None:
    """Return a seed as a number, or None.

    Raises:
        UsageError: it is not a whole number of at least 0.
    """
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or seed.__index__() < 0:
        raise UsageError(f"cannot use seed={seed!r}: give a whole number of 0 or more")
    return int(seed.__index__())


def rng() -> Generator:
    """Return the numpy Generator of the running task.

    In item `i` of a map with `seed=s` it is
    `numpy.random.default_rng(numpy.random.SeedSequence(s, spawn_key=(i,)))`, the same object until
    the item ends. Elsewhere it is this process's own, from the operating system's entropy.

    Raises:
        ImportError: numpy is not installed.
    """
    global _fresh
    try:
        import numpy as np
    except ImportError as error:
        raise ImportError(
            "cannot make a random generator: numpy is not installed; pip install numpy"
        ) from error
    streams = _running()
    if streams is None:
        if _fresh is None:
            _fresh = np.random.default_rng()
        return _fresh
    if streams.generator is None:
        sequence = np.random.SeedSequence(streams.seed, spawn_key=(streams.index,))
        streams.generator = np.random.default_rng(sequence)
    return streams.generator


class SeededItems:
    """Arguments of a chunk; when one is handed out, the generators are those of its item."""

    def __init__(self, arguments: Iterator[Any], seed: int, first: int) -> None:
        self._arguments = arguments
        self._seed = seed
        self._index = first

    def __iter__(self) -> SeededItems:
        return self

    def __next__(self) -> Any:
        global _of_process
        index, self._index = self._index, self._index + 1
        arguments = next(self._arguments)  # before the seeding: loading may draw too
        if _kept is not None:
            _kept.begin()
        _of_process = Streams(self._seed, index)
        _of_process.begin()
        return arguments


def refresh() -> None:
    """End the item that this process runs and go on with fresh entropy."""
    global _of_process
    _of_process = None
    random.seed()
    legacy = sys.modules.get("numpy.random")
    if legacy is not None:
        legacy.seed()


class kept:  # noqa: N801 - used as a `with` statement only
    """Run a node's frame in the master's process; afterwards all generators go on as before it.

    It costs nothing where nothing is seeded. One at a time in a process, but they may be nested.
    """

    def __init__(self) -> None:
        self._others: tuple[Any, ...] | None = None  # those that are not in place

    def begin(self) -> None:
        """An item is about to be seeded."""
        if self._others is None:
            self._others = _state()

    def swap(self) -> None:
        """Put the master's generators in the place of the item's, or the other way about."""
        if self._others is not None:
            others, self._others = self._others, _state()
            _restore(others)

    def __enter__(self) -> Self:
        global _kept
        self._outer, _kept = _kept, self
        return self

    def __exit__(self, *_: object) -> None:
        global _kept
        _kept = self._outer
        self.swap()


_kept: kept | None = None


def _state() -> tuple[Any, ...]:
    legacy = sys.modules.get("numpy.random")
    return _of_process, random.getstate(), legacy and legacy.get_state(legacy=False)


def _restore(state: tuple[Any, ...]) -> None:
    global _of_process
    _of_process = state[0]
    random.setstate(state[1])
    legacy = sys.modules.get("numpy.random")
    if legacy is not None and state[2]:
        legacy.set_state(state[2])
    elif legacy is not None:  # an item was the first to load it
        legacy.seed()


class seeded_item:  # noqa: N801 - used as a `with` statement only
    """Run a block as one item of a seeded map; afterwards all generators go on as before it.

    For items that run in the caller's own process. `random` and numpy's legacy global are the
    process's: other threads that use them meanwhile draw from the item's streams.
    """

    def __init__(self, seed: int, index: int) -> None:
        self._streams = Streams(seed, index)

    def __enter__(self) -> None:
        self._outer = getattr(_of_thread, "streams", None)
        self._state = _state()
        _of_thread.streams = self._streams
        self._streams.begin()

    def __exit__(self, *_: object) -> None:
        _of_thread.streams = self._outer
        _restore(self._state)


# -- numpy, when an item is the first to load it ---------------------------------------------------


class _SeedsNumpy:
    """A finder of modules that waits for numpy.random, to seed it for the item that loads it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "numpy.random":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_seed(module: ModuleType) -> None:
                load(module)
                streams = _running()
                if streams is not None:
                    streams.begin_legacy(module)

            spec.loader.exec_module = load_and_seed  # type: ignore[method-assign]
        return spec


def _wait_for_numpy() -> None:
    # Since numpy 2 even `import numpy` leaves numpy.random to its first use, inside an item.
    global _awaited
    if not _awaited:
        _awaited = True
        sys.meta_path.insert(0, _SeedsNumpy())


# -- the shared generators, when they are sent -----------------------------------------------------


def by_reference(value: Any) -> tuple[Any, ...] | None:
    """Return how to send `random`'s or numpy's global generator by its name, None for others.

    Their bound methods, such as `random.random` and `numpy.random.normal`, hold the generator:
    copied, it would draw the same on every node.
    """
    legacy = sys.modules.get("numpy.random.mtrand")
    if value is random._inst:
        return getattr, (random, "_inst")
    if legacy is not None and value is legacy._rand:
        return getattr, (legacy, "_rand")
    return None


def _forget_after_fork() -> None:
    global _fresh
    _fresh = None


os.register_at_fork(after_in_child=_forget_after_fork)
