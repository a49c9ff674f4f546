"""The local side of a download: write files so that no half file is ever seen.

Downloads go to a hidden `.NAME.RUN.part` beside the target and are renamed when they are whole;
RUN differs for each call, so two calls never share one, and a resumed one finds its own. Every
OSError leaves here as a `LocalFileError` in the house's form, with the errno's name as its `code`.
"""

# os and descriptors: a Path object a file would cost more than the file's bookkeeping may.
from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Self

from azpool.errors import Conflict, IntegrityError, LocalFileError
from azpool.storage.options import Overwrite

if TYPE_CHECKING:
    from types import TracebackType

    from azpool.storage.plan import Transfer

__all__ = [
    "PartFile",
    "RangeFile",
    "check_md5",
    "drop_part",
    "finish_part",
    "local_error",
    "make_folder",
    "not_regular",
    "part_path",
    "wants",
    "write_file",
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


def part_path(target: str, run: str) -> str:
    """Name the unfinished form of `target`; short enough for any file system (255 bytes)."""
    folder, slash, name = target.rpartition("/")
    if len(name) > 50:  # at most 4 bytes a character
        name = os.fsdecode(os.fsencode(name)[:200])
    return f"{folder}{slash}.{name}.{run[:8]}.part"


class PartFile:
    """The unfinished form of a whole file, written from its beginning on; not yet seen by others.

    `finish` makes it the file; leaving the `with` before removes it.

    Raises:
        LocalFileError: `shown` names it; nothing of this call is left on the disk.
    """

    __slots__ = ("_descriptor", "_part", "_shown", "_target")

    def __init__(self, target: str, shown: str, run: str) -> None:
        self._target = target
        self._shown = shown
        self._part = part_path(target, run)
        try:
            # One that a killed node left behind is this call's own.
            self._descriptor = _create(self._part, os.O_TRUNC)
        except OSError as error:
            raise local_error(error, "write", shown) from error

    def write(self, data: bytes | memoryview) -> None:
        try:
            _write_all(self._descriptor, data, None)
        except OSError as error:
            raise local_error(error, "write", self._shown) from error

    def finish(self, mtime_ns: int | None = None) -> None:
        """Give it its time, if any, and its name."""
        try:
            if mtime_ns is not None:
                os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            os.replace(self._part, self._target)
        except OSError as error:
            self._drop()
            raise local_error(error, "write", self._shown) from error

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._part)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            self._drop()


def write_file(
    target: str, shown: str, data: bytes | memoryview, run: str, mtime_ns: int | None = None
) -> None:
    """Write `data` as the file `target`, making its folders; it appears whole or not at all.

    Raises:
        LocalFileError: `shown` names it; nothing of this call is left on the disk.
    """
    part = part_path(target, run)
    try:
        descriptor = _create(part, os.O_TRUNC)
    except OSError as error:
        raise local_error(error, "write", shown) from error
    whole = False
    try:
        try:
            _write_all(descriptor, data, None)
            if mtime_ns is not None:
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(descriptor)
        os.replace(part, target)
        whole = True
    except OSError as error:
        raise local_error(error, "write", shown) from error
    finally:
        if not whole:
            with contextlib.suppress(OSError):
                os.unlink(part)


def _create(path: str, extra: int) -> int:
    # A link in the place of the unfinished file is not ours to follow.
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | extra
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def _write_all(descriptor: int, data: bytes | memoryview, offset: int | None) -> None:
    if offset is None:
        written = os.write(descriptor, data)
        if written == len(data):
            return
        data = memoryview(data)[written:]
    view = memoryview(data)
    while view:
        if offset is None:
            written = os.write(descriptor, view)
        else:
            written = os.pwrite(descriptor, view, offset)
            offset += written
        view = view[written:]


class RangeFile:
    """A place in the `.part` file of a big download; ranges may come in any order."""

    __slots__ = ("_descriptor", "_offset", "_shown")

    def __init__(self, target: str, shown: str, offset: int, run: str) -> None:
        self._shown = shown
        self._offset = offset
        try:
            self._descriptor = _create(part_path(target, run), 0)
        except OSError as error:
            raise local_error(error, "write", shown) from error

    def write(self, data: bytes | memoryview) -> None:
        try:
            _write_all(self._descriptor, data, self._offset)
        except OSError as error:
            raise local_error(error, "write", self._shown) from error
        self._offset += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)


def finish_part(
    target: str, shown: str, size_bytes: int, run: str, mtime_ns: int | None = None
) -> None:
    """Rename the `.part` file of a big download when all its parts are there (and verified).

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
        if mtime_ns is not None:
            os.utime(part, ns=(mtime_ns, mtime_ns))
        os.replace(part, target)
    except OSError as error:
        raise local_error(error, "write", shown) from error


def check_md5(shown: str, found: bytes | None, expected: bytes | None) -> None:
    """Refuse bytes that have another MD5 than the blob; one without any can't be checked.

    Raises:
        IntegrityError: they differ.
    """
    if expected is not None and found != expected:
        raise IntegrityError(
            f"cannot download {shown!r}: what arrived has not the MD5 that is stored with the "
            "blob; download it again, or without verify='md5' if the writer stored a wrong one",
            path=shown,
        )


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


def wants(path: str, transfer: Transfer, overwrite: Overwrite) -> bool:
    """Tell whether the blob is to be downloaded, by what is in its place now.

    By size and time where those say enough; an MD5 is made of the local file only where size
    agrees, time does not, and the listing told the blob's.

    Raises:
        Conflict: it exists, and overwriting is off.
        LocalFileError: what is there can't be read.
    """
    if overwrite is Overwrite.ALWAYS:
        return True
    if overwrite is Overwrite.NEVER:
        return not os.path.lexists(path)
    if overwrite is Overwrite.FAIL:
        if os.path.lexists(path):
            raise Conflict(
                f"cannot download {transfer.source!r}: {transfer.target!r} exists already; "
                "move it, or allow to overwrite it",
                path=transfer.target,
                code="EEXIST",
            )
        return True
    try:
        status = os.stat(path)
    except OSError:
        return True
    if overwrite is Overwrite.IF_NEWER:
        return transfer.mtime_ns is None or transfer.mtime_ns > status.st_mtime_ns
    if status.st_size != transfer.size_bytes:
        return True
    if transfer.mtime_ns == status.st_mtime_ns:
        return False
    return transfer.md5 is None or _md5_of_file(path, transfer) != transfer.md5


def _md5_of_file(path: str, transfer: Transfer) -> bytes | None:
    from azpool.storage._reading import md5_of

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise local_error(error, "compare", transfer.target) from error
    try:
        return md5_of(descriptor, 0, transfer.size_bytes, transfer.target, "compare")
    finally:
        os.close(descriptor)
