"""What a blob store can do, as protocols: the contract that every adapter keeps.

`_rest.py` fills it; one suite (tests/conformance/test_store.py) runs against each filling. Calls
block, are safe to make from several threads, and are not repeated: whoever calls decides by
`err.retryable` and `err.retry_after_seconds`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias, TypeVar

from azpool.errors import UsageError

__all__ = [
    "NO_PROPERTIES",
    "Account",
    "BlobInfo",
    "Body",
    "FilePiece",
    "Prefix",
    "Properties",
    "Sink",
    "SteppedStore",
    "Steps",
    "Store",
]


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A range of an open file as a body: it goes out without passing through this process.

    Attributes:
        descriptor: of the file; whoever made the piece keeps it open meanwhile.
        offset: where it begins.
        length: how many bytes it has; a file that ends before is a `LocalFileError`.
        shown: the file's name, for errors.
    """

    descriptor: int
    offset: int
    length: int
    shown: str

    def __len__(self) -> int:
        return self.length

    def __bytes__(self) -> bytes:
        return os.pread(self.descriptor, self.length, self.offset)


Body: TypeAlias = bytes | bytearray | memoryview | FilePiece


class Sink(Protocol):
    """Takes what arrives, piece by piece in order; a piece is valid during the call alone."""

    def write(self, data: bytes | memoryview, /) -> None: ...


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What is stored with a blob beside bytes, type and metadata; the same for many of them.

    Attributes:
        cache_control: as HTTP has it, as are the next three.
        content_encoding: see `cache_control`.
        content_language: see `cache_control`.
        content_disposition: see `cache_control`.
        tags: blob index tags.
        tier: "Hot", "Cool", "Cold" or "Archive"; None is the account's own.

    Raises:
        UsageError: the service takes no such value; its text names it.
    """

    cache_control: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    content_disposition: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    tier: str | None = None

    def __post_init__(self) -> None:
        for name in _TEXTS:
            text = getattr(self, name)
            if text is not None and not (text and _PRINTABLE.fullmatch(text)):
                raise UsageError(
                    f"cannot use {name}={text!r}: give printable ASCII without spaces at its ends"
                )
        if self.tier is not None and self.tier not in TIERS:
            raise UsageError(f"cannot use tier={self.tier!r}: give one of {', '.join(TIERS)}")
        if len(self.tags) > MAX_TAGS:
            raise UsageError(f"cannot use {len(self.tags)} tags: a blob has {MAX_TAGS} at most")
        for key, value in self.tags.items():
            if not (1 <= len(key) <= 128 and len(value) <= 256 and _TAG.fullmatch(key + value)):
                raise UsageError(
                    f"cannot use the tag {key!r}: {value!r}: 1 to 128 and up to 256 letters, "
                    "digits, spaces and + - . / : = _ are allowed"
                )


# Source: "Setting blob index tags" of the Blob service.
MAX_TAGS = 10
TIERS = ("Hot", "Cool", "Cold", "Archive")
_TAG = re.compile(r"[A-Za-z0-9 +\-./:=_]*")
_TEXTS = ("cache_control", "content_encoding", "content_language", "content_disposition")
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")

NO_PROPERTIES = Properties()


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse what can't be metadata.

    Raises:
        UsageError: a name that is no identifier, or a value that a header can't hold.
    """
    for name, value in metadata.items():
        # Each file has some: string methods take a fifth of what regular expressions do.
        plain = name.isascii() and name.isidentifier() and value.isascii() and value.isprintable()
        if not plain or value[:1] == " " or value[-1:] == " ":
            raise UsageError(
                f"cannot use metadata {name!r}: it must be named by letters, digits and "
                "underscores and hold printable ASCII without spaces at its ends"
            )


@dataclass(frozen=True, slots=True)
class Prefix:
    """A common prefix in a listing with a delimiter: a virtual folder, its slash included."""

    name: str


ValueT = TypeVar("ValueT")
# An operation, written once for who blocks and for who has many under way: it asks the network for
# one thing after the other (an `Exchange` of `_http.py`), is given each answer, and has a value.
Steps: TypeAlias = Generator[Any, Any, ValueT]


class SteppedStore(Protocol):
    """The operations of a `Store` of which there may be very many, as steps."""

    def put_steps(
        self,
        name: str,
        body: Body,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        properties: Properties = NO_PROPERTIES,
        md5: bytes | None = None,
        overwrite: bool = True,
    ) -> Steps[BlobInfo]: ...

    def get_steps(
        self,
        name: str,
        *,
        offset: int = 0,
        length: int | None = None,
        etag: str | None = None,
        into: Sink | None = None,
    ) -> Steps[tuple[BlobInfo, bytes]]: ...

    def head_steps(self, name: str) -> Steps[BlobInfo]: ...

    def delete_steps(self, name: str) -> Steps[None]: ...


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
        properties: Properties = NO_PROPERTIES,
        md5: bytes | None = None,
        overwrite: bool = True,
    ) -> BlobInfo:
        """Write a whole blob in one request; `Conflict` if it exists and `overwrite` is off.

        The store checks the body against `md5`, refuses it (`IntegrityError`) if it is another's,
        and keeps it with the blob.
        """
        ...

    def stage(self, name: str, block_id: str, body: Body, *, md5: bytes | None = None) -> None:
        """Send one block; it is part of nothing until `commit`, and forgotten after a week.

        Ids are any text up to 64 bytes; all of one blob must have the same length. The store
        checks the body against `md5`, which is not kept.
        """
        ...

    def commit(
        self,
        name: str,
        block_ids: Sequence[str],
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        properties: Properties = NO_PROPERTIES,
        md5: bytes | None = None,
        overwrite: bool = True,
    ) -> BlobInfo:
        """Make the blob of these staged blocks, in this order; others are dropped.

        `md5` is kept with the blob; nothing compares it with the blocks. The answer does not say
        how many bytes the blocks have: `size_bytes` is -1.
        """
        ...

    def staged(self, name: str) -> dict[str, int]:
        """Give the blocks that are staged and not committed: id -> size; {} where there is none."""
        ...

    def get(
        self,
        name: str,
        *,
        offset: int = 0,
        length: int | None = None,
        etag: str | None = None,
        into: Sink | None = None,
    ) -> tuple[BlobInfo, bytes]:
        """Read a blob or a range of it into memory: callers ask for bounded ranges.

        With `into` and a `length` the bytes go there as they come, and the answer has none; after
        an error some may have come, never more than `length`. What `into` raises ends the call.

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

    def list_page(
        self, prefix: str = "", *, delimiter: str | None = None, marker: str = ""
    ) -> tuple[Sequence[BlobInfo | Prefix], str]:
        """Give one page of `list`, and the marker of the next, or "": a page can be asked again."""
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
