"""The local side of a transfer: read files, and write them so that no half file is seen.

Downloads go to a hidden `.NAME.RUN.part` beside the target and are renamed when they are whole;
RUN differs for each call, so two calls never share one. Every OSError leaves here as a
`LocalFileError` in the house's form, with the errno's name as its `code`.
"""

# os and descriptors: a Path object a file would cost more than the file's bookkeeping may.
from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from azpool.errors import IntegrityError, LocalFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "drop_part",
    "finish_part",
    "local_error",
    "make_folder",
    "not_regular",
    "part_path",
    "read_file",
    "read_range",
    "write_file",
    "write_range",
]

_CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EACCES: ("permission denied", "check its permissions"),
    errno.EPERM: ("the system does not permit it", "check its permissions"),
    errno.EISDIR: ("it is a folder", "name a file, or move the folder elsewhere"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EEXIST: ("a file of that name is in the way", "move it or choose another folder"),
    errno.ENOSPC: ("no space left on the disk", "free some and run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run again"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "rename it"),
    errno.ELOOP: ("its symbolic links go in a circle", "repair the links"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n) or use fewer nodes"),
    errno.EIO: ("the disk failed", "check the disk"),
}


def local_error(error: OSError, verb: str, path: str) -> LocalFileError:
    """Translate what the operating system said; the path is the one that the user knows."""
    number = error.errno or 0
    cause, remedy = _CAUSES.get(number, (os.strerror(number) if number else str(error), ""))
    translated = LocalFileError(
        f"cannot {verb} {path!r}: {cause}" + (f"; {remedy}" if remedy else ""),
        path=path,
        code=errno.errorcode.get(number),
    )
    translated.__cause__ = error
    return translated


def not_regular(path: str) -> LocalFileError:
    return LocalFileError(
        f"cannot upload {path!r}: it is not a regular file; copy what it holds into a file",
        path=path,
        code="EINVAL",
    )


def read_file(path: str, shown: str) -> bytes:
    """Read one regular file whole.

    Raises:
        LocalFileError: `shown` names it; missing, unreadable, a folder, not a regular file.
        IntegrityError: it changed its size while it was read.
    """
    with _opened(path, shown) as (descriptor, size):
        return _read_exactly(descriptor, 0, size, shown, whole=True)


def read_range(path: str, shown: str, offset: int, length: int, size_bytes: int) -> bytes:
    """Read `length` bytes at `offset` of a file that must still have `size_bytes`."""
    with _opened(path, shown) as (descriptor, size):
        if size != size_bytes:
            raise _changed(shown)
        return _read_exactly(descriptor, offset, length, shown, whole=False)


@contextlib.contextmanager
def _opened(path: str, shown: str) -> Iterator[tuple[int, int]]:
    try:
        # Without O_NONBLOCK a named pipe would hold the thread until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(status.st_mode):
                raise not_regular(shown)
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        raise local_error(error, "upload", shown) from error


def _read_exactly(descriptor: int, offset: int, length: int, shown: str, *, whole: bool) -> bytes:
    # One byte more than expected shows a file that grew.
    data = os.pread(descriptor, length + 1 if whole else length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    if len(data) != length:
        raise _changed(shown)
    return data


def _changed(shown: str) -> IntegrityError:
    return IntegrityError(
        f"cannot upload {shown!r}: it changed while it was read; upload it again when it is still",
        path=shown,
    )


def part_path(target: str, run: str) -> str:
    """Name the unfinished form of `target`; short enough for any file system (255 bytes)."""
    folder, name = os.path.split(target)
    short = os.fsdecode(os.fsencode(name)[:200])
    return os.path.join(folder, f".{short}.{run[:8]}.part")


def write_file(target: str, shown: str, data: bytes | memoryview, run: str) -> None:
    """Write `data` as the file `target`, making its folders; it appears whole or not at all.

    Raises:
        LocalFileError: `shown` names it; nothing of this call is left on the disk.
    """
    part = part_path(target, run)
    try:
        descriptor = _create(part, os.O_EXCL)
        try:
            try:
                _write_all(descriptor, data, None)
            finally:
                os.close(descriptor)
            os.replace(part, target)
        except BaseException:
            drop_part(target, run)
            raise
    except OSError as error:
        raise local_error(error, "write", shown) from error


def _create(path: str, extra: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | extra
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def _write_all(descriptor: int, data: bytes | memoryview, offset: int | None) -> None:
    view = memoryview(data)
    while view:
        if offset is None:
            written = os.write(descriptor, view)
        else:
            written = os.pwrite(descriptor, view, offset)
            offset += written
        view = view[written:]


def write_range(target: str, shown: str, data: bytes | memoryview, offset: int, run: str) -> None:
    """Write one part of a big download into its `.part` file; parts may come in any order."""
    try:
        descriptor = _create(part_path(target, run), 0)
        try:
            _write_all(descriptor, data, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise local_error(error, "write", shown) from error


def finish_part(target: str, shown: str, size_bytes: int, run: str) -> None:
    """Rename the `.part` file of a big download when all its parts are there.

    Raises:
        IntegrityError: it is not as long as the blob; it was not renamed.
    """
    part = part_path(target, run)
    try:
        held = os.stat(part).st_size
        if held != size_bytes:
            raise IntegrityError(
                f"cannot download {shown!r}: {held:,} of {size_bytes:,} bytes arrived; try again",
                path=shown,
            )
        os.replace(part, target)
    except OSError as error:
        raise local_error(error, "write", shown) from error


def drop_part(target: str, run: str) -> None:
    """Remove the unfinished form of `target` if there is one."""
    with contextlib.suppress(OSError):
        os.unlink(part_path(target, run))


def make_folder(path: str) -> None:
    """Make an empty folder (a marker blob); one that exists is fine."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise local_error(error, "make folder", path) from error
