"""What a node owes, how long it may owe it, and what becomes of nodes that can't be started."""

from __future__ import annotations

import math
from typing import Any

import pytest

from azpool.pool import instructions as s
from azpool.pool import scheduler as scheduler_module
from azpool.pool import watch
from azpool.pool.jobs import Job, NodeState, Why
from azpool.pool.node import Status
from azpool.pool.scheduler import Scheduler


def started(size: int) -> Scheduler:
    scheduler = Scheduler()
    scheduler.resize(size, 0.0)
    for index in range(size):
        scheduler.hello(index, 0.0)
    scheduler.take()
    scheduler.tick(0.0)
    return scheduler


def taken(scheduler: Scheduler, kind: type[Any]) -> list[Any]:
    return [step for step in scheduler.take() if isinstance(step, kind)]


def look_on(
    scheduler: Scheduler, until: float, *, chunk: int = 0, stopped: bool
) -> list[tuple[float, str]]:
    """Let the time pass and answer every look; returns when nodes were ended, and why."""
    ended = []
    while scheduler.wake_at <= until:
        now = scheduler.wake_at
        scheduler.tick(now)
        while scheduler.out:
            for step in scheduler.take():
                if isinstance(step, s.Look):
                    scheduler.looked(step.node, chunk, now, stopped=stopped)
                elif isinstance(step, s.Kill):
                    ended.append((now, step.reason))
    return ended


def test_a_node_has_so_long_from_its_birth_to_its_hello() -> None:
    scheduler = Scheduler()
    scheduler.resize(1, 0.0)
    assert not look_on(scheduler, 600.0, stopped=False)  # an import where it is born from
    scheduler.born(0, 0, 600.0)
    ((at, reason),) = look_on(scheduler, 700.0, stopped=False)
    assert at == 600.0 + watch.START_SECONDS
    assert reason == "it had not answered within 60 s of its birth"


def test_a_node_that_said_hello_has_all_the_time_to_set_up() -> None:
    scheduler = Scheduler()
    scheduler.resize(1, 0.0)
    scheduler.born(0, 0, 0.0)
    scheduler.greeted(0)
    assert not look_on(scheduler, 1000.0, chunk=Status.SETTING_UP, stopped=False)


@pytest.mark.parametrize("chunk", [0, Status.SETTING_UP])
def test_a_stopped_node_that_owes_an_answer_is_ended_at_the_third_look(chunk: int) -> None:
    scheduler = started(1)
    scheduler.owes(0, 10.0)
    ended = look_on(scheduler, 20.0, chunk=chunk, stopped=True)
    assert ended[0] == (13.0, "a signal had stopped it, and nothing woke it")


def test_a_pause_between_looks_ends_no_node() -> None:
    scheduler = started(1)
    scheduler.owes(0, 0.0)
    for round_ in range(10):
        assert not look_on(scheduler, 3.0 * round_ + 2.0, stopped=True)
        assert not look_on(scheduler, 3.0 * round_ + 3.0, stopped=False)


def test_a_stopped_node_is_ended_if_its_item_has_not_begun_and_left_alone_if_it_has() -> None:
    scheduler = started(1)
    scheduler.submit(Job(1, 1), 0.0)
    (send,) = taken(scheduler, s.Send)
    assert not look_on(scheduler, 100.0, chunk=send.chunk.seq, stopped=True)
    assert look_on(scheduler, 110.0, chunk=0, stopped=True)


def test_a_node_that_goes_on_with_what_was_interrupted_is_ended_after_the_grace() -> None:
    scheduler = started(1)
    scheduler.owes(0, 0.0)
    scheduler.interrupted(0, 1.0)
    ended = look_on(scheduler, 10.0, chunk=Status.SETTING_UP, stopped=False)
    assert ended == [(1.0 + scheduler_module.GRACE_SECONDS, "it went on with what was interrupted")]
    scheduler = started(1)
    scheduler.owes(0, 0.0)
    scheduler.interrupted(0, 1.0)
    scheduler.answered(0)
    assert not look_on(scheduler, 10.0, stopped=False)
    assert scheduler.wake_at == math.inf


def test_a_growth_that_lacks_something_is_given_up_at_once() -> None:
    scheduler = started(2)
    scheduler.resize(5, 1.0)
    scheduler.hello(2, 1.0)
    scheduler.take()
    scheduler.unborn(3, 0, 1.0)
    steps = scheduler.take()
    assert s.Refused(2) in steps
    assert not any(isinstance(step, s.Broken) for step in steps)
    assert {step.node for step in steps if isinstance(step, s.Kill | s.Stop)} == {2, 4}
    assert scheduler.ready(2)


def test_a_growth_whose_nodes_die_at_their_start_is_given_up_after_three() -> None:
    scheduler = started(1)
    scheduler.resize(2, 1.0)
    for incarnation in range(3):
        assert not taken(scheduler, s.Refused)
        scheduler.died(1, incarnation, 1.0)
    assert taken(scheduler, s.Refused) == [s.Refused(1)]
    scheduler.resize(2, 2.0)
    scheduler.died(1, 3, 2.0)
    assert not taken(scheduler, s.Refused)  # it is counted anew


def test_a_node_that_lacks_something_is_tried_again_later_each_time_twice_as_late() -> None:
    scheduler = started(2)
    scheduler.died(0, 0, 0.0)
    now, waits = 0.0, []
    for incarnation in range(1, 10):
        scheduler.unborn(0, incarnation, now)
        assert scheduler.nodes[0].state is NodeState.WAITING
        scheduler.take()
        retry_at = scheduler.nodes[0].retry_at
        waits.append(retry_at - now)
        while now < retry_at:
            now = scheduler.wake_at
            assert not taken(scheduler, s.Start)
            scheduler.tick(now)
        assert taken(scheduler, s.Start) == [s.Start(0, incarnation + 1)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
    scheduler.hello(0, now)
    assert scheduler.ready(2)


def test_what_only_a_lacking_node_could_run_is_lost_and_the_rest_is_not() -> None:
    scheduler = started(2)
    scheduler.died(0, 0, 0.0)
    bound, free = Job(1, 1, pinned=0), Job(1, 1)
    scheduler.submit(bound, 0.0)
    scheduler.submit(free, 0.0)
    for incarnation in range(1, 4):
        assert not bound.finished
        scheduler.unborn(0, incarnation, 0.0)
        scheduler.tick(scheduler.wake_at)
    (lost,) = taken(scheduler, s.Lost)
    assert (lost.job, lost.why) == (bound, Why.BROKEN)
    assert not free.finished


def test_without_any_node_calls_are_lost_and_each_new_one_is_a_new_try() -> None:
    scheduler = started(1)
    scheduler.died(0, 0, 0.0)
    first = Job(1, 5)
    scheduler.submit(first, 0.0)
    for incarnation in range(1, 4):
        assert not first.finished
        scheduler.unborn(0, incarnation, 0.0)
        scheduler.tick(scheduler.wake_at)
    assert first.finished
    scheduler.unborn(0, 4, 1.0)
    scheduler.take()
    second = Job(1, 5)
    scheduler.submit(second, 1.0)
    assert taken(scheduler, s.Start) == [s.Start(0, 5)]
    scheduler.hello(0, 1.0)
    assert taken(scheduler, s.Send)
    assert not second.finished


def test_an_item_that_ends_node_after_node_before_it_begins_is_lost() -> None:
    scheduler = started(1)
    job = Job(1, 3, chunksize=1)
    scheduler.submit(job, 0.0)
    for incarnation in range(scheduler_module.UNBEGUN_DEATHS):
        assert not taken(scheduler, s.Lost)
        scheduler.died(0, incarnation, 0.0)
        scheduler.hello(0, 0.0)
    (lost,) = taken(scheduler, s.Lost)
    assert (lost.start, lost.stop, lost.why) == (0, 1, Why.UNBEGUN)
    assert scheduler.nodes[0].chunks[0].start == 1
