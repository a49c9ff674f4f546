"""What the values of options mean: rates, numbers, name=value pairs. Pure.

Typer's own conversions are not used: their words differ from version to version.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from azpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["one_of", "pairs", "rate", "whole_number"]

_UNITS: dict[str, float] = {
    "": 1, "b": 1,
    **{unit + ending: 1024**power for power, unit in enumerate("kmgt", 1) for ending in ("", "ib")},
    **{unit + "b": 1000**power for power, unit in enumerate("kmgt", 1)},
    **{unit + "bit": 1000**power / 8 for power, unit in enumerate("kmgt", 1)},
}  # fmt: skip
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)(?:/s|ps)?", re.IGNORECASE)


def rate(option: str, text: str | None) -> float | None:
    """Read bytes a second: `50MiB`, `50M`, `1.5GiB/s`, `100Mbit` (an eighth of it), `4096`.

    Raises:
        UsageError: it is none, or nothing.
    """
    if text is None:
        return None
    found = _RATE.fullmatch(text.strip())
    unit = None if found is None else _UNITS.get(found[2].lower().removesuffix("ps"))
    if found is None or unit is None:
        raise UsageError(
            f"cannot use {option}={text!r}: it is no rate; give bytes a second, as {option} 50MiB "
            "or 400Mbit"
        )
    value = float(found[1]) * unit
    if value <= 0:
        raise UsageError(f"cannot use {option}={text!r}: nothing would move; leave it out")
    return value


def whole_number(option: str, text: str | None, example: int) -> int | None:
    """Read a whole number from 1 on.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
        raise UsageError(
            f"cannot use {option}={text!r}: not a whole number from 1 on; give {option} {example}"
        )
    return int(text)


def per_second(option: str, text: str | None, example: int) -> float | None:
    """Read how many a second.

    Raises:
        UsageError: it is no number above 0.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text) or float(text) <= 0:
        raise UsageError(
            f"cannot use {option}={text!r}: not a number above 0; give {option} {example}"
        )
    return float(text)


def one_of(option: str, text: str | None, choices: Sequence[str]) -> str | None:
    """Read one of some words, in any case.

    Raises:
        UsageError: it is none of them.
    """
    if text is None:
        return None
    for choice in choices:
        if text.lower() == choice.lower():
            return choice
    raise UsageError(f"cannot use {option}={text!r}: give one of {', '.join(choices)}")


def pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """Read `name=value`, each by an option of its own.

    Raises:
        UsageError: one has no name or no `=`, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(
                f"cannot use {option}={text!r}: it names no value; give {option} name=value"
            )
        if name in found:
            raise UsageError(f"cannot use {option}={text!r}: {name!r} is given twice; give it once")
        found[name] = value
    return found
