"""Ctrl-C is never missed by who waits, however unluckily it comes.

A signal that another thread takes interrupts no system call of the main thread: what then ends its
wait is what must end it where the signal came just before the call.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

import azpool
from azpool import _waits, limits
from azpool.fleet._clock import Clock
from azpool.pool import scheduler
from azpool.pool.sinks import MapSink

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")  # the pool of the module

LONG_SECONDS = 40
SOON_SECONDS = 10  # far less, and far more than the second that is promised


@pytest.fixture(scope="module")
def pool() -> Iterator[azpool.Pool]:
    made = azpool.Pool(2)
    yield made
    made.delete()  # what the tests waited for is still being made


def nap(*_: object) -> None:
    time.sleep(LONG_SECONDS)


class Slow:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return nap, ()


def press_unseen(after_seconds: float) -> threading.Thread:
    """Ctrl-C, taken by a thread that is not the main one."""

    def press() -> None:
        time.sleep(after_seconds)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def all_permits() -> None:
    options = limits.AdaptiveOptions(start=1, min_limit=1, max_limit=1)
    limiter = limits.Limiter(options)
    with limiter, limiter:
        pass


WAITS: dict[str, Callable[[azpool.Pool], object]] = {
    "a map": lambda pool: list(pool.map(nap, range(4))),
    "a result": lambda pool: pool.submit(nap).result(),
    "an exception": lambda pool: pool.submit(nap).exception(LONG_SECONDS),
    "a call on every node": lambda pool: pool.call(nap),
    "code on every node": lambda pool: pool.evalq(f"import time; time.sleep({LONG_SECONDS})"),
    "an export": lambda pool: pool.export({"slow": Slow()}),
    "a new node": lambda _: azpool.Pool(1, initializer=nap),
    "a fleet": lambda _: Clock().wait([Future()], None),
    "a permit": lambda _: all_permits(),
}


@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c_that_no_system_call_saw_ends_the_wait(what: str, pool: azpool.Pool) -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        thread = press_unseen(0.3)
        try:
            WAITS[what](pool)
        finally:
            thread.join()
    assert time.monotonic() - began < SOON_SECONDS
    pool.reset()
    assert pool.call(os.getppid)
    assert list(pool.map(abs, range(10))) == list(range(10))


def test_a_node_that_has_not_come_to_what_was_taken_back_does_not_do_it(pool: azpool.Pool) -> None:
    busy = pool[1].submit(time.sleep, 1.5)
    with pytest.raises(KeyboardInterrupt):
        thread = press_unseen(0.5)
        try:
            pool.add_initializer(nap)
        finally:
            thread.join()
    began = time.monotonic()
    assert busy.result() is None  # what it does for others goes on
    assert len(pool.call(os.getppid)) == 2
    assert time.monotonic() - began < SOON_SECONDS


def ask_unseen() -> str:
    """Ask, on a node of which another thread takes the interruption."""
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return str(azpool.pool.ask("silence", None))
    except KeyboardInterrupt:
        azpool.pool.ask("noticed", os.getpid())
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def test_a_node_that_asks_notices_what_no_system_call_saw_and_is_not_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "GRACE_SECONDS", 20)  # it may have to wait for a core
    noticed: list[int] = []
    with azpool.Pool(1) as pool:
        (pid,) = pool.call(os.getpid)
        asked = threading.Event()

        def silence(_: object) -> Future[str]:
            asked.set()
            return Future()

        pool.serve("silence", silence)
        pool.serve("noticed", noticed.append)
        results = pool.map(lambda _: ask_unseen(), [1])
        assert asked.wait(20)
        results.close()
        assert pool.submit(os.getpid).result(15) == pid
        assert noticed == [pid]


def test_a_wait_is_made_of_pieces_that_grow_and_end_in_time() -> None:
    pieces: list[float] = []

    def sleep(seconds: float | None) -> bool:
        assert seconds is not None
        pieces.append(seconds)
        return len(pieces) == 8

    assert _waits.wait(sleep)
    assert pieces == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    pieces.clear()
    assert not _waits.wait(sleep, 0.02)
    assert pieces == [pytest.approx(0.02, abs=0.02)]


def test_what_was_told_between_two_pieces_is_found_all_the_same() -> None:
    sink = MapSink()
    threading.Timer(0.07, sink.deliver, [0, [7], 1]).start()  # and nobody notifies
    assert [batch.values for batch in sink.wait(None)] == [[7]]
    sink._finished = True
    assert sink.wait_finished(None)


def test_a_loop_that_looks_itself_sleeps_no_longer_than_a_second_at_once() -> None:
    assert [_waits.piece(seconds) for seconds in (None, 7.0, 0.3)] == [1.0, 1.0, 0.3]
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert list(threads.map(_waits.piece, [None, 7.0])) == [None, 7.0]


def test_other_threads_wait_in_one_piece() -> None:
    pieces: list[float | None] = []
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        threads.submit(_waits.wait, pieces.append, 7.0).result()
    assert pieces == [7.0]


def test_the_result_of_a_future_is_returned_raised_or_cancelled() -> None:
    done: Future[int] = Future()
    threading.Timer(0.01, done.set_result, [7]).start()
    assert _waits.result(done) == 7
    failed: Future[int] = Future()
    threading.Timer(0.01, failed.set_exception, [TimeoutError("its own")]).start()
    with pytest.raises(TimeoutError, match="its own"):
        _waits.result(failed)
    cancelled: Future[int] = Future()
    threading.Timer(0.01, cancelled.cancel).start()
    with pytest.raises(concurrent.futures.CancelledError):
        _waits.result(cancelled)
    assert not _waits.wait_for(Future(), 0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda pool: pool.export({"x": 1}),
        lambda pool: pool.add_initializer(nap),
        lambda pool: pool.resize(3),
        lambda pool: pool.reset(),
        lambda pool: pool.call(nap),
        lambda pool: pool.submit(nap),
        lambda pool: pool.map(nap, range(9)),
        lambda pool: pool.collect(nap, range(9)),
    ],
)
def test_ctrl_c_between_asking_and_waiting_takes_back_what_was_asked(
    change: Callable[[azpool.Pool], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = azpool.Pool(2)
    begun, gone_on = threading.Semaphore(0), threading.Event()
    pool.serve("go on", lambda _: begun.release() or gone_on.wait(SOON_SECONDS))
    # Busy nodes: what is asked for could be done before it is taken back.
    busy = [pool.submit_to(n, azpool.pool.ask, "go on") for n in (0, 1)]
    for _ in busy:
        assert begun.acquire(timeout=SOON_SECONDS)
    pids = pool.pids()
    loop = pool._supervisor._loop
    ask = loop.call
    interrupted = False

    def interrupt_once(function: Callable[..., None], *args: object) -> None:
        nonlocal interrupted
        ask(function, *args)
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call", interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        change(pool)
    gone_on.set()
    assert [call.result(SOON_SECONDS) for call in busy] == [True, True]
    began = time.monotonic()
    while pool.pids() != pids:  # a node that was about to start goes
        assert time.monotonic() - began < SOON_SECONDS
        time.sleep(0.01)
    assert pool.evalq("'x' in globals()") == [False, False]
    assert time.monotonic() - began < SOON_SECONDS
    pool.delete()
