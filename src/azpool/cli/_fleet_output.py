"""What scripts and functions answered, equal answers told once with the machines named. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Answered", "fold", "name_ranges", "output_lines"]

_NUMBERED = re.compile(r"(.*?)([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What some instances answered alike."""

    names: tuple[str, ...]
    exit_code: int | None
    stdout: str
    stderr: str
    truncated: bool


def fold(outcomes: Iterable[Any]) -> list[Answered]:
    """Put equal answers together, in the order they were first met; what never ran is left out."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for one in outcomes:
        stdout = one.stdout
        if one.exit_code is None and not (stdout or one.stderr):
            if one.value is None:
                continue
            stdout = one.value if isinstance(one.value, str) else repr(one.value)
        key = (one.exit_code, stdout, one.stderr, one.truncated)
        groups.setdefault(key, []).append(one.name)
    return [
        Answered(names=tuple(names), exit_code=key[0], stdout=key[1], stderr=key[2],
                 truncated=key[3])
        for key, names in groups.items()
    ]  # fmt: skip


def name_ranges(names: Sequence[str]) -> str:
    """Name all, those that are numbered in a row together: `crew_0-47, crew_49, lone`."""
    said: list[str] = []
    first = last = -1
    prefix: str | None = None

    def close() -> None:
        if prefix is not None:
            said.append(f"{prefix}{first}" + (f"-{last}" if last > first else ""))

    for name in names:
        found = _NUMBERED.fullmatch(name)
        # `web_07` is no number that could be counted on from.
        if found is None or str(int(found[2])) != found[2]:
            close()
            prefix = None
            said.append(name)
            continue
        number = int(found[2])
        if found[1] == prefix and number == last + 1:
            last = number
            continue
        close()
        prefix, first, last = found[1], number, number
    close()
    return ", ".join(said)


def output_lines(
    answered: Answered, *, alone: bool, safe: bool, width: int = 0
) -> list[tuple[str, str]]:
    """Answer the lines of one answer, each with its style.

    Args:
        answered: what was answered.
        alone: all answered so: who they are goes without saying, but for their number.
        safe: control characters must not reach the terminal.
        width: names are left out where the heading would take more than one line; 0: none is.
    """
    many = len(answered.names)
    who = f"all {words.count(many)}" if alone and many > 1 else name_ranges(answered.names)
    if not alone and many > 1:
        who = f"{words.count(many)} instances: {who}"
    facts = f" · exit code {answered.exit_code}" if answered.exit_code is not None else ""
    if answered.truncated:
        facts += " · cut: the service keeps the end of it"
    who = words.printable(who)
    room = width - words.cells(facts) - 3
    if width and words.cells(who) > room:
        kept = words.start(who, max(0, room - 3)).rpartition(", ")[0]
        who = f"{kept}, …" if kept else words.shorten(who, max(8, room))
    head = f"── {who}{facts}"
    bad = bool(answered.exit_code)
    lines = [(head, "bold red" if bad else "bold")]
    for text, style in ((answered.stdout, ""), (answered.stderr, "yellow")):
        lines += [
            (words.printable(line.expandtabs()) if safe else line, style)
            for line in text.splitlines()
        ]
    return lines
