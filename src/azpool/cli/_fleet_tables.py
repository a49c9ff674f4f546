"""What `azpool fleet` writes to standard output: machines, addresses, what scripts answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._exit import code_of_failures
from azpool.cli._fleet_output import fold, name_ranges, output_lines

if TYPE_CHECKING:
    from azpool.cli._term import Terminal

__all__ = [
    "count_powers",
    "finish_reading",
    "instance_cells",
    "instance_facts",
    "write_outputs",
    "write_table",
]


def instance_facts(one: Any) -> dict[str, Any]:
    """Answer an instance as an event."""
    names = (
        "resource_id", "instance_id", "name", "kind", "power", "provisioning", "zone", "size",
        "location", "latest_model", "unread",
    )  # fmt: skip
    return {
        "event": "instance",
        **{name: getattr(one, name) for name in names},
        "tags": dict(one.tags),
    }


_POWER_STYLES = {"running": "green", "stopped": "yellow", "deallocated": "dim", "unknown": "red"}


def instance_cells(one: Any) -> tuple[str, ...]:
    """Answer an instance as cells of the table."""
    if one.unread:
        return one.name, "unknown", "-", "-", one.unread
    return one.name, str(one.power), one.zone or "-", one.size or "-", one.provisioning or "-"


def count_powers(found: Any) -> str:
    """Say how many are in each power state: `3 running, 2 deallocated`."""
    counts: dict[str, int] = {}
    for one in found:
        counts[str(one.power)] = counts.get(str(one.power), 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{words.count(count)} {power}" for power, count in ordered)


def write_table(terminal: Terminal, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows in columns."""
    shown = [[words.printable(cell) for cell in row] for row in rows]
    widths = [max(words.cells(row[n]) for row in [headings, *shown]) for n in range(len(headings))]
    if terminal.out_is_terminal:
        terminal.result(terminal.paint_out(_line(headings, widths), "dim"))
    for row in shown:
        line = _line(row, widths)
        style = _POWER_STYLES.get(row[1], "")
        if style and terminal.out_color:
            line = line.replace(f" {row[1]}", f" {terminal.paint_out(row[1], style)}", 1)
        terminal.result(line)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell + " " * (width - words.cells(cell)) for cell, width in zip(cells, widths, strict=True)
    )
    return "  ".join(padded).rstrip()


def write_outputs(terminal: Terminal, report: Any) -> None:
    """Write what scripts or functions answered, equal answers together."""
    answers = fold(report)
    safe = terminal.out_is_terminal
    width = terminal.out_width if safe else 0
    for one in answers:
        alone = len(answers) == 1 and len(one.names) == len(report)
        for text, style in output_lines(one, alone=alone, safe=safe, width=width):
            terminal.result(terminal.paint_out(text, style) if style else text)


def finish_reading(terminal: Terminal, report: Any, report_path: str | None) -> int:
    """Tell what failed of a report of something that was read, and answer the exit code."""
    from azpool.cli._fleet_state import reason_of
    from azpool.cli._report_file import write_report
    from azpool.report import State

    terminal.flush()
    bad = [one for one in report if one.state not in {State.OK, State.SKIPPED}]
    groups: dict[str, list[str]] = {}
    for one in bad:
        groups.setdefault(reason_of(one), []).append(one.name)
    for reason, names in groups.items():
        said = f"{words.count(len(names))} failed: {words.printable(reason)}"
        terminal.say(f"{said} [{words.printable(name_ranges(names))}]", "red")
    if report_path is not None:
        write_report(report_path, report)
    refused = sum(one.status in {401, 403} for one in bad)
    return code_of_failures(len(report) - len(bad), len(bad), refused=refused)
