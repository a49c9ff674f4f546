"""Bring a journal up to date before its job goes on: the world's word beats the journal's.

A source that has changed starts again; parts that the journal holds as done count where they still
are (uncommitted blocks of an upload, the `.part` file of a download whose blob is the same); a file
that was finished, but whose end was not written down any more, is done. What failed is open again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from azpool.report import State
from azpool.storage import _files
from azpool.storage._batch import Direction
from azpool.storage._ledger import PAGE_ROWS, Kind, Ledger, Settled, text
from azpool.storage._listing import LIST_FROM_NAMES, Listing, with_retries
from azpool.storage._planning import in_common
from azpool.storage._stored import mtime_of
from azpool.storage._stores import open_store
from azpool.storage.plan import Transfer, block_id, part, part_count, small_bytes

if TYPE_CHECKING:
    from azpool.storage.store import BlobInfo
    from azpool.storage.transfer import Call

__all__ = ["bring_up_to_date"]

# A file may be newer than its time says: kernels stamp it with the time of their last tick (up to
# 10 ms ago), some file systems in whole seconds, and a file server by its own clock.
CTIME_BEHIND_SECONDS = 2.0

# What may be moved by this call: all that is open, and what failed and has a place to go to.
_AGAIN = "state IN (0, 2) AND kind < 2 AND target != ''"


def bring_up_to_date(
    call: Call, ledger: Ledger, run: str, *, started: float, check: bool = False
) -> None:
    """Look at sources and at what was moved in part, and write what has become of it.

    Args:
        call: whose journal it is.
        ledger: planned.
        run: the token in its block ids and `.part` names.
        started: when the job began, in seconds since 1970.
        check: look at everything that is done, too, and open again what is not there any more.

    Raises:
        StorageError: the container can't be asked; the journal is as good as before.
    """
    if check:
        _check(call, ledger)
    ledger.change("UPDATE things SET state = 0 WHERE kind = 2 AND state = 2")
    if call.direction is Direction.UPLOAD:
        _look_at_files(call, ledger)
        for transfer in _begun(ledger):
            _believe_container(call, ledger, transfer, run)
    else:
        _look_at_blobs(call, ledger, run)
        for transfer in _begun(ledger):
            _believe_disk(call, ledger, transfer, run, started)


def _begun(ledger: Ledger) -> Iterator[Transfer]:
    """Give the open big files of which parts are done."""
    yield from ledger.things(
        f"state = 0 AND kind = {Kind.BIG} AND place IN (SELECT DISTINCT place FROM parts)"
    )


def _reopen(
    ledger: Ledger,
    changed: list[tuple[Any, ...]],
    again: list[tuple[int]],
) -> None:
    """Write new facts of sources, whose parts are void then, and open what failed."""
    ledger.change_many(
        "UPDATE things SET size = ?, mtime_ns = ?, etag = ?, md5 = ?, kind = ? WHERE place = ?",
        changed,
    )
    ledger.change_many("DELETE FROM parts WHERE place = ?", [(row[-1],) for row in changed])
    ledger.change_many(
        "UPDATE things SET state = 0, seconds = NULL, attempts = NULL, moved = NULL, error = NULL,"
        " note = NULL WHERE place = ?",
        again,
    )


def _kind(call: Call, size_bytes: int) -> int:
    least = small_bytes(verify=call.options.verify is not None)
    return Kind.BIG if size_bytes > least else Kind.SMALL


# -- uploads ------------------------------------------------------------------------------------


def _look_at_files(call: Call, ledger: Ledger) -> None:
    changed: list[tuple[Any, ...]] = []
    again: list[tuple[int]] = []
    for thing in ledger.things(_AGAIN):
        try:
            status = os.stat(os.path.join(call.cwd, thing.source))
        except OSError:
            continue  # what failed stays so; what is open fails by its own error
        if (status.st_size, status.st_mtime_ns) != (thing.size_bytes, thing.mtime_ns):
            size = status.st_size
            changed.append((size, status.st_mtime_ns, None, None, _kind(call, size), thing.place))
        again.append((thing.place,))
        if len(again) >= PAGE_ROWS:
            _reopen(ledger, changed, again)
            changed, again = [], []
    _reopen(ledger, changed, again)


def _believe_container(call: Call, ledger: Ledger, transfer: Transfer, run: str) -> None:
    """Keep the parts whose blocks the service still holds."""
    store = open_store(call.recipe)
    held = with_retries(lambda: store.staged(transfer.target), call.retry)
    done = ledger.parts_done(transfer.place)
    count = part_count(transfer.size_bytes)
    there = {
        number
        for number in done
        if number < count and held.get(block_id(run, number)) == part(transfer, number).length
    }
    if not there and len(done) == count and _is_committed(call, transfer):
        moved = transfer.size_bytes
        ledger.settle([Settled(transfer.place, State.OK, attempts=1, moved=moved)])
        return
    _forget(ledger, transfer.place, done - there)


def _is_committed(call: Call, transfer: Transfer) -> bool:
    """Whether the blob is this file: it was committed, and nobody lived to write that down."""
    listing = call.listing()
    listing.look_up([transfer.target])
    info, _ = listing.find(transfer.target)
    return (
        info is not None
        and info.size_bytes == transfer.size_bytes
        and mtime_of(info.metadata, None) == transfer.mtime_ns
    )


def _forget(ledger: Ledger, place: int, numbers: set[int]) -> None:
    ledger.change_many(
        "DELETE FROM parts WHERE place = ? AND number = ?", [(place, n) for n in numbers]
    )


# -- downloads ----------------------------------------------------------------------------------


def _look_at_blobs(call: Call, ledger: Ledger, run: str) -> None:
    changed: list[tuple[Any, ...]] = []
    again: list[tuple[int]] = []
    for info, rows in _matched(call, ledger, "source", _AGAIN):
        for thing in rows:
            if info.etag != thing.etag or info.size_bytes != thing.size_bytes:
                size = info.size_bytes
                mtime_ns = mtime_of(info.metadata, info.last_modified)
                changed.append(
                    (size, mtime_ns, info.etag, info.md5, _kind(call, size), thing.place)
                )
                _files.drop_part(os.path.join(call.cwd, thing.target), run)
            again.append((thing.place,))
        if len(again) >= PAGE_ROWS:
            _reopen(ledger, changed, again)
            changed, again = [], []
    _reopen(ledger, changed, again)


def _believe_disk(call: Call, ledger: Ledger, transfer: Transfer, run: str, started: float) -> None:
    """Keep the parts that the `.part` file can hold."""
    done = ledger.parts_done(transfer.place)
    path = os.path.join(call.cwd, transfer.target)
    try:
        held = os.stat(_files.part_path(path, run)).st_size
    except OSError:
        held = 0
    last = part(transfer, max(done))
    if held >= last.offset + last.length:
        return
    whole = len(done) == part_count(transfer.size_bytes)
    if whole and not held and _is_renamed(path, transfer, started):
        moved = transfer.size_bytes
        ledger.settle([Settled(transfer.place, State.OK, attempts=1, moved=moved)])
        return
    _forget(ledger, transfer.place, done)


def _is_renamed(path: str, transfer: Transfer, started: float) -> bool:
    """Whether the file is this blob: it was renamed, and nobody lived to write that down."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    began = started - CTIME_BEHIND_SECONDS
    return status.st_size == transfer.size_bytes and status.st_ctime >= began


# -- both ---------------------------------------------------------------------------------------


def _matched(
    call: Call, ledger: Ledger, column: str, where: str
) -> Iterator[tuple[BlobInfo, list[Transfer]]]:
    """Give the blobs that things of a condition name, each with those things.

    A handful is asked for by name, more by one listing of what their names have in common.
    """
    count, first, last = ledger.rows(
        f"SELECT count(*), min({column}), max({column}) FROM things WHERE {where}"
    )[0]
    if not count:
        return
    listing = call.listing()
    if count <= LIST_FROM_NAMES:
        yield from _by_name(ledger, listing, column, where)
        return
    index = f"by_{column}"
    ledger.rows(f"CREATE INDEX IF NOT EXISTS {index} ON things ({column})")
    try:
        for info in listing.under(in_common(text(first), text(last))):
            rows = ledger.matching(column, info.name, where)
            if rows:
                yield info, rows
    finally:
        ledger.rows(f"DROP INDEX IF EXISTS {index}")


def _by_name(
    ledger: Ledger, listing: Listing, column: str, where: str
) -> Iterator[tuple[BlobInfo, list[Transfer]]]:
    name_of: Callable[[Transfer], str] = (
        (lambda thing: thing.source) if column == "source" else (lambda thing: thing.target)
    )
    names = list(dict.fromkeys(name_of(thing) for thing in ledger.things(where)))
    listing.look_up(names)
    for name in names:
        info, _ = listing.find(name)
        if info is not None:
            yield info, ledger.matching(column, name, where)


def _check(call: Call, ledger: Ledger) -> None:
    """Open again what is done and not there any more, or has another size."""
    done = "state = 1 AND kind < 2"
    ledger.rows("CREATE TEMP TABLE IF NOT EXISTS there (place INTEGER PRIMARY KEY)")
    ledger.change("DELETE FROM there")
    there: list[tuple[int]] = []
    for place in _places_there(call, ledger, done):
        there.append((place,))
        if len(there) >= PAGE_ROWS:
            ledger.change_many("INSERT OR IGNORE INTO there VALUES (?)", there)
            there = []
    ledger.change_many("INSERT OR IGNORE INTO there VALUES (?)", there)
    ledger.change(
        f"UPDATE things SET state = 0 WHERE {done} AND place NOT IN (SELECT place FROM there)"
    )


def _places_there(call: Call, ledger: Ledger, done: str) -> Iterator[int]:
    if call.direction is Direction.UPLOAD:
        for info, rows in _matched(call, ledger, "target", done):
            yield from (thing.place for thing in rows if thing.size_bytes == info.size_bytes)
        return
    for thing in ledger.things(done):
        try:
            size = os.stat(os.path.join(call.cwd, thing.target)).st_size
        except OSError:
            continue
        if size == thing.size_bytes:
            yield thing.place
