"""What a call would do: with `dry_run=True` it answers with a `Plan` and moves nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, overload

from azpool.report import State, format_bytes
from azpool.storage._ledger import Kind, Ledger
from azpool.storage._outcomes import LedgerOutcomes

__all__ = ["Plan", "PlannedFile"]

ROWS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """What would become of one file or blob.

    Attributes:
        source: where it is.
        target: where it would go; "" where it has no place.
        size_bytes: its size.
        action: "upload" or "download", "skip", "refuse" (it would fail), "make folder".
        reason: why it would be skipped or refused, or "".
    """

    source: str
    target: str
    size_bytes: int
    action: str
    reason: str = ""


class Plan(Sequence[PlannedFile]):
    """What a call would do, one `PlannedFile` for each thing, in order.

    `repr` is a table of the first ones and the totals.
    """

    def __init__(self, ledger: Ledger, verb: str, notes: Sequence[str] = ()) -> None:
        self._outcomes = LedgerOutcomes(ledger)
        self._folders = {thing.place for thing in ledger.open_things(Kind.FOLDER)}
        self.title = verb
        self.notes = tuple(notes)
        self._ledger = ledger

    def __len__(self) -> int:
        return len(self._outcomes)

    @overload
    def __getitem__(self, index: int) -> PlannedFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PlannedFile]: ...
    def __getitem__(self, index: int | slice) -> PlannedFile | Sequence[PlannedFile]:
        if isinstance(index, slice):
            return [self._file(outcome) for outcome in self._outcomes[index]]
        return self._file(self._outcomes[index])

    def __iter__(self) -> Iterator[PlannedFile]:
        return (self._file(outcome) for outcome in self._outcomes)

    def _file(self, outcome: Any) -> PlannedFile:
        if outcome.state is State.SKIPPED:
            action = "skip"
        elif outcome.state is State.FAILED:
            action = "refuse"
        else:
            action = "make folder" if outcome.index in self._folders else self.title
        return PlannedFile(
            source=outcome.source,
            target=outcome.target,
            size_bytes=outcome.size_bytes,
            action=action,
            reason=outcome.note or ("" if outcome.error is None else str(outcome.error)),
        )

    @property
    def counts(self) -> dict[str, int]:
        """How many things each action has; actions that nothing has are absent."""
        states = self._outcomes.counts()
        counts = {
            self.title: states.get(State.UNKNOWN, 0) - len(self._folders),
            "make folder": len(self._folders),
            "skip": states.get(State.SKIPPED, 0),
            "refuse": states.get(State.FAILED, 0),
        }
        return {action: count for action, count in counts.items() if count}

    @property
    def size_bytes(self) -> int:
        """All the bytes that would be moved."""
        return int(self._ledger.rows("SELECT total(size) FROM things WHERE state = 0")[0][0])

    def to_dicts(self) -> list[dict[str, Any]]:
        """Answer one flat dict a thing, in order; feeds `pandas.DataFrame`."""
        return [asdict(planned) for planned in self]

    def to_json(self, *, indent: int | None = None) -> str:
        """Answer the whole plan as JSON."""
        return json.dumps(
            {
                "title": self.title,
                "size_bytes": self.size_bytes,
                "counts": self.counts,
                "notes": list(self.notes),
                "files": self.to_dicts(),
            },
            indent=indent,
        )

    def _headline(self) -> str:
        counts = ", ".join(f"{count:,} to {action}" for action, count in self.counts.items())
        return f"Plan: {counts or 'nothing to do'}, {format_bytes(self.size_bytes)}"

    def _shown(self) -> list[PlannedFile]:
        return list(islice(self, ROWS_SHOWN))

    def __repr__(self) -> str:
        lines = [self._headline()]
        for planned in self._shown():
            reason = f"  ({planned.reason})" if planned.reason else ""
            where = f" -> {planned.target!r}"[: None if planned.target else 0]
            size = format_bytes(planned.size_bytes)
            lines.append(f"  {planned.action:<12}{size:>10}  {planned.source!r}{where}{reason}")
        if len(self) > ROWS_SHOWN:
            lines.append(f"  and {len(self) - ROWS_SHOWN:,} more")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{planned.action}</td>"
            f"<td style='text-align:right'>{format_bytes(planned.size_bytes)}</td>"
            f"<td>{html.escape(planned.source)}</td><td>{html.escape(planned.target)}</td>"
            f"<td>{html.escape(planned.reason)}</td></tr>"
            for planned in self._shown()
        )
        caption = html.escape(self._headline())
        return f"<table><caption>{caption}</caption><tbody>{rows}</tbody></table>"
