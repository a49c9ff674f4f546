"""The ledger as a file that survives its process: where it lies, who holds it, when it goes.

    <folder>/ID.journal (+ -wal, -shm of SQLite, .lock), the folder $AZPOOL_STATE_HOME, else
    $XDG_STATE_HOME/azpool/jobs, else ~/.local/state/azpool/jobs; mode 0700, files 0600.

One process at a time works on a journal (a lock that the kernel drops with the process, however it
ends); others may read it. A call that ends with nothing open leaves no file. It holds no secret:
how the call signed in is one word, and whoever resumes signs in again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from azpool import _state_home
from azpool.errors import LocalFileError, UsageError
from azpool.storage._files import local_error
from azpool.storage._ledger import Ledger

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Journal", "find_journal", "is_held", "journal_paths", "run_of", "state_folder"]

SUFFIX = ".journal"
_BESIDE = ("-wal", "-shm", ".lock")
_ID = re.compile(r"[0-9a-f]{1,8}")
LOCK_ATTEMPTS = 5  # who only looks whether it is held, holds it for a moment


def state_folder(environ: Mapping[str, str] | None = None) -> str:
    """Answer the folder of this user's journals; it need not be there."""
    return _state_home.state_folder("jobs", environ)


def journal_paths() -> list[str]:
    """Answer the journals in the state folder."""
    folder = state_folder()
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise local_error(error, "read folder", folder) from error
    return [os.path.join(folder, name) for name in names]


def find_journal(name: str) -> str:
    """Answer the path of a journal, given its id, a beginning of it that no other has, or a path.

    Raises:
        UsageError: there is none, or several begin so.
    """
    if os.sep in name or name.endswith(SUFFIX) or not _ID.fullmatch(name):
        if os.path.isfile(name):
            return name
        raise UsageError(f"cannot find the job {name!r}: no such journal; jobs() lists them")
    found = [path for path in journal_paths() if os.path.basename(path).startswith(name)]
    if len(found) == 1:
        return found[0]
    why = (
        f"{len(found)} jobs begin so; give more of it" if found else "jobs() lists those there are"
    )
    raise UsageError(f"cannot find the job {name!r}: {why}")


def run_of(job_id: str) -> str:
    """Derive the token in a job's block ids and `.part` names: a resumed job finds its own."""
    return hashlib.sha256(f"azpool {job_id}".encode()).hexdigest()[:16]


class _Lock:
    """A lock file that is held; the kernel lets go of it when the process ends."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = self._take()
        _held.add(self)

    def _take(self) -> int:
        for attempt in range(LOCK_ATTEMPTS):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # It may be one that its holder has just removed.
                if _same_file(descriptor, self.path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                    return descriptor
                os.close(descriptor)
            except BlockingIOError:
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                os.close(descriptor)
                if attempt == LOCK_ATTEMPTS - 1:
                    raise _in_use(self.path.removesuffix(".lock"), holder) from None
                time.sleep(0.02)
            except BaseException:
                os.close(descriptor)
                raise
        raise _in_use(self.path.removesuffix(".lock"), "")

    def release(self, *, remove: bool) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        _held.discard(self)
        if descriptor < 0:
            return
        if remove:
            _unlink(self.path)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child just forked may still have its copy
        os.close(descriptor)

    def forget(self) -> None:
        """Close a child's copy: the lock is its parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_held: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_held):
        lock.forget()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)


def _same_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _in_use(path: str, holder: str) -> LocalFileError:
    who = f"process {holder}" if holder.isdigit() else "another process"
    return LocalFileError(
        f"cannot use the journal {path!r}: {who} works on it; wait for that one, or end it",
        path=path,
        code=errno.errorcode[errno.EBUSY],
    )


def is_held(path: str) -> bool:
    """Whether a process works on this journal."""
    try:
        descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class Journal:
    """One journal that this process works on."""

    def __init__(self, path: str, lock: _Lock, ledger: Ledger, job_id: str) -> None:
        self.path = path
        self.id = job_id
        self.ledger = ledger
        self._lock = lock

    @classmethod
    def create(cls, path: str | None = None) -> Self:
        """Make a new one, in the state folder or at `path`.

        Raises:
            UsageError: there is one at that path.
            LocalFileError: it can't be made there.
        """
        job_id = secrets.token_hex(4)
        if path is None:
            folder = state_folder()
            path = os.path.join(folder, job_id + SUFFIX)
            with _clear("make folder", folder):
                os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.abspath(path)
        with _clear("write the journal", path):
            lock = _Lock(path + ".lock")
        try:
            with _clear("write the journal", path):
                # SQLite gives the files beside it the same mode.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except LocalFileError as error:
            lock.release(remove=not os.path.exists(path))
            if error.code == "EEXIST":
                raise UsageError(
                    f"cannot begin a transfer with the journal {path!r}: there is one; resume it, "
                    "remove it, or give another path"
                ) from error
            raise
        try:
            ledger = Ledger(path)
            ledger.note(id=job_id)
        except BaseException:
            _unlink(path, path + "-wal", path + "-shm")
            lock.release(remove=True)
            raise
        return cls(path, lock, ledger, job_id)

    @classmethod
    def open(cls, path: str) -> Self:
        """Take over one that is there.

        Raises:
            LocalFileError: another process works on it, it is damaged, or of another version.
        """
        path = os.path.abspath(path)
        with _clear("open the journal", path):
            lock = _Lock(path + ".lock")
        try:
            if not os.path.exists(path):
                raise UsageError(f"cannot open the journal {path!r}: there is none")
            ledger = Ledger(path, new=False)
            facts = ledger.facts()
        except BaseException:
            lock.release(remove=not os.path.exists(path))
            raise
        return cls(path, lock, ledger, facts.get("id", ""))

    def finish(self, *, done: bool) -> None:
        """Let go of it: a `done` one is removed, another stays, to be resumed.

        The ledger can still be read, as it is now; nothing can be written any more.
        """
        if done:
            with contextlib.suppress(LocalFileError):  # another process reads it: that is its right
                self.ledger.rows("PRAGMA journal_mode = OFF")
            _unlink(self.path, self.path + "-wal", self.path + "-shm")
        else:
            self.ledger.freeze()
        self._lock.release(remove=done)

    def close(self, *, remove: bool = False) -> None:
        """Close the file; with `remove` nothing of it is left."""
        self.ledger.close()
        if remove:
            _unlink(self.path, self.path + "-wal", self.path + "-shm")
        self._lock.release(remove=remove)


def remove_files(path: str) -> None:
    """Remove a journal that can't be opened.

    Raises:
        LocalFileError: another process works on it.
    """
    with _clear("remove the journal", path):
        lock = _Lock(path + ".lock")
    _unlink(path, path + "-wal", path + "-shm")
    lock.release(remove=True)


def _unlink(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def _clear(verb: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise local_error(error, verb, path) from error
