"""One attempt at one unit of work on a node: a file, a part, a digest, a deletion.

    _batch.py (when, how often) -> Mover.attempt -> _reading.py, _files.py (local) and the store

Blocks and repeats nothing; leaves no unfinished file but the `.part` of a download in parts.
"""
# Strings for paths: a Path object a file would cost more than the file's bookkeeping may.

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from azpool.errors import Conflict, IntegrityError, StorageError
from azpool.storage import _files, _fronts
from azpool.storage._reading import Source, md5_of
from azpool.storage._stored import mtime_of, stored_with
from azpool.storage._task import Action, Direction, Task
from azpool.storage.options import Overwrite
from azpool.storage.plan import Part, Transfer, block_id, is_short, part_bytes_for
from azpool.storage.store import FilePiece

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azpool.storage.store import BlobInfo, Body, SteppedStore, Steps, Store

__all__ = ["Digest", "Moved", "Mover"]

P = ParamSpec("P")
ValueT = TypeVar("ValueT")

# Of what the service answers to a write that must not overwrite.
_EXISTS = "BlobAlreadyExists"
# Of a node's threads: the digest of the whole file, which nothing can share, needs its core too.
_one_part_digests = threading.Lock()


class Digest(NamedTuple):
    """A file whose MD5 is wanted: the source of an upload, the `.part` file of a download.

    `behind`: of the `.part` file as it comes; there may be none of it yet.
    """

    transfer: Transfer
    behind: bool = False


class Moved(NamedTuple):
    """What an attempt that succeeded did; `md5` where one was sent, compared or asked for."""

    action: Action
    bytes_moved: int
    md5: bytes | None = None


class Mover:
    """Does the attempts of one job; safe to use from its threads.

    Args:
        task: what all jobs of the call share.
        store: the open container.
        go_on: says no as soon as the job is to end: long readings stop then.
    """

    def __init__(self, task: Task, store: Store, go_on: Callable[[], bool]) -> None:
        self.task = task
        self.store = store
        self.at_once = _AtOnce(store)
        self.go_on = go_on
        options = task.options
        self.folder = os.path.join(task.cwd, "")
        self.verify = options.verify == "md5"
        self.properties = options.properties()
        # If newer or different: decided by the listing, before the transfer was planned.
        self.guarded = options.overwrite in (Overwrite.NEVER, Overwrite.FAIL)

    def path(self, name: str) -> str:
        """Answer where a local name of the master's is."""
        return name if name.startswith("/") else self.folder + name

    def attempt(self, unit: Transfer | Part | Digest, *, again: bool = False) -> Moved:
        """Do it once.

        Args:
            unit: what.
            again: whether it was tried before: that attempt may have come through after all.

        Raises:
            StorageError: it failed; whether to try again, its attributes say.
        """
        if isinstance(unit, Transfer):
            return _at_once(self.steps(unit, self.at_once, again=again))
        upload = self.task.direction is Direction.UPLOAD
        if isinstance(unit, Digest):
            return self.digest_source(unit) if upload else self.digest_part_file(unit)
        return self.upload_part(unit) if upload else self.download_part(unit)

    def steps(self, item: Transfer, store: SteppedStore, *, again: bool = False) -> Steps[Moved]:
        """Do the same with a whole file, in steps; one that `is_short` is in memory at each."""
        if self.task.direction is Direction.UPLOAD:
            return self.upload(item, store, again=again)
        if self.task.direction is Direction.DOWNLOAD:
            return self.download(item, store)
        return self.delete(item, store)

    def delete(self, item: Transfer, store: SteppedStore) -> Steps[Moved]:
        yield from store.delete_steps(item.source)
        return Moved(Action.DONE, 0)

    def upload(self, item: Transfer, store: SteppedStore, *, again: bool) -> Steps[Moved]:
        with Source(self.path(item.source), item) as source:
            mtime_ns, size, md5 = source.mtime_ns, source.size_bytes, None
            if not is_short(item):
                piece = FilePiece(source.descriptor, 0, size, item.source)
                if self.verify:
                    md5 = source.md5(0, size)
                moved = yield from self.put(item, store, piece, mtime_ns, md5, again=again)
                source.check()
                return moved
            body = source.read()
            source.check()
        if self.verify:
            md5 = _md5(body)
        return (yield from self.put(item, store, body, mtime_ns, md5, again=again))

    def put(
        self,
        item: Transfer,
        store: SteppedStore,
        body: Body,
        mtime_ns: int,
        md5: bytes | None,
        *,
        again: bool,
    ) -> Steps[Moved]:
        task, size = self.task, len(body)
        content_type, metadata = stored_with(task.options, item.target, mtime_ns)
        try:
            yield from store.put_steps(
                item.target,
                body,
                content_type=content_type,
                metadata=metadata,
                properties=self.properties,
                md5=md5,
                overwrite=not self.guarded,
            )
        except Conflict as error:
            if error.code != _EXISTS:
                raise
            ours = again and (yield from self.is_ours(item.target, store, size, metadata, md5))
            if not ours:
                if task.options.overwrite is Overwrite.NEVER:
                    return Moved(Action.SKIPPED, 0)
                raise
        return Moved(Action.DONE, size, md5)

    def is_ours(
        self,
        name: str,
        store: SteppedStore,
        size: int,
        metadata: Mapping[str, str],
        md5: bytes | None,
    ) -> Steps[bool]:
        """Whether a blob is what an attempt before wrote, whose answer was lost."""
        there = yield from store.head_steps(name)
        same = there.size_bytes == size and (md5 is None or md5 == there.md5)
        held = {key.lower(): text for key, text in (there.metadata or {}).items()}
        return same and all(held.get(key.lower()) == text for key, text in metadata.items())

    def download(self, item: Transfer, store: SteppedStore) -> Steps[Moved]:
        task = self.task
        path = self.path(item.target)
        if task.options.overwrite is not Overwrite.ALWAYS and not _files.wants(
            path, item, task.options.overwrite
        ):
            return Moved(Action.SKIPPED, 0)
        if not is_short(item):
            return (yield from self.download_through(item, store, path))
        # A blob that has grown since it was listed is cut off, seen, and not kept.
        if item.size_bytes:
            info, body = yield from store.get_steps(item.source, length=item.size_bytes)
        else:  # HTTP has no word for an empty range
            info, body = (yield from store.head_steps(item.source)), b""
        if not len(body) == info.size_bytes == item.size_bytes:
            raise _changed(item.source, item.size_bytes, info.size_bytes)
        md5 = self.checked(item, info.md5, _md5(body) if self.verify else None)
        mtime_ns = self.time_for(item, info)
        _files.write_file(path, item.target, body, task.run, mtime_ns)
        return Moved(Action.DONE, len(body), md5)

    def download_through(self, item: Transfer, store: SteppedStore, path: str) -> Steps[Moved]:
        """Download a whole file that is too long to be held in memory."""
        size = item.size_bytes
        with _files.PartFile(path, item.target, self.task.run) as file:
            sink = _Digesting(file) if self.verify else file
            info, _ = yield from store.get_steps(item.source, length=size, into=sink)
            if info.size_bytes != size:
                raise _changed(item.source, size, info.size_bytes)
            found = sink.digest() if isinstance(sink, _Digesting) else None
            md5 = self.checked(item, info.md5, found)
            file.finish(self.time_for(item, info))
        return Moved(Action.DONE, size, md5)

    def checked(self, item: Transfer, stored: bytes | None, found: bytes | None) -> bytes | None:
        """Compare a download with what the blob says; None where that was not possible."""
        stored = stored or item.md5
        if found is None or stored is None:
            return None
        _files.check_md5(item.source, found, stored)
        return found

    def time_for(self, item: Transfer, info: BlobInfo) -> int | None:
        if not self.task.options.preserve_times:
            return None
        if item.mtime_ns is not None:
            return item.mtime_ns
        return mtime_of(info.metadata, info.last_modified)

    def upload_part(self, part: Part) -> Moved:
        task, transfer = self.task, part.transfer
        with Source(self.path(transfer.source), transfer) as source:
            piece = FilePiece(source.descriptor, part.offset, part.length, transfer.source)
            md5 = None
            if self.verify:
                with _one_part_digests:
                    md5 = source.md5(part.offset, part.length)
            self.store.stage(transfer.target, block_id(task.run, part.number), piece, md5=md5)
            source.check()
        return Moved(Action.DONE, part.length, md5)

    def download_part(self, part: Part) -> Moved:
        task, transfer = self.task, part.transfer
        path = self.path(transfer.target)
        with _files.RangeFile(path, transfer.target, part.offset, task.run) as place:
            info, _ = self.store.get(
                transfer.source,
                offset=part.offset,
                length=part.length,
                etag=transfer.etag,
                into=place,
            )
        if info.size_bytes != transfer.size_bytes:
            raise _changed(transfer.source, transfer.size_bytes, info.size_bytes)
        return Moved(Action.DONE, part.length)

    def digest_source(self, unit: Digest) -> Moved:
        transfer = unit.transfer
        with Source(self.path(transfer.source), transfer) as source:
            md5 = source.md5(0, source.size_bytes, self.go_on)
            source.check()
        return _digested(md5, transfer, "upload")

    def digest_part_file(self, unit: Digest) -> Moved:
        transfer = unit.transfer
        ready = self.behind(transfer) if unit.behind else None
        if ready is not None and ready(0) is None:
            return Moved(Action.DONE, 0)
        part = _files.part_path(self.path(transfer.target), self.task.run)
        try:
            descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise _files.local_error(error, "verify", transfer.target) from error
        try:
            md5 = md5_of(
                *(descriptor, 0, transfer.size_bytes, transfer.target, "verify"),
                self.go_on,
                ready=ready,
            )
        finally:
            os.close(descriptor)
        if md5 is None and ready is not None and self.go_on():
            return Moved(Action.DONE, 0)
        return _digested(md5, transfer, "verify")

    def behind(self, transfer: Transfer) -> Callable[[int], int | None]:
        """Answer what tells to which byte a download is there; None once it gives up."""
        step = part_bytes_for(transfer.size_bytes)

        def ready(offset: int) -> int | None:
            count = _fronts.ask(self.task.run, transfer.place, offset // step)
            return None if count == _fronts.GIVEN_UP else min(count * step, transfer.size_bytes)

        return ready


def _digested(md5: bytes | None, transfer: Transfer, verb: str) -> Moved:
    if md5 is None:
        raise StorageError(f"cannot {verb} {transfer.source!r}: it was interrupted; try again")
    return Moved(Action.DONE, 0, md5)


def _md5(body: bytes) -> bytes:
    from hashlib import md5  # not above: most nodes don't need it

    return md5(body, usedforsecurity=False).digest()


class _AtOnce:
    """The steps of a store that blocks: each operation is one of them, and asks for nothing."""

    def __init__(self, store: Store) -> None:
        self.put_steps = _ended(store.put)
        self.get_steps = _ended(store.get)
        self.head_steps = _ended(store.head)
        self.delete_steps = _ended(store.delete)


def _ended(operation: Callable[P, ValueT]) -> Callable[P, Steps[ValueT]]:
    def steps(*args: P.args, **kwargs: P.kwargs) -> Steps[ValueT]:
        yield from ()
        return operation(*args, **kwargs)

    return steps


def _at_once(steps: Steps[Moved]) -> Moved:
    """Take steps that ask for nothing."""
    try:
        next(steps)
    except StopIteration as done:
        moved: Moved = done.value
        return moved
    raise AssertionError("a store that blocks asks nobody")


class _Digesting:
    """A sink that digests what it passes on."""

    def __init__(self, file: _files.PartFile) -> None:
        from hashlib import md5

        self._file = file
        self._digest = md5(usedforsecurity=False)

    def write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)

    def digest(self) -> bytes:
        return self._digest.digest()


def _changed(name: str, was_bytes: int, is_bytes: int) -> IntegrityError:
    return IntegrityError(
        f"cannot download {name!r}: it has changed since it was listed, from {was_bytes:,} to "
        f"{is_bytes:,} bytes; download it again",
        path=name,
        retryable=False,
    )
