"""Cut transfers into jobs for the nodes: batches of small files, parts of big ones. Pure.

`naming.py` says what goes where, this module who carries how much at once, `transfer.py` runs it.
Invariants: every small file is in exactly one batch; the parts of a big file cover [0, size)
exactly once, and are never more than Azure's 50,000 blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from azpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Job", "Part", "Transfer", "batches", "block_id", "part_bytes_for", "parts", "plan_jobs"]

KiB, MiB, GiB, TiB = 1024, 1024**2, 1024**3, 1024**4

# One file up to this size is one request; the nodes hold threads x this in memory at worst.
SMALL_FILE_BYTES = 16 * MiB
PART_BYTES = 8 * MiB
MAX_PARTS = 50_000  # Azure's limit on the committed blocks of one blob
MAX_PART_BYTES = 4000 * MiB  # Azure's limit on one block
# A batch ends with idle threads and holds back its last outcomes, so it is neither tiny nor huge.
MAX_BATCH_FILES = 256
MAX_BATCH_BYTES = 64 * MiB
MIN_BATCH_FILES = 4
# Requests in flight are rate x latency. On loopback there is no latency, and an emulator is one
# process: more than this only queue there, and each new connection waits behind them for seconds.
REQUESTS_IN_FLIGHT = 40
LOCAL_REQUESTS_IN_FLIGHT = 10


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
        threads: how many requests the node keeps in flight.
        requests_per_second: this node's share; None for no limit.
        bytes_per_second: this node's share; None for no limit.
    """

    files: tuple[Transfer, ...] = ()
    parts: tuple[Part, ...] = ()
    digests: tuple[Transfer, ...] = ()
    threads: int = 1
    requests_per_second: float | None = None
    bytes_per_second: float | None = None


def threads_for(nodes: int, *, local: bool = False) -> int:
    """Choose the threads of each node so that all nodes keep about 40 requests in flight.

    With a `local` server (loopback) it is about 10.
    """
    wanted = LOCAL_REQUESTS_IN_FLIGHT if local else REQUESTS_IN_FLIGHT
    return max(1, min(16, -(-wanted // max(1, nodes))))


def is_big(size_bytes: int) -> bool:
    """Tell whether a file of this size is moved in parts."""
    return size_bytes > SMALL_FILE_BYTES


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


def parts(transfer: Transfer) -> list[Part]:
    """Cut one big file into parts, in order, covering [0, size) exactly once."""
    size, step = transfer.size_bytes, part_bytes_for(transfer.size_bytes)
    return [
        Part(transfer, number, offset, min(step, size - offset))
        for number, offset in enumerate(range(0, size, step))
    ]


def block_id(run: str, number: int) -> str:
    """Name one part's block: 32 characters, so that other tools' leftovers never clash with it.

    Azure wants all the ids of one blob equally long.
    """
    return f"{run[:16]:0<16}{number:016d}"


def plan_jobs(transfers: Sequence[Transfer], *, nodes: int, threads: int) -> list[Job]:
    """Cut the work into jobs in the order in which nodes should take them.

    Parts and batches of small files alternate, the biggest files first, so that neither a long
    file nor a long tail of small ones is left to the end.
    """
    small = [t for t in transfers if t.size_bytes <= SMALL_FILE_BYTES]
    big = [t for t in transfers if t.size_bytes > SMALL_FILE_BYTES]
    first = [
        Job(parts=chunk, threads=threads)
        for chunk in part_chunks(big, nodes=nodes, threads=threads)
    ]
    second = [
        Job(files=batch, threads=threads) for batch in batches(small, nodes=nodes, threads=threads)
    ]
    return _alternate(first, second)


def _alternate(first: list[Job], second: list[Job]) -> list[Job]:
    """Spread the shorter list evenly over the longer one, beginning with `first`."""
    keyed = [(at / len(first), job) for at, job in enumerate(first)]
    keyed += [(at / len(second), job) for at, job in enumerate(second)]
    return [job for _, job in sorted(keyed, key=lambda pair: pair[0])]


def part_chunks(big: Sequence[Transfer], *, nodes: int, threads: int) -> Iterator[tuple[Part, ...]]:
    """Group parts of one file after the other so that a chunk fills one node's threads."""
    everything = [part for t in sorted(big, key=lambda t: -t.size_bytes) for part in parts(t)]
    step = max(1, min(threads, -(-len(everything) // max(1, nodes))))
    for at in range(0, len(everything), step):
        yield tuple(everything[at : at + step])


def batches(
    small: Sequence[Transfer], *, nodes: int, threads: int
) -> Iterator[tuple[Transfer, ...]]:
    """Group small files: a few at first so that every node begins at once, more, fewer at the end.

    Each round over the nodes doubles the batch, up to 256 files or 64 MiB; a batch is never more
    than half of a node's share of what is left, so that nodes finish together.
    """
    nodes, least = max(1, nodes), max(threads, MIN_BATCH_FILES)
    size, made, at = least, 0, 0
    while at < len(small):
        share = -(-(len(small) - at) // (2 * nodes))
        take = max(least, min(size, share, MAX_BATCH_FILES))
        end, held = at, 0
        while end < len(small) and end - at < take and (held < MAX_BATCH_BYTES or end == at):
            held += small[end].size_bytes
            end += 1
        yield tuple(small[at:end])
        at, made = end, made + 1
        if made % nodes == 0:
            size *= 2
