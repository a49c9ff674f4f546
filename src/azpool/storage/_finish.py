"""Make one file of its parts: commit the blocks of an upload, rename the `.part` of a download.

Commits wait for the service, so a few threads of the master make them while results come in.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azpool.errors import IntegrityError, StorageError
from azpool.report import State
from azpool.storage import _files
from azpool.storage._batch import Direction, Task
from azpool.storage._reading import changed_error
from azpool.storage._retry import delay_before_retry
from azpool.storage._stored import stored_with
from azpool.storage._stores import open_store
from azpool.storage.options import Overwrite
from azpool.storage.plan import Transfer, block_id, part_count

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Finisher", "Finishing", "commit", "finish_download"]

THREADS = 4
WAIT_SECONDS = 0.1


@dataclass(slots=True)
class Finishing:
    """One file to be finished, and then how that ended."""

    transfer: Transfer
    md5: bytes | None = None
    state: State = State.OK
    error: StorageError | None = None
    attempts: int = 1
    seconds: float = 0.0


class Finisher:
    """Finishes files on a few threads, which begin with the first."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._stop = threading.Event()
        self._threads: ThreadPoolExecutor | None = None
        self._futures: set[Future[Finishing]] = set()

    def submit(self, finishing: Finishing) -> None:
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="azpool-finish")
        self._futures.add(self._threads.submit(finish, self._task, finishing, self._stop))

    def take(self) -> list[Finishing]:
        """Answer what has been finished since the last call."""
        if not self._futures:
            return []
        done = [future for future in self._futures if future.done()]
        self._futures.difference_update(done)
        return [future.result() for future in done if not future.cancelled()]

    def wait(self) -> bool:
        """Wait a moment for one more to be finished; False where there is nothing to wait for."""
        if not self._futures:
            return False
        from concurrent.futures import wait

        wait(self._futures, WAIT_SECONDS, "FIRST_COMPLETED")
        return True

    def close(self) -> None:
        """Begin no more, and wait for those that have begun; none of them waits to try again."""
        self._stop.set()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)


def finish(task: Task, finishing: Finishing, stop: threading.Event) -> Finishing:
    """Finish one file, with retries; every failure becomes data."""
    begun = time.perf_counter()
    while True:
        try:
            if task.direction is Direction.UPLOAD:
                finishing.state = commit(task, finishing.transfer, finishing.md5)
            else:
                finish_download(task, finishing.transfer, finishing.md5)
            break
        except Exception as raised:
            error = _as_storage_error(raised, finishing.transfer)
        pause = None
        if task.direction is Direction.UPLOAD and not isinstance(error, IntegrityError):
            pause = delay_before_retry(error, finishing.attempts, task.retry, random.random())
        if pause is None or stop.wait(pause):
            finishing.state, finishing.error = State.FAILED, error
            break
        finishing.attempts += 1
    finishing.seconds = time.perf_counter() - begun
    return finishing


def commit(task: Task, transfer: Transfer, md5: bytes | None) -> State:
    """Make the blob of its blocks, unless the source has changed since it was planned."""
    mtime_ns = _check_unchanged(task, transfer)
    options = task.options
    content_type, metadata = stored_with(options, transfer.target, mtime_ns)
    ids = [block_id(task.run, number) for number in range(part_count(transfer.size_bytes))]
    try:
        open_store(task.recipe).commit(
            transfer.target,
            ids,
            content_type=content_type,
            metadata=metadata,
            properties=options.properties(),
            md5=md5,
            overwrite=options.overwrite is Overwrite.ALWAYS,
        )
    except StorageError as error:
        if options.overwrite is Overwrite.NEVER and error.code == "BlobAlreadyExists":
            return State.SKIPPED
        raise
    return State.OK


def _check_unchanged(task: Task, transfer: Transfer) -> int:
    try:
        status = os.stat(os.path.join(task.cwd, transfer.source))
    except OSError as error:
        raise _files.local_error(error, "upload", transfer.source) from error
    if status.st_size != transfer.size_bytes or transfer.mtime_ns not in (None, status.st_mtime_ns):
        raise changed_error(
            transfer.source, transfer.size_bytes, status.st_size, "while it was read"
        )
    return status.st_mtime_ns


def finish_download(task: Task, transfer: Transfer, md5: bytes | None) -> None:
    """Rename the `.part` file, if it is what the blob is."""
    if md5 is not None:
        _files.check_md5(transfer.source, md5, transfer.md5)
    mtime_ns = transfer.mtime_ns if task.options.preserve_times else None
    path = os.path.join(task.cwd, transfer.target)
    _files.finish_part(path, transfer.target, transfer.size_bytes, task.run, mtime_ns)


def _as_storage_error(raised: Exception, transfer: Transfer) -> StorageError:
    if isinstance(raised, StorageError):
        return raised
    error = StorageError(
        f"cannot finish {transfer.source!r}: {type(raised).__name__}: {raised}",
        path=transfer.source,
    )
    error.__cause__ = raised
    return error
