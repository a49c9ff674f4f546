"""Find what a call names, locally or in the container, and give everything its target.

This is where the naming rules meet the world: `naming.py` says how, `_files.py` and the store say
what is there. Things come one by one, in the order of their outcomes, and nothing of them is kept
here; `_planning.py` writes them down and checks them for collisions before anything moves. What
can't be moved (missing, refused name) is planned too, with its error, and becomes an outcome.
"""

# os.path and strings: a Path object a file would cost more than the file's bookkeeping may.

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from azpool.errors import LocalFileError, NameRefused, NotFound, StorageError, UsageError
from azpool.storage import naming
from azpool.storage._files import local_error, not_regular
from azpool.storage._stored import mtime_of
from azpool.storage._walk import Found, glob_files, walk
from azpool.storage.plan import part_bytes_for

if TYPE_CHECKING:
    from azpool.storage._listing import Listing
    from azpool.storage.store import BlobInfo

__all__ = ["Planned", "Selection", "Sources", "select_downloads", "select_uploads"]

Sources: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"


class Planned(NamedTuple):
    """One thing of a call: to be moved, or already known not to be."""

    source: str
    target: str
    size_bytes: int = 0
    etag: str | None = None
    error: StorageError | None = None
    skip: bool = False
    folder: bool = False
    mtime_ns: int | None = None
    md5: bytes | None = None


@dataclass(slots=True)
class Selection:
    """All things of a call in their order, and what the report should note.

    Attributes:
        things: given once.
        notes: complete when all things have been given.
        distinct: whether no two things can have one target, whatever they are.
    """

    things: Iterable[Planned] = ()
    notes: list[str] = field(default_factory=list)
    distinct: bool = False


def as_list(sources: Sources) -> tuple[list[str], bool]:
    """Answer the sources as strings, and whether they were given as a list."""
    if isinstance(sources, str | bytes | os.PathLike):
        texts, many = [os.fspath(sources)], False
    else:
        texts, many = [os.fspath(source) for source in sources], True
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"cannot move {text!r}: a path is text here; use os.fsdecode()")
    return texts, many


def select_uploads(sources: Sources, dest: str, *, encode: bool = False) -> Selection:
    """Find local files and name their blobs, as they are asked for.

    With `encode`, what a blob's name may not hold is percent-encoded instead of refused.

    Raises:
        UsageError: while things are given: a source that is no path.
    """
    texts, many = as_list(sources)
    selection = Selection(distinct=len(texts) == 1 and not naming.has_wildcard(texts[0]))
    selection.things = _uploads(texts, dest, selection.notes, many=many, encode=encode)
    return selection


def _uploads(
    texts: list[str], dest: str, notes: list[str], *, many: bool, encode: bool
) -> Iterator[Planned]:
    for text in texts:
        empty = True
        for found, relative, exact in _local(text):
            empty = False
            renamed = exact and not many and dest and not dest.endswith("/")
            target = dest if renamed else naming.join_blob(dest, relative)
            yield _planned_upload(found, naming.encode_blob_name(target) if encode else target)
        if empty:
            notes.append(f"{text!r} holds no files")


def _planned_upload(found: Found, target: str) -> Planned:
    error: StorageError | None = found.error
    if error is None:
        try:
            naming.check_blob_name(target, verb="upload")
            part_bytes_for(found.size_bytes)
        except NameRefused as refused:
            error = refused
        except UsageError as too_big:
            error = LocalFileError(f"cannot upload {found.path!r}: {too_big}", path=found.path)
    return Planned(
        found.path, target, found.size_bytes, None, error, found.skip, mtime_ns=found.mtime_ns
    )


def _local(text: str) -> Iterator[tuple[Found, str, bool]]:
    """Yield what `text` names: the find, its path below the destination, whether it is the file."""
    if not text:
        raise UsageError("cannot upload '': the path is empty; use '.' for this folder")
    try:
        status = os.stat(text)
    except OSError as error:
        if naming.has_wildcard(text) and not os.path.lexists(text):
            yield from _local_glob(text)
        else:
            yield Found(text, text, 0, local_error(error, "upload", text)), _base(text), True
        return
    if stat.S_ISDIR(status.st_mode):
        base = "" if text.endswith("/") else _base(text)
        for found in walk(text):
            yield found, naming.join_blob(base, found.relative), False
    elif stat.S_ISREG(status.st_mode):
        found = Found(text, _base(text), status.st_size, mtime_ns=status.st_mtime_ns)
        yield found, _base(text), True
    else:
        yield Found(text, _base(text), 0, not_regular(text)), _base(text), True


def _base(text: str) -> str:
    base = os.path.basename(text.rstrip("/"))
    return "" if base in {".", ".."} else base


def _local_glob(text: str) -> Iterator[tuple[Found, str, bool]]:
    root, pattern = naming.split_glob(text)
    matched = False
    for found in glob_files(root, pattern):
        matched = True
        yield found, found.relative, False
    if not matched:
        error = LocalFileError(
            f"cannot upload {text!r}: no file matches; check the pattern ('**' goes into folders)",
            path=text,
            code="ENOENT",
        )
        error.__cause__ = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
        yield Found(text, "", 0, error), "", False


def select_downloads(
    listing: Listing, sources: Sources, dest: str, container: str, *, decode: bool = False
) -> Selection:
    """Find blobs and name their local files, as they are asked for.

    With `decode`, names that `encode` has encoded are decoded.

    Raises:
        LocalFileError: while things are given: the destination has to be a folder and is not one.
        StorageError: while things are given: the container can't be listed.
    """
    texts, many = as_list(sources)
    dest = dest or os.curdir
    into = many or dest.endswith("/") or os.path.isdir(dest)
    chooser = _Chooser(listing, dest, container, into=into, decode=decode)
    chooser.selection.things = chooser.things(texts)
    return chooser.selection


def _is_tree(text: str) -> bool:
    return not text or text.endswith("/")


class _Chooser:
    """Turn each source into planned downloads."""

    def __init__(
        self, listing: Listing, dest: str, container: str, *, into: bool, decode: bool
    ) -> None:
        self.listing = listing
        self.dest = dest
        self.container = container
        self.into = into
        self.decode = decode
        self.selection = Selection()

    def things(self, texts: list[str]) -> Iterator[Planned]:
        if self.into:
            self.need_folder()
        self.listing.look_up([t for t in texts if not _is_tree(t) and not naming.has_wildcard(t)])
        for text in texts:
            if _is_tree(text):
                prefix = "" if text == "/" else text
                yield from self.tree(text, prefix, self.container if not text else "")
            elif naming.has_wildcard(text):
                yield from self.glob(text)
            else:
                yield from self.blob_or_tree(text)

    def need_folder(self) -> None:
        if os.path.lexists(self.dest) and not os.path.isdir(self.dest):
            raise LocalFileError(
                f"cannot download into {self.dest!r}: it is a file, not a folder; choose another "
                "folder",
                path=self.dest,
                code="ENOTDIR",
            )

    def blob_or_tree(self, text: str) -> Iterator[Planned]:
        info, more = self.listing.find(text)
        if info is None or info.is_directory_marker:
            yield from self.tree(text, text + "/", text.rpartition("/")[2], marker=info)
            return
        if more:
            self.selection.notes.append(
                f"{text!r} is a blob and a folder: the blob was taken; "
                f"use {text + '/'!r} for what is in the folder"
            )
        base = text.rpartition("/")[2]
        yield self.planned(info, base if self.into else "")

    def tree(
        self, text: str, prefix: str, base: str, marker: BlobInfo | None = None
    ) -> Iterator[Planned]:
        empty = True
        for info in self.listing.under(prefix):
            if empty:
                self.need_folder()
            empty = False
            yield self.planned(info, naming.join_blob(base, info.name[len(prefix) :]))
        if not empty:
            return
        if marker is not None:
            self.need_folder()
            yield self.planned(marker, base)
        elif prefix:
            yield _missing(text, "no such blob or folder; check the name (`ls` shows them)")
        else:
            self.selection.notes.append(f"container {self.container!r} holds no blobs")

    def glob(self, text: str) -> Iterator[Planned]:
        matcher = naming.compile_glob(text)
        literal = self.listing.begins_with(text)
        if literal is not None and literal.name == text:
            yield from self.blob_or_tree(text)
            return
        cut = len(naming.split_glob(text)[0])
        empty = True
        for info in self.listing.under(naming.literal_prefix(text)):
            if not matcher.fullmatch(info.name):
                continue
            if empty:
                self.need_folder()
            empty = False
            yield self.planned(info, info.name[cut:])
        if empty:
            yield _missing(text, "no blob matches; check the pattern ('**' goes into folders)")

    def planned(self, info: BlobInfo, relative: str) -> Planned:
        folder = info.is_directory_marker
        try:
            naming.check_blob_name(info.name, verb="download")
            bare = relative.strip("/")
            target = self.dest
            if bare:
                local = naming.local_relative(relative, decode=self.decode)
                target = os.path.join(self.dest, local)
        except NameRefused as error:
            refused = NameRefused(str(error), path=info.name)
            return Planned(info.name, "", info.size_bytes, error=refused)
        return Planned(
            info.name,
            target,
            0 if folder else info.size_bytes,
            info.etag,
            folder=folder,
            mtime_ns=mtime_of(info.metadata, info.last_modified),
            md5=info.md5,
        )


def _missing(text: str, why: str) -> Planned:
    return Planned(text, "", error=NotFound(f"cannot download {text!r}: {why}", path=text))
