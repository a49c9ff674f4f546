"""What is stored with a blob beside its bytes: its type, and the time of the file it came from.

The time is kept in the metadata `mtime`, as rclone writes and reads it (RFC 3339 in UTC, to the
nanosecond); on the way down azcopy's `modtime` (nanoseconds since 1970) is understood too. Pure.
"""

from __future__ import annotations

import mimetypes
import re
import time
from calendar import timegm
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azpool.storage.options import TransferOptions

__all__ = [
    "MTIME",
    "content_type_of",
    "format_mtime",
    "mtime_of",
    "parse_mtime",
    "stored_with",
]

MTIME = "mtime"  # rclone's name; checked in its azureblob backend
_AZCOPY_MTIME = "modtime"  # with --preserve-posix-properties
UNKNOWN_TYPE = "application/octet-stream"
# What a compressed file is, where its name says what is compressed: `a.tar.gz` is no tar.
_COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?"
    r"(?:[Zz]|([+-])(\d\d):(\d\d))"
)
_SECONDS = re.compile(r"(-?\d{1,11})(?:\.(\d{1,9})\d*)?")
_NANOSECONDS = re.compile(r"-?\d{1,19}")

_types: dict[str, str] = {}


def content_type_of(name: str) -> str:
    """Guess a file's type by the end of its name, as `mimetypes` does; a dict once it is known."""
    _, dot, suffix = name[name.rfind("/") + 1 :].rpartition(".")
    if not dot:
        return UNKNOWN_TYPE
    found = _types.get(suffix)
    return found if found is not None else _guess(suffix)


def _guess(suffix: str) -> str:
    # Only a name is passed on: of a URL `mimetypes` would read the scheme.
    guessed, encoding = mimetypes.guess_type("x." + suffix)
    found = _COMPRESSED.get(encoding, UNKNOWN_TYPE) if encoding else guessed or UNKNOWN_TYPE
    if len(_types) < 1000:  # names may end in numbers
        _types[suffix] = found
    return found


def stored_with(
    options: TransferOptions, target: str, mtime_ns: int
) -> tuple[str, Mapping[str, str]]:
    """Answer type and metadata of one upload; a `mtime` of the user's own stays as it is."""
    content_type = options.content_type or content_type_of(target)
    metadata = options.metadata
    if not metadata:
        return content_type, {MTIME: format_mtime(mtime_ns)}
    # Metadata's names differ in more than case, or they are one.
    if any(name.lower() == MTIME for name in metadata):
        return content_type, metadata
    return content_type, {**metadata, MTIME: format_mtime(mtime_ns)}


def format_mtime(mtime_ns: int) -> str:
    """Write a time as the metadata `mtime` has it."""
    seconds, nanoseconds = divmod(mtime_ns, 1_000_000_000)
    return f"{_format_second(seconds)}.{nanoseconds:09}Z"


@lru_cache(maxsize=256)  # many files of a folder are written in one second
def _format_second(seconds: int) -> str:
    t = time.gmtime(seconds)
    return f"{t.tm_year:04}-{t.tm_mon:02}-{t.tm_mday:02}T{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"


def mtime_of(metadata: Mapping[str, str], last_modified: datetime | None) -> int | None:
    """Answer when the file behind a blob was changed, in nanoseconds since 1970.

    That is what its metadata says, else when the blob was last changed, else None.
    """
    for name, text in metadata.items():
        lower = name.lower()
        if lower == MTIME:
            found = parse_mtime(text)
        elif lower == _AZCOPY_MTIME and _NANOSECONDS.fullmatch(text):
            found = int(text)
        else:
            continue
        if found is not None:
            return found
    return None if last_modified is None else int(last_modified.timestamp()) * 1_000_000_000


def parse_mtime(text: str) -> int | None:
    """Read RFC 3339, or seconds since 1970 with a fraction; None where it is neither."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        plain = _SECONDS.fullmatch(text)
        if plain is None:
            return None
        fraction = int((plain[2] or "").ljust(9, "0"))
        sign = -1 if text.startswith("-") else 1
        return int(plain[1]) * 1_000_000_000 + sign * fraction
    year, month, day, hour, minute, second, fraction_text, zone, east, north = found.groups()
    try:
        datetime(int(year), int(month), int(day), int(hour), int(minute), 0, tzinfo=UTC)
    except ValueError:
        return None
    moment = timegm((int(year), int(month), int(day), int(hour), int(minute), int(second)))
    if zone:
        shift = int(east) * 3600 + int(north) * 60
        moment += -shift if zone == "+" else shift
    return moment * 1_000_000_000 + int((fraction_text or "").ljust(9, "0"))
