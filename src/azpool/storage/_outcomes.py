"""The outcomes of a call, read from its ledger when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from azpool.report import LazyOutcomes, State
from azpool.storage._ledger import OPEN, PAGE_ROWS, STATES, Ledger, load_error, text
from azpool.storage.outcome import FileOutcome

__all__ = ["LedgerOutcomes"]


class LedgerOutcomes(LazyOutcomes[FileOutcome]):
    """The outcomes of a ledger, or those in some states: read when they are asked for.

    What is open has the state `rest`: unknown, or cancelled where the call was stopped.
    """

    def __init__(
        self, ledger: Ledger, *, rest: State = State.UNKNOWN, states: frozenset[State] | None = None
    ) -> None:
        self._ledger = ledger
        self._rest = rest
        self._states = states
        self._where = "1"
        if states is not None:
            numbers = [str(number) for number, state in enumerate(STATES) if state in states]
            numbers += [str(OPEN)] if rest in states else []
            self._where = f"state IN ({', '.join(numbers)})"
        self._length: int | None = None

    def of(self, states: frozenset[State]) -> LedgerOutcomes:
        chosen = states if self._states is None else states & self._states
        return LedgerOutcomes(self._ledger, rest=self._rest, states=chosen)

    def counts(self) -> dict[State, int]:
        rows = self._ledger.rows(
            f"SELECT state, count(*) FROM things WHERE {self._where} GROUP BY state"
        )
        return {STATES[number] or self._rest: count for number, count in rows}

    def bytes_moved(self) -> int:
        query = f"SELECT total(moved) FROM things WHERE {self._where}"
        return int(self._ledger.rows(query)[0][0])

    def __len__(self) -> int:
        if self._length is None:
            query = f"SELECT count(*) FROM things WHERE {self._where}"
            self._length = self._ledger.rows(query)[0][0]
        return self._length

    def _page(self, condition: str, *values: int) -> list[FileOutcome]:
        rows = self._ledger.rows(
            "SELECT place, source, target, size, state, seconds, attempts, moved, error, note"
            f" FROM things WHERE {self._where} {condition}",
            values,
        )
        return [self._outcome(*row) for row in rows]

    def _outcome(
        self,
        place: int,
        source: str | bytes,
        target: str | bytes,
        size: int,
        state: int,
        seconds: float | None,
        attempts: int | None,
        moved: int | None,
        error: bytes | None,
        note: str | None,
    ) -> FileOutcome:
        name = text(source)
        return FileOutcome(
            index=place,
            name=name,
            state=STATES[state] or self._rest,
            error=load_error(error),
            seconds=seconds or 0.0,
            attempts=attempts or 0,
            bytes_moved=moved or 0,
            source=name,
            target=text(target),
            size_bytes=size,
            note=note or "",
        )

    def __iter__(self) -> Iterator[FileOutcome]:
        after = -1
        while True:
            page = self._page("AND place > ? ORDER BY place LIMIT ?", after, PAGE_ROWS)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            after = page[-1].index

    def at(self, index: int) -> FileOutcome:
        if self._states is None:
            return self._page("AND place = ?", index)[0]
        return self._page("ORDER BY place LIMIT 1 OFFSET ?", index)[0]
