"""What happened to each of many things: one outcome for each, in order, never silently absent.

The engines below (transfers, fleets, any user's items) fill a `Report`; users read it, print it,
raise from it or run its failures again. It knows nothing of Azure: an error's facts are read off
the error by name. Partial failure is data here, not an exception.
"""

from __future__ import annotations

import enum
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar, overload

from azpool.errors import SomeFailed, UsageError

__all__ = ["LazyOutcomes", "Outcome", "OutcomeT", "Report", "State"]

REASONS_SHOWN = 8
NAMES_SHOWN = 3


class State(enum.Enum):
    """How it ended for one thing."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    THROTTLED = "throttled"
    """Given up: the service's budget, or its Retry-After, would not let it through in time."""
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened to one thing.

    Attributes:
        index: its place in the report, from 0.
        name: what it is called.
        state: how it ended.
        error: why, unless it is ok.
        seconds: time spent on it, waiting between attempts included.
        attempts: how often it was tried; 0 where it was refused before the first try.
        bytes_moved: bytes that arrived; 0 for things that have none.
    """

    index: int
    name: str
    state: State = State.OK
    error: BaseException | None = None
    seconds: float = 0.0
    attempts: int = 1
    bytes_moved: int = 0

    @property
    def ok(self) -> bool:
        return self.state is State.OK

    @property
    def status(self) -> int | None:
        """HTTP status of the failure, or None."""
        return getattr(self.error, "status", None)

    @property
    def code(self) -> str | None:
        """The service's own error code (`BlobNotFound`), or None."""
        return getattr(self.error, "code", None)

    @property
    def request_id(self) -> str | None:
        """The service's id of the failed request, for a support ticket, or None."""
        return getattr(self.error, "request_id", None)

    @property
    def reason(self) -> str:
        """The error in one line without this thing's own names, so that equal reasons compare."""
        if self.error is None:
            return ""
        text = str(self.error).partition("\n")[0] or type(self.error).__name__
        for name in sorted(self._names(), key=len, reverse=True):
            text = text.replace(repr(name), "…")
        if self.request_id:
            text = text.replace(self.request_id, "…")
        return text

    def _names(self) -> set[str]:
        path = getattr(self.error, "path", None)
        return {name for name in (self.name, path) if name}

    def to_dict(self) -> dict[str, Any]:
        """Answer the outcome as a flat dict of plain values."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        row["state"] = self.state.value
        row["error"] = None if self.error is None else str(self.error)
        row["error_type"] = None if self.error is None else type(self.error).__name__
        row.update(status=self.status, code=self.code, request_id=self.request_id)
        return row


OutcomeT = TypeVar("OutcomeT", bound=Outcome)


class LazyOutcomes(Sequence[OutcomeT]):
    """Outcomes that are kept elsewhere and made when they are asked for.

    Whoever has a million of them gives a `Report` one of these; they are never all in memory unless
    somebody asks for a list. Equal to a list of the same outcomes.
    """

    @abstractmethod
    def of(self, states: frozenset[State]) -> Sequence[OutcomeT]:
        """Answer those that ended in one of these states, in their order."""

    @abstractmethod
    def counts(self) -> dict[State, int]:
        """Answer how many ended in each state that some ended in."""

    @abstractmethod
    def bytes_moved(self) -> int:
        """Answer the sum of their bytes."""

    @abstractmethod
    def at(self, index: int) -> OutcomeT:
        """Answer one; `index` is from 0 and in range."""

    @overload
    def __getitem__(self, index: int) -> OutcomeT: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[OutcomeT]: ...
    def __getitem__(self, index: int | slice) -> OutcomeT | Sequence[OutcomeT]:
        count = len(self)
        if isinstance(index, slice):
            return [self.at(n) for n in range(*index.indices(count))]
        at = index + count if index < 0 else index
        if not 0 <= at < count:
            raise IndexError(f"no outcome {index}: there are {count}")
        return self.at(at)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | tuple | LazyOutcomes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        shown = ", ".join(repr(outcome) for outcome in islice(self, NAMES_SHOWN))
        more = len(self) - NAMES_SHOWN
        return f"[{shown}{f', and {more:,} more' if more > 0 else ''}]"


class _Held(LazyOutcomes[OutcomeT]):
    """Outcomes that are in memory anyway."""

    def __init__(self, outcomes: Iterable[OutcomeT]) -> None:
        self._outcomes = tuple(outcomes)

    def of(self, states: frozenset[State]) -> list[OutcomeT]:
        return [outcome for outcome in self._outcomes if outcome.state in states]

    def counts(self) -> dict[State, int]:
        counts: dict[State, int] = {}
        for outcome in self._outcomes:
            counts[outcome.state] = counts.get(outcome.state, 0) + 1
        return counts

    def bytes_moved(self) -> int:
        return sum(outcome.bytes_moved for outcome in self._outcomes)

    def at(self, index: int) -> OutcomeT:
        return self._outcomes[index]

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[OutcomeT]:
        return iter(self._outcomes)


class _Group(NamedTuple):
    """Outcomes of one reason, as a table shows them."""

    many: int
    names: str


_BAD = frozenset(State) - {State.OK, State.SKIPPED}
_NOT_OK = frozenset(State) - {State.OK}


class Report(Sequence[OutcomeT], Generic[OutcomeT]):
    """A sequence of outcomes, one for each thing, in their order.

    `repr` (and the table in a notebook) stays short for any length: counts, bytes, seconds, and
    the failures grouped by reason, each reason told once.

    Args:
        outcomes: one for each thing, in order.
        title: what was done, for the table: `"upload"`.
        seconds: how long all of it took.
        notes: what the user should know beside the outcomes, one sentence each.
        again: runs the given outcomes' things again and answers with their report; a pickled
            report has none.
    """

    def __init__(
        self,
        outcomes: Iterable[OutcomeT] = (),
        *,
        title: str = "",
        seconds: float = 0.0,
        notes: Iterable[str] = (),
        again: Callable[[Sequence[OutcomeT]], Report[OutcomeT]] | None = None,
    ) -> None:
        self._outcomes = outcomes if isinstance(outcomes, LazyOutcomes) else _Held(outcomes)
        self.title = title
        self.seconds = seconds
        self.notes = tuple(notes)
        self._again = again

    @overload
    def __getitem__(self, index: int) -> OutcomeT: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[OutcomeT]: ...
    def __getitem__(self, index: int | slice) -> OutcomeT | Sequence[OutcomeT]:
        return self._outcomes[index]

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[OutcomeT]:
        return iter(self._outcomes)

    def _in_state(self, state: State) -> Sequence[OutcomeT]:
        return self._outcomes.of(frozenset({state}))

    @property
    def ok(self) -> Sequence[OutcomeT]:
        return self._in_state(State.OK)

    @property
    def failed(self) -> Sequence[OutcomeT]:
        return self._in_state(State.FAILED)

    @property
    def skipped(self) -> Sequence[OutcomeT]:
        return self._in_state(State.SKIPPED)

    @property
    def throttled(self) -> Sequence[OutcomeT]:
        return self._in_state(State.THROTTLED)

    @property
    def cancelled(self) -> Sequence[OutcomeT]:
        return self._in_state(State.CANCELLED)

    @property
    def unknown(self) -> Sequence[OutcomeT]:
        return self._in_state(State.UNKNOWN)

    @property
    def bytes_moved(self) -> int:
        return self._outcomes.bytes_moved()

    @property
    def counts(self) -> dict[State, int]:
        """How many ended in each state; states that nothing ended in are absent."""
        counts = self._outcomes.counts()
        return {state: counts[state] for state in State if state in counts}

    def reasons(self) -> dict[str, list[OutcomeT]]:
        """Group the outcomes that carry an error by its reason, the most frequent first."""
        groups: dict[str, list[OutcomeT]] = {}
        for outcome in self._outcomes.of(_NOT_OK):
            if outcome.error is not None:
                groups.setdefault(outcome.reason, []).append(outcome)
        return dict(sorted(groups.items(), key=lambda item: -len(item[1])))

    def _groups(self) -> dict[str, _Group]:
        """Count the outcomes by reason, the most frequent first, holding the first names alone."""
        counts: dict[str, int] = {}
        names: dict[str, list[str]] = {}
        for outcome in self._outcomes.of(_NOT_OK):
            if outcome.error is None:
                continue
            reason = outcome.reason
            counts[reason] = counts.get(reason, 0) + 1
            if counts[reason] <= NAMES_SHOWN:
                names.setdefault(reason, []).append(outcome.name)
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        return {reason: _Group(n, _some_names(names[reason], n)) for reason, n in ordered}

    def raise_for_failures(self) -> None:
        """Raise unless everything is ok or was skipped on purpose.

        Raises:
            SomeFailed: with this report as `.report` and the first error as its cause.
        """
        bad = self._outcomes.of(_BAD)
        many = len(bad)
        if not many:
            return
        reason, group = next(iter(self._groups().items()), ("cancelled", _Group(many, "")))
        others = f" (and {many - group.many:,} others)" if many > group.many else ""
        raise SomeFailed(
            f"cannot {self.title or 'do'} {many:,} of {len(self):,}: "
            f"{group.many:,} x {reason}{others}; see err.report",
            report=self,
        ) from bad[0].error

    def retry(self) -> Report[OutcomeT]:
        """Run what did not end ok (nor was skipped) once more and answer with a report of that.

        Raises:
            UsageError: this report does not know how to run its things again.
        """
        if self._again is None:
            raise UsageError("cannot retry this report: it holds no way to run its things again")
        return self._again(self._outcomes.of(_BAD))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Answer one flat dict an outcome, in order; feeds `pandas.DataFrame`."""
        return [outcome.to_dict() for outcome in self._outcomes]

    def to_json(self, *, indent: int | None = None) -> str:
        """Answer the whole report as JSON: title, seconds, counts, notes, outcomes."""
        return json.dumps(
            {
                "title": self.title,
                "seconds": self.seconds,
                "bytes_moved": self.bytes_moved,
                "counts": {state.value: count for state, count in self.counts.items()},
                "notes": list(self.notes),
                "outcomes": self.to_dicts(),
            },
            indent=indent,
        )

    def __getstate__(self) -> dict[str, Any]:
        # What runs things again holds credentials, which leave no process in a pickle.
        return {**self.__dict__, "_again": None, "_outcomes": _Held(self._outcomes)}

    def __repr__(self) -> str:
        lines = [self._headline()]
        lines += [f"  {state.value:<10}{count:>9,}" for state, count in self.counts.items()]
        groups = self._groups()
        for reason, group in list(groups.items())[:REASONS_SHOWN]:
            lines += [f"  {group.many:,} x {reason}", f"      {group.names}"]
        if len(groups) > REASONS_SHOWN:
            lines.append(f"  and {len(groups) - REASONS_SHOWN:,} more reasons")
        lines += [f"  note: {note}" for note in self.notes[:REASONS_SHOWN]]
        return "\n".join(lines)

    def _headline(self) -> str:
        text = f"Report: {self.title + ', ' if self.title else ''}{len(self):,} outcomes"
        moved = self.bytes_moved
        if moved:
            text += f", {format_bytes(moved)}"
        if self.seconds > 0:
            text += f" in {format_seconds(self.seconds)}"
            text += f" ({len(self) / self.seconds:,.0f}/s)" if len(self) > 1 else ""
        return text

    def _repr_html_(self) -> str:
        import html

        rows = [
            f"<tr><td>{state.value}</td><td style='text-align:right'>{count:,}</td><td></td></tr>"
            for state, count in self.counts.items()
        ]
        for reason, group in list(self._groups().items())[:REASONS_SHOWN]:
            rows.append(
                f"<tr><td>{html.escape(reason)}</td>"
                f"<td style='text-align:right'>{group.many:,}</td>"
                f"<td>{html.escape(group.names)}</td></tr>"
            )
        rows += [f"<tr><td colspan='3'>{html.escape(n)}</td></tr>" for n in self.notes]
        return (
            f"<table><caption>{html.escape(self._headline())}</caption>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )


def _some_names(first: Sequence[str], count: int) -> str:
    text = ", ".join(repr(name)[1:-1] for name in first)
    more = count - NAMES_SHOWN
    return f"{text} and {more:,} more" if more > 0 else text


def format_bytes(count: int) -> str:
    """Print a size as people read it: `7.8 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Print a time as people read it: `230 ms`, `1.9 s`, `3 min 20 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
