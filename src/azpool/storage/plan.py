"""What nodes are told to do, and how much of it at once: batches, and parts of big files. Pure.

`naming.py` says what goes where, this module how it is cut, `_pump.py` sends it. Invariant: the
parts of a big file cover [0, size) exactly once, and are never more than Azure's 50,000 blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from azpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Job",
    "Pacer",
    "Part",
    "Transfer",
    "block_id",
    "is_short",
    "part",
    "part_bytes_for",
    "part_count",
    "parts",
    "small_bytes",
    "threads_for",
]

KiB, MiB, GiB, TiB = 1024, 1024**2, 1024**3, 1024**4

# One file up to this size is one request.
SMALL_FILE_BYTES = 16 * MiB
# Up to this size a file is held in memory while it is moved; longer ones pass through.
WHOLE_BYTES = 128 * KiB
# With an MD5, a file in parts is read twice, and once by a single node: whole files are quicker.
# 50 x 64 MiB up took 5.1 s and 5.4 CPU s so, and 5.5 to 11.6 s and 9.7 CPU s in parts.
VERIFIED_SMALL_FILE_BYTES = 64 * MiB
PART_BYTES = 8 * MiB
MAX_PARTS = 50_000  # Azure's limit on the committed blocks of one blob
MAX_PART_BYTES = 4000 * MiB  # Azure's limit on one block
# A batch is as much work as this: its threads wait for its last file, so it is not tiny, and what
# the limit or a rate has become reaches a node with its next batch, so it is not long.
BATCH_SECONDS = 0.3
# ... and shorter while another limit is being tried: how it does is known the sooner.
TRYING_BATCH_SECONDS = 0.1
MAX_BATCH_FILES = 2048
MAX_BATCH_BYTES = 64 * MiB
MIN_BATCH_FILES = 4
# Requests in flight are rate x latency. On loopback there is no latency, and an emulator is one
# process: more than this only queue there, and each new connection waits behind them for seconds.
REQUESTS_IN_FLIGHT = 40
LOCAL_REQUESTS_IN_FLIGHT = 10
MOST_THREADS = 64  # of one node, for what is not held in memory: each of its requests has one


class Transfer(NamedTuple):
    """One object's journey; `source` and `target` are a local path and a blob's name.

    A tuple because 100,000 of them are made, pickled and read back.

    Attributes:
        place: that of its outcome.
        source: a local path of an upload, a blob's name of a download.
        target: a blob's name of an upload, a local path of a download.
        size_bytes: as planned.
        etag: pins a download in parts to the blob that was listed.
        mtime_ns: uploads: the source's when it was planned; downloads: what the blob's metadata
            says, else its last change.
        md5: downloads: the blob's own digest, where the listing has one.
    """

    place: int
    source: str
    target: str
    size_bytes: int
    etag: str | None = None
    mtime_ns: int | None = None
    md5: bytes | None = None


class Part(NamedTuple):
    """A byte range of one transfer."""

    transfer: Transfer
    number: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one node does in one go: whole files, parts of big ones, digests of big ones.

    Attributes:
        files: moved whole.
        parts: moved each by itself.
        digests: files to be read from beginning to end, for their MD5.
        behind: the digests' parts are still on their way: they are read as they come.
        threads: how many requests the node keeps in flight.
        requests_per_second: this node's share; None for no limit.
        bytes_per_second: this node's share; None for no limit.
    """

    files: tuple[Transfer, ...] = ()
    parts: tuple[Part, ...] = ()
    digests: tuple[Transfer, ...] = ()
    behind: bool = False
    threads: int = 1
    requests_per_second: float | None = None
    bytes_per_second: float | None = None

    def __reduce__(self) -> tuple[Callable[..., Job], tuple[object, ...]]:
        # By columns: tuples of a class of their own take the pool's pickler ten times as long
        # (3.4 us a file, 0.3 so).
        columns = tuple(zip(*self.files, strict=True))
        others = self.parts, self.digests, self.behind, self.threads
        return _unpacked, (columns, *others, self.requests_per_second, self.bytes_per_second)


def _unpacked(
    columns: tuple[tuple[Any, ...], ...],
    parts: tuple[Part, ...],
    digests: tuple[Transfer, ...],
    behind: bool,  # noqa: FBT001 - of a pickle
    threads: int,
    requests_per_second: float | None,
    bytes_per_second: float | None,
) -> Job:
    return Job(
        files=tuple([Transfer(*row) for row in zip(*columns, strict=True)]),
        parts=parts,
        digests=digests,
        behind=behind,
        threads=threads,
        requests_per_second=requests_per_second,
        bytes_per_second=bytes_per_second,
    )


def threads_for(nodes: int, *, local: bool = False) -> int:
    """Choose the threads of each node so that all nodes keep about 40 requests in flight.

    With a `local` server (loopback) it is about 10.
    """
    wanted = LOCAL_REQUESTS_IN_FLIGHT if local else REQUESTS_IN_FLIGHT
    return max(1, min(16, -(-wanted // max(1, nodes))))


def is_short(transfer: Transfer) -> bool:
    """Whether a file is held in memory at once."""
    return transfer.size_bytes <= WHOLE_BYTES


def small_bytes(*, verify: bool) -> int:
    """Answer up to which size a file is one request; more where its MD5 is wanted."""
    return VERIFIED_SMALL_FILE_BYTES if verify else SMALL_FILE_BYTES


def part_bytes_for(size_bytes: int) -> int:
    """Choose the part size of a file: 8 MiB, more where that would be over 50,000 parts.

    Raises:
        UsageError: no part size allows this file as one blob (over about 190 TiB).
    """
    needed = -(-size_bytes // MAX_PARTS)
    needed = -(-needed // MiB) * MiB
    if needed > MAX_PART_BYTES:
        raise UsageError(
            f"cannot cut {size_bytes:,} bytes into parts: a blob has at most {MAX_PARTS:,} blocks "
            f"of {MAX_PART_BYTES // MiB:,} MiB; store it as several blobs"
        )
    return max(PART_BYTES, needed)


def part_count(size_bytes: int) -> int:
    """Answer how many parts a file of this size has."""
    return -(-size_bytes // part_bytes_for(size_bytes))


def part(transfer: Transfer, number: int) -> Part:
    """Answer one part of a big file."""
    step = part_bytes_for(transfer.size_bytes)
    offset = number * step
    return Part(transfer, number, offset, min(step, transfer.size_bytes - offset))


def parts(transfer: Transfer) -> list[Part]:
    """Cut one big file into parts, in order, covering [0, size) exactly once."""
    return [part(transfer, number) for number in range(part_count(transfer.size_bytes))]


def block_id(run: str, number: int) -> str:
    """Name one part's block: 32 characters, so that other tools' leftovers never clash with it.

    Azure wants all the ids of one blob equally long.
    """
    return f"{run[:16]:0<16}{number:016d}"


class Pacer:
    """How long units of work take, as far as they have come back, and so how many make a job.

    Pure: what it knows comes from the results' own times. Until the first came back, each round
    over the nodes doubles what is sent, so that all nodes begin at once.
    """

    def __init__(self, nodes: int) -> None:
        self._nodes = max(1, nodes)
        self._seconds = 0.0
        self._units = 0
        self._jobs = 0

    def note(self, units: int, seconds: float) -> None:
        """Take into account units that came back; later ones count for more."""
        self._units += units
        self._seconds += seconds
        if self._units > 2000:
            self._units //= 2
            self._seconds /= 2

    def units(
        self, left: int, threads: int, *, least: int, most: int, seconds: float = BATCH_SECONDS
    ) -> int:
        """Choose how many of `left` units the next job has.

        So many as take `seconds` on `threads` threads; never more than half of a node's share of
        what is left, so that nodes end together; but one for each thread where a share has them.
        """
        if self._units:
            wanted = seconds * threads * self._units / max(self._seconds, 1e-9)
        else:
            wanted = max(threads, least) * 2.0 ** min(10, self._jobs // self._nodes)
        self._jobs += 1
        share = -(-left // self._nodes)
        half = -(-share // 2)
        return int(min(left, max(min(threads, share), least, min(wanted, half, most))))
