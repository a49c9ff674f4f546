"""Find local files: the tree under a folder, or what matches a glob. Runs in the master alone."""

# os and strings: a Path object a file would cost more than the file's bookkeeping may.

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from azpool.errors import LocalFileError
from azpool.storage._files import local_error, not_regular
from azpool.storage.naming import compile_glob

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Found", "glob_files", "walk"]


class Found(NamedTuple):
    """Something found on the local side: a file, or a reason why it can't be moved."""

    path: str
    relative: str
    size_bytes: int
    error: LocalFileError | None = None
    skip: bool = False


def walk(root: str, *, relative: str = "") -> Iterator[Found]:
    """Find every file of the tree under `root`, hidden ones too, each folder's names in order.

    Symbolic links to files are followed. Links to folders are not (so nothing is moved twice and
    a circle of links can't hold it up); they come back as things to skip. Dangling links, sockets,
    pipes, devices and folders that can't be read come back as errors, such a folder with a
    trailing slash.
    """
    try:
        with os.scandir(root) as scan:
            entries = sorted(scan, key=_entry_name)
    except OSError as error:
        yield Found(root, relative, 0, local_error(error, "read folder", root))
        return
    folders = []
    for entry in entries:
        name = relative + entry.name
        if entry.is_dir(follow_symlinks=False):
            folders.append((entry.path, name + "/"))
        else:
            yield _found(entry, name)
    for path, name in folders:
        yield from walk(path, relative=name)


def _entry_name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _found(entry: os.DirEntry[str], relative: str) -> Found:
    try:
        status = entry.stat()
    except OSError as error:
        return Found(entry.path, relative, 0, local_error(error, "upload", entry.path))
    if stat.S_ISREG(status.st_mode):
        return Found(entry.path, relative, status.st_size)
    if stat.S_ISDIR(status.st_mode):
        why = "a symbolic link to a folder is not followed; name it as a source of its own"
        return Found(
            entry.path,
            relative,
            0,
            LocalFileError(f"cannot upload {entry.path!r}: {why}", path=entry.path),
            skip=True,
        )
    return Found(entry.path, relative, 0, not_regular(entry.path))


def glob_files(root: str, pattern: str) -> Iterator[Found]:
    """Find the files that match `pattern` (relative, with wildcards) below the folder `root`.

    Only files match, `**` goes into folders, hidden names match as any others (see `compile_glob`).
    A link to a folder is followed where a segment of the pattern other than `**` names it.
    """
    segments = pattern.split("/")
    yield from _glob(root, segments, "")


def _glob(root: str, segments: list[str], relative: str) -> Iterator[Found]:
    if segments[0] == "**":
        matcher = compile_glob("/".join(segments))
        if not os.path.isdir(root or os.curdir):
            return
        for file in walk(root or os.curdir):
            # A folder that can't be read may hold matches.
            if matcher.fullmatch(file.relative) or file.relative.endswith("/"):
                path = file.path if root else file.path.removeprefix(os.curdir + "/")
                yield file._replace(path=path, relative=relative + file.relative)
        return
    matcher = compile_glob(segments[0])
    try:
        with os.scandir(root or os.curdir) as scan:
            entries = sorted((e for e in scan if matcher.fullmatch(e.name)), key=_entry_name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Found(root, relative, 0, local_error(error, "read folder", root))
        return
    for entry in entries:
        name = relative + entry.name
        if len(segments) > 1:
            if entry.is_dir():
                yield from _glob(os.path.join(root, entry.name), segments[1:], name + "/")
        elif not entry.is_dir():
            yield _found(entry, name)._replace(path=os.path.join(root, entry.name))
