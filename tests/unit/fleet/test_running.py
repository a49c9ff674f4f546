"""A plan run on a pool in memory: what is sent when, and what is told when all is stopped."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from azpool.fleet import _running
from azpool.fleet import run as running
from azpool.fleet.budget import Budget
from azpool.fleet.calls import Answer, Call, Kind
from azpool.fleet.ids import scale_set_vm_id, vm_id
from azpool.fleet.instance import InstanceKind
from azpool.fleet.journal import Journal
from azpool.fleet.plan import make_plan
from azpool.fleet.progress import FleetInterrupted, FleetProgress, Phase
from azpool.fleet.target import Target
from azpool.report import State

if TYPE_CHECKING:
    from types import FrameType

    from azpool.fleet.outcome import FleetReport

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
DONE = Answer(status=200, body={"status": "Succeeded"})
LOST = Answer(status=None, code="ServiceResponseError", message="cut", sent=True)
IN_PROGRESS = Answer(status=200, body={"status": "InProgress"}, headers={"retry-after": "60"})
PENDING = Answer(status=102)  # of no service: a call that stays unanswered


def target(number: int, *, uniform: bool = False) -> Target:
    name = str(number)
    one = scale_set_vm_id(SUB, "rg", "web", name) if uniform else vm_id(SUB, "rg", f"vm{number}")
    return Target(
        index=number,
        resource_id=str(one),
        name=f"web_{name}" if uniform else f"vm{number}",
        instance_id=name if uniform else f"vm{number}",
        subscription=SUB,
        group="rg",
        scale_set="web" if uniform else None,
        kind=InstanceKind.UNIFORM if uniform else InstanceKind.VM,
        location="westus",
    )


def begun(number: Any) -> Answer:
    headers = {"azure-asyncoperation": f"https://arm/op/{number}"}
    return Answer(status=202, headers=headers)


class Service:
    """A pool in the caller's thread, and the service behind it: `answer` says what comes back."""

    size = 2

    def __init__(self, answer: Callable[[Call], Answer]) -> None:
        self.answer = answer
        self.calls: list[Call] = []
        self.before: Callable[[list[Call]], None] = lambda calls: None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.before(args[0])
        future: Future[Any] = Future()
        answers = fn(*args, **kwargs)
        if PENDING not in answers:
            future.set_result(answers)
        return future

    def perform(self, calls: list[Call]) -> list[Answer]:
        self.calls += calls
        return [self.answer(call) for call in calls]

    def sent(self, kind: Kind) -> list[Call]:
        return [call for call in self.calls if call.kind is kind]

    def run(self, operation: str, count: int, *, uniform: bool = False, **how: Any) -> FleetReport:
        targets = [target(number, uniform=uniform) for number in range(count)]
        given = {name: how.pop(name) for name in ("arguments", "batch") if name in how}
        plan = make_plan(operation, targets, **given)
        return running.run(plan, performer=self.perform, pool=self, **how)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azpool.fleet._running.POLL_SECONDS", 0.0)
    monkeypatch.setattr("azpool.fleet._running.TELL_SECONDS", 0.01)


def interrupt_at(phase: Phase) -> Callable[[FleetProgress], None]:
    """Press Ctrl-C once, at the first moment when an instance is in that phase."""
    pressed: list[bool] = []

    def progress(moment: FleetProgress) -> None:
        if not pressed and any(one.phase is phase for one in moment.changed):
            pressed.append(True)
            raise KeyboardInterrupt

    return progress


# --- Ctrl-C ------------------------------------------------------------------------------------


def test_a_second_ctrl_c_waits_for_nothing_and_tells_of_everyone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("azpool.fleet._running.GRACE_SECONDS", 50.0)

    def answer(call: Call) -> Answer:
        if call.poll:
            return IN_PROGRESS
        return begun(0) if call.about == (0,) else PENDING

    service = Service(answer)
    progress = interrupt_at(Phase.UNDER_WAY)
    pressed = []

    def told(moment: FleetProgress) -> None:
        try:
            progress(moment)
        except KeyboardInterrupt:
            service.before = again  # what is sent from now on cleans up
            raise

    def again(calls: list[Call]) -> None:
        pressed.append(calls)
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(FleetInterrupted) as caught:
        service.run("run_script", 4, arguments={"script": "x"}, batch=2, progress=told)
    assert time.monotonic() - began < 25  # half of what a first one waits for answers
    assert len(pressed) == 1
    states = [one.state for one in caught.value.report]
    assert states == [State.UNKNOWN, State.UNKNOWN, State.CANCELLED, State.CANCELLED]


def test_ctrl_c_while_time_runs_out_still_has_a_report(monkeypatch: pytest.MonkeyPatch):
    service = Service(lambda call: PENDING if call.about == (0,) else begun(1))

    def again(calls: list[Call]) -> None:
        if any(call.kind is not Kind.WRITE for call in calls):
            raise KeyboardInterrupt

    service.before = again
    monkeypatch.setattr("azpool.fleet._running.POLL_SECONDS", 60.0)
    monkeypatch.setattr("azpool.fleet._running.GRACE_SECONDS", 0.2)
    with pytest.raises(FleetInterrupted) as caught:
        service.run("run_script", 2, arguments={"script": "x"}, timeout_seconds=0.1)
    assert [one.state for one in caught.value.report] == [State.UNKNOWN] * 2


def test_the_first_ctrl_c_is_told_where_a_second_one_already_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("azpool.fleet._running.GRACE_SECONDS", 50.0)
    service = Service(lambda call: PENDING)
    progress, told = interrupt_at(Phase.SENDING), []

    def again(moment: FleetProgress) -> None:
        told.append(moment.stopping)
        if moment.stopping:
            raise KeyboardInterrupt
        progress(moment)

    began = time.monotonic()
    with pytest.raises(FleetInterrupted) as caught:
        service.run("start", 4, batch=2, progress=again)
    assert time.monotonic() - began < 25  # half of what a first one waits for answers
    assert told[-1] == "interrupted"
    states = [one.state for one in caught.value.report]
    assert states == [State.UNKNOWN, State.UNKNOWN, State.CANCELLED, State.CANCELLED]


def test_what_can_not_show_that_it_stops_costs_no_outcome():
    service = Service(lambda call: IN_PROGRESS if call.poll else begun(call.about[0]))
    progress = interrupt_at(Phase.UNDER_WAY)

    def broken(moment: FleetProgress) -> None:
        if moment.stopping:
            raise BrokenPipeError
        progress(moment)

    with pytest.raises(FleetInterrupted) as caught:
        service.run("start", 2, progress=broken)
    assert [one.state for one in caught.value.report] == [State.UNKNOWN] * 2


def interrupted_at_line(number: int) -> tuple[BaseException, bool]:
    """Press Ctrl-C, and again before the line of that number that the loop comes to from there on.

    Answers what came of it, and whether there was such a line.
    """
    progress, lines = interrupt_at(Phase.UNDER_WAY), itertools.count()
    pressed: list[bool] = []

    def once(moment: FleetProgress) -> None:
        try:
            progress(moment)
        except KeyboardInterrupt:
            pressed.append(True)
            raise

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != _running.__file__:
            return None
        if event == "line" and len(pressed) == 1 and next(lines) == number:
            pressed.append(True)
            raise KeyboardInterrupt
        return trace

    service = Service(lambda call: IN_PROGRESS if call.poll else begun(call.about[0]))
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        service.run("start", 3, batch=2, progress=once)
    except KeyboardInterrupt as error:
        return error, len(pressed) == 2
    finally:
        sys.settrace(before)
    raise AssertionError("nothing was interrupted")


def test_a_second_ctrl_c_loses_no_report_wherever_it_comes():
    for number in itertools.count():
        error, was_second = interrupted_at_line(number)
        # On its last lines the engine's own end is on its way already, and is found beside it.
        found = error if isinstance(error, FleetInterrupted) else error.__context__
        assert isinstance(found, FleetInterrupted), number
        states = [one.state for one in found.report]
        assert states == [State.UNKNOWN, State.UNKNOWN, State.CANCELLED], number
        if not was_second:
            break
    assert number > 20


def cut_submit(service: Service, _: pytest.MonkeyPatch, press: Callable[[], None]) -> None:
    submit = service.submit

    def cut(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = submit(fn, *args, **kwargs)
        press()
        return future

    service.submit = cut  # type: ignore[method-assign]  # it is the pool that Ctrl-C cuts short


def cut_counting(_: Service, patch: pytest.MonkeyPatch, press: Callable[[], None]) -> None:
    sent = _running._Running._sent

    def cut(self: Any, asked: Any, now: float) -> None:
        press()
        sent(self, asked, now)

    patch.setattr(_running._Running, "_sent", cut)


def cut_answers(_: Service, patch: pytest.MonkeyPatch, press: Callable[[], None]) -> None:
    answered = Budget.answered

    def cut(self: Budget, *args: Any, **how: Any) -> None:
        press()
        answered(self, *args, **how)

    patch.setattr(Budget, "answered", cut)


@pytest.mark.parametrize("cut", [cut_submit, cut_counting, cut_answers])
def test_what_was_sent_is_never_told_as_not_sent(
    cut: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    service = Service(lambda call: IN_PROGRESS if call.poll else begun(call.about[0]))
    pressed = []

    def press() -> None:
        if not pressed:
            pressed.append(True)
            raise KeyboardInterrupt

    cut(service, monkeypatch, press)
    with pytest.raises(FleetInterrupted) as caught:
        service.run("start", 4, batch=2, journal=str(tmp_path / "journal"))
    sent = {call.about[0] for call in service.sent(Kind.WRITE)}
    assert sent
    for one in caught.value.report:
        assert (one.state, one.attempts) == (
            (State.UNKNOWN, 1) if one.index in sent else (State.CANCELLED, 0)
        ), one
    assert caught.value.report.journal


def test_a_part_whose_future_ctrl_c_took_may_be_under_way(monkeypatch: pytest.MonkeyPatch):
    ids = [target(number, uniform=True).resource_id for number in range(4)]
    statuses = [{"code": "ProvisioningState/succeeded"}, {"code": "PowerState/stopped"}]
    row = {"instanceView": {"statuses": statuses}}
    views = Answer(status=200, body={"value": [{"id": one, "properties": row} for one in ids]})
    posts: list[list[str]] = []

    def answer(call: Call) -> Answer:
        if call.kind is not Kind.WRITE:
            return views
        posts.append(call.arguments["vm_instance_i_ds"]["instanceIds"])
        return Answer(status=409, code="Conflict") if len(posts) == 1 else begun("part")

    service = Service(answer)

    def press() -> None:
        if len(posts) == 2:
            raise KeyboardInterrupt

    cut_submit(service, monkeypatch, press)
    with pytest.raises(FleetInterrupted) as caught:
        service.run("start", 4, uniform=True)
    assert posts == [["0", "1", "2", "3"], ["0"]]
    states = [one.state for one in caught.value.report]
    assert states == [State.UNKNOWN] + [State.CANCELLED] * 3


@pytest.mark.parametrize("second", [PENDING, begun(0)], ids=["on its way", "accepted"])
def test_what_was_throttled_once_and_then_sent_is_not_told_as_throttled(
    second: Answer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("azpool.fleet._running.GRACE_SECONDS", 0.2)
    monkeypatch.setattr("azpool.fleet._running.POLL_SECONDS", 60.0)
    answers = iter([Answer(status=429, headers={"retry-after-ms": "10"}), second])
    service = Service(lambda call: next(answers))

    def progress(moment: FleetProgress) -> None:
        if not moment.stopping and len(service.calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(FleetInterrupted) as caught:
        service.run("start", 1, progress=progress)
    (outcome,) = caught.value.report
    assert (outcome.state, outcome.attempts) == (State.UNKNOWN, 2)


# --- what cleans up ----------------------------------------------------------------------------


class Scripts(Service):
    """Scripts that end at once; the first DELETE is throttled."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(self.of_script)
        self.retry_after_ms = retry_after_ms
        self.removed: list[str] = []
        self.throttled = 0

    def of_script(self, call: Call) -> Answer:
        if call.kind is Kind.WRITE:
            return Answer(status=201, headers=begun(call.about[0]).headers, body={})
        if call.poll:
            return DONE
        if call.kind is Kind.READ:
            view = {"executionState": "Succeeded", "exitCode": 0, "output": "hi\n", "error": ""}
            return Answer(status=200, body={"properties": {"instanceView": view}})
        if not self.throttled:
            self.throttled += 1
            words = {"retry-after-ms": str(self.retry_after_ms)}
            return Answer(status=429, code="SubscriptionRequestsThrottled", headers=words)
        self.removed.append(call.arguments["run_command_name"])
        return Answer(status=202)


def test_a_command_s_removal_that_waits_for_budget_is_sent_after_ctrl_c():
    # Long enough that its waiting is told of before it is over.
    service = Scripts(retry_after_ms=2000)
    with pytest.raises(FleetInterrupted) as caught:
        service.run("run_script", 3, arguments={"script": "x"}, progress=interrupt_at(Phase.BUDGET))
    put = [call.arguments["run_command_name"] for call in service.sent(Kind.WRITE)]
    assert sorted(service.removed) == sorted(put)
    # And what the scripts came to is not lost.
    assert [(one.state, one.exit_code) for one in caught.value.report] == [(State.OK, 0)] * 3


def test_a_script_s_result_is_told_where_its_removal_never_got_its_budget(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("azpool.fleet._running.GRACE_SECONDS", 0.1)
    service = Scripts(retry_after_ms=60_000)
    with pytest.raises(FleetInterrupted) as caught:
        service.run("run_script", 1, arguments={"script": "x"}, progress=interrupt_at(Phase.BUDGET))
    assert service.removed == []
    (outcome,) = caught.value.report
    assert (outcome.state, outcome.stdout) == (State.OK, "hi\n")


# --- max_failures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (LOST, State.UNKNOWN),
        (Answer(status=404, code="ResourceNotFound"), State.UNKNOWN),
        (Answer(status=429, code="TooManyRequests"), State.THROTTLED),
        (Answer(status=403, code="AuthorizationFailed"), State.FAILED),
    ],
)
def test_whatever_ends_badly_counts_in_max_failures(
    answer: Answer, state: State, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("azpool.fleet._running._Running._most_throttled", 0)
    monkeypatch.setattr("azpool.fleet.budget.Budget.take", lambda self, now, call: (0.0, []))
    gone = Answer(status=404, code="ResourceNotFound")
    service = Service(lambda call: answer if call.kind is Kind.WRITE else gone)
    report = service.run("start", 10, batch=1, max_failures=2)
    assert [one.state for one in report] == [state] * 3 + [State.SKIPPED] * 7
    assert len(service.sent(Kind.WRITE)) == 3
    assert "max_failures=2" in report[9].message


# --- polls -------------------------------------------------------------------------------------


def test_polls_are_no_more_than_the_bucket_of_reads_regains(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("azpool.fleet._running.POLLS_PER_SECOND", 20.0)
    polls: list[float] = []
    began = time.monotonic()

    def answer(call: Call) -> Answer:
        if not call.poll:
            return begun(call.about[0])
        polls.append(time.monotonic() - began)
        over = polls[-1] > 2.0
        return DONE if over else Answer(status=200, body={"status": "InProgress"})

    report = Service(answer).run("start", 120)
    assert len(report.ok) == 120
    # What was due at the end of one second may leave in the next, never sooner.
    seconds = int(began + 2.0) - int(began) + 1
    assert sum(at <= 2.0 for at in polls) <= 20 * seconds
    # When one has ended the others are asked at once: without, that takes their turn of 6 s.
    assert max(polls) < 7.0


# --- the journal of a call that was split ------------------------------------------------------


def test_a_part_that_is_throttled_does_not_hide_from_resume_what_was_begun(tmp_path: Path):
    path = str(tmp_path / "journal")
    posts: list[list[str]] = []

    def views() -> Answer:
        statuses = [{"code": "ProvisioningState/succeeded"}, {"code": "PowerState/stopped"}]
        row = {"instanceView": {"statuses": statuses}}
        ids = [target(number, uniform=True).resource_id for number in range(4)]
        return Answer(status=200, body={"value": [{"id": one, "properties": row} for one in ids]})

    def answer(call: Call) -> Answer:
        if call.kind is not Kind.WRITE:
            return views()
        posts.append(call.arguments["vm_instance_i_ds"]["instanceIds"])
        if len(posts) == 1:
            return Answer(status=409, code="Conflict")
        if len(posts) == 2:
            return begun("part")
        return Answer(status=429, code="TooManyRequests", headers={"retry-after": "3600"})

    service = Service(answer)
    with pytest.raises(FleetInterrupted) as caught:
        service.run("start", 4, uniform=True, journal=path, progress=interrupt_at(Phase.BUDGET))
    states = [one.state for one in caught.value.report]
    assert posts[1] == ["0"]
    assert states == [State.UNKNOWN] + [State.CANCELLED] * 3
    journal, past = Journal.open(path, None)
    journal.close(keep=True)
    assert set(past.intended) == {0}
    assert all(not kept.headers for kept in past.accepted.values())
    service.calls.clear()
    report = running.resume(path, performer=lambda client: service.perform, pool=service)
    assert {call.kind for call in service.calls} == {Kind.READ}
    assert {one.state for one in report} == {State.UNKNOWN}
