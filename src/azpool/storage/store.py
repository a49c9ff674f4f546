"""What a blob store can do, as protocols: the contract that every adapter keeps.

`_rest.py` fills it; one suite (tests/conformance/test_store.py) runs against each filling. Calls
block, are safe to make from several threads, and are not repeated: whoever calls decides by
`err.retryable` and `err.retry_after_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

__all__ = ["Account", "BlobInfo", "Body", "Prefix", "Store"]

Body: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobInfo:
    """What the store says of one blob.

    Attributes:
        name: its full name in the container.
        size_bytes: its size; after `get` of a range still that of the whole blob.
        etag: its version, quoted as HTTP has it; changes with every write.
        last_modified: UTC, or None where the answer did not say.
        md5: the digest that the writer stored, or None. The store did not check it.
        content_type: as stored.
        metadata: names with the case that the store keeps. Empty after `put` and `commit`.
        is_directory_marker: a blob that stands for a folder: `hdi_isfolder`, or a name ending in
            a slash.
    """

    name: str
    size_bytes: int
    etag: str | None = None
    last_modified: datetime | None = None
    md5: bytes | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_directory_marker: bool = False


@dataclass(frozen=True, slots=True)
class Prefix:
    """A common prefix in a listing with a delimiter: a virtual folder, its slash included."""

    name: str


class Store(Protocol):
    """One container.

    Errors, of all calls: `NotFound`, `AccessDenied`, `Conflict`, `Throttled`, `ServerError`,
    `ConnectionFailed`, `BadResponse`, and `NameRefused` before anything is sent.
    """

    def put(
        self,
        name: str,
        body: Body,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        overwrite: bool = True,
    ) -> BlobInfo:
        """Write a whole blob in one request; `Conflict` if it exists and `overwrite` is off."""
        ...

    def stage(self, name: str, block_id: str, body: Body) -> None:
        """Send one block; it is part of nothing until `commit`, and forgotten after a week.

        Ids are any text up to 64 bytes; all of one blob must have the same length.
        """
        ...

    def commit(
        self,
        name: str,
        block_ids: Sequence[str],
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        overwrite: bool = True,
    ) -> BlobInfo:
        """Make the blob of these staged blocks, in this order; others are dropped.

        The answer does not say how many bytes the blocks have: `size_bytes` is -1.
        """
        ...

    def staged(self, name: str) -> dict[str, int]:
        """Give the blocks that are staged and not committed: id -> size; {} where there is none."""
        ...

    def get(
        self, name: str, *, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> tuple[BlobInfo, bytes]:
        """Read a blob or a range of it into memory: callers ask for bounded ranges.

        A range that passes the end is cut there; one that begins at or after it gives b"".
        With `etag`, `Conflict` if the blob has changed since.
        """
        ...

    def head(self, name: str) -> BlobInfo:
        """Look a blob up; `NotFound` if there is none."""
        ...

    def delete(self, name: str) -> None:
        """Delete a blob and its snapshots; `NotFound` if there is none."""
        ...

    def list(
        self, prefix: str = "", *, delimiter: str | None = None
    ) -> Iterator[BlobInfo | Prefix]:
        """Yield the blobs in the order of their names, page by page as they are asked for.

        With a delimiter, names that have it after the prefix are folded into one `Prefix`.
        """
        ...

    def create_container(self) -> None:
        """Make the container; `Conflict` if it exists."""
        ...

    def delete_container(self) -> None:
        """Delete the container with all in it; `NotFound` if there is none."""
        ...

    def container_exists(self) -> bool:
        """Whether the container is there and may be looked at."""
        ...

    def close(self) -> None:
        """Close the connections; twice is harmless."""
        ...


class Account(Protocol):
    """One storage account: what can be asked of it as a whole."""

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the containers, page by page."""
        ...

    def close(self) -> None:
        """Close the connections; twice is harmless."""
        ...
