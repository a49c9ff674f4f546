"""Arguments of a call, ready to be cut into chunks.

Columns of atomic values (numbers, strings, bytes) are kept as they are and pickled a chunk at a
time; anything else is pickled item by item when it is taken, in the caller's thread, so that what
can't be pickled is an error at the call, before anything is sent.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from azpool.errors import CannotPickle
from azpool.pool import namespace, node, wire
from azpool.pool.wire import ATOMIC, SHARE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from azpool.pool.namespace import ExportedNames

Entry = bytes | tuple[bytes, list[memoryview]]


class Arguments:
    """The arguments of items 0..size-1; entries are let go when they are answered."""

    mode = node.ITEMS
    item_bytes = 0.0
    modules: frozenset[str] = frozenset()  # that a node imports to load them, where it is known

    def chunk(self, start: int, stop: int) -> tuple[Any, list[memoryview]]:
        """Return what goes into the frame for these items, and their out-of-band buffers."""
        raise NotImplementedError

    def forget(self, start: int, stop: int) -> None:
        """These items will not be asked for again."""

    def extend(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Add items of a stream; returns how many."""
        raise NotImplementedError


class Columns(Arguments):
    """Lists of atomic values, one for each parameter."""

    mode = node.COLUMNS

    def __init__(self, columns: list[Sequence[Any]]) -> None:
        self._columns = columns
        for column in columns:
            if type(column) is not range:
                sample = column[:: max(1, len(column) // 16)]
                widths = [len(v) for v in sample if isinstance(v, str | bytes)]
                self.item_bytes += sum(widths) / len(sample) if widths else 0.0

    def chunk(self, start: int, stop: int) -> tuple[Any, list[memoryview]]:
        return [column[start:stop] for column in self._columns], []


class Items(Arguments):
    """Items that were pickled one by one."""

    def __init__(self, exported: ExportedNames) -> None:
        self._exported = exported
        self._entries: dict[int, Entry] = {}
        self._count = 0
        self._bytes = 0

    def extend(self, rows: Sequence[tuple[Any, ...]]) -> int:
        modules: set[str] = set()
        for offset, entry in enumerate(_entries(rows, self._count, self._exported, modules)):
            self._entries[self._count + offset] = entry
            if type(entry) is tuple:
                self._bytes += len(entry[0]) + sum(buffer.nbytes for buffer in entry[1])
            else:
                self._bytes += len(entry)
        if not modules <= self.modules:
            self.modules |= modules
        self._count += len(rows)
        self.item_bytes = self._bytes / max(1, self._count)
        return len(rows)

    def chunk(self, start: int, stop: int) -> tuple[Any, list[memoryview]]:
        data: list[Any] = []
        buffers: list[memoryview] = []
        for index in range(start, stop):
            entry = self._entries[index]
            if type(entry) is tuple:
                data.append((entry[0], len(entry[1])))
                buffers += entry[1]
            else:
                data.append(entry)
        return data, buffers

    def forget(self, start: int, stop: int) -> None:
        for index in range(start, stop):
            self._entries.pop(index, None)


class OneCall(Arguments):
    """The arguments of one submitted call."""

    mode = node.CALL

    def __init__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], exported: ExportedNames
    ) -> None:
        args = tuple(map(wire.out_of_band, args))
        dumped = namespace.dump((args, kwargs), exported, what="an argument")
        self._buffers, self.modules = dumped.buffers, dumped.modules
        self._entry: Any = (dumped.payload, len(self._buffers)) if self._buffers else dumped.payload

    def chunk(self, start: int, stop: int) -> tuple[Any, list[memoryview]]:
        return [self._entry], self._buffers


def _entries(
    rows: Sequence[tuple[Any, ...]], first: int, exported: ExportedNames, modules: set[str]
) -> Iterable[Entry]:
    for offset, row in enumerate(rows):
        if all(_is_plain(value) for value in row):
            yield pickle.dumps((row, None), protocol=5)
            continue
        row = tuple(map(wire.out_of_band, row))  # noqa: PLW2901 - the same values
        try:
            dumped = namespace.dump(row, exported, what=f"item {first + offset}")
        except CannotPickle as error:
            error.add_note(f"azpool: item {first + offset}, before anything was sent")
            raise
        modules |= dumped.modules
        yield (dumped.payload, dumped.buffers) if dumped.buffers else dumped.payload


def _is_plain(value: Any) -> bool:
    """Whether a value surely pickles: atomic, or a small container of atomic values."""
    kind = type(value)
    if kind in ATOMIC:
        return kind is not bytes or len(value) < SHARE_BYTES
    if kind is tuple or kind is list:
        return len(value) <= 64 and all(type(item) in ATOMIC for item in value)
    if kind is dict:
        return len(value) <= 64 and all(
            type(key) in ATOMIC and type(item) in ATOMIC for key, item in value.items()
        )
    return False


def _is_atomic(column: Sequence[Any]) -> bool:
    return type(column) is range or ATOMIC.issuperset(map(type, column))


def take_whole(
    iterables: Sequence[Iterable[Any]], exported: ExportedNames
) -> tuple[Arguments, int]:
    """Take sized inputs whole: as columns where they hold atomic values, else item by item.

    The shortest input ends the call, as with `map`.

    Raises:
        CannotPickle: an item can't be pickled; nothing was sent.
    """
    # A range stays one: its slices travel as three numbers.
    columns: list[Sequence[Any]] = [
        iterable if type(iterable) is range else list(iterable) for iterable in iterables
    ]
    count = min(len(column) for column in columns)
    columns = [column[:count] if len(column) > count else column for column in columns]
    if count and all(_is_atomic(column) for column in columns):
        in_columns = Columns(columns)
        if in_columns.item_bytes < SHARE_BYTES:
            return in_columns, count
    items = Items(exported)
    items.extend(list(zip(*columns, strict=True)))
    return items, count
