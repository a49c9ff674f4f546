"""Numbers, sizes, times and names as people read them. Pure."""

from __future__ import annotations

import unicodedata

__all__ = [
    "cells",
    "clock",
    "count",
    "left",
    "plural",
    "printable",
    "rate",
    "seconds",
    "shorten",
    "size",
    "size_of",
    "start",
]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(number: int) -> str:
    """Answer a whole number with its thousands apart: `2,000`."""
    return f"{number:,}"


def plural(number: int, thing: str) -> str:
    """Answer `1 file`, `2,000 files`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def size(size_bytes: float) -> str:
    """Answer bytes in the unit that leaves one to four digits: `0 B`, `4.0 KiB`, `812 MiB`."""
    value = float(size_bytes)
    unit = 0
    # 999.5 would print as "1000": the next unit reads better.
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{value:.0f} B"
    # 99.95 would print as "100.0".
    return f"{value:.1f} {_UNITS[unit]}" if value < 99.95 else f"{value:.0f} {_UNITS[unit]}"


def size_of(done_bytes: float, total_bytes: float) -> str:
    """Answer a share of bytes, the unit once where it is the same: `3.7 of 7.8 MiB`."""
    done, total = size(done_bytes), size(total_bytes)
    number, _, unit = done.partition(" ")
    return f"{number} of {total}" if total.endswith(f" {unit}") else f"{done} of {total}"


def rate(per_second: float) -> str:
    """Answer things per second: `952`, `9.5`, `0.3`."""
    return f"{per_second:,.0f}" if per_second >= 9.95 else f"{per_second:.1f}"


def seconds(duration_seconds: float) -> str:
    """Answer how long something took: `48 ms`, `2.1 s`, `3:07 min`, `1:02:03 h`."""
    if duration_seconds < 0.9995:
        return f"{duration_seconds * 1000:.0f} ms"
    if duration_seconds < 59.95:
        return f"{duration_seconds:.1f} s"
    whole = round(duration_seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} h"


def clock(duration_seconds: float) -> str:
    """Answer a time left as a clock of constant width: `0:07`, `12:31`, `1:02:03`."""
    whole = max(0, round(duration_seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def left(duration_seconds: float) -> str:
    """Answer a time left as exactly as one can know it: `0:07`, `9:59`, `12 min`, `3 h 05 min`."""
    if duration_seconds < 599.5:
        return clock(max(1.0, duration_seconds))
    minutes = round(duration_seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 100 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} days"


def printable(name: str) -> str:
    r"""Answer a name that can't steer the terminal: control characters become `\x1b`."""
    if name.isprintable():
        return name
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in name
    )


def cells(text: str) -> int:
    """Answer how many columns of a terminal a text takes: Chinese ones two, accents none."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200b\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(name: str, width: int) -> str:
    """Answer a name in at most `width` columns; what tells names apart is at their ends."""
    if cells(name) <= width:
        return name
    if width <= 1:
        return "…"[: max(0, width)]
    head = start(name, (width - 1) // 3)
    tail = start(name[::-1], width - 1 - cells(head))[::-1]
    return f"{head}…{tail}"


def start(text: str, width: int) -> str:
    """Answer as much of a text's beginning as fits into `width` columns."""
    if text.isascii():
        return text[: max(0, width)]
    taken = 0
    for at, character in enumerate(text):
        taken += _cells_of(character)
        if taken > width:
            return text[:at]
    return text
