"""Which name lands where: pure rules, the same for Python and the command line, up and down.

`_sources.py` finds files and blobs, this module gives each its target, `plan.py` cuts the work.
A trailing slash means "the contents of"; a list or a glob treats the destination as a prefix; a
glob keeps the path from its first wildcard on. Names that can't go there and back unchanged, or
that would leave the target folder, are refused by name; two sources for one target are an error
before anything moves.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from azpool.errors import NameRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "blob_target",
    "check_blob_name",
    "check_local_targets",
    "check_unique",
    "compile_glob",
    "decode_blob_name",
    "encode_blob_name",
    "has_wildcard",
    "is_marker",
    "join_blob",
    "literal_prefix",
    "local_relative",
    "split_glob",
]

MAX_BLOB_NAME_CHARACTERS = 1024  # Azure's limit on a blob's name

_WILDCARD = re.compile(r"[*?\[]")
_DOTS = re.compile(r"(?:^|/)\.\.?(?:/|$)")
# C0 and C1 controls and DEL can't be written in XML listings; lone surrogates have no UTF-8 form.
_UNSAFE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_REFUSABLE = re.compile(f"{_DOTS.pattern}|{_UNSAFE.pattern}")


def check_blob_name(name: str, *, verb: str = "store") -> None:
    """Refuse a blob name that would not come back as it went.

    Raises:
        NameRefused: empty or over 1,024 characters, a `.` or `..` segment (clients and proxies
            fold them), a backslash (some services turn it into `/`), a control character, or
            bytes that are not text.
    """
    if name and len(name) <= MAX_BLOB_NAME_CHARACTERS and not _REFUSABLE.search(name):
        return
    raise NameRefused(
        f"cannot {verb} {_shown(name)}: {_why_refused(name)}; rename it", path=name or None
    )


def _why_refused(name: str) -> str:
    if not name:
        return "the name is empty"
    if len(name) > MAX_BLOB_NAME_CHARACTERS:
        return f"its {len(name):,} characters are more than Azure's {MAX_BLOB_NAME_CHARACTERS:,}"
    if _DOTS.search(name):
        return "'.' and '..' are not kept as parts of a blob's name"
    if "\\" in name:
        return "a backslash does not come back unchanged"
    return "it holds control characters or bytes that are not text"


def _shown(name: str) -> str:
    return repr(name) if len(name) <= 200 else repr(name[:200]) + "…"


def encode_blob_name(name: str) -> str:
    """Percent-encode exactly what a blob's name may not hold; `decode_blob_name` undoes it.

    That is: backslashes, control characters, bytes that are not text, segments that are `.` or
    `..`, and, so that it can be undone, a `%` that begins what looks like one of these escapes
    (`%5C`; not `%20`). Everything else stays as it is: most names are their own encoding.
    """
    if "%" in name or _UNSAFE.search(name):
        name = _ENCODED.sub(_encode, name)
    if _DOTS.search(name):
        segments = name.split("/")
        name = "/".join(
            segment.replace(".", "%2E") if segment in (".", "..") else segment
            for segment in segments
        )
    return name


def decode_blob_name(name: str) -> str:
    """Undo `encode_blob_name`; other escapes stay as they are."""
    return _ESCAPES.sub(_decode, name) if "%" in name else name


# What `encode_blob_name` writes: % . \\ DEL, C0 controls, and the bytes of all beyond ASCII.
_ESCAPE = "%(?:25|2E|5C|7F|[0189A-F][0-9A-F])"
_ESCAPES = re.compile(f"(?:{_ESCAPE})+")
_ENCODED = re.compile(f"{_UNSAFE.pattern}|%(?={_ESCAPE[1:]})")


def _encode(found: re.Match[str]) -> str:
    try:
        raw = found[0].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return found[0]  # no file system has it; `check_blob_name` refuses it
    return "".join([f"%{byte:02X}" for byte in raw])


def _decode(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogateescape")


def join_blob(prefix: str, relative: str) -> str:
    """Put `relative` under `prefix`, which may end in a slash or not and may be empty."""
    if not prefix or prefix.endswith("/"):
        return prefix + relative
    return f"{prefix}/{relative}"


def blob_target(dest: str, basename: str) -> str:
    """Name the blob that one file becomes: below `dest` if that is "" or ends in `/`, else it."""
    return join_blob(dest, basename) if not dest or dest.endswith("/") else dest


def is_marker(name: str) -> bool:
    """Tell whether a blob of this name stands for a folder: `x/` is the empty folder `x`."""
    return name.endswith("/")


def local_relative(name: str, *, decode: bool = False) -> str:
    """Turn (part of) a blob's name into a path relative to the target folder, with `/`.

    With `decode`, what `encode_blob_name` encoded is decoded, but for segments that no file can
    have as its name: `.`, `..` and what holds a NUL.

    Empty segments can't exist on a file system: `a//b` lands as `a/b`, and if the container also
    has `a/b` that is an error of `check_local_targets`. A leading `/` is dropped the same way.

    Raises:
        NameRefused: the path would leave the folder or could not go back up unchanged.
    """
    check_blob_name(name, verb="download")
    if "//" in name or name[0] == "/" or name[-1] == "/":
        name = "/".join(segment for segment in name.split("/") if segment)
    if not name:
        raise NameRefused("cannot download '/': nothing of the name is left; rename the blob")
    if decode and "%" in name:
        return "/".join([_local_segment(segment) for segment in name.split("/")])
    return name


def _local_segment(segment: str) -> str:
    decoded = decode_blob_name(segment)
    return segment if decoded in (".", "..") or "\0" in decoded else decoded


def check_unique(pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse two sources for one target; `pairs` are (source, target).

    Raises:
        UsageError: names both sources and the target; nothing was moved.
    """
    seen: dict[str, str] = {}
    for source, target in pairs:
        if target in seen:
            raise UsageError(
                f"cannot move {seen[target]!r} and {source!r}: both would become {target!r}; "
                "move them one by one or into different folders"
            )
        seen[target] = source


def check_local_targets(
    files: Sequence[tuple[str, str]], folders: Sequence[tuple[str, str]] = ()
) -> None:
    """Refuse downloads that can't all exist as files; pairs are (blob name, path with `/`).

    Raises:
        UsageError: two blobs for one file, or one path is both a file and a folder
            (blobs `a` and `a/b`); nothing was moved.
    """
    check_unique(files)
    needed: dict[str, str] = {}
    for source, path in files:
        _add_parents(needed, source, path.rpartition("/")[0])
    for source, path in folders:
        _add_parents(needed, source, path)
    for source, path in files:
        if path in needed:
            raise UsageError(
                f"cannot download {source!r} and {needed[path]!r}: "
                f"{path!r} would be a file and a folder; download one of them elsewhere"
            )


def _add_parents(needed: dict[str, str], source: str, folder: str) -> None:
    while folder and folder not in needed:
        needed[folder] = source
        folder = folder.rpartition("/")[0]


def has_wildcard(path: str) -> bool:
    """Tell whether `path` has a `*`, `?` or `[`."""
    return _WILDCARD.search(path) is not None


def literal_prefix(pattern: str) -> str:
    """Answer what every match begins with: all before the first wildcard character."""
    found = _WILDCARD.search(pattern)
    return pattern[: found.start()] if found else pattern


def split_glob(pattern: str) -> tuple[str, str]:
    """Split `data/2020*/x.nc` into the folder before the first wildcard and the rest.

    The first part keeps its trailing slash (`data/`) or is empty; the second is the path that
    the matches keep.
    """
    cut = literal_prefix(pattern).rfind("/") + 1
    return pattern[:cut], pattern[cut:]


@lru_cache(maxsize=64)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob over names with `/`, to be used with `fullmatch`.

    `*`, `?` and `[...]` stay within one segment, `**` as a whole segment stands for any number of
    them, none included. Names that begin with a dot match as any other: `.zarray` is data.

    Raises:
        UsageError: a `[...]` that makes no sense.
    """
    segments = pattern.split("/")
    parts: list[str] = []
    for at, segment in enumerate(segments):
        last = at == len(segments) - 1
        if segment == "**":
            parts.append("(?:[^/]*/)*" + ("[^/]*" if last else ""))
        else:
            parts.append(_translate(segment) + ("" if last else "/"))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise UsageError(
            f"cannot use the glob {pattern!r}: {error}; write a literal '[' as '[[]'"
        ) from error


def _translate(segment: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(segment):
        char = segment[at]
        at += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := segment.find("]", at + 1 + (segment[at : at + 1] == "!"))) > 0:
            out.append(f"(?!/)[{_translate_class(segment[at:end])}]")
            at = end + 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _translate_class(body: str) -> str:
    """Translate what stands in `[...]`: single characters and ranges, after `!` all others."""
    out = ["^"] if body.startswith("!") else []
    at = len(out)
    while at < len(body):
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            out.append(f"{re.escape(body[at])}-{re.escape(body[at + 2])}")
            at += 3
        else:
            out.append(re.escape(body[at]))
            at += 1
    return "".join(out)
