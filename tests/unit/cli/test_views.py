"""What the views draw, from states that are made by hand."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace

import pytest

from azpool.cli import _words as words
from azpool.cli._events import JsonView
from azpool.cli._frame import frame, line_text, summary
from azpool.cli._live import LiveView
from azpool.cli._plain import PlainView, headline, how_to_go_on, speed_of
from azpool.cli._rate import Amount, Pace
from azpool.cli._state import Job, Slow, Summary, TransferState
from azpool.cli._tally import Tally
from azpool.cli._term import Terminal
from azpool.cli._watch import QuietView, Watch
from azpool.errors import AccessDenied, LocalFileError
from azpool.report import Report, State
from azpool.storage.outcome import FileOutcome, Moving, Progress


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


def drawn(
    state: TransferState, width: int, pace: Pace | None = None, height: int = 24
) -> list[str]:
    return [line_text(line) for line in frame(state, pace or Pace(), 103.0, width, height)]


PACE = Pace(files_per_second=987.6, bytes_per_second=4e6, seconds_left=1.2)


def test_a_frame_shows_files_bytes_rates_and_time_left() -> None:
    lines = drawn(a_state(), 100, PACE)
    assert lines[0].startswith("↑ uploading to az://demo/in  ")
    assert lines[0].endswith("10 nodes · 0:03")
    assert " 50% " in lines[1]
    assert lines[1].endswith("0:01 left")
    assert lines[2].split() == ["files", "1,000", "of", "2,000", "988/s"]
    assert lines[3].split() == ["bytes", "3.9", "of", "7.8", "MiB", "3.8", "MiB/s",
                                "80", "in", "flight"]  # fmt: skip
    assert lines[4].split() == ["now", "logs/2024/a.nc"]


def test_failures_show_with_their_reasons() -> None:
    state = a_state()
    failing(state, 7)
    lines = drawn(state, 100, PACE)
    assert "7 failed" in lines[2]
    assert lines[-1].strip() == "✗ 7 refused (403); check it · 0.nc"


def test_what_is_slow_and_throttled_shows() -> None:
    state = a_state()
    state.throttled = 12
    state.moving = (Moving(name="big/x.tar", size_bytes=4 * 2**30, bytes_done=2**30, seconds=42.0),)
    state.slow = (Slow(name="logs/late.nc", seconds=12.3, size_bytes=4096),)
    lines = drawn(state, 80, PACE)
    assert "12 throttled" in lines[3]
    assert lines[5].split() == ["slow", "25%", "1.0", "of", "4.0", "GiB", "0:42", "big/x.tar"]
    assert lines[6].split() == ["done", "4.0", "KiB", "12.3", "s", "logs/late.nc"]
    assert lines[5].index("big/x.tar") == lines[6].index("logs/late.nc")


def test_the_slowest_files_are_kept_and_no_others() -> None:
    state = a_state()
    for number in range(1000):
        outcome = FileOutcome(index=number, name=f"{number}", seconds=(number * 7 % 1000) / 10)
        state.take(Progress(files_total=1000, ended=(outcome,)))
    assert [slow.seconds for slow in state.slow] == [99.9, 99.8, 99.7]


@pytest.mark.parametrize("width", [20, 30, 40, 59, 60, 80, 160, 500])
@pytest.mark.parametrize("failures", [0, 7])
def test_every_width_holds_its_lines(width: int, failures: int) -> None:
    state = a_state()
    state.current = "d/" * 300
    state.moving = (Moving(name="日本" * 90, size_bytes=2**31, bytes_done=7, seconds=9.0),)
    failing(state, failures)
    lines = drawn(state, width, PACE)
    assert len(lines) <= 7 + bool(failures)
    assert max(map(words.cells, lines)) <= width
    assert failures == 0 or width < 60 or "7 failed" in lines[2]


@pytest.mark.parametrize("height", range(1, 12))
def test_a_low_window_keeps_what_matters_most(height: int) -> None:
    state = a_state()
    state.moving = (Moving(name="x", size_bytes=2**31, bytes_done=7, seconds=9.0),)
    failing(state, 7)
    lines = drawn(state, 80, PACE, height)
    # The cursor needs the last row: what fills a window scrolls at every frame.
    assert len(lines) <= max(2, height - 1)
    assert any("50%" in line for line in lines)


def test_columns_stay_where_they_are_while_numbers_grow() -> None:
    state = a_state()
    rows = []
    for files in (1, 99, 1000, 1999):
        state.done = Amount(files=files, size_bytes=files * 4096)
        rows.append(drawn(state, 80, PACE))
    assert len({line[2].index("988/s") for line in rows}) == 1
    assert len({line[3].index("3.8 MiB/s") for line in rows}) == 1
    assert len({line[3].index("80 in flight") for line in rows}) == 1


def test_a_bar_is_not_full_before_the_last_file() -> None:
    state = a_state()
    state.done = Amount(files=1999, size_bytes=2000 * 4096 - 1)
    assert "99%" in drawn(state, 80, PACE)[1]
    state.done = Amount(files=2000, size_bytes=2000 * 4096)
    assert "100%" in drawn(state, 80, PACE)[1]


def test_bytes_of_what_failed_are_not_waited_for() -> None:
    state = a_state()
    error = AccessDenied("cannot upload 'x': refused (403); check it", path="x")
    failed = FileOutcome(index=0, name="x", state=State.FAILED, error=error, size_bytes=900)
    state.take(
        Progress(
            files_done=2, files_failed=1, files_total=2, bytes_done=100, bytes_total=1000,
            ended=(failed,),
        )
    )  # fmt: skip
    assert state.fraction == 1.0


def test_before_anything_is_known_it_says_so() -> None:
    state = TransferState(job=Job(verb="download", target="out"), began=100.0)
    lines = drawn(state, 80)
    assert lines[0].startswith("↓ downloading to out ")
    assert lines[2].split() == ["files", "looking", "for", "them"]
    state.take(Progress(files_total=1234, bytes_total=2**20, planning=True))
    assert drawn(state, 80)[2].strip() == "files looking for them: 1,234 so far, 1.0 MiB"
    assert state.fraction is None


def test_what_an_earlier_command_has_done_is_no_speed_of_this_one() -> None:
    state = TransferState(job=Job(verb="upload", target="x"), began=100.0)
    state.take(Progress(files_done=1000, files_total=2000, bytes_done=5000, bytes_total=10000))
    assert state.before == Amount(files=1000, size_bytes=5000)
    outcomes = [FileOutcome(index=n, name=f"{n}", bytes_moved=5) for n in range(2000)]
    end = Summary.of(state.job, Report(outcomes), 10.0, Tally(), before=state.before)
    assert headline(end) == "uploaded 2,000 files (9.8 KiB), 1,000 of them before, in 10.0 s"
    assert speed_of(end) == "100 files/s, 500 B/s"


def test_a_summary_says_how_to_go_on() -> None:
    end = replace(a_summary(Job(verb="upload", target="x")), journal="3f2a91bc")
    assert how_to_go_on(end) == "azpool jobs resume 3f2a91bc tries it again"
    lines = [line_text(line) for line in summary(end, 80)]
    assert lines[0].startswith("✗ uploaded 2 of 3 files")
    assert lines[3].split() == ["1", "permission", "denied;", "check", "it"]
    assert lines[4].strip() == "c"
    assert lines[-1].strip() == how_to_go_on(end)
    assert max(map(len, lines)) <= 80


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
        "uploading: 200 of 2,000 files, 800 KiB of 7.8 MiB, 100 files/s, 400 KiB/s, "
        "80 in flight, 0:18 left"
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


def test_what_is_skipped_says_why() -> None:
    terminal = Terminal(out=io.StringIO(), err=io.StringIO())
    view = PlainView(terminal, a_state(), verbose=True)
    note = "it is not newer"
    view.outcome(FileOutcome(index=0, name="a", state=State.SKIPPED, note=note), None)
    assert terminal.err.getvalue() == "skipped a: it is not newer\n"


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
        "planning": False,
        "throttled": 0,
        "in_flight": 80,
        "files_per_second": 0.0,
        "bytes_per_second": 0,
        "seconds_left": None,
        "job": None,
        "time": 1.5,
    }


def test_nothing_is_told_before_a_view_has_begun() -> None:
    class Slow(QuietView):
        def start(self) -> None:
            self.told_before = told.wait(0.3)

    told = threading.Event()
    view, state = Slow(Terminal()), a_state()
    with Watch(view, state):
        told.set()
    assert not view.told_before


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
