"""The local side of an upload: read files that must stay as they are while they are read.

A file is compared with the plan and, after the reading, with what it was before, by size and time
of the same descriptor. What was written within one tick of the kernel's clock (4 ms) and leaves the
size alone can't be seen. Every OSError leaves here as a `LocalFileError`.
"""

# os and descriptors: a Path object a file would cost more than the file's bookkeeping may.
from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Self

from azpool.errors import IntegrityError, LocalFileError, StorageError
from azpool.storage._files import local_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from azpool.storage.plan import Transfer

__all__ = ["Source", "changed_error", "md5_of"]

# Without O_NONBLOCK a named pipe would hold the thread until somebody writes to it.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
DIGEST_BYTES = 256 * 1024  # stays in the processor's cache between the copy and the digest


class Source:
    """One open file that is to be as planned from its opening to `check`.

    Attributes:
        descriptor: of the open file; closed at the end of the `with`.
        size_bytes: when it was opened.
        mtime_ns: when it was opened.

    Raises:
        LocalFileError: missing, unreadable, a folder, not a regular file.
        IntegrityError: it is not what was planned.
    """

    __slots__ = ("descriptor", "mtime_ns", "shown", "size_bytes")

    def __init__(self, path: str, planned: Transfer) -> None:
        self.shown = planned.source
        try:
            self.descriptor = os.open(path, _FLAGS)
        except FileNotFoundError as error:
            raise _gone(self.shown) from error
        except OSError as error:
            raise local_error(error, "upload", self.shown) from error
        try:
            status = os.fstat(self.descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _no_file(status.st_mode, self.shown)
            self.size_bytes = status.st_size
            self.mtime_ns = status.st_mtime_ns
            if self.size_bytes != planned.size_bytes or (
                planned.mtime_ns is not None and self.mtime_ns != planned.mtime_ns
            ):
                raise changed_error(
                    self.shown, planned.size_bytes, self.size_bytes, "since it was listed"
                )
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)

    def read(self) -> bytes:
        """Read all of it into memory."""
        data = self._read(self.size_bytes + 1, 0)  # one byte more shows a file that grew
        while self.size_bytes - len(data) > 0:
            more = self._read(self.size_bytes - len(data), len(data))
            if not more:
                break
            data += more
        if len(data) != self.size_bytes:
            raise changed_error(self.shown, self.size_bytes, len(data), "while it was read")
        return data

    def md5(
        self, offset: int, length: int, go_on: Callable[[], bool] = lambda: True
    ) -> bytes | None:
        """Answer the MD5 of a range; None as soon as `go_on` says no."""
        return md5_of(self.descriptor, offset, length, self.shown, "upload", go_on)

    def _read(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self.descriptor, size, offset)
        except OSError as error:
            raise local_error(error, "upload", self.shown) from error

    def check(self) -> None:
        """Say that it is still what it was.

        Raises:
            IntegrityError: it is not.
        """
        status = os.fstat(self.descriptor)
        if status.st_size != self.size_bytes or status.st_mtime_ns != self.mtime_ns:
            raise changed_error(self.shown, self.size_bytes, status.st_size, "while it was read")


def md5_of(
    descriptor: int,
    offset: int,
    length: int,
    shown: str,
    verb: str,
    go_on: Callable[[], bool] = lambda: True,
    *,
    ready: Callable[[int], int | None] | None = None,
) -> bytes | None:
    """Answer the MD5 of a range of an open file, read from its beginning to its end.

    The GIL is not held while bytes are read or digested. None as soon as `go_on` says no, or
    `ready`, which is asked to which byte the file may be read where it is still written.

    Raises:
        LocalFileError: it can't be read.
        IntegrityError: it ends before the range does.
    """
    from hashlib import md5  # not above: 5 ms that most nodes don't need

    digest = md5(usedforsecurity=False)
    buffer = bytearray(min(DIGEST_BYTES, length))
    view = memoryview(buffer)
    end = offset + length
    there = end if ready is None else offset
    try:
        if length > DIGEST_BYTES:
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_SEQUENTIAL)
        while offset < end:
            if not go_on():
                return None
            if offset >= there and ready is not None:
                further = ready(offset)
                if further is None:
                    return None
                there = further
            count = os.preadv(descriptor, [view[: there - offset]], offset)
            if not count:
                raise changed_error(shown, end, offset, "while it was read")
            digest.update(view[:count])
            offset += count
    except OSError as error:
        raise local_error(error, verb, shown) from error
    return digest.digest()


def changed_error(shown: str, was_bytes: int, is_bytes: int, when: str) -> IntegrityError:
    """Say how a source has changed; trying again at once would send half of two versions."""
    if is_bytes > was_bytes:
        how = f"it grew from {was_bytes:,} to {is_bytes:,} bytes"
    elif is_bytes < was_bytes:
        how = f"it shrank from {was_bytes:,} to {is_bytes:,} bytes"
    else:
        how = "it was written to"
    return IntegrityError(
        f"cannot upload {shown!r}: {how} {when}; upload it again when it is still",
        path=shown,
        retryable=False,
    )


def _gone(shown: str) -> LocalFileError:
    return LocalFileError(
        f"cannot upload {shown!r}: no such file or folder, it was deleted since it was listed; "
        "check the path",
        path=shown,
        code="ENOENT",
    )


def _no_file(mode: int, shown: str) -> StorageError:
    from azpool.storage._files import not_regular

    if stat.S_ISDIR(mode):
        return local_error(OSError(errno.EISDIR, os.strerror(errno.EISDIR)), "upload", shown)
    return not_regular(shown)
