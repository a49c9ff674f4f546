"""CPython's own tests of executors, with `Pool` as the executor, where the interpreter has them.

They are in the standard library's test package, which Debian ships apart (libpython3-testsuite).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import math
import os
import threading
import time
import unittest
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed, wait
from typing import Any

import pytest

import azpool
from azpool import Pool
from azpool.errors import UsageError

# These start an interpreter that imports an executor of the standard library by its name.
BY_NAME = {"test_interpreter_shutdown", "test_submit_after_interpreter_shutdown"}
NOT_OURS = {"ExecutorShutdownTest": BY_NAME | {"test_hang_gh83386"}}
ONLY = {"ProcessPoolExecutorTest": {"test_map_chunksize"}}
# These look at calls that have not ended; where nodes are inline none is left when submit returns.
NOT_INLINE = {
    "test_cancel_futures",
    "test_first_completed",
    "test_first_completed_some_already_completed",
    "test_first_exception",
    "test_first_exception_one_already_failed",
    "test_first_exception_some_already_complete",
    "test_future_times_out",
    "test_timeout",
}
HOMES = {  # one module up to CPython 3.11, then a package
    "ExecutorTest": "executor",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "InitializerMixin": "test_init",
    "ExecutorShutdownTest": "test_shutdown",
    "ProcessPoolExecutorTest": "test_process_pool",
}


class PoolOfWorkers(Pool):
    """A pool under the standard library's name for its size."""

    nodes_are = "process"

    def __init__(self, max_workers: int, **options: Any) -> None:
        try:
            super().__init__(size=max_workers, engine=self.nodes_are, **options)
        except UsageError as error:
            raise ValueError("max_workers must be greater than 0") from error


class InlinePoolOfWorkers(PoolOfWorkers):
    """The same, with nodes in this process."""

    nodes_are = "inline"


def cpythons_classes() -> dict[str, Any]:
    """Return the classes of CPython's tests by name; none where they are not installed."""
    package = "test.test_concurrent_futures"
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole = importlib.import_module(package)
            is_package = hasattr(whole, "__path__")
            for name, home in {**HOMES, "BaseTestCase": "util", "ExecutorMixin": "util"}.items():
                module = importlib.import_module(f"{package}.{home}") if is_package else whole
                found[name] = getattr(module, name)
        except (ImportError, unittest.SkipTest):
            return {}
    return found


def cpythons_cases() -> Iterator[Any]:
    classes = cpythons_classes()
    if not classes:
        yield pytest.param(
            None, marks=pytest.mark.skip("this interpreter has no test.test_concurrent_futures")
        )
        return
    for kind, name in itertools.product((PoolOfWorkers, InlinePoolOfWorkers), HOMES):
        mixin = type("PoolMixin", (classes["ExecutorMixin"],), {"executor_type": kind})
        bases = (classes[name], mixin, classes["BaseTestCase"])
        case = type(f"Pool{name}", bases, {})
        for method in unittest.TestLoader().getTestCaseNames(case):
            wanted = ONLY.get(name)
            if method in NOT_OURS.get(name, ()) or (wanted and method not in wanted):
                continue
            applies = kind is not InlinePoolOfWorkers or method not in NOT_INLINE
            reason = "nodes are not processes: a call has run when submit returns"
            marks = [] if applies else [pytest.mark.skip(reason)]
            yield pytest.param(case(method), id=f"{kind.nodes_are}-{name}.{method}", marks=marks)


@pytest.mark.parametrize("case", list(cpythons_cases()))
def test_cpythons_own_tests_pass(case: unittest.TestCase) -> None:
    result = unittest.TestResult()
    case.run(result)
    for _, text in result.failures + result.errors:
        pytest.fail(text)
    for _, reason in result.skipped:
        pytest.skip(reason)
    assert result.testsRun == 1


# -- and beyond ----------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    """Whether a process has ended and was reaped, or is somebody else's zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def zygote_of(pool: Pool) -> int:
    return pool.submit(os.getppid).result()


def test_a_pool_is_an_executor_for_whoever_takes_one() -> None:
    async def through_a_loop(pool: Executor) -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, abs, -n) for n in range(20)))

    with Pool(2) as pool:
        assert isinstance(pool, Executor)
        assert asyncio.run(through_a_loop(pool)) == list(range(20))
        futures = [pool.submit(pow, n, 2) for n in range(20)]
        assert {f.result() for f in as_completed(futures)} == {n * n for n in range(20)}
        assert wait(futures).not_done == set()


def test_an_awaited_call_may_be_cancelled() -> None:
    async def cancel_one(pool: Pool) -> None:
        loop = asyncio.get_running_loop()
        slow = loop.run_in_executor(pool, time.sleep, 0.2)
        queued = loop.run_in_executor(pool, abs, 1)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        await slow

    with Pool(1) as pool:
        asyncio.run(cancel_one(pool))
        assert pool.submit(abs, -1).result() == 1


def test_shutdown_reaps_the_nodes_the_zygote_and_the_io_thread() -> None:
    before = set(threading.enumerate())
    pool = Pool(3)
    processes = [*pool.call(os.getpid), zygote_of(pool)]
    pool.shutdown()
    assert all(gone(pid) for pid in processes)
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= before
    pool.shutdown()


def test_shutdown_without_waiting_returns_at_once_and_finishes_what_is_queued() -> None:
    go = threading.Event()
    pool = Pool(1)
    pool.serve("go", lambda _: go.wait(30))
    futures = [pool.submit(azpool.pool.ask, "go") for _ in range(5)]
    pool.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    go.set()
    assert [future.result() for future in futures] == [True] * 5
    pool.shutdown()


def test_sized_inputs_run_unread_and_survive_shutdown() -> None:
    with Pool(2) as pool:
        results = pool.map(abs, range(-100, 0))
    assert list(results) == list(range(100, 0, -1))


def test_inputs_advance_in_the_callers_thread_only() -> None:
    threads = set()

    def numbers() -> Iterator[int]:
        for n in range(200):
            threads.add(threading.current_thread())
            yield n

    with Pool(2) as pool:
        assert list(pool.map(abs, numbers())) == list(range(200))
    assert threads == {threading.current_thread()}


def test_an_endless_input_is_read_a_little_ahead() -> None:
    read = itertools.count()
    with Pool(2) as pool:
        results = pool.map(abs, read, buffersize=10)
        assert [next(results) for _ in range(50)] == list(range(50))
        assert next(read) <= 61
        del results


def is_let_go(held: weakref.ref[Any]) -> bool:
    """Whether it is gone, as soon as the thread that brought it has come to its next line."""
    end = time.monotonic() + 10
    while held() is not None and time.monotonic() < end:
        time.sleep(0.001)
    return held() is None


def test_results_that_were_given_are_let_go() -> None:
    with Pool(1) as pool:
        seen = 0
        for result in pool.map(lambda n: {n}, range(5)):
            held = weakref.ref(result)
            del result
            assert is_let_go(held)
            seen += 1
        assert seen == 5
        held = weakref.ref(pool.submit(lambda: {1}).result())
        assert is_let_go(held)


def test_a_pool_that_is_collected_unclosed_warns_and_closes() -> None:
    pool = Pool(1)
    processes = [*pool.call(os.getpid), zygote_of(pool)]
    queued = [pool.submit(time.sleep, 0.01) for _ in range(5)]
    results = pool.map(abs, range(100))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    assert [warning.category for warning in seen] == [ResourceWarning]
    assert str(seen[0].message).startswith("unclosed pool of 1 node:")
    assert [future.result() for future in queued] == [None] * 5
    assert list(results) == list(range(100))
    end = time.monotonic() + 10
    while not all(gone(pid) for pid in processes):
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_idle_pool_never_wakes_up() -> None:
    def switches(task: str) -> int:
        with open(f"{task}/status") as status:
            facts = dict(line.split(":", 1) for line in status)
        return int(facts["voluntary_ctxt_switches"]) + int(facts["nonvoluntary_ctxt_switches"])

    with Pool(2) as pool:
        assert list(pool.map(abs, range(1000))) == list(range(1000))
        thread = pool._supervisor._loop.thread
        assert thread is not None
        mine = f"/proc/self/task/{thread.native_id}"
        watched = [mine, *(f"/proc/{pid}" for pid in [*pool.pids(), zygote_of(pool)])]
        time.sleep(0.3)  # what was under way has come to rest
        before = [switches(task) for task in watched]
        time.sleep(0.7)
        assert [switches(task) for task in watched] == before
        assert pool._supervisor._due() == math.inf  # nor will it later
