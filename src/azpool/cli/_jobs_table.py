"""How jobs are shown: a table, the details of one, and as JSON. Pure but for the clock."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._frame import failures, line_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azpool.cli._remote import JobInfo
    from azpool.cli._tally import Tally
    from azpool.cli._term import Terminal

__all__ = ["details", "job_facts", "job_words", "table"]

STYLES = {"running": "green", "interrupted": "yellow", "failed": "red", "unreadable": "red"}
HEADINGS = ("job", "began", "state", "files", "bytes", "what")
WHAT_WIDTH = 36  # narrower than this, what a job does stands on a line of its own
ARROWS = {"upload": "↑", "download": "↓"}


def table(found: Sequence[JobInfo], terminal: Terminal) -> list[str]:
    """Draw all jobs: one line each where it is wide enough, else two."""
    rows = [_cells(info) for info in found]
    columns = [[heading, *(row[n] for row in rows)] for n, heading in enumerate(HEADINGS)]
    widths = [max(map(words.cells, column)) for column in columns]
    fixed = sum(widths[:5]) + 2 * 5
    width = terminal.out_width if terminal.out_is_terminal else 0
    room = width - fixed if width else widths[5]
    below = bool(width) and room < min(widths[5], WHAT_WIDTH)
    lines = [_row(HEADINGS, widths, None if below else "what", terminal, "dim")]
    for info, row in zip(found, rows, strict=True):
        what = words.shorten(row[5], width - 10 if below else room)
        style = STYLES[info.state.value]
        lines.append(_row(row, widths, None if below else what, terminal, "", style))
        if below:
            lines.append(terminal.paint_out(f"{'':10}{what}", "dim"))
    return [line.rstrip() for line in lines]


def _row(
    cells: Sequence[str],
    widths: list[int],
    what: str | None,
    terminal: Terminal,
    style: str,
    state_style: str = "",
) -> str:
    pieces = []
    for number, (cell, width) in enumerate(zip(cells[:5], widths, strict=False)):
        # Numbers stand to the right.
        text = cell.rjust(width) if number in {3, 4} else cell.ljust(width)
        chosen = state_style if number == 2 and state_style else "bold" if number == 0 else ""
        chosen = style or chosen
        pieces.append(terminal.paint_out(text, chosen) if chosen else text)
    if what is not None:
        pieces.append(terminal.paint_out(what, style) if style else what)
    return "  ".join(pieces)


def _cells(info: JobInfo) -> tuple[str, ...]:
    done = info.files_done - info.files_failed
    if not info.planned:
        files = moved = "-"
    else:
        files = f"{words.count(done)} of {words.count(info.files_total)}"
        moved = words.size_of(info.bytes_done, info.bytes_total)
    state = info.state.value
    if info.files_failed and state == "failed":
        state = f"{words.count(info.files_failed)} failed"
    if info.problem:
        what = words.printable(info.problem)
    else:
        source, target = job_words(info)
        what = f"{ARROWS.get(info.direction, '·')} {source} → {target}"
    return (info.id, _when(info.started), state, files, moved, what)


def _when(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"


def job_words(info: JobInfo) -> tuple[str, str]:
    """Say from where to where a job goes, short and without anything secret."""
    place = info.url.removeprefix("https://").replace(".blob.core.windows.net/", "/")
    if info.direction == "download":
        sources = [f"{place}/{source}".replace("//", "/") for source in info.sources]
        return _some(sources), words.printable(_local(info.dest, info.cwd))
    sources = [_local(source, info.cwd) for source in info.sources]
    return _some(sources), words.printable(f"{place}/{info.dest}".rstrip("/"))


def _local(path: str, cwd: str) -> str:
    """Answer a local path as it would be named here."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = ""
    if os.path.isabs(path) or cwd == here:
        return path
    return os.path.join(cwd, path)


def _some(names: Sequence[str]) -> str:
    shown = " ".join(words.printable(name) for name in names[:3])
    more = len(names) - 3
    return f"{shown} and {words.count(more)} more" if more > 0 else shown


def details(info: JobInfo, tally: Tally, terminal: Terminal) -> list[str]:
    """Draw one job: what it does, how far it is, and its failures by reason."""
    state = terminal.paint_out(info.state.value, STYLES[info.state.value])
    lines = [f"{terminal.paint_out(f'job {info.id}', 'bold')}  {state}"]
    for name, text in _detail_rows(info):
        lines.append(f"  {terminal.paint_out(f'{name:<9}', 'dim')} {text}")
    if tally.count:
        width = terminal.out_width
        for line in failures(tally, min(width, 120)):
            text = "".join(terminal.paint_out(t, style) if style else t for t, style in line)
            lines.append(text if line_text(line).strip() else "")
    if info.state.value == "interrupted":
        lines.append(f"azpool jobs resume {info.id} goes on from there")
    if info.state.value == "failed":
        again = f"the {words.count(info.files_failed)}" if info.files_failed > 1 else "it"
        lines.append(f"azpool jobs resume {info.id} tries {again} again")
    return lines


def _detail_rows(info: JobInfo) -> list[tuple[str, str]]:
    if info.problem:
        return [("problem", words.printable(info.problem)), ("journal", info.path)]
    began = _when(info.started)
    if info.started is not None:
        ago = max(0.0, (datetime.now(UTC) - info.started).total_seconds())
        began += f", {words.seconds(ago)} ago" if ago < 86400 else ""
    source, target = job_words(info)
    rows = [("began", began), (info.direction or "what", source), ("to", target)]
    if info.planned:
        done = info.files_done - info.files_failed
        files = f"{words.count(done)} of {words.count(info.files_total)}"
        for number, what in ((info.files_failed, "failed"), (info.files_skipped, "skipped")):
            files += f", {words.count(number)} {what}" if number else ""
        rows.append(("files", files))
        rows.append(("bytes", words.size_of(info.bytes_done, info.bytes_total)))
    else:
        rows.append(("files", "not all found yet: nothing has moved"))
    chosen = [_option(name, value) for name, value in info.options.items() if _is_set(name, value)]
    if chosen:
        rows.append(("options", ", ".join(chosen)))
    return [*rows, ("folder", words.printable(info.cwd)), ("journal", words.printable(info.path))]


def _is_set(name: str, value: Any) -> bool:
    return bool(value) and not (name == "overwrite" and value == "always")


def _option(name: str, value: Any) -> str:
    name = name.replace("_", "-")
    if value is True:
        return name
    if name == "max-bytes-per-second":
        return f"cap-rate {words.size(value)}/s"
    if isinstance(value, dict):
        return f"{name} {words.printable(' '.join(f'{k}={v}' for k, v in value.items()))}"
    return f"{name} {words.printable(str(value))}"


def job_facts(info: JobInfo) -> dict[str, Any]:
    """Answer a job as plain values."""
    return {
        "event": "job",
        "id": info.id,
        "state": info.state.value,
        "direction": info.direction,
        "url": info.url,
        "sources": list(info.sources),
        "dest": info.dest,
        "cwd": info.cwd,
        "started": None if info.started is None else info.started.isoformat(),
        "planned": info.planned,
        "files_total": info.files_total,
        "files_done": info.files_done,
        "files_failed": info.files_failed,
        "files_skipped": info.files_skipped,
        "bytes_total": info.bytes_total,
        "bytes_done": info.bytes_done,
        "options": dict(info.options),
        "path": info.path,
        "problem": info.problem,
    }
