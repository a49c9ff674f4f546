"""What every pool does, whatever runs its nodes: one suite for every engine."""

from __future__ import annotations

import io
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import azpool
from azpool import Pool
from azpool.errors import (
    CannotPickle,
    NodeDied,
    PoolClosed,
    PoolError,
    RemoteError,
    TaskTimeout,
    UsageError,
)
from azpool.pool import everywhere

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")


@pytest.fixture(scope="module")
def pool(starter: str) -> Iterator[Pool]:
    with Pool(3) as made:
        yield made


def still_serves(pool: Pool) -> None:
    assert list(pool.map(abs, range(100))) == list(range(100))


# -- calls and maps ------------------------------------------------------------------------------


def test_submit_answers_with_a_future(pool: Pool) -> None:
    assert pool.submit(pow, 2, 5).result() == 32
    assert pool.submit(int, "11", base=2).result() == 3
    assert pool.submit(lambda: None).result() is None


def test_futures_work_with_the_standard_librarys_functions(pool: Pool) -> None:
    futures = [pool.submit(lambda x: x * x, n) for n in range(20)]
    assert sorted(f.result() for f in as_completed(futures)) == [n * n for n in range(20)]


def late_first(n: int) -> int:
    time.sleep(0.05 if n == 0 else 0)
    return n


def test_a_map_is_in_the_order_of_its_items(pool: Pool) -> None:
    assert list(pool.map(late_first, range(50))) == list(range(50))
    assert sorted(pool.map(late_first, range(50), ordered=False)) == list(range(50))


@pytest.mark.needs_processes("items run one after another")
def test_an_unordered_map_gives_results_as_they_come(pool: Pool) -> None:
    unordered = list(pool.map(late_first, range(50), ordered=False))
    assert sorted(unordered) == list(range(50))
    assert unordered[0] != 0


@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_chunks_change_nothing_but_time(pool: Pool, chunksize: int | None) -> None:
    assert list(pool.map(lambda a, b: (a, b), range(100), "ab" * 50, chunksize=chunksize)) == list(
        zip(range(100), "ab" * 50, strict=True)
    )


def test_inputs_of_any_kind(pool: Pool) -> None:
    assert list(pool.map(lambda p: p.name, [type("T", (), {"name": "x"})()])) == ["x"]
    assert list(pool.map(len, [{"a": 1}, {}, {"b": 2, "c": 3}])) == [1, 0, 2]
    assert list(pool.map(lambda f: f(2), [lambda x: x + 1, abs])) == [3, 2]
    assert list(pool.map(abs, [])) == []
    arrays = [np.arange(n) for n in range(5)]
    assert [a.sum() for a in pool.map(lambda a: a * 2, arrays)] == [0, 0, 2, 6, 12]


def test_an_endless_generator_is_read_as_results_are(pool: Pool) -> None:
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    results = pool.map(lambda n: -n, endless(), buffersize=8)
    assert list(itertools.islice(results, 100)) == [-n for n in range(1, 101)]
    results.close()  # type: ignore[attr-defined]
    assert pulled <= 110


def test_large_arguments_and_results_travel_whole_and_writable(pool: Pool) -> None:
    array = np.arange(1_000_000, dtype=np.float64)

    def bump(a: Any) -> Any:
        a += 1
        return a

    back = pool.submit(bump, array).result()
    assert back[0] == 1 and array[0] == 0
    back += 1
    assert back[-1] == 1_000_001
    assert pool.submit(len, bytes(5 << 20)).result() == 5 << 20


@pytest.mark.parametrize("count", [10, 5_000, 20_000])
def test_arrays_of_any_size_are_writable_wherever_they_arrive(pool: Pool, count: int) -> None:
    array = np.zeros(count)

    def bump(a: Any) -> Any:
        a += 1
        return a

    back = pool.submit(bump, array).result()
    back += 1
    assert (array[0], back[0], back[-1]) == (0, 2, 2)
    (other,) = pool.map(bump, [array])
    other += 1
    assert other[0] == 2


def test_a_shorter_input_ends_a_map(pool: Pool) -> None:
    assert list(pool.map(lambda a, b: a + b, [1, 2, 3], [10, 20])) == [11, 22]


def test_a_map_may_be_abandoned(pool: Pool) -> None:
    results = pool.map(lambda n: time.sleep(0.01), range(10_000))
    next(results)
    results.close()  # type: ignore[attr-defined]
    still_serves(pool)


@pytest.mark.needs_processes("an item is never cut short")
def test_a_map_that_is_closed_unread_is_cancelled_and_one_that_is_dropped_runs(
    pool: Pool, tmp_path: Path
) -> None:
    began = time.monotonic()
    pool.map(time.sleep, [30] * 3).close()  # type: ignore[attr-defined]
    pool.map(lambda name: (tmp_path / name).touch(), ["a", "b"])
    while {path.name for path in tmp_path.iterdir()} != {"a", "b"}:
        assert time.monotonic() - began < 15
    still_serves(pool)


@pytest.mark.needs_processes("an item is never cut short")
def test_timeout_counts_from_the_call(pool: Pool) -> None:
    results = pool.map(time.sleep, [0, 30], timeout=3)
    next(results)
    with pytest.raises(TimeoutError):
        next(results)
    still_serves(pool)


def test_results_come_before_the_rest_of_their_chunk(pool: Pool) -> None:
    list(pool.map(abs, range(1000)))
    began = time.monotonic()
    results = pool.map(lambda n: time.sleep(40) if n == 2 else n, range(3), chunksize=3)
    assert next(results) == 0
    assert next(results) == 1
    assert time.monotonic() - began < 20
    results.close()  # type: ignore[attr-defined]


def test_eight_threads_share_a_pool(pool: Pool) -> None:
    failures: list[BaseException] = []

    def use(k: int) -> None:
        try:
            assert list(pool.map(lambda n: n * k, range(200))) == [n * k for n in range(200)]
            assert pool.submit(pow, k, 2).result() == k * k
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_callbacks_may_use_the_pool(pool: Pool) -> None:
    answered: Future[int] = Future()

    def again(done: Future[int]) -> None:
        answered.set_result(pool.submit(abs, done.result()).result())

    pool.submit(lambda: -3).add_done_callback(again)
    assert answered.result(10) == 3


# -- state ---------------------------------------------------------------------------------------


def test_exports_are_seen_by_functions_sent_later() -> None:
    with Pool(2) as pool:
        pool.export({"shown": 1})
        read = lambda: shown  # type: ignore[name-defined]
        assert pool.submit(read).result() == 1
        pool.export({"shown": 2})
        assert pool.submit(read).result() == 2
        assert pool.submit(lambda: azpool.exports["shown"]).result() == 2


CAPTURED = "captured"


def test_an_exported_name_goes_before_a_captured_one_and_warns_once() -> None:
    global CAPTURED
    with Pool(1) as pool:
        assert pool.submit(lambda: CAPTURED).result() == "captured"
        pool.export({"CAPTURED": "exported"})
        with pytest.warns(RuntimeWarning, match="'CAPTURED', which is exported"):
            assert pool.submit(lambda: CAPTURED).result() == "exported"
        assert pool.submit(lambda: CAPTURED).result() == "exported"  # a second warning would raise


def test_an_exported_object_does_not_travel_again() -> None:
    global BIG
    BIG = np.zeros(4_000_000)
    try:
        with Pool(1) as pool:
            pool.export({"BIG": BIG})
            from azpool.pool.generation import Shipment

            shipment = Shipment(lambda: BIG.sum(), pool._exported())
            assert len(shipment.payload) + sum(b.nbytes for b in shipment.buffers) < 10_000
            assert pool.submit(lambda: BIG.sum()).result() == 0
    finally:
        del BIG


def test_closure_variables_travel_and_are_never_replaced() -> None:
    with Pool(1) as pool:
        inner = "closure"
        pool.export({"inner": "exported"})
        assert pool.submit(lambda: inner).result() == "closure"


def test_a_write_to_a_global_stays_with_its_function() -> None:
    with Pool(1) as pool:

        def count() -> int:
            global counted
            counted = globals().get("counted", 0) + 1
            return counted

        assert [pool.submit(count).result() for _ in range(3)] == [1, 2, 3]
        assert pool.submit(lambda: "counted" in globals()).result() is False


def test_an_export_that_fails_to_load_is_taken_back() -> None:
    with Pool(2) as pool:
        pool.export({"a": "old"})
        with pytest.raises(ZeroDivisionError):
            pool.export({"a": "new", "bad": FailsOnLoad()})
        assert pool.evalq("(a, 'bad' in globals())") == [("old", False)] * 2


class FailsOnLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return divide, (1, 0)


def divide(a: int, b: int) -> float:
    return a / b


def test_a_reset_never_waits_and_calls_begun_earlier_finish_with_their_exports(
    starter: str,
) -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def wait_to_go(_: object) -> None:
        begun.release()
        assert go.wait(30)

    with Pool(2) as pool:
        pool.serve("go", wait_to_go)
        pool.export({"mark": "first"})

        def slow() -> str:
            azpool.pool.ask("go")
            return mark  # type: ignore[name-defined]

        if starter == "inline":  # a call has run when submit returns
            go.set()
        old = [pool.submit(slow) for _ in range(4)]
        assert all(begun.acquire(timeout=20) for _ in range(2))
        pool.reset()
        assert pool.evalq("'mark' in globals()") == [False, False]
        assert starter == "inline" or not any(f.done() for f in old)
        go.set()
        assert [f.result() for f in old] == ["first"] * 4


@pytest.mark.needs_processes("this ends one")
def test_a_dead_nodes_replacement_has_the_exports() -> None:
    with Pool(1) as pool:
        pool.export({"kept": 7, "also": [1]})
        with pytest.raises(NodeDied):
            pool.submit(os._exit, 1).result()
        assert pool.submit(lambda: (kept, also)).result() == (7, [1])  # type: ignore[name-defined]


def test_no_two_nodes_draw_alike(pool: Pool) -> None:
    assert len(set(pool.call(lambda: random.random()))) == 3


# -- errors --------------------------------------------------------------------------------------


def test_an_exception_is_raised_with_the_nodes_traceback_and_names_its_item(pool: Pool) -> None:
    def fail_at_three(n: int) -> int:
        if n == 3:
            raise KeyError("three")
        return n

    results = pool.map(fail_at_three, range(6), return_exceptions=True)
    values = list(results)
    assert values[:3] == [0, 1, 2] and values[4:] == [4, 5]
    error = values[3]
    assert isinstance(error, KeyError)
    assert "fail_at_three" in str(error.__cause__)
    assert "item 3, on node" in error.__notes__[0]
    with pytest.raises(KeyError, match="three"):
        list(pool.map(fail_at_three, range(6)))
    still_serves(pool)


class Unloadable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


@pytest.mark.parametrize("make", [lambda: Unloadable(1, 2), Unpicklable])
def test_an_exception_that_cannot_travel_comes_in_words(
    pool: Pool, make: Callable[[], BaseException]
) -> None:
    def fail() -> None:
        raise make()

    with pytest.raises(RemoteError) as caught:
        pool.submit(fail).result()
    assert caught.value.type_name.endswith(type(make()).__name__)
    assert caught.value.text == str(make())
    assert "in fail" in caught.value.traceback
    still_serves(pool)


def test_what_cannot_be_pickled_is_named_at_the_call(pool: Pool) -> None:
    lock = threading.Lock()

    def uses_lock() -> None:
        lock.acquire()

    with pytest.raises(CannotPickle, match=r"cannot send the function .*uses_lock"):
        pool.submit(uses_lock)
    with pytest.raises(CannotPickle, match="cannot send an argument"):
        pool.submit(id, lock)
    with pytest.raises(CannotPickle, match="cannot send item 2"):
        pool.map(id, [1, 2, lock])
    still_serves(pool)


def test_results_that_cannot_travel_fail_their_own_items(pool: Pool) -> None:
    def make(n: int) -> Any:
        return threading.Lock() if n == 1 else FailsOnLoad() if n == 2 else n

    values = list(pool.map(make, range(4), return_exceptions=True))
    assert [values[0], values[3]] == [0, 3]
    assert "cannot return a lock" in str(values[1])
    assert "cannot load the result of item 2" in str(values[2])
    still_serves(pool)


def test_arguments_that_fail_to_load_fail_their_own_items(pool: Pool) -> None:
    values = list(pool.map(type, [FailsOnLoad(), "fine"], return_exceptions=True))
    assert isinstance(values[0], ZeroDivisionError)
    assert values[1] is str


def test_sys_exit_fails_the_item_and_not_the_node(pool: Pool) -> None:
    before = pool.pids()
    with pytest.raises(RemoteError, match="SystemExit"):
        pool.submit(sys.exit, 3).result()
    assert pool.pids() == before


@pytest.mark.needs_processes("this ends one")
@pytest.mark.parametrize(
    ("end", "signal_number", "exit_code"),
    [
        (lambda: os._exit(3), None, 3),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL, None),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), signal.SIGSEGV, None),
    ],
)
def test_a_node_that_dies_fails_only_its_own_item(
    pool: Pool, end: Callable[[], None], signal_number: int | None, exit_code: int | None
) -> None:
    def maybe_end(n: int) -> int:
        if n == 5:
            end()
        return n

    values = list(pool.map(maybe_end, range(20), chunksize=1, return_exceptions=True))
    assert [v for n, v in enumerate(values) if n != 5] == [n for n in range(20) if n != 5]
    error = values[5]
    assert isinstance(error, NodeDied)
    assert (error.signal, error.exit_code, error.begun) == (signal_number, exit_code, True)
    still_serves(pool)
    assert pool.size == 3


@pytest.mark.needs_processes("this ends one")
def test_what_had_not_left_a_dead_node_is_lost_and_never_run_again(
    pool: Pool, tmp_path: Any
) -> None:
    def work(n: int) -> int:
        (tmp_path / f"{n}-{time.monotonic_ns()}").touch()
        if n == 3:
            os._exit(1)
        return n

    values = list(pool.map(work, range(8), chunksize=8, return_exceptions=True))
    assert values[4:] == [4, 5, 6, 7]
    assert isinstance(values[3], NodeDied)
    assert all(v == n or isinstance(v, NodeDied) for n, v in enumerate(values))
    assert len(list(tmp_path.iterdir())) == 8


@pytest.mark.needs_processes("this ends one")
def test_a_dead_nodes_last_words_are_in_the_error(pool: Pool) -> None:
    def speak_and_die() -> None:
        os.write(2, b"the disk is on fire\n")
        os._exit(9)

    with pytest.raises(NodeDied, match="the disk is on fire") as caught:
        pool.submit(speak_and_die).result()
    assert caught.value.stderr == "the disk is on fire"


@pytest.mark.needs_processes("an item is never cut short")
def test_a_deadline_kills_one_node_and_fails_one_item(pool: Pool) -> None:
    def sleep_at_two(n: int) -> int:
        time.sleep(30 if n == 2 else 0)
        return n

    began = time.monotonic()
    values = list(pool.map(sleep_at_two, range(8), deadline_seconds=0.3, return_exceptions=True))
    assert time.monotonic() - began < 5
    assert isinstance(values[2], TaskTimeout)
    assert [v for n, v in enumerate(values) if n != 2] == [n for n in range(8) if n != 2]
    still_serves(pool)


@pytest.mark.needs_processes("this stops one")
def test_a_stopped_node_is_killed_at_its_deadline(pool: Pool) -> None:
    def stop(n: int) -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        return n

    with pytest.raises(TaskTimeout):
        list(pool.map(stop, [1], deadline_seconds=0.2))
    still_serves(pool)


@pytest.mark.needs_processes("this ends one")
def test_retries_repeat_what_failed(pool: Pool, tmp_path: Any) -> None:
    def fail_twice(n: int) -> int:
        mark = tmp_path / f"{n}-{time.monotonic_ns()}"
        mark.touch()
        if len(list(tmp_path.glob(f"{n}-*"))) < 3:
            if n % 2:
                os._exit(1)
            raise OSError("not yet")
        return n

    assert list(pool.map(fail_twice, range(4), retries=2)) == [0, 1, 2, 3]


def test_bad_options_are_refused_at_the_call(pool: Pool) -> None:
    for options, text in [
        ({"chunksize": 0}, "chunksize=0"),
        ({"buffersize": -1}, "buffersize=-1"),
        ({"deadline_seconds": -2}, "deadline_seconds=-2"),
        ({"retries": -1}, "retries=-1"),
    ]:
        with pytest.raises(UsageError, match=text):
            pool.map(abs, [1], **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not a function"):
        pool.submit(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot use node 3: this pool has nodes 0 to 2"):
        pool.submit_to(3, abs, 1)
    with pytest.raises(UsageError, match="cannot map over nothing"):
        pool.map(abs)


# -- what tasks may call -------------------------------------------------------------------------


def test_what_a_task_emits_comes_before_its_result(pool: Pool) -> None:
    seen: list[tuple[int, Any]] = []

    def work(n: int) -> int:
        azpool.pool.emit(("half", n))
        azpool.pool.emit(("whole", n))
        return n

    for n in pool.map(work, range(10), on_emit=lambda item, value: seen.append((item, value))):
        assert [v for i, v in seen if i == n] == [("half", n), ("whole", n)]
    with pytest.raises(PoolError, match="not a task"):
        azpool.pool.emit(1)


def test_nodes_may_ask_the_master(pool: Pool) -> None:
    def handler(request: int) -> int:
        if request < 0:
            raise ValueError("only upwards")
        return request + 1 + sum(azpool.pool_map(abs, [0, 0]) if azpool.pool_exists() else [])

    pool.serve("next", handler)
    assert list(pool.map(lambda n: azpool.pool.ask("next", n), range(30))) == list(range(1, 31))
    with pytest.raises(ValueError, match="only upwards"):
        pool.submit(lambda: azpool.pool.ask("next", -1)).result()
    with pytest.raises(PoolError, match="no such service"):
        pool.submit(lambda: azpool.pool.ask("nobody", 0)).result()


@pytest.mark.needs_processes("an item waits for its answer where it asks")
def test_a_handler_may_answer_later_without_a_thread(pool: Pool) -> None:
    later: list[Future[str]] = []
    asked = threading.Semaphore(0)

    def handler(request: str) -> Future[str]:
        future: Future[str] = Future()
        later.append(future)
        asked.release()
        return future

    pool.serve("later", handler)
    answers = [pool.submit_to(n, lambda: azpool.pool.ask("later", "x")) for n in range(2)]
    asked.acquire()
    asked.acquire()
    later[0].set_result("at last")
    later[1].set_exception(KeyError("no"))
    ended = [answer.exception() or answer.result() for answer in answers]
    assert sorted(map(str, ended)) == ["'no'", "at last"]


def test_a_service_of_the_process_is_on_every_pool(pool: Pool) -> None:
    everywhere.serve_everywhere("tests.everywhere", lambda request: request + 1)
    with Pool(1) as another:
        for one in (pool, another):
            assert one.submit(lambda: azpool.pool.ask("tests.everywhere", 1)).result() == 2
        another.serve("tests.everywhere", lambda request: request + 2)
        assert another.submit(lambda: azpool.pool.ask("tests.everywhere", 1)).result() == 3
    pool.serve("asks", lambda _: azpool.pool.ask("tests.everywhere", 4))
    assert pool.submit(lambda: azpool.pool.ask("asks")).result() == 5


def test_many_threads_of_one_node_may_ask_at_once(pool: Pool) -> None:
    pool.serve("echo", lambda request: (time.sleep(0.01), request)[1])

    def ask_from_threads() -> list[int]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda n: azpool.pool.ask("echo", n), range(40)))

    assert pool.submit(ask_from_threads).result() == list(range(40))


@pytest.mark.needs_processes("what they print is printed as it is")
def test_what_nodes_print_is_printed_here_with_their_number(pool: Pool) -> None:
    def speak() -> None:
        print("hello\nthere")
        print("careful", file=sys.stderr, end="")

    # Not capsys: it loses what the courier prints in the middle of a look.
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        pool.submit_to(1, speak).result()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if out.getvalue().count("\n") == 2 and err.getvalue().endswith("\n"):
                break
            time.sleep(0.005)
    assert out.getvalue() == "[node 1] hello\n[node 1] there\n"
    assert err.getvalue() == "[node 1] careful\n"


# -- the end -------------------------------------------------------------------------------------


def test_close_finishes_what_is_queued() -> None:
    pool = Pool(2)
    futures = [pool.submit(lambda n=n: (time.sleep(0.02), n)[1]) for n in range(10)]
    pool.close()
    pool.close()
    assert [f.result(0) for f in futures] == list(range(10))
    with pytest.raises(PoolClosed):
        pool.submit(abs, 1)


@pytest.mark.needs_processes("an item is never cut short")
def test_leaving_by_an_exception_cancels() -> None:
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), Pool(1) as pool:
        running = pool.submit(time.sleep, 60)
        queued = pool.submit(time.sleep, 60)
        time.sleep(0.1)
        raise ZeroDivisionError
    assert time.monotonic() - began < 10
    assert queued.cancelled()
    assert running.done()


@pytest.mark.needs_processes("a call has run when submit returns")
def test_shutdown_may_cancel_what_has_not_begun() -> None:
    begun, go = threading.Event(), threading.Event()

    def wait_to_go(_: object) -> bool:
        begun.set()
        return go.wait(30)

    pool = Pool(1)
    pool.serve("go", wait_to_go)
    running = pool.submit(azpool.pool.ask, "go")
    queued = [pool.submit(time.sleep, 60) for _ in range(5)]
    assert begun.wait(20)
    pool.shutdown(wait=False, cancel_futures=True)
    go.set()
    pool.shutdown()
    assert running.result(0) is True
    assert all(f.cancelled() for f in queued)
