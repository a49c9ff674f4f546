"""Find what a call names, locally or in the container, and give everything its target.

This is where the naming rules meet the world: `naming.py` says how, `_files.py` and the store say
what is there. All of it is known, and checked for collisions, before anything moves. What can't be
moved (missing, refused name) is planned too, with its error, and becomes an outcome.
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
from azpool.storage._walk import Found, glob_files, walk

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


@dataclass(slots=True)
class Selection:
    """All things of a call in their order, and what the report should note."""

    things: list[Planned] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def movable(self) -> Iterator[Planned]:
        return (thing for thing in self.things if thing.error is None)


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


def select_uploads(sources: Sources, dest: str) -> Selection:
    """Find local files and name their blobs.

    Raises:
        UsageError: two files would become one blob.
    """
    texts, many = as_list(sources)
    selection = Selection()
    for text in texts:
        before = len(selection.things)
        for found, relative, exact in _local(text):
            renamed = exact and not many and dest and not dest.endswith("/")
            target = dest if renamed else naming.join_blob(dest, relative)
            selection.things.append(_planned_upload(found, target))
        if len(selection.things) == before:
            selection.notes.append(f"{text!r} holds no files")
    naming.check_unique((thing.source, thing.target) for thing in selection.movable())
    return selection


def _planned_upload(found: Found, target: str) -> Planned:
    error: StorageError | None = found.error
    if error is None:
        try:
            naming.check_blob_name(target, verb="upload")
        except NameRefused as refused:
            error = refused
    return Planned(found.path, target, found.size_bytes, None, error, found.skip)


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
        yield Found(text, _base(text), status.st_size), _base(text), True
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


def select_downloads(listing: Listing, sources: Sources, dest: str, container: str) -> Selection:
    """Find blobs and name their local files.

    Raises:
        UsageError: two blobs would become one file, or a file and a folder.
        LocalFileError: the destination has to be a folder and is not one.
        StorageError: the container can't be listed.
    """
    texts, many = as_list(sources)
    dest = dest or os.curdir
    into = many or dest.endswith("/") or os.path.isdir(dest)
    chooser = _Chooser(listing, dest, container, into=into)
    listing.look_up([t for t in texts if not _is_tree(t) and not naming.has_wildcard(t)])
    for text in texts:
        chooser.choose(text)
    if chooser.needs_folder and os.path.lexists(dest) and not os.path.isdir(dest):
        raise LocalFileError(
            f"cannot download into {dest!r}: it is a file, not a folder; choose another folder",
            path=dest,
            code="ENOTDIR",
        )
    things = list(chooser.selection.movable())
    naming.check_local_targets(
        [(t.source, t.target) for t in things if not t.folder],
        [(t.source, t.target) for t in things if t.folder],
    )
    return chooser.selection


def _is_tree(text: str) -> bool:
    return not text or text.endswith("/")


class _Chooser:
    """Turn each source into planned downloads."""

    def __init__(self, listing: Listing, dest: str, container: str, *, into: bool) -> None:
        self.listing = listing
        self.dest = dest
        self.container = container
        self.into = into
        self.needs_folder = into
        self.selection = Selection()

    def choose(self, text: str) -> None:
        if _is_tree(text):
            prefix = "" if text == "/" else text
            self.tree(text, prefix, self.container if not text else "")
        elif naming.has_wildcard(text):
            self.glob(text)
        else:
            self.blob_or_tree(text)

    def blob_or_tree(self, text: str) -> None:
        info, more = self.listing.find(text)
        if info is None or info.is_directory_marker:
            self.tree(text, text + "/", text.rpartition("/")[2], marker=info)
            return
        if more:
            self.selection.notes.append(
                f"{text!r} is a blob and a folder: the blob was taken; "
                f"use {text + '/'!r} for what is in the folder"
            )
        base = text.rpartition("/")[2]
        self.add(info, base if self.into else "")

    def tree(self, text: str, prefix: str, base: str, marker: BlobInfo | None = None) -> None:
        before = len(self.selection.things)
        for info in self.listing.under(prefix):
            self.add(info, naming.join_blob(base, info.name[len(prefix) :]))
        if len(self.selection.things) > before:
            self.needs_folder = True
        elif marker is not None:
            self.needs_folder = True
            self.add(marker, base)
        elif prefix:
            self.missing(text, "no such blob or folder; check the name (`ls` shows them)")
        else:
            self.selection.notes.append(f"container {self.container!r} holds no blobs")

    def glob(self, text: str) -> None:
        matcher = naming.compile_glob(text)
        infos = list(self.listing.under(naming.literal_prefix(text)))
        literal = [info for info in infos if info.name == text]
        if literal:
            self.blob_or_tree(text)
            return
        cut = len(naming.split_glob(text)[0])
        matches = [info for info in infos if matcher.fullmatch(info.name)]
        for info in matches:
            self.needs_folder = True
            self.add(info, info.name[cut:])
        if not matches:
            self.missing(text, "no blob matches; check the pattern ('**' goes into folders)")

    def missing(self, text: str, why: str) -> None:
        error = NotFound(f"cannot download {text!r}: {why}", path=text)
        self.selection.things.append(Planned(text, "", error=error))

    def add(self, info: BlobInfo, relative: str) -> None:
        folder = info.is_directory_marker
        try:
            naming.check_blob_name(info.name, verb="download")
            bare = relative.strip("/")
            target = os.path.join(self.dest, naming.local_relative(relative)) if bare else self.dest
        except NameRefused as error:
            refused = NameRefused(str(error), path=info.name)
            self.selection.things.append(Planned(info.name, "", info.size_bytes, error=refused))
            return
        size = 0 if folder else info.size_bytes
        self.selection.things.append(Planned(info.name, target, size, info.etag, folder=folder))
