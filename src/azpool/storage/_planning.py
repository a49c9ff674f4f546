"""Write what a call selected into its ledger, and decide all that is decided before anything moves.

    _sources (one by one) -> here -> _ledger -> _pump

Collisions are found by reading the ledger in the order of the targets, so that a million names take
no memory. What exists at the target is asked once: a `stat` for each local file, one listing with
metadata for blobs (for a handful, their properties side by side).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from azpool.errors import Conflict, LocalFileError, UsageError
from azpool.report import State
from azpool.storage._batch import Direction
from azpool.storage._ledger import PAGE_ROWS, Kind, Settled, text
from azpool.storage._listing import LIST_FROM_NAMES, Listing
from azpool.storage._stored import mtime_of
from azpool.storage.options import Overwrite
from azpool.storage.plan import SMALL_FILE_BYTES

if TYPE_CHECKING:
    from azpool.storage._ledger import Ledger
    from azpool.storage._sources import Planned, Selection
    from azpool.storage.store import BlobInfo

__all__ = ["Existing", "check_targets", "in_common", "keep", "plan"]

TELL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Existing:
    """What is at a target already."""

    size_bytes: int
    mtime_ns: int | None = None
    md5: bytes | None = None


def plan(
    ledger: Ledger,
    selection: Selection,
    direction: Direction,
    mode: Overwrite,
    *,
    cwd: str,
    listing: Callable[[], Listing],
    ask_all: bool = False,
    small_bytes: int = SMALL_FILE_BYTES,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Write all things down, settle those that need not be moved, and refuse what collides.

    Args:
        ledger: empty.
        selection: what is to be moved.
        direction: decides which side is looked at.
        mode: what becomes of targets that exist.
        cwd: what relative local paths are relative to.
        listing: makes what asks the container, where it has to be asked.
        ask_all: decide even what a node would find out by itself, for a dry run.
        small_bytes: what is larger moves in parts.
        tell: called with files and bytes so far, some 10 times a second.

    Raises:
        UsageError: two things have one target, or one needs a folder where another is a file.
        Conflict: with `Overwrite.FAIL`, a blob exists; `LocalFileError`: a file.
    """
    place = size_bytes = 0
    told = time.monotonic()
    for things in _blocks(selection.things):
        notes = [""] * len(things)
        if direction is Direction.DOWNLOAD and mode is not Overwrite.ALWAYS:
            notes = [_note_of_download(thing, mode, cwd) for thing in things]
        ledger.add(place, things, notes, small_bytes=small_bytes)
        place += len(things)
        size_bytes += sum([thing.size_bytes for thing in things if thing.error is None])
        if tell is not None and time.monotonic() - told >= TELL_SECONDS:
            tell(place, size_bytes)
            told = time.monotonic()
    if direction is not Direction.DELETE and not selection.distinct:
        check_targets(ledger.by_target(), direction)
    if direction is Direction.UPLOAD and mode is not Overwrite.ALWAYS:
        _ask_container(ledger, listing, mode, cwd, ask_all=ask_all)


def _blocks(things: Iterable[Planned]) -> Iterator[list[Planned]]:
    block: list[Planned] = []
    for thing in things:
        block.append(thing)
        if len(block) == PAGE_ROWS:
            yield block
            block = []
    if block:
        yield block


def check_targets(targets: Iterable[tuple[str, str, bool]], direction: Direction) -> None:
    """Refuse things that can't all be written; (target, source, is a folder), sorted by target.

    In sorted order all that begins with a name follows it, so a stack of the names that the
    present one begins with is all that has to be remembered.

    Raises:
        UsageError: two sources for one target; of downloads also a path that is both a file and
            a folder (blobs `a` and `a/b`).
    """
    stack: list[tuple[str, str, bool]] = []
    for target, source, folder in targets:
        while stack and not target.startswith(stack[-1][0]):
            stack.pop()
        if stack:
            other, other_source, other_folder = stack[-1]
            same = target == other
            if same and not folder and not other_folder:
                raise UsageError(
                    f"cannot move {other_source!r} and {source!r}: both would become {target!r}; "
                    "move them one by one or into different folders"
                )
            below = target[len(other) :].startswith("/")
            if direction is Direction.DOWNLOAD and (
                (same and folder != other_folder) or (below and not other_folder)
            ):
                raise UsageError(
                    f"cannot download {other_source!r} and {source!r}: "
                    f"{other!r} would be a file and a folder; download one of them elsewhere"
                )
            if same:
                continue
        stack.append((target, source, folder))


def keep(
    mode: Overwrite,
    size_bytes: int,
    mtime_ns: int | None,
    existing: Existing,
    same_md5: Callable[[bytes], bool],
) -> str:
    """Say why a target that exists is left as it is, or "" where it is replaced. Pure.

    Args:
        mode: what the call wants.
        size_bytes: of the source.
        mtime_ns: when the source was changed, or None.
        existing: the target; its time is that of the file it came from where that is known.
        same_md5: compares the source's bytes with a digest, where nothing else can tell.
    """
    match mode:
        case Overwrite.ALWAYS:
            return ""
        case Overwrite.NEVER | Overwrite.FAIL:
            return "it exists"
        case Overwrite.IF_NEWER:
            if mtime_ns is None or existing.mtime_ns is None or mtime_ns > existing.mtime_ns:
                return ""
            return "it is not newer"
        case Overwrite.IF_DIFFERENT:
            if size_bytes != existing.size_bytes:
                return ""
            timed = mtime_ns is not None and mtime_ns == existing.mtime_ns
            if timed or (existing.md5 is not None and same_md5(existing.md5)):
                return "it is the same"
            return ""


# -- downloads: the local side ------------------------------------------------------------------


def _note_of_download(thing: Planned, mode: Overwrite, cwd: str) -> str:
    if thing.error is not None or thing.folder:
        return ""
    path = os.path.join(cwd, thing.target)
    try:
        status = os.stat(path)
    except OSError:
        # A dangling link is something, and a folder that can't be read is the node's to report.
        if not os.path.lexists(path):
            return ""
        status = None
    if mode is Overwrite.FAIL:
        raise LocalFileError(
            f"cannot download {thing.source!r}: {thing.target!r} exists; nothing was moved; choose "
            "another folder or another overwrite mode",
            path=thing.target,
            code="EEXIST",
        )
    if status is None:
        return "it exists" if mode is Overwrite.NEVER else ""
    existing = Existing(status.st_size, status.st_mtime_ns, thing.md5)
    return keep(mode, thing.size_bytes, thing.mtime_ns, existing, partial(_has_md5, path))


def _has_md5(path: str, md5: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, _new_md5).digest() == md5
    except OSError:
        return False


def _new_md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


# -- uploads: the container ---------------------------------------------------------------------


def _ask_container(
    ledger: Ledger, listing: Callable[[], Listing], mode: Overwrite, cwd: str, *, ask_all: bool
) -> None:
    """Settle what exists at the target and is to be left as it is."""
    # With NEVER a small file's own request asks (If-None-Match); parts are not sent to find out.
    kinds = f"kind = {Kind.BIG}" if mode is Overwrite.NEVER and not ask_all else "kind < 2"
    (count, first, last) = ledger.rows(
        f"SELECT count(*), min(target), max(target) FROM things WHERE state = 0 AND {kinds}"
    )[0]
    if not count:
        return
    if count <= LIST_FROM_NAMES:
        found = _by_name(
            listing(), [thing.target for thing in ledger.things(f"state = 0 AND {kinds}")]
        )
    else:
        ledger.rows("CREATE INDEX IF NOT EXISTS by_target ON things (target)")
        found = listing().under(in_common(text(first), text(last)))
    ended: list[Settled] = []
    for info in found:
        ended += _existing(ledger, info, mode, kinds, cwd)
        if len(ended) >= PAGE_ROWS:
            ledger.settle(ended)
            ended = []
    ledger.settle(ended)
    ledger.rows("DROP INDEX IF EXISTS by_target")


def in_common(first: str, last: str) -> str:
    """Answer what two names, and all that sort between them, begin with."""
    same = next(
        (n for n, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1), -1
    )
    return first[:same] if same >= 0 else min(first, last, key=len)


def _by_name(listing: Listing, names: list[str]) -> Iterator[BlobInfo]:
    listing.look_up(names)
    for name in names:
        info, _ = listing.find(name)
        if info is not None:
            yield info


def _existing(
    ledger: Ledger, info: BlobInfo, mode: Overwrite, kinds: str, cwd: str
) -> Iterator[Settled]:
    rows = ledger.rows(
        "SELECT place, source, size, mtime_ns FROM things"
        f" WHERE target = ? AND state = 0 AND {kinds}",
        (info.name,),
    )
    for place, source, size, mtime_ns in rows:
        if mode is Overwrite.FAIL:
            raise Conflict(
                f"cannot upload {text(source)!r}: the blob {info.name!r} exists; nothing was "
                "moved; choose another place or another overwrite mode",
                code="BlobAlreadyExists",
                path=info.name,
            )
        existing = Existing(info.size_bytes, mtime_of(info.metadata, info.last_modified), info.md5)
        path = os.path.join(cwd, text(source))
        note = keep(mode, size, mtime_ns, existing, partial(_has_md5, path))
        if note:
            yield Settled(place, State.SKIPPED, note=note)
