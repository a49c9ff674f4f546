"""What the master and the nodes say to each other of a transfer, beside the plan's jobs."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from azpool.storage._recipe import StoreRecipe
from azpool.storage._retry import RetryOptions
from azpool.storage.options import TransferOptions

if TYPE_CHECKING:
    from azpool.errors import StorageError

__all__ = ["Action", "Direction", "Packed", "Result", "Task", "pack", "unpack"]


class Direction(enum.Enum):
    """What a task does with each transfer."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all jobs of one call share; shipped to each node once.

    Attributes:
        recipe: the container.
        direction: what to do.
        cwd: what relative local paths are relative to; nodes have a working directory of their own.
        run: a token of this call, in the names of its blocks and `.part` files; derived from the
            journal's job, so that a resumed one finds its own.
        options: how files are moved.
        retry: how persistent each request is.
    """

    recipe: StoreRecipe
    direction: Direction
    cwd: str
    run: str
    options: TransferOptions = TransferOptions()  # noqa: RUF009 -- frozen
    retry: RetryOptions = RetryOptions()  # noqa: RUF009 -- frozen


class Action(enum.IntEnum):
    """How one unit of work ended."""

    DONE = 0
    FAILED = 1
    SKIPPED = 2


class Result(NamedTuple):
    """What a node says of one unit of work.

    Attributes:
        place: that of the file's outcome.
        part: -1 a whole file, -2 a digest, else the part's number.
        action: how it ended.
        bytes_moved: 0 unless it is done.
        seconds: with all its attempts.
        attempts: from 1.
        error: why it failed or was skipped.
        throttled: how many 503, 429 or time-outs were met on the way.
        md5: of a digest; of a whole file, the one that was sent or that the download was compared
            with. None where nothing was asked for, or where the blob has none to compare with.
    """

    place: int
    part: int
    action: Action
    bytes_moved: int
    seconds: float
    attempts: int
    error: StorageError | None
    throttled: int = 0
    md5: bytes | None = None


# Results by columns: in plain tuples, which a node pickles in a quarter of the time.
Packed: TypeAlias = tuple[tuple[Any, ...], ...]


def pack(results: list[Result]) -> Packed:
    """Turn results into what a node sends."""
    return tuple(zip(*results, strict=True))


def unpack(packed: Packed) -> list[Result]:
    """Undo `pack`."""
    return [Result(*row) for row in zip(*packed, strict=True)]
