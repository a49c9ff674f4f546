"""Many nodes, threads and sizes at once; tasks that start things; a channel that dawdles."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from endings import (
    died,
    late_identity,
    serves_100_more,
    state_of,
    wait_until,
)

import azpool
from azpool import Pool
from azpool.errors import NodeDied, PoolClosed, PoolError
from azpool.pool import scheduler
from azpool.pool.engines.process import ProcessEngine
from azpool.pool.node import Status
from azpool.pool.wire import Frame, Kind

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


# -- many at once --------------------------------------------------------------------------------


def test_two_nodes_that_kill_each_other_cost_no_other_item(pool: Pool) -> None:
    pids = pool.call(os.getpid)
    together = threading.Barrier(2)
    over = threading.Event()
    pool.serve("together", lambda _: together.wait(10))
    pool.serve("over", lambda _: over.wait(20))

    def kill(pid: int) -> None:
        azpool.pool.ask("together")
        os.kill(pid, signal.SIGKILL)
        azpool.pool.ask("over")  # who is struck late is struck here, and not in another item

    calls = [pool.submit_to(index, kill, pids[1 - index]) for index in range(2)]
    others = pool.map(late_identity, range(20))
    wait(calls, return_when=FIRST_COMPLETED)
    over.set()
    # The faster one may kill the slower before that can strike, but not both go unharmed.
    errors = [error for call in calls if (error := call.exception()) is not None]
    assert errors
    for error in errors:
        died(of_signal=signal.SIGKILL)(error)
    assert list(others) == list(range(20))
    serves_100_more(pool)


def test_eight_threads_share_a_pool_whose_nodes_die(pool: Pool) -> None:
    failures: list[BaseException] = []

    def use(thread: int) -> None:
        def work(n: int) -> int:
            if n % 40 == thread:
                os._exit(thread + 1)
            return n * thread

        try:
            for values in (
                list(pool.map(work, range(80), return_exceptions=True)),
                [pool.submit(work, n).exception() or n * thread for n in range(40)],
            ):
                for n, value in enumerate(values):
                    if n % 40 == thread:
                        assert type(value) is NodeDied
                        assert value.exit_code == thread + 1
                    elif type(value) is not NodeDied:  # it was done, and had not left
                        assert value == n * thread
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    serves_100_more(pool)


def test_sixty_nodes_work_and_die_together() -> None:
    with Pool(60) as pool:
        pids = pool.call(os.getpid)
        assert len(set(pids)) == 60
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert list(pool.map(abs, range(1000))) == list(range(1000))
        wait_until(lambda: not set(pids) & set(pool.pids()) and all(pool.pids()))
        assert len(set(pool.call(os.getpid))) == 60


def test_two_hundred_nodes_start_answer_and_are_reset() -> None:
    with Pool(200) as pool:
        before = pool.call(os.getpid)
        pool.reset()
        after = pool.call(os.getpid)
        assert len({*before, *after}) == 400
        serves_100_more(pool)


def test_a_stopped_node_holds_up_no_end() -> None:
    pool = Pool(2)
    os.kill(pool.pids()[1], signal.SIGSTOP)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < scheduler.GRACE_SECONDS + 5


def test_a_storm_of_sizes_loses_no_item() -> None:
    draw = random.Random(7)
    with Pool(3) as pool:
        maps = [pool.map(late_identity, range(200), chunksize=draw.choice([None, 1, 9]))]
        for _ in range(15):
            pool.resize(draw.randrange(1, 9))
            maps.append(pool.map(abs, range(50)))
        assert [list(results) for results in maps] == [list(range(200)), *[list(range(50))] * 15]
        pool.resize(2)
        wait_until(lambda: pool.size == 2)
        serves_100_more(pool)


# -- a reader is told when items are missing -----------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("how", ["shutdown", "shutdown and cancel", "delete"])
def test_a_map_never_ends_early_without_a_word(how: str, *, sized: bool, ordered: bool) -> None:
    gate = threading.Event()
    pool = Pool(1)
    pool.serve("gate", lambda _: gate.wait(10))

    def work(n: int) -> int:
        if n == 2:
            azpool.pool.ask("gate")
        return n

    items = range(100) if sized else iter(range(100))
    results = pool.map(work, items, chunksize=1, ordered=ordered)  # type: ignore[call-overload]
    seen = [next(results), next(results)]
    if how == "delete":
        closing = threading.Thread(target=pool.delete)
    else:
        closing = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": "cancel" in how})
    closing.start()
    wait_until(lambda: pool.closed and pool._supervisor.closing)
    gate.set()
    try:
        seen += results
    except (PoolClosed, CancelledError):
        assert len(seen) < 100
    else:
        assert (how, sized) == ("shutdown", True)
        assert seen == list(range(100))
    closing.join()


# -- tasks that start things of their own -------------------------------------------------------


def test_tasks_may_start_processes_and_threads(pool: Pool) -> None:
    def start_everything(n: int) -> tuple[str, list[int], list[int], int]:
        import multiprocessing
        from concurrent.futures import ThreadPoolExecutor

        said = subprocess.run(["echo", str(n)], capture_output=True, text=True, check=True).stdout
        with ThreadPoolExecutor(4) as threads:
            by_threads = list(threads.map(abs, range(-4, 0)))
        with multiprocessing.get_context("fork").Pool(2) as processes:
            by_processes = processes.map(abs, [-1, -2])
        child = os.fork()
        if child == 0:
            os._exit(7)
        return said, by_threads, by_processes, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    answers = list(pool.map(start_everything, range(4)))
    assert answers == [(f"{n}\n", [4, 3, 2, 1], [1, 2], 7) for n in range(4)]
    serves_100_more(pool)


def test_a_fork_of_a_node_that_lives_on_hides_no_death(pool: Pool) -> None:
    def fork_and_end() -> None:
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            signal.pause()
            os._exit(0)
        os.write(2, f"{child}\n".encode())
        os._exit(5)

    error = pool.submit(fork_and_end).exception()
    assert type(error) is NodeDied
    os.kill(int(error.stderr), signal.SIGKILL)
    assert error.exit_code == 5
    serves_100_more(pool)


def test_a_fork_that_returns_from_its_task_is_no_second_node(pool: Pool) -> None:
    def fork(n: int) -> tuple[int, bool]:
        here = os.getpid()
        if os.fork() == 0:
            print("from the child")
        return n, os.getpid() == here

    answers = list(pool.map(fork, range(20), chunksize=5))
    assert answers == [(n, True) for n in range(20)]
    serves_100_more(pool)


# -- a channel that dawdles ----------------------------------------------------------------------

SLOW_CHANNEL = """
import os, random, time
from azpool.pool import wire

draw = random.Random({seed})
births = iter(range(10**6))
seeds = []
os.register_at_fork(
    before=lambda: seeds.append({seed} * 1000 + next(births)),
    after_in_child=lambda: draw.seed(seeds[-1]),
)
plain_send, plain_receive = wire.send_now, wire.FrameReader._receive

def send_now(sock, message):
    if draw.random() < 0.3:
        time.sleep(draw.random() * 0.004)
    plain_send(sock, message)

def receive(self, sock):
    if draw.random() < 0.3:
        time.sleep(draw.random() * 0.004)
    wire.READ_BYTES = draw.choice((7, 64, 4096, 256 * 1024))
    return plain_receive(self, sock)

wire.send_now, wire.FrameReader._receive = send_now, receive
"""


@pytest.mark.parametrize("seed", range(3))
def test_random_delays_in_the_channel_change_no_answer(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_channel.py").write_text(SLOW_CHANNEL.format(seed=seed))
    draw = random.Random(seed)

    def work(n: int) -> int:
        if n % 50 == 49:
            os._exit(1)
        if n % 20 == 19:
            raise ValueError(n)
        return n + offset  # type: ignore[name-defined]

    with Pool(3, preload=["slow_channel"]) as pool:
        for turn in range(6):
            pool.export({"offset": turn})
            size = draw.randrange(1, 150)
            results = pool.map(
                work,
                range(size),
                chunksize=draw.choice([None, 1, 7]),
                ordered=True,
                retries=draw.choice([0, 1]),
                return_exceptions=True,
            )
            if draw.random() < 0.3:
                next(results)
                results.close()  # type: ignore[attr-defined]
                continue
            if draw.random() < 0.3:
                victim = draw.choice([pid for pid in pool.pids() if pid])
                with contextlib.suppress(ProcessLookupError):  # an item may have ended it by now
                    os.kill(victim, signal.SIGKILL)
            if draw.random() < 0.3:
                pool.reset()
            for n, value in enumerate(results):
                if type(value) is not NodeDied:
                    seen = "ValueError" if type(value) is ValueError else repr(value)
                    assert seen == ("ValueError" if n % 20 == 19 else str(n + turn))
        serves_100_more(pool)


def test_an_interrupt_before_the_news_of_a_nodes_birth_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late: list[Callable[[], None]] = []
    hear = ProcessEngine._on_zygote_frame

    def hear_late(engine: ProcessEngine, zygote: Any, frame: Frame) -> None:
        if frame.kind == Kind.BORN:
            late.append(partial(hear, engine, zygote, frame))
        else:
            hear(engine, zygote, frame)

    monkeypatch.setattr(ProcessEngine, "_on_zygote_frame", hear_late)
    with Pool(1) as pool:
        pid = pool.submit(os.getpid).result()  # a node that has run something stays
        begun = threading.Event()
        pool.serve("begun", lambda _: begun.set())
        results = pool.map(lambda n: (azpool.pool.ask("begun"), time.sleep(60)), iter([1]))
        assert begun.wait(20)
        (channel,) = pool._supervisor._engine._channels.values()  # type: ignore[attr-defined]
        closing = threading.Thread(target=results.close)  # type: ignore[attr-defined]
        closing.start()
        wait_until(lambda: channel.words[Status.INTERRUPT])
        monkeypatch.undo()
        for tell in [*late]:
            pool._supervisor._loop.call(tell)
        closing.join()
        assert pool.submit(os.getpid).result() == pid


# -- several users of one pool, and pools in pools -------------------------------------------------


@pytest.mark.parametrize("killing", [False, True])
def test_users_who_map_export_reset_and_resize_at_once_all_get_their_answers(
    *, killing: bool
) -> None:
    draw = random.Random(11)
    failures: list[str] = []
    pool = Pool(3)

    def map_some() -> None:
        answers = list(pool.map(lambda n: n + 1, range(50), return_exceptions=True))
        assert all(type(a) is NodeDied or a == n + 1 for n, a in enumerate(answers))

    def kill_one() -> None:
        time.sleep(0.02)
        pids = [pid for pid in pool.pids() if pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(pids or [0]), signal.SIGKILL if pids else 0)

    def use(times: int, step: Callable[[], object]) -> None:
        for _ in range(times):
            try:
                step()
            except (NodeDied, PoolError):
                pass
            except ExceptionGroup as group:
                others = group.split((NodeDied, PoolError))[1]
                if others is not None:
                    failures.append(repr(others))
            except BaseException as error:
                failures.append(repr(error))

    users = [
        threading.Thread(target=use, args=user)
        for user in (
            (40, map_some),
            (40, map_some),
            (40, lambda: pool.export({"v": draw.random()})),
            (20, pool.reset),
            (20, lambda: pool.resize(draw.randrange(2, 6))),
            (40, lambda: pool.call(os.getpid)),
            (20 if killing else 0, kill_one),
        )
    ]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not failures
    pool.resize(3)
    serves_100_more(pool)
    wait_until(lambda: len(pool._supervisor._generations) == 1)  # no old nodes are left
    pool.close()


@pytest.mark.parametrize("how", ["close", "delete"])
def test_whoever_uses_a_pool_while_it_ends_is_told_so(how: str) -> None:
    told: list[str] = []
    pool = Pool(2)
    going = threading.Barrier(6)

    def use(step: Callable[[], object]) -> None:
        going.wait()
        while True:
            try:
                step()
            except (PoolClosed, CancelledError) as error:
                told.append(type(error).__name__)
                return
            except ExceptionGroup as group:
                others = group.split((PoolClosed, CancelledError))[1]
                told.append("ExceptionGroup" if others is None else repr(others))
                return

    steps: list[Callable[[], object]] = [
        lambda: pool.submit(abs, 1).result(),
        lambda: list(pool.map(abs, range(20))),
        lambda: pool.export({"x": 1}),
        lambda: pool.call(os.getpid),
        pool.statistics,
    ]
    users = [threading.Thread(target=use, args=(step,)) for step in steps]
    for user in users:
        user.start()
    going.wait()
    time.sleep(0.05)  # so that all are at it: any moment will do
    getattr(pool, how)()
    for user in users:
        user.join(10)
        assert not user.is_alive()
    assert len(told) == 5
    assert {*told} <= {"PoolClosed", "CancelledError", "ExceptionGroup"}


def test_of_two_resets_at_once_the_later_one_counts_and_nothing_is_left_of_the_other(
    tmp_path: Path,
) -> None:
    slow = tmp_path / "slow"

    def initialize() -> None:
        if slow.exists():
            slow.unlink()
            time.sleep(0.3)

    with Pool(1, initializer=initialize) as pool:
        slow.touch()
        first = threading.Thread(target=pool.reset)
        first.start()
        wait_until(lambda: not slow.exists())  # the first one's node takes its time
        pool.reset()
        after = pool.call(os.getpid)
        first.join()
        assert pool.call(os.getpid) == after
        wait_until(lambda: len(pool._supervisor._generations) == 1)
        serves_100_more(pool)


def test_a_call_to_a_node_that_is_taken_away_says_so(tmp_path: Path) -> None:
    slow = tmp_path / "slow"

    def initialize() -> None:
        if slow.exists():
            time.sleep(30)

    with Pool(1, initializer=initialize) as pool:
        slow.touch()
        errors: list[BaseException] = []

        def grow() -> None:
            try:
                pool.resize(2)
            except PoolError as error:
                errors.append(error)

        growing = threading.Thread(target=grow)
        growing.start()
        wait_until(lambda: pool.size == 2)
        call = pool.submit_to(1, abs, 1)
        pool.resize(1)
        assert str(call.exception()) == (
            "cannot use node 1: the pool has no such node; see pool.size"
        )
        growing.join()
        serves_100_more(pool)


def test_a_pool_in_a_task_works_and_ends_with_its_node(pool: Pool, tmp_path: Path) -> None:
    def nest(n: int) -> list[int]:
        with Pool(2) as inner:
            return list(inner.map(abs, range(n)))

    def nest_and_end() -> None:
        inner = Pool(2)
        (tmp_path / "pids").write_text(" ".join(map(str, inner.pids())))
        os._exit(1)

    assert list(pool.map(nest, [3, 4])) == [[0, 1, 2], [0, 1, 2, 3]]
    assert type(pool.submit(nest_and_end).exception()) is NodeDied
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: all(state_of(pid) in "ZX" for pid in pids), 5)
    serves_100_more(pool)


# -- questions while the pool ends -----------------------------------------------------------------


def test_a_handler_that_never_answers_holds_up_no_delete() -> None:
    hang, asked = threading.Event(), threading.Semaphore(0)

    def never(_: Any) -> None:
        asked.release()
        hang.wait()

    pool = Pool(4)
    pool.serve("never", never)
    calls = [pool.submit(azpool.pool.ask, "never") for _ in range(10)]
    for _ in range(4):
        asked.acquire()
    began = time.monotonic()
    pool.delete()
    assert time.monotonic() - began < scheduler.GRACE_SECONDS + 5
    for call in calls:
        with pytest.raises(CancelledError):
            call.result(0)
    hang.set()


def test_ten_nodes_that_ask_while_the_pool_closes_are_answered() -> None:
    pool = Pool(10)
    closing = threading.Event()
    pool.serve("slow", lambda request: closing.wait(10) and request)
    answers = [pool.submit(azpool.pool.ask, "slow", n) for n in range(40)]
    pool.shutdown(wait=False)
    closing.set()
    assert [answer.result() for answer in answers] == list(range(40))
    pool.shutdown()
    with pytest.raises(PoolClosed):
        pool.serve("slow", abs)
