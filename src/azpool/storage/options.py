"""How a transfer is to be done: one frozen, checked set of options for the CLI, Python and resume.

Nothing secret is in it: a journal holds it as JSON, and a resumed transfer goes on with the same.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

from azpool.errors import UsageError
from azpool.storage.store import NO_PROPERTIES, Properties, check_metadata

__all__ = ["Overwrite", "TransferKeywords", "TransferOptions", "Verify"]

Verify = Literal["md5"]


class Overwrite(enum.Enum):
    """What becomes of a target that exists."""

    ALWAYS = "always"
    NEVER = "never"  # it is skipped
    IF_NEWER = "if-newer"  # replaced where the source was changed after it, else skipped
    IF_DIFFERENT = "if-different"  # replaced where size, time or MD5 differ, else skipped
    FAIL = "fail"  # an error before anything moves


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How files are moved; see `Container.upload_many`.

    Attributes:
        overwrite: what becomes of targets that exist.
        verify: "md5" sends an MD5 with each part, stores that of the whole file with it, and
            compares a download with it before its rename.
        content_type: of all uploads; None guesses by the name.
        cache_control: stored with each upload, as are the next three.
        content_encoding: see `cache_control`.
        content_language: see `cache_control`.
        content_disposition: see `cache_control`.
        metadata: stored with each upload, beside the file's own time.
        tags: blob index tags of each upload.
        tier: access tier of each upload: "Hot", "Cool", "Cold", "Archive".
        preserve_times: give downloads the time that their upload had (or the blob's own).
        encode_names: percent-encode what a name may not hold (`.` and `..` segments, backslash,
            control characters) instead of refusing it, and decode it on the way down.
        max_concurrency: the most requests in flight; None lets the limit find it.
        max_requests_per_second: over all nodes.
        max_bytes_per_second: over all nodes, up and down together.
        max_failures: stop when so many files have failed; None goes on to the end.

    Raises:
        UsageError: a value makes no sense; its text names it.
    """

    overwrite: Overwrite = Overwrite.ALWAYS
    verify: Verify | None = None
    content_type: str | None = None
    cache_control: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    content_disposition: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    tier: str | None = None
    preserve_times: bool = False
    encode_names: bool = False
    max_concurrency: int | None = None
    max_requests_per_second: float | None = None
    max_bytes_per_second: float | None = None
    max_failures: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.overwrite, Overwrite):
            raise UsageError(
                f"cannot use overwrite={self.overwrite!r}: give one of "
                f"{', '.join(mode.value for mode in Overwrite)}"
            )
        if self.verify not in (None, "md5"):
            raise UsageError(f"cannot use verify={self.verify!r}: give 'md5', or nothing")
        for name in ("max_concurrency", "max_failures"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < 1):
                raise UsageError(f"cannot use {name}={number!r}: give a whole number from 1 on")
        for name in ("max_requests_per_second", "max_bytes_per_second"):
            rate = getattr(self, name)
            if rate is not None and not (rate > 0 and math.isfinite(rate)):
                raise UsageError(f"cannot use {name}={rate!r}: give a number above 0")
        check_metadata(self.metadata)
        self.properties()

    def properties(self) -> Properties:
        """Answer what is stored with each upload beside bytes, type and metadata."""
        properties = Properties(
            cache_control=self.cache_control,
            content_encoding=self.content_encoding,
            content_language=self.content_language,
            content_disposition=self.content_disposition,
            tags=self.tags,
            tier=self.tier,
        )
        return NO_PROPERTIES if properties == NO_PROPERTIES else properties

    def to_dict(self) -> dict[str, Any]:
        """Answer the options as plain values, for a journal."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **plain,
            "overwrite": self.overwrite.value,
            "metadata": dict(self.metadata),
            "tags": dict(self.tags),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TransferOptions:
        """Undo `to_dict`; names that this version does not know are an error.

        Raises:
            UsageError: an unknown name, or a value that makes no sense.
        """
        unknown = set(plain) - {field.name for field in fields(cls)}
        if unknown:
            raise UsageError(
                f"cannot read these options: unknown {', '.join(sorted(unknown))}; "
                "they are of another version of azpool"
            )
        return cls(**{**plain, "overwrite": Overwrite(plain.get("overwrite", "always"))})


class TransferKeywords(TypedDict, total=False):
    """The fields of `TransferOptions`, as the methods of `Container` take them.

    `overwrite` may also be True (always), False (never) or the name of a mode.
    """

    overwrite: Overwrite | bool | str
    verify: Verify | None
    content_type: str | None
    cache_control: str | None
    content_encoding: str | None
    content_language: str | None
    content_disposition: str | None
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    tier: str | None
    preserve_times: bool
    encode_names: bool
    max_concurrency: int | None
    max_requests_per_second: float | None
    max_bytes_per_second: float | None
    max_failures: int | None


def options_of(keywords: TransferKeywords) -> TransferOptions:
    """Make options of keywords.

    Raises:
        UsageError: a value makes no sense; its text names it.
        TypeError: a keyword that is no option.
    """
    plain: dict[str, Any] = dict(keywords)
    if "overwrite" in plain:
        plain["overwrite"] = overwrite_of(plain["overwrite"])
    return TransferOptions(**plain)


def overwrite_of(value: Overwrite | bool | str) -> Overwrite:  # noqa: FBT001 - one of several types
    """Read what a user says of targets that exist.

    Raises:
        UsageError: no such mode.
    """
    if isinstance(value, bool):
        return Overwrite.ALWAYS if value else Overwrite.NEVER
    try:
        return Overwrite(value)
    except ValueError:
        raise UsageError(
            f"cannot use overwrite={value!r}: give True, False, or one of "
            f"{', '.join(mode.value for mode in Overwrite)}"
        ) from None
