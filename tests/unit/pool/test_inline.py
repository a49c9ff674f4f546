"""`engine="inline"`: nodes that are objects here, and user code in the thread that asks for it.

What all pools promise is in tests/conformance, which runs on these too.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import azpool
from azpool import Pool, events
from azpool.errors import CannotPickle, PoolError, TaskTimeout, UsageError
from azpool.testing.leaks import Snapshot

sys.path.insert(0, str(Path(__file__).parents[2] / "crash"))
from masters import HAMMER

PATIENCE_SECONDS = 20.0


@pytest.fixture
def pool() -> Iterator[Pool]:
    global REACHABLE
    with Pool(3, engine="inline") as REACHABLE:
        yield REACHABLE
    del REACHABLE


def still_serves(pool: Pool) -> None:
    assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
    assert pool.call(azpool.pool.current_node) == list(range(pool.size))


# -- where code runs -----------------------------------------------------------------------------


def test_user_code_runs_in_the_thread_that_calls_or_reads(pool: Pool) -> None:
    me = threading.get_ident()
    assert pool.submit(threading.get_ident).result() == me
    assert pool.call(threading.get_ident) == [me] * 3
    assert list(pool.map(lambda n: threading.get_ident(), range(3))) == [me] * 3
    assert pool.evalq("import threading; threading.get_ident()") == [me] * 3
    threads: list[int] = []
    pool.add_initializer(note_thread, 1)
    assert pool.evalq("noted") == [me] * 3
    pool.serve("where", lambda request: threads.append(threading.get_ident()))
    pool.submit(azpool.pool.ask, "where").result()
    pool.submit(abs, 1).add_done_callback(lambda done: threads.append(threading.get_ident()))
    assert threads == [me, me]
    assert pool.pids() == [os.getpid()] * 3


def note_thread(_: int) -> None:
    azpool.exports["noted"] = threading.get_ident()


def test_no_process_thread_or_descriptor_is_there_while_the_pool_works() -> None:
    global BEFORE
    BEFORE = before = Snapshot.take()
    with Pool(3, engine="inline", preload=["json"]) as pool:
        pool.export({"big": np.zeros(1_000_000)})
        assert set(pool.map(what_is_new, range(5))) == {"nothing"}
        with events.listen(lambda event: None):
            pool.reset()
        assert not Snapshot.take().since(before).of(("processes", "threads"))
    assert not Snapshot.take().since(before)


BEFORE: Snapshot


def what_is_new(_: int) -> str:
    return str(Snapshot.take().since(BEFORE).of(("processes", "threads")) or "nothing")


def test_a_task_sees_its_caller_on_the_stack(pool: Pool) -> None:
    def names() -> list[str]:
        return [frame.function for frame in inspect.stack()]

    assert inspect.stack()[0].function in pool.submit(names).result()
    assert inspect.stack()[0].function in next(pool.map(lambda n: names(), [1]))


def test_a_tracer_of_this_thread_sees_a_tasks_lines(pool: Pool) -> None:
    seen: list[int] = []

    def task(n: int) -> int:
        doubled = n * 2
        return doubled + 1

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_name == "task":
            seen.append(frame.f_lineno - task.__code__.co_firstlineno)
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert pool.submit(task, 3).result() == 7
    finally:
        sys.settrace(before)
    assert set(seen) == {0, 1, 2}


DEBUGGED = """
import azpool

def work(n):
    kept = n * 10
    breakpoint()
    return kept

azpool.init_pool(2)
print("answer", azpool.pool_lapply([4], work))
"""


def test_a_breakpoint_in_a_task_is_a_prompt_in_the_program(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DEBUGGED)
    done = subprocess.run(
        [sys.executable, str(script)],
        input="print('here', kept)\nkept = 7\ncontinue\n",
        env={**os.environ, "AZPOOL_ENGINE": "inline"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert "here 40" in done.stdout
    assert "answer [7]" in done.stdout


def test_an_error_keeps_the_tasks_frames(pool: Pool) -> None:
    def fail(n: int) -> float:
        local = "to be seen in a debugger"
        return n / 0

    for call in (lambda: pool.submit(fail, 3).result(), lambda: list(pool.map(fail, [3]))):
        with pytest.raises(ZeroDivisionError) as caught:
            call()
        last = caught.traceback[-1].frame
        assert (last.code.name, last.f_locals["n"]) == ("fail", 3)
        assert last.f_locals["local"] == "to be seen in a debugger"
        assert "in fail" in str(caught.value.__cause__)  # as from any node
    with pytest.raises(ZeroDivisionError) as caught:
        pool.add_initializer(divmod, 1, 0)
    assert "divmod" in caught.value.__notes__[0] or "node" in caught.value.__notes__[0]


def test_frames_of_an_error_that_nobody_wants_are_let_go(pool: Pool) -> None:
    class Held:
        pass

    def fail(n: int) -> None:
        held = Held()
        azpool.exports["alive"] = weakref.ref(held)
        raise OSError

    with contextlib.suppress(OSError):
        pool.submit_to(0, fail, 1).result()
    gc.collect()
    assert pool[0].submit(lambda: azpool.exports["alive"]() is None).result() is True


# -- maps are run as they are read ---------------------------------------------------------------


def test_items_of_a_map_run_when_their_results_are_asked_for(pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def work(n: int) -> int:
        with open(log, "a") as file:
            file.write(f"run {n}\n")
        return n

    for n in pool.map(work, range(4), chunksize=100):
        with log.open("a") as file:
            file.write(f"got {n}\n")
    expected = [f"{verb} {n}" for n in range(4) for verb in ("run", "got")]
    assert log.read_text().split("\n")[:-1] == expected


def test_a_map_that_nobody_has_read_runs_when_its_pool_closes(tmp_path: Path) -> None:
    with Pool(2, engine="inline") as pool:
        results = pool.map(lambda n: (tmp_path / str(n)).touch(), range(5))
        assert list(tmp_path.iterdir()) == []
    assert len(list(tmp_path.iterdir())) == 5
    assert list(results) == [None] * 5


def test_a_stream_is_read_no_further_ahead_than_it_may(pool: Pool) -> None:
    read = itertools.count()
    results = pool.map(abs, read, buffersize=5)
    assert [next(results) for _ in range(200)] == list(range(200))
    assert next(read) <= 206
    results.close()  # type: ignore[attr-defined]
    still_serves(pool)


def test_an_abandoned_map_harms_no_node_however_late_the_next_call_comes(pool: Pool) -> None:
    pool.evalq("kept = 1")
    results = pool.map(lambda n: n, range(100))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    for generation in pool._supervisor._generations.values():
        chunks = [chunk for slot in generation.scheduler.nodes.values() for chunk in slot.chunks]
        assert [chunk.kill_at for chunk in chunks if chunk.kill_at is not None] == []
    assert pool.evalq("kept") == [1, 1, 1]


def test_what_a_task_emits_reaches_the_reader_before_the_result(pool: Pool) -> None:
    told: list[Any] = []

    def work(n: int) -> int:
        azpool.pool.emit([n])
        return n

    told.extend(pool.map(work, range(4), on_emit=lambda item, value: told.append((item, value))))
    assert told == [what for n in range(4) for what in ((n, [n]), n)]


# -- what nodes promise --------------------------------------------------------------------------


def test_nothing_that_a_task_changes_reaches_back() -> None:
    class Travels:
        state: list[int] = []  # noqa: RUF012 - it is what must not be shared

        def touch(self) -> int:
            self.state.append(1)
            return len(self.state)

    method, state = Travels.touch, Travels.state
    given = [1, 2]
    made = Travels()

    def change(numbers: list[int], thing: Any) -> Any:
        numbers.append(3)
        assert isinstance(thing, Travels)
        return numbers, thing.touch()

    with Pool(2, engine="inline") as pool:
        answers = [pool[index].submit(change, given, made).result() for index in (0, 0, 1)]
        assert [numbers for numbers, _ in answers] == [[1, 2, 3]] * 3
        assert answers[-1][1] == 1  # node 1 has a class of its own
        assert (given, state, Travels.touch, Travels.state) == ([1, 2], [], method, state)
        assert Travels.state is state
        assert isinstance(pool.submit(lambda: Travels()).result(), Travels)


def test_nodes_have_exports_of_their_own_and_the_master_none(pool: Pool) -> None:
    pool.export({"x": 1})
    pool[1].submit(lambda: azpool.exports.__setitem__("x", 2)).result()
    assert pool.evalq("x") == [1, 2, 1]
    assert "x" not in azpool.exports
    seen: list[bool] = []
    pool.serve("look", lambda request: seen.append("x" in azpool.exports))
    pool.call(azpool.pool.ask, "look")
    assert seen == [False] * 3


def test_an_item_that_passed_its_deadline_fails_when_it_ends(pool: Pool) -> None:
    pool.export({"exported": 1})
    pool.evalq("state = 2")

    def work(n: int) -> int:
        time.sleep(1.5 if n == 2 else 0)
        return n

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = list(pool.map(work, range(6), deadline_seconds=1.0, return_exceptions=True))
    assert isinstance(values[2], TaskTimeout)
    assert [value for n, value in enumerate(values) if n != 2] == [0, 1, 3, 4, 5]
    late = values[2].node
    assert [node.incarnation for node in pool.statistics().nodes] == [
        int(index == late) for index in range(3)
    ]
    assert pool.evalq("exported") == [1, 1, 1]
    assert pool.evalq("'state' in globals()") == [index != late for index in range(3)]


def test_a_reader_that_comes_late_costs_no_node_its_life(pool: Pool) -> None:
    results = pool.map(abs, range(6), deadline_seconds=0.5)
    assert next(results) == 0
    time.sleep(1)  # which no node could have begun in
    assert list(results) == [1, 2, 3, 4, 5]
    assert [node.incarnation for node in pool.statistics().nodes] == [0, 0, 0]


def test_a_map_that_takes_longer_than_its_timeout_says_so_after_the_item(pool: Pool) -> None:
    results = pool.map(time.sleep, [0, 3.2, 0], timeout=3.0)
    assert next(results) is None
    with pytest.raises(TimeoutError, match="1 items were done"):
        next(results)
    still_serves(pool)


def test_a_node_is_made_anew_after_so_many_items(tmp_path: Path) -> None:
    with Pool(1, engine="inline", max_items_per_node=4, initializer=begin) as pool:
        pool.export({"base": 100})
        pool.evalq("replayed = base + 1", replay=True)

        def work(n: int) -> tuple[int, int]:
            azpool.exports["count"] += 1
            return azpool.exports["count"], base + replayed

        seen = list(pool.map(work, range(12)))
        assert {total for _, total in seen} == {201}
        counts = [count for count, _ in seen]
        assert max(counts) <= 4 and counts.count(1) >= 3


def begin() -> None:
    azpool.exports["count"] = 0


def test_items_that_raise_are_tried_again(pool: Pool, tmp_path: Path) -> None:
    def stumble(n: int) -> int:
        mark = tmp_path / str(n)
        if not mark.exists():
            mark.touch()
            raise OSError("not yet")
        return n

    assert list(pool.map(stumble, range(4), retries=1)) == [0, 1, 2, 3]


def test_seeds_and_handlers_leave_the_masters_generators_alone(pool: Pool) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - numpy's legacy global is what is tested

    def draws() -> tuple[float, float]:
        return random.random(), float(np.random.random())  # noqa: NPY002

    expected = [draws() for _ in range(2)]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002

    def plain(n: int) -> Any:
        return draws(), draws()

    def asking(n: int) -> Any:
        first = draws()
        azpool.pool.ask("draw")
        return first, draws()

    first = draws()
    pool.serve("draw", lambda request: None)
    seeded = list(pool.map(plain, range(4), seed=3))
    assert list(pool.map(asking, range(4), seed=3)) == seeded
    assert [first, draws()] == expected


def test_what_a_handler_draws_shifts_no_item(pool: Pool) -> None:
    def asking(n: int) -> tuple[float, float]:
        first = random.random()
        azpool.pool.ask("draw", n)
        return first, random.random()

    drawn: list[list[float]] = [[], []]
    rounds = []
    for which in (0, 1):
        pool.serve("draw", lambda n, which=which: drawn[which].append(random.random()))
        rounds.append(list(pool.map(asking, range(4), seed=3)))
    assert rounds[0] == rounds[1]
    assert len({*drawn[0], *drawn[1]}) == 8


def test_threads_of_a_task_belong_to_it(pool: Pool) -> None:
    pool.serve("double", lambda n: 2 * n)
    pool.export({"shown": 5})

    def task() -> list[Any]:
        def inside(n: int) -> Any:
            emitted = azpool.pool.emit(n)
            return azpool.pool.current_node(), azpool.pool.ask("double", n), azpool.exports["shown"]

        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(inside, range(4)))

    assert pool[1].submit(task).result() == [(1, 2 * n, 5) for n in range(4)]


def test_threads_of_the_master_do_not(pool: Pool) -> None:
    found: list[int | None] = []
    begun, looked = threading.Event(), threading.Event()

    def look() -> None:
        begun.wait(PATIENCE_SECONDS)
        later = threading.Thread(target=lambda: found.append(azpool.pool.current_node()))
        later.start()
        later.join()
        looked.set()

    REACHED.update(begun=begun, looked=looked)
    other = threading.Thread(target=look)
    other.start()
    pool.submit(meet).result()
    other.join()
    assert found == [None]


REACHED: dict[str, threading.Event] = {}


def meet() -> None:
    REACHED["begun"].set()
    assert REACHED["looked"].wait(PATIENCE_SECONDS)


def test_a_process_that_a_task_forks_ends_with_its_item(pool: Pool, tmp_path: Path) -> None:
    def fork(n: int) -> int:
        pid = os.fork()
        if pid == 0:
            with pytest.raises(PoolError, match="is a fork of node"):
                azpool.pool.emit(n)
            (tmp_path / "child").touch()
            return n
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert list(pool.map(fork, [1, 2])) == [0, 0]
    assert (tmp_path / "child").exists()
    still_serves(pool)


def test_a_pool_that_is_collected_unclosed_warns(tmp_path: Path) -> None:
    pool = Pool(2, engine="inline")
    results = pool.map(abs, range(4))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    assert [str(w.message).partition(":")[0] for w in seen] == ["unclosed pool of 2 nodes"]
    assert list(results) == [0, 1, 2, 3]


# -- many threads, and tasks that use their own pool ---------------------------------------------


def test_one_item_runs_at_a_time_whichever_thread_waits(pool: Pool) -> None:
    RUNNING.clear()
    failures: list[BaseException] = []

    def use(k: int) -> None:
        try:
            for _ in range(5):
                assert list(pool.map(overlap, range(10))) == [1] * 10
                assert pool.submit(overlap, k).result() == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    still_serves(pool)


RUNNING: list[int] = []


def overlap(_: int) -> int:
    RUNNING.append(1)
    time.sleep(0.0002)
    return len(RUNNING) * bool(RUNNING.pop())


def test_a_task_that_uses_its_own_pool_runs_inline_on_its_node(pool: Pool) -> None:
    pool.evalq("here = azpool_here = 1")
    for index in range(3):
        pool[index].submit(azpool.exports.__class__.update, azpool.exports, where=index).result()
    assert [pool[index].submit(use_own_pool).result() for index in range(3)] == [
        ([index], index, [index] * 2, [index], [index, 5]) for index in range(3)
    ]
    still_serves(pool)


REACHABLE: Pool


def where(*_: Any) -> Any:
    return azpool.exports["where"]


def use_own_pool() -> tuple[Any, ...]:
    answers = (
        REACHABLE.call(where),
        REACHABLE.submit(where).result(),
        list(REACHABLE.map(where, range(2))),
        REACHABLE.evalq("where"),
    )
    REACHABLE.export({"late": 5})
    return (*answers, [where(), azpool.exports["late"]])


def test_a_pool_in_a_closure_cannot_travel_to_its_nodes(pool: Pool) -> None:
    with pytest.raises(CannotPickle):
        pool.submit(lambda: pool.submit(abs, 1).result())


def test_a_task_may_use_another_inline_pool(pool: Pool) -> None:
    global OTHER
    with Pool(1, engine="inline") as OTHER:
        OTHER.export({"which": "other"})
        pool.export({"which": "first"})
        assert pool.call(use_other) == [("first", ["other"], "first")] * 3
    del OTHER


OTHER: Pool


def use_other() -> Any:
    return azpool.exports["which"], OTHER.evalq("which"), azpool.exports["which"]


def test_a_handler_may_use_the_pool_where_a_node_is_free() -> None:
    for size, free in ((2, True), (1, False)):
        with Pool(size, engine="inline") as pool:
            pool.serve("again", lambda n, pool=pool: pool.submit(abs, n).result())
            asking = pool.submit(azpool.pool.ask, "again", -4)
            if free:
                assert asking.result() == 4
            else:
                with pytest.raises(PoolError, match="cannot wait for this pool here"):
                    asking.result()
            still_serves(pool)


# -- Ctrl-C --------------------------------------------------------------------------------------


def interrupt_at(n: int) -> int:
    if n == 2:
        signal.raise_signal(signal.SIGINT)
        time.sleep(PATIENCE_SECONDS)
    return n


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: list(pool.map(interrupt_at, range(6))),
        lambda pool: list(pool.map(interrupt_at, iter(range(6)))),
        lambda pool: pool.submit(interrupt_at, 2),
        lambda pool: pool.call(interrupt_at, 2),
        lambda pool: pool.evalq("import signal; signal.raise_signal(signal.SIGINT); 1"),
        lambda pool: pool.add_initializer(interrupt_at, 2),
        lambda pool: pool.export({"x": InterruptsOnLoad()}),
        lambda pool: pool.submit(abs, InterruptsOnLoad()),
        lambda pool: pool.submit(azpool.pool.ask, "interrupt", 2),
        lambda pool: pool.collect(interrupt_at, range(6)),
    ],
)
def test_ctrl_c_in_a_task_reaches_the_caller(pool: Pool, call: Callable[[Pool], object]) -> None:
    pool.serve("interrupt", interrupt_at)
    pool.evalq("kept = 1")
    handler = signal.getsignal(signal.SIGINT)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        call(pool)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    names = {entry.name for entry in caught.traceback}
    assert names & {"interrupt_at", "<module>"}  # as from where the program was interrupted
    assert signal.getsignal(signal.SIGINT) is handler
    assert pool.evalq("kept") == [1, 1, 1]
    assert pool.evalq("'x' in globals()") == [False] * 3
    still_serves(pool)


class InterruptsOnLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return interrupt_at, (2,)


def test_ctrl_c_reaches_a_caller_that_waits_for_another_threads_item(pool: Pool) -> None:
    begun, looked = threading.Event(), threading.Event()
    REACHED.update(begun=begun, looked=looked)
    other = threading.Thread(target=lambda: pool.submit(meet).result())
    other.start()
    begun.wait(PATIENCE_SECONDS)
    main = threading.get_ident()
    killer = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT))
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        pool.submit(abs, 1)
    looked.set()
    other.join()
    killer.join()
    still_serves(pool)


def test_the_users_own_handler_is_called_and_finds_itself_in_place(pool: Pool) -> None:
    calls: list[bool] = []

    def handler(number: int, frame: Any) -> None:
        calls.append(signal.getsignal(signal.SIGINT) is handler)

    before = signal.signal(signal.SIGINT, handler)
    try:
        assert pool.submit(raise_and_look).result() is True
    finally:
        assert signal.signal(signal.SIGINT, before) is handler
    assert calls == [True]


def raise_and_look() -> bool:
    signal.raise_signal(signal.SIGINT)
    return signal.getsignal(signal.SIGINT) is not signal.default_int_handler


HAMMERED = (
    HAMMER
    + """
import faulthandler
import azpool
from azpool import Pool

faulthandler.dump_traceback_later(30, exit=True)

def work(n):
    azpool.pool.emit(n)
    assert azpool.exports["always"] == 1
    return azpool.pool.ask("echo", n)

def echo(n):
    assert not azpool.exports
    return n

def use(pool):
    pool.export({"always": 1})
    list(pool.map(work, range(30), on_emit=lambda item, value: None))
    list(pool.map(abs, iter(range(30))))
    pool.submit(abs, 1).result()
    pool.export({"x": 1})
    pool.evalq("x")
    pool.reset()

with Pool(3, engine="inline") as pool:
    pool.serve("echo", echo)
    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        ends = time.monotonic() + 2.5
        interrupted = 0
        # On a busy machine the interrupts come later.
        while time.monotonic() < ends or (interrupted <= 20 and time.monotonic() < ends + 20):
            try:
                armed.append(1)
                while True:
                    use(pool)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                disarm()
            use(pool)
            assert list(pool.map(abs, range(20))) == list(range(20))
            assert pool.call(azpool.pool.current_node) == [0, 1, 2]
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert not azpool.exports
    finally:
        over.append(1)
        thread.join()
assert interrupted > 20, interrupted
print("fine")
"""
)


@pytest.mark.parametrize("seed", [1, 2])
def test_ctrl_c_at_any_moment_leaves_the_pool_whole(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HAMMERED, str(seed)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    # Python itself tells of an interrupt that comes in a finalizer, and goes on.
    told = re.sub(
        r"(?ms)^Exception ignored in: <finalize object.*?^KeyboardInterrupt: *$", "", done.stderr
    )
    bad = [line for line in told.splitlines() if "Error" in line or "azpool" in line]
    assert (done.stdout, bad, done.returncode) == ("fine\n", [], 0), done.stderr


# -- how it is chosen ----------------------------------------------------------------------------


def test_the_engine_is_chosen_by_argument_then_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Pool(1, engine="inline") as pool:
        assert (pool.engine, repr(pool)) == ("inline", "<azpool.Pool: 1 node, inline>")
    monkeypatch.setenv("AZPOOL_ENGINE", "inline")
    monkeypatch.setenv("AZPOOL_START", "spawn")
    for options in ({}, {"start": "zygote"}):
        with Pool(1, **options) as pool:  # type: ignore[arg-type]
            assert pool.engine == "inline"
    with Pool(1, engine="process") as pool:
        assert pool.engine == "process"
        assert pool.call(os.getpid) != [os.getpid()]


def test_engines_that_there_are_not_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="engine='threads': give one of process, inline"):
        Pool(1, engine="threads")
    with pytest.raises(UsageError, match="start='spawn' with engine='inline'"):
        Pool(1, engine="inline", start="spawn")
    with pytest.raises(UsageError, match="start='fork': give one of zygote, spawn"):
        Pool(1, engine="inline", start="fork")
    monkeypatch.setenv("AZPOOL_START", "fork")
    with pytest.raises(UsageError, match="AZPOOL_START=fork: give one of zygote, spawn"):
        Pool(1)
    monkeypatch.setenv("AZPOOL_ENGINE", "threads")
    for make in (azpool.init_pool, azpool.ensure_pool, Pool):
        with pytest.raises(UsageError, match="AZPOOL_ENGINE=threads: give one of process, inline"):
            make(1)
    assert not azpool.pool_exists()


def test_the_sessions_pool_has_one_engine_until_it_is_deleted() -> None:
    try:
        pool = azpool.init_pool(1, engine="inline")
        assert azpool.ensure_pool(2, engine="inline") is pool
        assert azpool.ensure_pool(1) is pool
        assert azpool.init_pool() is pool
        for make in (azpool.init_pool, azpool.ensure_pool):
            with pytest.raises(UsageError, match=r"has engine 'inline'; call delete_pool\(\)"):
                make(engine="process")
            with pytest.raises(UsageError, match="give one of process, inline"):
                make(engine="no such")
        assert azpool.pool_call(lambda: azpool.init_pool(engine="process").size) == [1, 1]
    finally:
        azpool.delete_pool()
    azpool.delete_pool()
