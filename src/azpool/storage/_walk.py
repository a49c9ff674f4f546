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
    mtime_ns: int | None = None


def walk(root: str, *, relative: str = "") -> Iterator[Found]:
    """Find every file of the tree under `root`, hidden ones too, each folder's names in order.

    Symbolic links to files are followed. Links to folders are not (so nothing is moved twice and
    a circle of links can't hold it up); they come back as things to skip. Dangling links, sockets,
    pipes, devices and folders that can't be read come back as errors, such a folder with a
    trailing slash.
    """
    try:
        names = os.listdir(root)  # of a million files 80 MB; their DirEntry would be 300
    except OSError as error:
        yield Found(root, relative, 0, local_error(error, "read folder", root))
        return
    names.sort()
    folders = []
    for name in names:
        path = os.path.join(root, name)
        found = _found(path, relative + name)
        if found is None:
            folders.append(name)
        else:
            yield found
    del names
    for name in folders:
        yield from walk(os.path.join(root, name), relative=f"{relative}{name}/")


def _found(path: str, relative: str) -> Found | None:
    """Look at one name of a folder; None where it is a folder itself."""
    try:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            return Found(path, relative, status.st_size, mtime_ns=status.st_mtime_ns)
        if stat.S_ISDIR(status.st_mode):
            return None
        status = os.stat(path)
    except OSError as error:
        return Found(path, relative, 0, local_error(error, "upload", path))
    if stat.S_ISREG(status.st_mode):
        return Found(path, relative, status.st_size, mtime_ns=status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        why = "a symbolic link to a folder is not followed; name it as a source of its own"
        skipped = LocalFileError(f"cannot upload {path!r}: {why}", path=path)
        return Found(path, relative, 0, skipped, skip=True)
    return Found(path, relative, 0, not_regular(path))


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
        names = sorted(name for name in os.listdir(root or os.curdir) if matcher.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Found(root, relative, 0, local_error(error, "read folder", root))
        return
    for name in names:
        path = os.path.join(root, name)
        if len(segments) > 1:
            if os.path.isdir(path):
                yield from _glob(path, segments[1:], f"{relative}{name}/")
        elif not os.path.isdir(path):
            found = _found(path, relative + name)
            if found is not None:
                yield found
