"""The I/O loop: order, timers, descriptors, and that it sleeps while nothing is due."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from azpool.pool.loop import WRITE, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    made.start("test-loop")
    yield made
    made.call(made.stop)
    assert made.thread is not None
    made.thread.join(10)
    assert not made.thread.is_alive()


def on_loop(loop: Loop, function: Any, *args: Any) -> Any:
    """Run a function on the loop's thread and return what it returns."""
    done: Future[Any] = Future()
    loop.call(lambda: done.set_result(function(*args)))
    return done.result(10)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_calls_of_each_thread_run_in_order_on_the_loops_thread(loop: Loop) -> None:
    ran: list[tuple[int, int]] = []
    where = set()

    def note(thread: int, number: int) -> None:
        where.add(threading.current_thread())
        ran.append((thread, number))

    def call(thread: int) -> None:
        for number in range(500):
            loop.call(note, thread, number)

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    on_loop(loop, int)
    assert where == {loop.thread}
    assert len(ran) == 2000
    for thread in range(4):
        assert [number for who, number in ran if who == thread] == list(range(500))


def test_no_call_is_missed_between_two_sleeps(loop: Loop) -> None:
    for number in range(2000):  # each one finds the loop asleep, or just about to be
        assert on_loop(loop, abs, -number) == number


def test_in_thread_tells_the_loops_thread(loop: Loop) -> None:
    assert not loop.in_thread
    assert on_loop(loop, lambda: loop.in_thread)


def test_what_was_called_is_let_go(loop: Loop) -> None:
    import weakref

    held = {1}
    seen = weakref.ref(held)
    on_loop(loop, len, held)
    del held
    on_loop(loop, int)
    assert seen() is None


def test_a_handler_is_called_while_its_descriptor_can_be_read(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    seen: list[bytes] = []
    both = threading.Semaphore(0)

    def handler(_mask: int) -> None:
        seen.append(os.read(pipe[0], 1))
        both.release()

    on_loop(loop, loop.register, pipe[0], handler)
    os.write(pipe[1], b"ab")
    assert both.acquire(timeout=10)
    assert both.acquire(timeout=10)
    on_loop(loop, loop.unregister, pipe[0])
    os.write(pipe[1], b"c")
    on_loop(loop, int)
    assert seen == [b"a", b"b"]


def test_a_handler_may_remove_another_one_of_the_same_turn(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []
    done = threading.Event()

    def handler(index: int) -> None:
        called.append(index)
        for reader, _ in pipes:
            loop.unregister(reader)
        done.set()

    def register() -> None:
        for index, (reader, _) in enumerate(pipes):
            loop.register(reader, lambda _mask, index=index: handler(index))
        for _, writer in pipes:
            os.write(writer, b"x")

    on_loop(loop, register)
    assert done.wait(10)
    on_loop(loop, int)
    assert len(called) == 1
    for ends in pipes:
        for end in ends:
            os.close(end)


def test_writing_is_watched_only_while_it_is_wanted(loop: Loop) -> None:
    import socket

    left, right = socket.socketpair()
    with left, right:
        masks: list[int] = []
        written = threading.Event()

        def handler(mask: int) -> None:
            masks.append(mask)
            loop.want_write(left.fileno(), wanted=False)
            written.set()

        on_loop(loop, loop.register, left.fileno(), handler)
        on_loop(loop, int)
        assert not masks
        on_loop(loop, lambda: loop.want_write(left.fileno(), wanted=True))
        assert written.wait(10)
        on_loop(loop, int)
        assert masks == [WRITE]
        on_loop(loop, loop.unregister, left.fileno())


def test_the_timer_fires_when_it_is_due_and_not_before(loop: Loop) -> None:
    fired: Future[float] = Future()
    at = time.monotonic() + 0.05

    def set_timer() -> None:
        loop.due = lambda: math.inf if fired.done() else at
        loop.on_due = lambda: fired.set_result(time.monotonic())

    on_loop(loop, set_timer)
    assert fired.result(10) >= at


def test_what_is_wanted_at_the_end_of_a_turn_runs_once(loop: Loop) -> None:
    ran: list[str] = []

    def write() -> None:
        ran.append("write")

    def work() -> None:
        for _ in range(3):
            loop.at_end(write)
            ran.append("work")

    on_loop(loop, work)
    on_loop(loop, int)
    assert ran == ["work", "work", "work", "write"]


def test_an_idle_loop_sleeps(loop: Loop) -> None:
    def switches() -> str:
        assert loop.thread is not None
        with open(f"/proc/self/task/{loop.thread.native_id}/status") as status:
            return next(line for line in status if line.startswith("voluntary"))

    on_loop(loop, int)
    end = time.monotonic() + 20
    before = ""
    while before != (before := switches()):  # it may have yet to go back to sleep
        assert time.monotonic() < end
        time.sleep(0.5)


def test_a_call_after_the_end_is_made_at_once() -> None:
    loop = Loop()
    loop.start("test-loop")
    loop.call(loop.stop)
    assert loop.thread is not None
    loop.thread.join(10)
    made: list[int] = []
    loop.call(made.append, 1)
    assert made == [1]
    loop.call(divmod, 1, 0)
    loop._asleep = True  # as if the end had come between the look and the wake-up
    loop.call(made.append, 2)


def test_who_wakes_a_loop_that_ends_meanwhile_writes_to_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = Loop()
    loop.start("test-loop")
    thread = loop.thread
    assert thread is not None
    end = time.monotonic() + 10
    while not loop._asleep:
        assert time.monotonic() < end
        time.sleep(0.001)
    opened: list[int] = []
    wakes: list[int] = []

    def write_late(fd: int, value: int) -> None:
        """As by a thread that has to wait until the loop is gone and others open descriptors."""
        monkeypatch.undo()
        wakes.append(fd)
        os.eventfd_write(fd, value)  # the loop wakes up, and finds that it is to stop
        thread.join(10)
        opened.extend(os.pipe())

    monkeypatch.setattr(os, "eventfd_write", write_late)
    loop.call(loop.stop)
    for fd in opened:
        os.close(fd)
    assert not thread.is_alive()
    assert len(opened) == 2
    assert wakes[0] not in opened
    with pytest.raises(OSError, match="Bad file descriptor"):  # it is closed, when all is done
        os.fstat(wakes[0])


def test_a_crash_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    told = threading.Event()
    loop.on_crash = told.set
    loop.start("test-loop")
    loop.call(divmod, 1, 0)
    assert told.wait(10)
    assert loop.thread is not None
    loop.thread.join(10)
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "ZeroDivisionError" in str(record.exc_text)
