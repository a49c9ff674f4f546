"""What the views draw, from states that are made by hand."""

from __future__ import annotations

import io
import json

import pytest

from azpool.cli._events import JsonView
from azpool.cli._live import LiveView, frame
from azpool.cli._plain import PlainView
from azpool.cli._rate import Amount, Pace
from azpool.cli._state import Job, Summary, TransferState
from azpool.cli._tally import Tally
from azpool.cli._term import Terminal
from azpool.cli._watch import Watch
from azpool.errors import AccessDenied, LocalFileError
from azpool.report import Report, State
from azpool.storage.outcome import FileOutcome


def a_state() -> TransferState:
    state = TransferState(job=Job(verb="upload", target="az://demo/in", nodes=10), began=100.0)
    state.total = Amount(files=2000, size_bytes=2000 * 4096)
    state.done = Amount(files=1000, size_bytes=1000 * 4096)
    state.in_flight = 80
    state.current = "logs/2024/a.nc"
    return state


def failing(state: TransferState, count: int) -> None:
    for number in range(count):
        name = f"{number}.nc"
        error = AccessDenied(f"cannot upload {name!r}: refused (403); check it", path=name)
        state.tally.add(name, error)
    state.failed = count


def drawn(state: TransferState, width: int, pace: Pace | None = None) -> list[str]:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(frame(state, pace or Pace(), 103.0, width))
    return captured.get().splitlines()


PACE = Pace(files_per_second=987.6, bytes_per_second=4e6, seconds_left=1.2)


def test_a_frame_shows_files_bytes_rates_and_time_left() -> None:
    lines = drawn(a_state(), 100, PACE)
    assert lines[0].startswith("↑ uploading to az://demo/in  ")
    assert lines[0].endswith("10 nodes · 0:03")
    assert " 50% " in lines[1]
    assert lines[1].rstrip().endswith("0:01 left")
    assert lines[2].split() == ["files", "1,000", "of", "2,000", "988/s", "80", "in", "flight"]
    assert lines[3].split() == ["bytes", "3.9", "of", "7.8", "MiB", "3.8", "MiB/s"]
    assert lines[4].split() == ["now", "logs/2024/a.nc"]


def test_failures_show_with_their_reasons() -> None:
    state = a_state()
    failing(state, 7)
    lines = drawn(state, 100, PACE)
    assert "7 failed" in lines[2]
    assert lines[-1].strip() == "✗ 7 refused (403); check it · 0.nc"


@pytest.mark.parametrize("width", [20, 30, 40, 59, 60, 80, 200, 500])
@pytest.mark.parametrize("failures", [0, 7])
def test_every_width_holds_its_lines(width: int, failures: int) -> None:
    state = a_state()
    state.current = "d/" * 300
    failing(state, failures)
    lines = drawn(state, width, PACE)
    assert len(lines) <= 6 + bool(failures)
    assert max(map(len, lines)) <= width
    assert failures == 0 or width < 60 or "7 failed" in lines[2]


def test_before_anything_is_known_it_says_so() -> None:
    lines = drawn(TransferState(job=Job(verb="download", target="out"), began=100.0), 80)
    assert lines[0].startswith("↓ downloading to out ")
    assert lines[2].split() == ["files", "looking", "for", "them"]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_view_leaves_only_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal(out=io.StringIO(), err=Tty())
    state = a_state()
    view = LiveView(terminal, state)
    with Watch(view, state):
        pass
    view.start()
    view.tick(101.0)
    view.stop()
    view.finish(a_summary(state.job))
    written = terminal.err.getvalue()
    assert "\x1b[?25l" in written
    assert written.count("\x1b[?25h") == written.count("\x1b[?25l")
    assert "uploaded 2 of 3 files" in written


def test_no_color_leaves_the_colours_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal(out=io.StringIO(), err=Tty())
    view = LiveView(terminal, a_state())
    view.start()
    view.tick(101.0)
    view.stop()
    view.finish(a_summary(Job(verb="upload", target="x")))
    assert "\x1b[3" not in terminal.err.getvalue()
    terminal.error("no")
    assert terminal.err.getvalue().endswith("\nazpool: no\n")


def a_summary(job: Job) -> Summary:
    error = LocalFileError("cannot upload 'c': permission denied; check it", path="c")
    outcomes = [
        FileOutcome(index=0, name="a", bytes_moved=10),
        FileOutcome(index=1, name="b", bytes_moved=10),
        FileOutcome(index=2, name="c", state=State.FAILED, error=error),
    ]
    report = Report(outcomes, notes=["'d' holds no files"])
    return Summary.of(job, report, 2.0, Tally.of([("c", error)]))


def test_plain_lines_come_every_few_seconds() -> None:
    terminal = Terminal(out=io.StringIO(), err=io.StringIO())
    state = a_state()
    view = PlainView(terminal, state)
    for tenth in range(1, 100):
        state.done = Amount(files=10 * tenth, size_bytes=40960 * tenth)
        view.tick(100.0 + tenth / 10)
    lines = terminal.err.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == (
        "uploading: 200 of 2,000 files, 800 KiB of 7.8 MiB, 100 files/s, 400 KiB/s, 0:18 left"
    )


def test_plain_failures_wait_for_the_first_line_then_come_at_once() -> None:
    terminal = Terminal(out=io.StringIO(), err=io.StringIO())
    state = a_state()
    view = PlainView(terminal, state)
    error = LocalFileError("cannot upload 'c': permission denied; check it", path="c")

    def fail(index: int) -> None:
        outcome = FileOutcome(index=index, name="c", state=State.FAILED, error=error)
        view.outcome(outcome, state.tally.add("c", error))

    fail(0)
    assert terminal.err.getvalue() == ""
    view.tick(102.5)
    said = "failed: c: permission denied; check it\n"
    assert terminal.err.getvalue().startswith(said)
    for index in range(1, 10):
        fail(index)
    assert terminal.err.getvalue().count(said) == 3


def test_json_progress_is_complete() -> None:
    terminal = Terminal(out=io.StringIO(), err=io.StringIO())
    view = JsonView(terminal, a_state())
    view.tick(100.5)
    view.tick(101.5)
    (event,) = [json.loads(line) for line in terminal.out.getvalue().splitlines()]
    assert event == {
        "event": "progress",
        "files_done": 1000,
        "files_failed": 0,
        "files_skipped": 0,
        "files_total": 2000,
        "bytes_done": 4096000,
        "bytes_total": 8192000,
        "in_flight": 80,
        "files_per_second": 0.0,
        "bytes_per_second": 0,
        "seconds_left": None,
        "time": 1.5,
    }


class Failing(PlainView):
    interval_seconds = 0.001

    def tick(self, now: float) -> None:
        raise self.error

    error: Exception = ZeroDivisionError("a bug in a view")


def test_a_view_that_fails_does_not_stop_the_transfer() -> None:
    terminal = Terminal(out=io.StringIO(), err=io.StringIO())
    state = a_state()
    with Watch(Failing(terminal, state), state) as watch:
        watch._thread.join(10)
        watch.check()
    assert isinstance(watch.failed, ZeroDivisionError)


def test_a_reader_that_went_away_does() -> None:
    terminal = Terminal(out=io.StringIO(), err=io.StringIO())
    state = a_state()
    view = Failing(terminal, state)
    view.error = BrokenPipeError()
    with Watch(view, state) as watch:
        watch._thread.join(10)
        with pytest.raises(BrokenPipeError):
            watch.check()
