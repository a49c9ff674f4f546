"""Callers that make the loop's turns: what they do, what they leave, and what stops them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from azpool.pool import loop as loops
from azpool.pool.loop import Loop

PATIENCE_SECONDS = 10.0
PARKED_SECONDS = 30.0  # the thread does not come back by itself while a test looks


class Led:
    """A loop whose thread is parked, and a thread of a caller, which no signal interrupts."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.where: list[int | None] = []
        self.done = threading.Event()
        self.loop.is_calm = self.loop.is_idle = lambda: True
        self.loop.light = frozenset((self.note,))
        self.caller = ThreadPoolExecutor(1)
        self.loop.start("test-loop")
        self.park()

    def park(self) -> None:
        def wish() -> None:
            self.loop._soon = self.loop._wished = True

        self.loop.call(wish)
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.loop._parked:
            assert time.monotonic() < end
            time.sleep(0.001)

    def note(self, *_: object) -> None:
        """Light work: it notes who does it."""
        self.where.append(threading.get_ident())
        self.done.set()

    def heavy(self) -> None:
        self.note()

    def lead(self, call: Callable[..., None] | None, *args: Any) -> int:
        """Make a call and wait for `done`, in the caller's thread; returns which that is."""

        def work() -> int:
            if call is not None:
                self.loop.call(call, *args)
            assert self.loop.lead_until(self.done.is_set) is False
            assert not self.loop.in_thread
            return threading.get_ident()

        return self.caller.submit(work).result(PATIENCE_SECONDS)

    @property
    def own(self) -> int | None:
        assert self.loop.thread is not None
        return self.loop.thread.ident

    def close(self) -> None:
        self.loop.call(self.loop.stop)
        self.loop._hand_over()
        assert self.loop.thread is not None
        self.loop.thread.join(PATIENCE_SECONDS)
        assert not self.loop.thread.is_alive()
        self.caller.shutdown()


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> Iterator[Led]:
    monkeypatch.setattr(loops, "PARK_SECONDS", PARKED_SECONDS)
    made = Led()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_a_caller_makes_its_call_itself_while_the_thread_is_parked(led: Led) -> None:
    for _ in range(3):
        led.done.clear()
        caller = led.lead(led.note)
    assert led.where == [caller] * 3
    assert led.loop._parked


def test_a_call_that_is_not_light_is_left_to_the_thread_which_is_woken(led: Led) -> None:
    led.lead(led.heavy)
    assert led.done.wait(PATIENCE_SECONDS)
    assert led.where == [led.own]


@pytest.mark.parametrize("light", [True, False])
def test_what_can_be_read_is_the_callers_where_it_is_light(
    led: Led,
    light: bool,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "LEAD_SECONDS", PATIENCE_SECONDS)  # the caller may have to wait

    def read(_mask: int) -> None:
        pair[0].recv(1)
        led.note()

    led.loop.register(pair[0].fileno(), read, light=light)
    pair[1].send(b"x")
    caller = led.lead(None)
    assert led.done.wait(PATIENCE_SECONDS)
    assert led.where == [caller if light else led.own]
    led.loop.unregister(pair[0].fileno())


def test_a_timer_that_is_due_is_left_to_the_thread(led: Led) -> None:
    led.loop.due = lambda: 0.0 if not led.done.is_set() else float("inf")
    led.loop.on_due = led.note
    led.lead(None)
    assert led.done.wait(PATIENCE_SECONDS)
    assert led.where == [led.own]


def test_what_does_not_come_soon_is_left_to_the_thread(
    led: Led, pair: tuple[socket.socket, socket.socket]
) -> None:
    def read(_mask: int) -> None:
        pair[0].recv(1)
        led.note()

    led.loop.register(pair[0].fileno(), read, light=True)
    led.loop.is_idle = lambda: led.done.is_set()
    led.lead(None)
    pair[1].send(b"x")
    assert led.done.wait(PATIENCE_SECONDS)
    assert led.where == [led.own]
    led.park()
    led.loop.unregister(pair[0].fileno())


def test_a_second_call_before_anyone_waits_wakes_the_thread(led: Led) -> None:
    led.loop.call(led.note)
    time.sleep(0.01)
    assert not led.where
    led.loop.call(led.note)
    assert led.done.wait(PATIENCE_SECONDS)
    assert set(led.where) == {led.own}


def test_a_call_that_nobody_waits_for_waits_no_longer_than_the_thread_is_parked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "PARK_SECONDS", 0.05)
    led = Led()
    led.loop.call(led.note)
    assert led.done.wait(PATIENCE_SECONDS)
    assert led.where == [led.own]
    led.close()


def test_a_sleeping_leader_is_woken_by_another_threads_call(
    led: Led, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "LEAD_SECONDS", PATIENCE_SECONDS)
    leading = led.caller.submit(led.loop.lead_until, led.done.is_set)
    end = time.monotonic() + PATIENCE_SECONDS
    while not led.loop._asleep:
        assert time.monotonic() < end
        time.sleep(0.001)
    led.loop.call(led.note)
    assert leading.result(PATIENCE_SECONDS / 2) is False
    assert led.where
    assert led.where[0] != led.own


def test_the_main_thread_does_not_lead_where_another_signal_has_a_handler(led: Led) -> None:
    assert not loops._can_lead()  # pytest's own time limit is one
    led.loop.call(led.note)
    led.loop.lead_until(led.done.is_set)
    assert not led.where
    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        assert loops._can_lead()
        signal.signal(signal.SIGUSR1, lambda *_: None)
        assert not loops._can_lead()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_nobody_leads_who_is_about_to_overflow_the_stack(led: Led) -> None:
    def deep(levels: int) -> bool:
        return loops._can_lead() if levels == 0 else deep(levels - 1)

    def shallow_and_deep() -> tuple[bool, bool]:
        return deep(0), deep(sys.getrecursionlimit() - loops.HEADROOM)

    assert led.caller.submit(shallow_and_deep).result() == (True, False)


def test_a_leaders_crash_is_logged_and_told(led: Led, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()
    led.loop.on_crash = told.set
    led.loop.light = frozenset((divmod,))
    led.lead(divmod, 1, 0)
    assert told.is_set()
    assert led.loop.thread is not None
    led.loop.thread.join(PATIENCE_SECONDS)
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "ZeroDivisionError" in str(record.exc_text)


def test_what_must_outlive_a_leader_runs_on_the_thread(led: Led) -> None:
    def begin() -> None:
        led.loop.on_thread(led.note)
        led.loop.on_thread(later.set)

    later = threading.Event()
    led.loop.light = frozenset((begin,))
    led.lead(begin)
    assert later.wait(PATIENCE_SECONDS)
    assert led.done.wait(PATIENCE_SECONDS)  # it is made after the other
    assert led.where == [led.own]


def test_a_leader_that_stops_the_loop_ends_it(led: Led) -> None:
    led.loop.light = frozenset((led.loop.stop,))
    led.lead(led.loop.stop)
    assert led.loop.thread is not None
    led.loop.thread.join(PATIENCE_SECONDS)
    assert not led.loop.thread.is_alive()
    led.lead(led.note)  # made at once, since nobody else will
    assert led.where


def test_in_a_fork_nobody_leads(led: Led) -> None:
    child = os.fork()
    if child == 0:
        led.loop.forget()
        os._exit(led.loop.lead_until(lambda: os._exit(9)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
