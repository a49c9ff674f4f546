"""One run under a view: what it holds, and what it tells."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from azpool.cli._exit import Interrupted
from azpool.cli._main import names_many
from azpool.cli._plain import PlainView
from azpool.cli._remote import LatePool
from azpool.cli._run import Run
from azpool.cli._state import Job, TransferState
from azpool.cli._term import Terminal
from azpool.errors import LocalFileError
from azpool.report import LazyOutcomes, Report, State
from azpool.storage.outcome import FileOutcome, Progress


class Counted(LazyOutcomes[FileOutcome]):
    """Outcomes that are made when they are asked for, and counted."""

    def __init__(self, states: dict[State, int]) -> None:
        self.states = states
        self.made = 0

    def of(self, states: frozenset[State]) -> Sequence[FileOutcome]:
        return Counted({state: n for state, n in self.states.items() if state in states})

    def counts(self) -> dict[State, int]:
        return {state: count for state, count in self.states.items() if count}

    def bytes_moved(self) -> int:
        return 0

    def __len__(self) -> int:
        return sum(self.states.values())

    def at(self, index: int) -> FileOutcome:
        self.made += 1
        return FileOutcome(index=index, name=f"{index}")

    def __iter__(self) -> Iterator[FileOutcome]:
        return (self.at(index) for index in range(len(self)))


def a_run(*, verbose: bool = False) -> tuple[Run, TransferState, io.StringIO]:
    written = io.StringIO()
    terminal = Terminal(out=io.StringIO(), err=written)
    state = TransferState(job=Job(verb="upload", target="az://demo"), began=0.0)
    return Run(terminal, PlainView(terminal, state, verbose=verbose), state), state, written


def block(first: int, count: int, total: int, *, failed: bool = False) -> Progress:
    error = LocalFileError("cannot upload 'x': gone; look", path="x", code="ENOENT")
    ended = tuple(
        FileOutcome(
            index=index,
            name=f"a/rather/long/name/of/a/file/{index:09d}.nc",
            state=State.FAILED if failed else State.OK,
            error=error if failed else None,
        )
        for index in range(first, first + count)
    )
    done = first + count
    return Progress(
        files_done=done, files_failed=done if failed else 0, files_total=total, ended=ended
    )


@pytest.mark.parametrize("failed", [False, True])
def test_memory_does_not_grow_with_the_files(failed: bool) -> None:
    total = 50_000
    run, _, written = a_run()
    outcomes = Counted({State.FAILED if failed else State.OK: total})

    def work(notice: Any) -> Report[FileOutcome]:
        for first in range(0, total, 1000):
            notice(block(first, 1000, total, failed=failed))
        return Report(outcomes)

    run.run(lambda notice: Report(Counted({State.OK: 1})))  # what is loaded and cached by then
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        code = run.run(work)
        held = tracemalloc.get_traced_memory()[0] - before
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert code == (3 if failed else 0)
    assert held < 200_000  # a set of the indexes alone would be 4 MB
    assert peak < 2_000_000
    assert outcomes.made == 0
    assert "50,000" in written.getvalue()


def test_what_the_engine_never_reached_is_told_where_each_file_is() -> None:
    for verbose in (False, True):
        run, _, written = a_run(verbose=verbose)
        report = Report(Counted({State.OK: 2, State.CANCELLED: 3}))
        run.run(lambda notice, report=report: [notice(block(0, 2, 5)), report][1])
        assert "uploaded 2 of 5 files" in written.getvalue()
        assert "3 not done" in written.getvalue()
        assert written.getvalue().count("a/rather/long/name") == (2 if verbose else 0)


def test_a_job_that_is_not_worth_keeping_is_forgotten_once_though_ctrl_c_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def keep(report: Any) -> bool:
        asked.append(report)
        return False

    terminal = Terminal(out=io.StringIO(), err=io.StringIO())
    state = TransferState(job=Job(verb="upload", target="az://demo"), began=0.0, journal="3f2a91bc")
    view = PlainView(terminal, state)
    run = Run(terminal, view, state, keep)

    def press(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(view, "finish", press)
    report = Report(Counted({State.OK: 2, State.CANCELLED: 3}))
    with pytest.raises(Interrupted, match=r"^interrupted: 2 of 5 files uploaded, 3 not done$"):
        run.run(lambda notice: [notice(block(0, 2, 5)), report][1])
    assert asked == [report]


# -- what is begun before the command line is loaded -----------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "many"),
    [
        (["cp", "FOLDER", "az://c"], True),
        (["cp", "-v", "FOLDER/", "x", "az://c", "--verify", "md5"], True),
        (["cp", "az://c/p/", "out"], True),
        (["cp", "https://a.blob.core.windows.net/c/p/?sig=x", "out"], True),
        (["cp", "az://c/**/*.nc", "out"], True),
        (["cp", "az://c/x", "FOLDER"], False),
        (["cp", "file", "az://c"], False),
        (["cp", "FOLDER", "other"], False),
        (["cp", "--nodes", "3", "FOLDER", "az://c"], False),
        (["cp", "--dry-run", "FOLDER", "az://c"], False),
        (["cp", "--help"], False),
        (["ls", "az://c/"], False),
        (["rm", "FOLDER", "az://c"], False),
        ([], False),
    ],
)
def test_a_pool_is_begun_early_only_for_many_files(
    arguments: list[str], many: bool, tmp_path
) -> None:
    named = [one.replace("FOLDER", str(tmp_path)) for one in arguments]
    assert names_many(named) is many


def test_a_pool_of_a_size_is_waited_for_by_who_uses_it() -> None:
    late = LatePool(1)
    try:
        assert late.size == 1
        assert list(late.map(abs, [-1, -2])) == [1, 2]
    finally:
        late.delete()


def test_a_pool_that_can_not_start_says_so_where_it_is_used(monkeypatch) -> None:
    monkeypatch.setattr("azpool.pool.session.init_pool", fail)
    late = LatePool(2)
    with pytest.raises(ZeroDivisionError):
        late.map(abs, [1])


def fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError
