"""What is drawn of an operation on a fleet, from states that are made by hand."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest

from azpool.cli import _words as words
from azpool.cli._fleet_frame import fleet_frame, fleet_summary
from azpool.cli._fleet_output import Answered, fold, name_ranges, output_lines
from azpool.cli._fleet_state import FleetEnd, FleetState, Work
from azpool.cli._fleet_views import JsonFleetView, PlainFleetView, progress_line
from azpool.cli._frame import line_text
from azpool.cli._term import Terminal
from azpool.errors import FleetError
from azpool.fleet.outcome import FleetReport, InstanceOutcome
from azpool.fleet.progress import FleetProgress, InstanceProgress, Phase
from azpool.report import State


def a_state(count: int = 5) -> FleetState:
    crew = [SimpleNamespace(name=f"crew_{n}", zone=str(n % 3 + 1)) for n in range(count)]
    work = Work(operation="start", target="workers/crew", nodes=10)
    return FleetState.of(work, crew, 100.0)


def failed(
    index: int, why: str = "busy (409 Conflict)", state: State = State.FAILED
) -> InstanceOutcome:
    error = FleetError(f"cannot start 'crew_{index}': {why}")
    return InstanceOutcome(
        index=index,
        name=f"crew_{index}",
        state=state,
        error=error,
        status=409,
        correlation_id=f"c-{index}",
        seconds=3.0,
    )


def well(index: int) -> InstanceOutcome:
    return InstanceOutcome(index=index, name=f"crew_{index}", seconds=31.0)


def told(state: FleetState, now: float = 110.0, **facts: object) -> FleetState:
    facts = {"operation": "start", "total": state.total, **facts}
    state.take(FleetProgress(**facts), now)
    return state


def drawn(state: FleetState, width: int = 80, height: int = 24, now: float = 112.0) -> list[str]:
    return [line_text(line) for line in fleet_frame(state, now, width, height)]


def test_few_instances_have_a_row_each() -> None:
    state = told(
        a_state(),
        ended=(well(0), failed(1)),
        changed=(
            InstanceProgress(index=2, phase=Phase.UNDER_WAY, attempts=2),
            InstanceProgress(index=3, phase=Phase.BUDGET),
        ),
        calls=7,
    )
    lines = drawn(state, 100)
    assert lines[0].startswith("starting 5 instances of workers/crew ")
    assert lines[0].endswith("10 nodes · 0:12")
    assert " 40% " in lines[1]
    assert lines[2].split("  ")[0] == " ■ 1 started"
    assert lines[2].endswith("7 calls")
    assert lines[-5].split() == ["■", "crew_0", "1", "0:31", "started"]
    assert lines[-4].split() == ["✗", "crew_1", "2", "0:03", "failed:", "busy", "(409", "Conflict)"]
    assert lines[-3].split() == ["▪", "crew_2", "3", "0:02", "under", "way", "attempt", "2"]
    assert lines[-2].split() == ["▒", "crew_3", "1", "0:02", "waiting", "for", "budget"]
    assert lines[-1].split() == ["·", "crew_4", "2", "queued"]


def test_hundreds_fold_to_a_field_and_failures_by_reason() -> None:
    state = a_state(500)
    told(state, ended=(*map(well, range(200)), *(failed(n) for n in range(200, 237))))
    lines = drawn(state)
    assert len(lines) <= 23
    assert " ■ 200 started  ✗ 37 failed  · 263 queued " in lines[2]
    signs = "".join("".join(lines).split("queued")[1].split("✗ 37 busy")[0].split())
    assert (signs.count("■"), signs.count("✗"), signs.count("·")) == (200, 37, 263)
    assert "✗ 37 busy (409 Conflict) · crew_200, crew_201, crew_202 and 34 more" in lines[-1]


@pytest.mark.parametrize("count", [0, 1, 5, 50, 500, 5000])
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (20, 3), (40, 8), (200, 2)])
def test_no_frame_is_bigger_than_its_window(count: int, size: tuple[int, int]) -> None:
    state = told(
        a_state(count),
        ended=tuple(
            failed(n, f"reason {n} of many, which is told at length") for n in range(count // 3)
        ),
        changed=tuple(
            InstanceProgress(index=n, phase=Phase.BUDGET) for n in range(count // 3, count)
        ),
        budget_seconds=30.0,
        budget="writes of 0000a5a5",
        stopping="interrupted",
    )
    lines = drawn(state, *size)
    assert len(lines) <= max(1, size[1] - 1)
    assert max(map(words.cells, lines)) <= size[0]


def test_waiting_for_budget_is_counted_down_and_stopping_is_said() -> None:
    state = told(a_state(), budget_seconds=14.0, budget="writes of a5a5", throttled=3, calls=4)
    lines = drawn(state, now=114)
    assert " waiting for budget (writes of a5a5): goes on in 0:10" in lines
    assert lines[2].endswith("4 calls, 3 throttled")
    assert not any("waits for" in line for line in drawn(state, now=125))
    told(state, stopping="interrupted")
    assert any("Ctrl-C again ends at once" in line for line in drawn(state))


class Meanwhile(FleetState):
    """A state that takes over the next moment while a view reads the one before."""

    def seconds_left(self, now: float) -> float | None:
        told(self, calls=9)
        return super().seconds_left(now)


def test_an_event_tells_of_one_moment_though_the_next_one_comes_meanwhile() -> None:
    state = Meanwhile.of(Work(operation="start", target="workers/crew"), (), 100.0)
    told(state, budget_seconds=14.0, budget="writes of a5a5", stopping="timeout", calls=4)
    written = io.StringIO()
    terminal = Terminal(out=written, err=io.StringIO())
    JsonFleetView(terminal, state).tick(114.0)
    terminal.flush()
    event = json.loads(written.getvalue())
    assert (event["calls"], event["budget"], event["budget_seconds"], event["stopping"]) == (
        4, "writes of a5a5", 10.0, "timeout"
    )  # fmt: skip


def test_time_left_is_the_engine_s_word_counted_down() -> None:
    state = told(a_state(), seconds_left=95.0)
    assert drawn(state, now=115.0)[1].endswith("1:30 left")
    assert told(a_state()).seconds_left(111.0) is None


def test_an_instance_is_counted_once_whatever_is_told_of_it() -> None:
    state = a_state(2)
    told(state, changed=(InstanceProgress(index=0, phase=Phase.ENDED),))
    told(state, ended=(well(0),))
    told(state, ended=(failed(0),), changed=(InstanceProgress(index=0, phase=Phase.SENDING),))
    assert state.ended == 1
    assert state.states == {State.OK: 1}
    assert state.tally.count == 0
    assert sum(state.phases.values()) == 2


def test_a_resumed_operation_learns_how_many_there_are() -> None:
    state = FleetState.of(Work(operation="resume", target="3f2a"), (), 100.0)
    told(state, total=3, ended=(well(1),))
    assert [row.name for row in state.rows] == ["", "crew_1", ""]
    assert state.phases[Phase.QUEUED] == 2


def end_of(state: FleetState, *outcomes: InstanceOutcome, journal: str = "") -> FleetEnd:
    told(state, ended=outcomes, calls=9, polls=4, throttled=1)
    return FleetEnd.of(state, FleetReport(outcomes, notes=["a note"]), 141.0, journal=journal)


def test_the_end_tells_failures_unknowns_cost_and_how_to_go_on() -> None:
    cancelled = InstanceOutcome(index=3, name="crew_3", state=State.CANCELLED)
    unknown = failed(2, "no answer came", State.UNKNOWN)
    end = end_of(a_state(4), well(0), failed(1), unknown, cancelled, journal="3f2a91bc")
    lines = [line_text(line) for line in fleet_summary(end, 100)]
    assert lines[0] == (
        "✗ started 1 of 4 instances of workers/crew in 41.0 s, 1 failed, 1 not done, 1 unknown"
    )
    assert lines[1] == "  9 calls, 4 of them to ask how far it is, 1 throttled"
    text = "\n".join(lines)
    assert "       1  busy (409 Conflict)\n          crew_1\n          request id c-1" in text
    assert "  ? 1 no answer came [crew_2]" in text
    assert "  note: a note" in text
    assert lines[-1] == "  azpool fleet resume 3f2a91bc goes on from there"
    assert end.under_way == ("crew_2",)


def test_the_end_of_all_well_is_one_line_and_what_it_cost() -> None:
    end = end_of(a_state(2), well(0), well(1))
    lines = [line_text(line) for line in fleet_summary(end, 100)]
    assert lines[0] == "✓ started 2 instances of workers/crew in 41.0 s"
    assert len(lines) == 3


def test_a_name_can_t_steer_the_terminal() -> None:
    crew = [SimpleNamespace(name="a\x1b[2Jb", zone=None)]
    state = FleetState.of(Work(operation="start", target="w/\x1bc"), crew, 100.0)
    assert "\x1b" not in "".join(drawn(state))


def test_lines_say_where_it_is() -> None:
    err = io.StringIO()
    state = a_state(3)
    view = PlainFleetView(Terminal(io.StringIO(), err), state)
    told(state, ended=(well(0),), changed=(InstanceProgress(index=1, phase=Phase.UNDER_WAY),))
    view.tick(101.0)
    assert err.getvalue() == ""
    view.tick(106.0)
    view.outcome(failed(1))
    assert err.getvalue().splitlines() == [
        "1 of 3 instances ended, 1 under way",
        "failed: crew_1: busy (409 Conflict)",
    ]
    assert progress_line(state, 106.0) == "1 of 3 instances ended, 1 under way"


def test_events_are_lines_of_json() -> None:
    out = io.StringIO()
    state = a_state(2)
    view = JsonFleetView(Terminal(out, io.StringIO()), state)
    view.start()
    told(state, ended=(well(0),), calls=3)
    view.outcome(InstanceOutcome(index=0, name="crew_0", value={1: object}))
    view.tick(101.5)
    view.finish(end_of(a_state(1), failed(0)))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["event"] for one in events] == ["start", "instance", "progress", "end"]
    assert events[0]["instances"] == 2
    assert events[2]["phases"] == {"queued": 1, "ended": 1}
    assert events[3]["counts"] == {"failed": 1}
    assert events[3]["reasons"][0]["names"] == ["crew_0"]


# -- outputs --------------------------------------------------------------------------------------


def output(index: int, stdout: str, code: int = 0, stderr: str = "") -> InstanceOutcome:
    return InstanceOutcome(
        index=index, name=f"crew_{index}", exit_code=code, stdout=stdout, stderr=stderr
    )


def test_what_failed_at_once_tells_nothing_of_the_time_left() -> None:
    state = told(a_state(9), now=101.0, ended=tuple(map(failed, range(5))))
    assert [state.seconds_left(now) for now in (101.0, 110.0, 120.0)] == [None] * 3


def test_where_all_have_begun_the_last_takes_as_long_as_one_does() -> None:
    going = tuple(InstanceProgress(index=n, phase=Phase.UNDER_WAY) for n in range(9))
    state = told(a_state(9), now=100.0, changed=going[:8])
    told(state, now=120.0, changed=going[8:])
    told(state, now=131.0, ended=tuple(map(well, range(8))))  # 31 s each
    assert state.seconds_left(131.0) == 20.0
    assert state.seconds_left(160.0) is None


def test_a_long_reason_is_cut_before_what_it_is_known_by() -> None:
    why = "The client is not allowed to do this to any of them, and told so. (403 Forbidden)"
    state = told(a_state(), ended=(failed(1, why),))
    (row,) = [line for line in drawn(state) if "crew_1" in line]
    assert "  failed: The client is not allowed" in row
    assert row.endswith("… (403 Forbidden)")
    assert words.cells(row) <= 80
    state = told(a_state(50), ended=(failed(1, why),))
    assert "any of them, and told so (403 Forbidden)" in drawn(state, 120)[-1]
    assert drawn(state, 60)[-1].startswith(" ✗ 1 The client is not allowed")
    assert drawn(state, 60)[-1].endswith("… (403 Forbidden)")


def test_what_waits_for_budget_is_not_what_takes_longest() -> None:
    changed = [InstanceProgress(index=n, phase=Phase.BUDGET) for n in range(40)]
    changed[7] = InstanceProgress(index=7, phase=Phase.UNDER_WAY)
    state = told(a_state(40), changed=tuple(changed))
    assert drawn(state)[-1].startswith(" ▪ crew_7  under way for 0:02")


def test_a_script_that_failed_is_told_by_its_exit_code_alone() -> None:
    one = InstanceOutcome(
        index=0, name="crew_0", state=State.FAILED, exit_code=3, status=200, request_id="r",
        error=FleetError("cannot run script 'crew_0': the script ended with exit code 3 (200)"),
    )  # fmt: skip
    state = told(a_state(), ended=(one,))
    (group,) = state.tally.groups()
    assert (group.reason, group.request_id) == ("exit code 3", None)


def test_a_heading_of_many_names_is_one_line_on_a_terminal() -> None:
    one = Answered(
        names=tuple(f"crew_{n}" for n in range(0, 400, 2)),
        exit_code=0, stdout="", stderr="", truncated=False,
    )  # fmt: skip
    ((head, _),) = output_lines(one, alone=False, safe=True, width=80)
    assert head == ("── 200 instances: crew_0, crew_2, crew_4, crew_6, crew_8, … · exit code 0")
    ((whole, _),) = output_lines(one, alone=False, safe=False)
    assert "crew_398" in whole


def test_equal_outputs_are_told_once() -> None:
    found = fold([output(0, "up\n"), output(1, "down\n", 1, "why"), output(2, "up\n"), failed(3)])
    assert [(one.names, one.exit_code) for one in found] == [
        (("crew_0", "crew_2"), 0),
        (("crew_1",), 1),
    ]
    assert output_lines(found[0], alone=False, safe=True) == [
        ("── 2 instances: crew_0, crew_2 · exit code 0", "bold"),
        ("up", ""),
    ]
    assert [text for text, _ in output_lines(found[1], alone=False, safe=True)] == [
        "── crew_1 · exit code 1",
        "down",
        "why",
    ]


def test_a_script_s_output_can_t_steer_the_terminal() -> None:
    one = Answered(names=("a",), exit_code=0, stdout="\x1b[2J\tx", stderr="", truncated=True)
    (head, _), (line, _) = output_lines(one, alone=True, safe=True)
    assert "\x1b" not in line
    assert head.endswith("cut: the service keeps the end of it")
    assert output_lines(one, alone=True, safe=False)[1] == ("\x1b[2J\tx", "")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["crew_0", "crew_1", "crew_2", "crew_5", "lone"], "crew_0-2, crew_5, lone"),
        (["a1", "b2", "b3"], "a1, b2-3"),
        (["web_07", "web_08"], "web_07, web_08"),
        (["crew_9", "crew_10", "crew_11"], "crew_9-11"),
        (["7", "8"], "7-8"),
    ],
)
def test_names_that_are_numbered_in_a_row_stand_together(names: list[str], said: str) -> None:
    assert name_ranges(names) == said
