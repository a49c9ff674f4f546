"""How a task, an argument, a result or a node can end, where, and what is left: a pool that works.

Each cell says what the caller sees, what the other items do meanwhile, and that the pool serves 100
more items afterwards. Whatever runs on a node is made by functions, so that it travels by value.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import azpool
from azpool import Pool
from azpool.errors import (
    CannotPickle,
    NodeDied,
    PoolBroken,
    PoolClosed,
    PoolError,
    RemoteError,
    TaskTimeout,
)
from azpool.pool import scheduler

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")

DEADLINE_SECONDS = 0.3
Check = Callable[[Any], None]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


def serves_100_more(pool: Pool) -> None:
    assert list(pool.map(abs, range(100))) == list(range(100))
    assert all(pool.call(os.getpid))


# -- the endings ---------------------------------------------------------------------------------


def make_endings() -> dict[str, Callable[[], None]]:
    def exception() -> None:
        raise ValueError("boom")

    def sys_exit() -> None:
        sys.exit(3)

    def os_exit() -> None:
        os._exit(3)

    def segfault() -> None:
        ctypes.string_at(0)

    def sigkill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    made = (exception, sys_exit, os_exit, segfault, sigkill, stopped)
    return {ending.__name__: ending for ending in made}


ENDINGS = make_endings()
DEADLY = ("os_exit", "segfault", "sigkill")


def is_exception(error: Any) -> None:
    assert type(error) is ValueError
    assert str(error) == "boom"
    assert "in exception" in str(error.__cause__)
    assert "on node" in error.__notes__[0]


def is_sys_exit(error: Any) -> None:
    assert type(error) is RemoteError
    assert error.type_name == "SystemExit"
    assert error.text == "3"


def died(*, of_signal: int | None = None, exit_code: int | None = None) -> Check:
    def check(error: Any) -> None:
        assert type(error) is NodeDied
        assert (error.signal, error.exit_code) == (of_signal, exit_code)
        assert error.begun
        assert error.pid > 0

    return check


def is_timeout(error: Any) -> None:
    assert type(error) is TaskTimeout
    assert error.seconds == DEADLINE_SECONDS


SEEN: dict[str, Check] = {
    "exception": is_exception,
    "sys_exit": is_sys_exit,
    "os_exit": died(exit_code=3),
    "segfault": died(of_signal=signal.SIGSEGV),
    "sigkill": died(of_signal=signal.SIGKILL),
    "stopped": is_timeout,
}


def make_trap(end: Callable[[], None]) -> Any:
    """Return an object that ends whoever loads it."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return end, ()

    return Trap()


def make_unpicklable(end: Callable[[], None]) -> Any:
    """Return an object that ends whoever pickles it."""

    class Unpicklable:
        def __reduce__(self) -> tuple[Any, ...]:
            end()
            raise AssertionError("it went on")

    return Unpicklable()


def make_victims(ending: str) -> dict[str, tuple[Callable[[Any], Any], Any]]:
    """For each stage a function and its argument that end there."""
    end = ENDINGS[ending]
    trap = make_trap(end)
    return {
        "loading the function": (lambda n: (trap, n), 1),
        "loading an argument": (lambda n: n, trap),
        "running": (lambda n: end(), 1),
        "pickling the result": (lambda n: make_unpicklable(end), 1),
    }


STAGES = tuple(make_victims("exception"))


def late_identity(n: int) -> int:
    time.sleep(0.002)
    return n


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stage", STAGES)
def test_an_item_that_ends_its_node_is_the_only_one_that_fails(
    pool: Pool, stage: str, ending: str
) -> None:
    before = pool.call(os.getpid)
    others = pool.map(late_identity, range(40), chunksize=1)
    function, argument = make_victims(ending)[stage]
    (error,) = pool.map(
        function, [argument], deadline_seconds=DEADLINE_SECONDS, return_exceptions=True
    )
    if (stage, ending) == ("pickling the result", "exception"):
        assert type(error) is CannotPickle
        assert str(error).startswith("cannot return a make_unpicklable.<locals>.Unpicklable: boom;")
    else:
        SEEN[ending](error)
    assert list(others) == list(range(40))
    killed = ending not in ("exception", "sys_exit")
    after = pool.call(os.getpid)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == killed
    serves_100_more(pool)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_item_that_ends_its_node_leaves_the_rest_of_its_chunk_to_others(
    pool: Pool, ending: str
) -> None:
    end = ENDINGS[ending]

    def sleep_or_end(n: int) -> int:
        time.sleep(0.02)  # so that the results of those before have left
        if n == 3:
            end()
        return n

    answers = list(
        pool.map(
            sleep_or_end,
            range(8),
            chunksize=8,
            deadline_seconds=DEADLINE_SECONDS,
            return_exceptions=True,
        )
    )
    SEEN[ending](answers[3])
    assert answers[:3] + answers[4:] == [0, 1, 2, 4, 5, 6, 7]
    serves_100_more(pool)


def test_items_whose_results_had_not_left_are_lost_and_not_run_again(
    pool: Pool, tmp_path: Path
) -> None:
    def make() -> Any:
        class EndsWhenFlushed:
            def write(self, text: str) -> int:
                return len(text)

            def flush(self) -> None:
                os._exit(6)

        return EndsWhenFlushed()

    def work(n: int) -> int:
        (tmp_path / f"{n}-{time.monotonic_ns()}").touch()
        if n == 3:
            sys.stdout = make()
        return n

    answers = list(pool.map(work, range(4), chunksize=4, return_exceptions=True))
    died(exit_code=6)(answers[3])
    assert all(value == n or type(value) is NodeDied for n, value in enumerate(answers))
    assert len(list(tmp_path.iterdir())) == 4
    serves_100_more(pool)


# -- loading a result, in the master --------------------------------------------------------------


@pytest.mark.parametrize("way", ["submit", "map"])
@pytest.mark.parametrize("ending", ["exception", "sys_exit"])
def test_a_result_that_cannot_be_loaded_fails_its_item(pool: Pool, ending: str, way: str) -> None:
    end = ENDINGS[ending]

    def work(n: int) -> Any:
        return make_trap(end) if n == 1 else n

    if way == "map":
        first, error, last = pool.map(work, range(3), return_exceptions=True)
        assert (first, last) == (0, 2)
    else:
        error = pool.submit(work, 1).exception()
    assert type(error) is CannotPickle
    cause = "ValueError: boom" if ending == "exception" else "SystemExit: 3"
    assert f"cannot load the result of {'item 1' if way == 'map' else 'the call'}: {cause}" in str(
        error
    )
    serves_100_more(pool)


def test_an_exception_that_cannot_be_loaded_comes_in_words(pool: Pool) -> None:
    def make(end: Callable[[], None]) -> Exception:
        class Unloadable(Exception):
            def __reduce__(self) -> tuple[Any, ...]:
                return end, ()

        return Unloadable("the facts")

    def fail(name: str) -> None:
        raise make(ENDINGS[name])

    for name in ("exception", "sys_exit"):
        error = pool.submit(fail, name).exception()
        assert type(error) is RemoteError
        assert error.type_name.endswith("Unloadable")
        assert error.text == "the facts"
        assert "in fail" in error.traceback
    serves_100_more(pool)


# -- an idle node --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [*DEADLY, "stopped"])
def test_an_idle_node_that_ends_costs_no_item(
    pool: Pool, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "SILENCE_SECONDS", 0.2)
    before = pool.call(os.getpid)
    end = ENDINGS[ending]
    asleep = threading.Event()
    pool.serve("asleep", lambda _: asleep.wait(10))

    def end_later() -> None:
        def wait_and_end() -> None:
            azpool.pool.ask("asleep")
            end()

        threading.Thread(target=wait_and_end, daemon=True).start()

    pool.submit_to(0, end_later).result()
    asleep.set()
    # Not while an item runs there: that one would have begun. The master may know of it or not.
    wait_until(lambda: state_of(before[0]) in ("Tt" if ending == "stopped" else "ZX"))
    answers = list(pool.map(abs, range(100), deadline_seconds=DEADLINE_SECONDS, chunksize=1))
    assert answers == list(range(100))
    assert pool.submit_to(1, os.getpid).result() == before[1]
    wait_until(lambda: pool.pids()[0] not in (0, before[0]))
    serves_100_more(pool)


def wait_until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def state_of(pid: int) -> str:
    """The letter that /proc has for it; X for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


# -- during start and reset ----------------------------------------------------------------------

AT_BIRTH = """
import ctypes, os, signal, sys

def at_birth():
    folder = os.path.join(os.path.dirname(__file__), "births")
    for name in os.listdir(folder):
        try:
            os.unlink(os.path.join(folder, name))
        except OSError:
            continue  # another one took it
        {ending}

os.register_at_fork(after_in_child=at_birth)
"""
AT_BIRTH_ENDINGS = {
    "exception": "raise ValueError('boom')",
    "os_exit": "os._exit(3)",
    "segfault": "ctypes.string_at(0)",
    "sigkill": "os.kill(os.getpid(), signal.SIGKILL)",
}


class Births:
    """Ends so many nodes at their birth, from now on."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder = folder / "births"
        self.folder.mkdir()
        (folder / "at_birth.py").write_text(AT_BIRTH.format(ending=AT_BIRTH_ENDINGS[ending]))

    def end(self, count: int) -> None:
        for name in os.listdir(self.folder):
            (self.folder / name).unlink()
        for number in range(count):
            (self.folder / str(number)).touch()


@pytest.fixture
def births(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Births:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Births(tmp_path, request.param)


@pytest.mark.parametrize("births", DEADLY, indirect=True)
def test_a_node_that_ends_at_its_start_is_started_again(births: Births) -> None:
    births.end(2)
    with Pool(2, preload=["at_birth"]) as pool:
        serves_100_more(pool)
        births.end(2)
        with pytest.raises(NodeDied):
            pool.submit(os._exit, 1).result()
        serves_100_more(pool)


@pytest.mark.parametrize("births", DEADLY, indirect=True)
def test_nodes_that_always_end_at_their_start_break_the_pool(births: Births) -> None:
    births.end(50)
    with pytest.raises(PoolBroken, match=r"cannot start nodes: a node ended at its start \("):
        Pool(2, preload=["at_birth"])


@pytest.mark.parametrize("births", ["exception"], indirect=True)
def test_an_exception_at_birth_that_nobody_can_catch_stops_nothing(births: Births) -> None:
    births.end(1)
    with Pool(2, preload=["at_birth"]) as pool:
        serves_100_more(pool)


@pytest.mark.parametrize("births", DEADLY, indirect=True)
def test_a_reset_whose_nodes_end_keeps_the_old_ones(births: Births) -> None:
    with Pool(2, preload=["at_birth"]) as pool:
        pool.export({"kept": 1})
        running = pool.submit(late_identity, 5)
        births.end(2)
        pool.reset()  # two births fail, the third ones do not
        assert running.result() == 5
        assert pool.evalq("'kept' in globals()") == [False, False]
        pool.export({"kept": 2})
        births.end(50)
        with pytest.raises(PoolBroken):
            pool.reset()
        births.end(0)
        assert pool.evalq("kept") == [2, 2]
        serves_100_more(pool)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_call_that_ends_an_old_node_during_a_reset_fails_alone(ending: str) -> None:
    end = ENDINGS[ending]
    go = threading.Event()
    with Pool(2) as pool:
        pool.serve("go", lambda _: go.wait(10))

        def wait_and_end(n: int) -> int:
            azpool.pool.ask("go")
            if n == 0:
                end()
            return n

        answers = pool.map(
            wait_and_end, range(2), deadline_seconds=2.0, return_exceptions=True, chunksize=1
        )
        pool.reset()
        go.set()
        error, other = list(answers)
        if ending == "stopped":
            assert type(error) is TaskTimeout
        else:
            SEEN[ending](error)
        assert other == 1
        serves_100_more(pool)


@pytest.mark.parametrize("ending", ["exception", "sys_exit", *DEADLY])
def test_an_initializer_that_ends_its_node_breaks_the_pool_with_the_cause(ending: str) -> None:
    with pytest.raises(PoolBroken, match="cannot start nodes: ") as caught:
        Pool(2, initializer=ENDINGS[ending])
    if ending == "exception":
        assert type(caught.value.__cause__) is ValueError


def test_a_zygote_that_ends_in_a_preload_breaks_the_pool_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deadly.py").write_text("import os\nos.write(2, b'no licence')\nos._exit(4)\n")
    with pytest.raises(PoolBroken, match="the zygote ended with 4: no licence"):
        Pool(1, preload=["deadly"])


# -- during an export ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["exception", "sys_exit", *DEADLY])
def test_an_export_that_ends_its_node_is_taken_back(pool: Pool, ending: str) -> None:
    pool.export({"a": "old"})
    with pytest.raises((ValueError, PoolError)) as caught:
        pool.export({"a": "new", "bad": make_trap(ENDINGS[ending])})
    SEEN[ending](caught.value)
    assert pool.evalq("(a, 'bad' in globals())") == [("old", False)] * 2
    serves_100_more(pool)


def test_a_node_that_ends_before_an_export_reaches_it_does_not_hinder_it(pool: Pool) -> None:
    def end_slowly() -> None:
        time.sleep(0.2)
        os._exit(1)

    ended = pool.submit_to(0, end_slowly)
    pool.export({"b": "there"})
    assert type(ended.exception()) is NodeDied
    assert pool.evalq("b") == ["there"] * 2
    serves_100_more(pool)


# -- inside a service request ---------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["exception", "sys_exit"])
def test_what_a_handler_raises_reaches_the_asker(pool: Pool, ending: str) -> None:
    pool.serve("ending", lambda _: ENDINGS[ending]())
    error = pool.submit(lambda: azpool.pool.ask("ending")).exception()
    assert type(error) is (ValueError if ending == "exception" else RemoteError)
    serves_100_more(pool)


@pytest.mark.parametrize("ending", [*DEADLY, "stopped"])
def test_a_node_that_ends_while_it_asks_fails_its_item(pool: Pool, ending: str) -> None:
    end = ENDINGS[ending]
    go = threading.Event()
    pool.serve("slow", lambda _: go.wait(10))
    pool.serve("quick", lambda request: request)

    def ask_and_end(n: int) -> None:
        threading.Timer(0.05, end).start()
        azpool.pool.ask("slow")

    others = pool.map(lambda n: azpool.pool.ask("quick", n), range(20), chunksize=1)
    (error,) = pool.map(ask_and_end, [1], deadline_seconds=0.5, return_exceptions=True)
    go.set()
    if ending == "stopped":
        assert type(error) is TaskTimeout
    else:
        SEEN[ending](error)
    assert list(others) == list(range(20))
    serves_100_more(pool)


# -- many at once --------------------------------------------------------------------------------


def test_two_nodes_that_kill_each_other_cost_no_other_item(pool: Pool) -> None:
    pids = pool.call(os.getpid)
    together = threading.Barrier(2)
    pool.serve("together", lambda _: together.wait(10))

    def kill(pid: int) -> None:
        azpool.pool.ask("together")
        os.kill(pid, signal.SIGKILL)

    calls = [pool.submit_to(index, kill, pids[1 - index]) for index in range(2)]
    others = pool.map(late_identity, range(20))
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


# -- arguments and errors that are no data -------------------------------------------------------


def test_a_generator_is_refused_at_the_call(pool: Pool) -> None:
    numbers = (n for n in range(3))
    with pytest.raises(CannotPickle, match=r"cannot send an argument: .*generator"):
        pool.submit(sum, numbers)
    with pytest.raises(CannotPickle, match=r"cannot send item 1: .*generator"):
        pool.map(sum, [[1], numbers])
    with pytest.raises(CannotPickle, match=r"cannot send the export numbers: .*generator"):
        pool.export({"numbers": numbers})
    assert list(pool.map(abs, numbers)) == [0, 1, 2]
    assert pool.submit(lambda: (n for n in ())).exception() is not None
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
                os.kill(draw.choice([pid for pid in pool.pids() if pid]), signal.SIGKILL)
            if draw.random() < 0.3:
                pool.reset()
            for n, value in enumerate(results):
                if type(value) is not NodeDied:
                    seen = "ValueError" if type(value) is ValueError else repr(value)
                    assert seen == ("ValueError" if n % 20 == 19 else str(n + turn))
        serves_100_more(pool)


def test_a_function_whose_loading_was_interrupted_is_loaded_again(
    pool: Pool, tmp_path: Path
) -> None:
    loading = tmp_path / "loading"

    def load_slowly() -> int:
        if not loading.exists():
            loading.touch()
            time.sleep(30)
        return 1

    trap = make_trap(load_slowly)

    def function(n: int) -> int:
        assert trap == 1
        return n

    results = pool.map(function, [5])
    wait_until(loading.exists)
    results.close()  # type: ignore[attr-defined]
    for index in range(2):
        assert pool.submit_to(index, function, 7).result() == 7
    serves_100_more(pool)
