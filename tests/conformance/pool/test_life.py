"""How nodes live: where they stand, what they tell, what is heard of them, what they hold."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import azpool
from azpool import Pool, events
from azpool.errors import CannotPickle, NodeDied, UsageError
from azpool.pool import reading, scheduler
from azpool.pool.scheduler import GRACE_SECONDS
from azpool.pool.statistics import NodeStatistics, PoolStatistics

MIB = 1 << 20


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# -- where nodes stand ---------------------------------------------------------------------------


@pytest.mark.needs_processes("they have the master's terminal")
def test_nodes_stand_apart_from_the_masters_terminal() -> None:
    with Pool(2) as pool:
        assert not set(pool.call(os.getsid, 0)) & {os.getsid(0)}
        assert pool.evalq("import sys; sys.stdin.read()") == ["", ""]
        assert pool.evalq("import sys; sys.flags.safe_path") == [True, True]


def test_what_a_task_starts_can_be_interrupted() -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"

    def start() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return done.stdout.decode().strip()

    with Pool(1) as pool:
        assert pool.submit(start).result() == "True"


@pytest.mark.needs_processes("this interrupts one")
def test_a_node_that_is_interrupted_while_it_is_idle_lives_on() -> None:
    with Pool(1) as pool:
        (pid,) = pool.call(os.getpid)
        os.kill(pid, signal.SIGINT)
        assert pool.call(os.getpid) == [pid]


@pytest.mark.needs_processes("this ends one")
def test_nodes_draw_apart_whatever_they_were_forked_from() -> None:
    def draw() -> tuple[float, float, float]:
        legacy = float(np.random.random())  # noqa: NPY002 - it must differ too
        return random.random(), legacy, float(azpool.rng().random())

    with Pool(3, preload=["numpy", "random", "azpool.pool.randomness"]) as pool:
        drawn = pool.call(draw)
        for _ in range(2):
            with pytest.raises(NodeDied):
                pool[0].submit(os._exit, 1).result()
            drawn += pool.call(draw)
        pool.reset()
        drawn += pool.call(draw)
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == 12


@pytest.mark.needs_processes("this ends one")
def test_nodes_that_follow_are_like_those_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place() -> tuple[str, str | None, bool]:
        return os.getcwd(), os.environ.get("LATER"), "later" in sys.path

    monkeypatch.delenv("LATER", raising=False)
    with Pool(2) as pool:
        (before, _) = pool.call(place)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LATER", "yes")
        monkeypatch.setattr(sys, "path", [*sys.path, "later"])
        with pytest.raises(NodeDied):
            pool[0].submit(os._exit, 1).result()
        pool.resize(3)
        assert pool.call(place) == [before] * 3
        pool.reset()
        assert pool.call(place) == [(str(tmp_path), "yes", True)] * 3


@pytest.mark.needs_processes("a call has run when submit returns")
def test_old_nodes_end_when_the_calls_begun_on_them_do() -> None:
    with Pool(2) as pool:
        old = pool.pids()
        go = threading.Event()
        pool.serve("go", lambda _: go.wait(20))
        slow = pool.submit(azpool.pool.ask, "go", None)
        pool.reset()
        assert not set(old) & set(pool.pids())
        assert not slow.done() and not all(map(gone, old))
        go.set()
        assert slow.result() is True
        wait_for(lambda: all(map(gone, old)))


# -- what travels --------------------------------------------------------------------------------


class Counted:
    """A function that notes each time it is pickled here, and each time it is loaded there."""

    pickled = 0

    def __init__(self, log: Path) -> None:
        self.log = log

    def __getstate__(self) -> dict[str, Any]:
        Counted.pickled += 1
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, n: int) -> int:
        return -n


@pytest.mark.needs_processes("they have no pids of their own")
def test_a_function_is_pickled_once_a_call_and_loaded_once_a_node(tmp_path: Path) -> None:
    function = Counted(tmp_path / "loaded")
    Counted.pickled = 0
    with Pool(2) as pool:
        for _ in range(3):
            assert list(pool.map(function, range(50), chunksize=1)) == [-n for n in range(50)]
        assert Counted.pickled == 3
        loads = function.log.read_text().split()
        assert len(loads) == len(set(loads)) <= 2


@pytest.mark.needs_processes("they have no memory of their own")
def test_a_large_export_is_there_once_for_all_nodes_and_each_may_write_its_own() -> None:
    array = np.ones(32 * MIB // 8)

    def memory(pool: Pool) -> int:
        return sum(map(pss_bytes, pool.pids()))

    with Pool(4) as pool:
        pool.evalq("import numpy")
        before = memory(pool)
        pool.export({"shared_array": array})
        assert pool.call(lambda: float(shared_array.sum())) == [array.size] * 4  # type: ignore[name-defined]
        assert memory(pool) - before < 1.3 * array.nbytes

        def write() -> None:
            shared_array[0] = 5  # type: ignore[name-defined]

        pool[1].submit(write).result()
        assert pool.call(lambda: float(shared_array[0])) == [1, 5, 1, 1]  # type: ignore[name-defined]
    assert array[0] == 1


def pss_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        (line,) = [line for line in file if line.startswith("Pss:")]
    return int(line.split()[1]) * 1024


def test_an_input_that_fails_at_its_first_items_fails_at_the_call_and_leaves_no_job() -> None:
    def numbers() -> Iterator[Any]:
        yield 1
        raise ZeroDivisionError

    pool = Pool(1)
    with pytest.raises(ZeroDivisionError):
        pool.map(abs, numbers())
    with pytest.raises(CannotPickle, match="cannot send item 1"):
        pool.map(abs, iter([1, threading.Lock()]))
    pool.close()  # an open job would never let it


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_input_keeps_the_masters_memory_flat(*, ordered: bool) -> None:
    def blocks() -> Iterator[bytes]:
        while True:
            yield bytes(100_000)

    with Pool(2) as pool:
        results = pool.map(bytes.upper, blocks(), buffersize=8, ordered=ordered)
        next(results)
        tracemalloc.start()
        try:
            for _ in range(600):  # 60 MB in, and 60 MB out
                next(results)
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()
            results.close()  # type: ignore[attr-defined]


# -- what is cancelled, and when -----------------------------------------------------------------


def test_closing_the_iterator_cancels_what_is_left(tmp_path: Path) -> None:
    def work(n: int) -> int:
        (tmp_path / str(n)).touch()
        time.sleep(0.005)
        return n

    with Pool(2) as pool:
        results = pool.map(work, range(20_000), chunksize=10)
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert pool.call(abs, -1) == [1, 1]
        begun = len(list(tmp_path.iterdir()))
        assert pool.call(abs, -1) == [1, 1]
        assert len(list(tmp_path.iterdir())) == begun < 2_000


@pytest.mark.needs_processes("nothing runs while nobody waits")
def test_stopping_a_map_waits_until_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reading, scheduler):  # a node that has to wait for a core must not be killed
        monkeypatch.setattr(module, "GRACE_SECONDS", 20)

    def work(n: int) -> None:
        try:
            (tmp_path / f"{n}-began").touch()
            time.sleep(60)
        finally:
            time.sleep(0.2)
            (tmp_path / f"{n}-ended").touch()

    with Pool(2) as pool:
        results = pool.map(work, range(2))
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        results.stop()  # type: ignore[attr-defined]
        assert len(list(tmp_path.iterdir())) == 4
        assert pool.call(abs, -1) == [1, 1]


@pytest.mark.needs_processes("nothing runs while nobody waits")
def test_a_timeout_counts_from_the_call_and_spares_what_is_there() -> None:
    with Pool(1) as pool:
        began = time.monotonic()
        results = pool.map(time.sleep, [0, 0, 60], timeout=0.5, chunksize=1)
        wait_for(lambda: time.monotonic() - began > 0.6 and pool.statistics().items == 2)
        assert [next(results), next(results)] == [None, None]
        asked = time.monotonic()
        with pytest.raises(TimeoutError, match="2 items were done when the map's timeout passed"):
            next(results)
        assert time.monotonic() - asked < 10
        assert pool.submit(abs, -1).result(20) == 1  # the rest was cancelled


def test_a_deadline_is_each_items_own() -> None:
    with Pool(1) as pool:
        pids = pool.pids()
        done = list(pool.map(time.sleep, [0.1] * 50, deadline_seconds=4, chunksize=50))
        assert done == [None] * 50  # all of them take longer than that
        assert pool.pids() == pids


@pytest.mark.needs_processes("an item is never cut short")
def test_a_pool_that_is_deleted_kills_what_ignores_its_interrupt() -> None:
    running = threading.Event()

    def stubborn() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        azpool.pool.ask("running")
        time.sleep(60)

    pool = Pool(1)
    (pid,) = pool.pids()
    pool.serve("running", lambda _: running.set())
    calls = [pool.submit(stubborn), pool.submit(abs, 1)]
    assert running.wait(20)
    began = time.monotonic()
    pool.delete()
    assert GRACE_SECONDS <= time.monotonic() - began < GRACE_SECONDS + 20
    assert gone(pid)
    assert all(call.done() for call in calls)
    assert calls[1].cancelled()


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.needs_processes("there is no such thread")
def test_nothing_of_the_users_runs_on_the_io_thread() -> None:
    ran: dict[str, threading.Thread] = {}

    def note(what: str) -> None:
        ran[what] = threading.current_thread()

    with events.listen(lambda _: note("hook")), Pool(1) as pool:
        go = threading.Event()
        pool.serve("note", lambda _: (note("handler"), go.wait(20))[1])
        future = pool.submit(azpool.pool.ask, "note", None)
        future.add_done_callback(lambda _: note("callback"))
        go.set()  # a callback that comes when all is done runs where it is added
        assert future.result() is True
        list(
            pool.map(
                azpool.pool.emit,
                [1],
                on_emit=lambda item, value: note("on_emit"),
                progress=lambda done, total: note("progress"),
            )
        )
        wait_for(lambda: len(ran) == 5)
        assert pool._supervisor._loop.thread not in ran.values()
        main = threading.current_thread()
        assert {what for what, thread in ran.items() if thread is main} == {"on_emit", "progress"}


# -- events --------------------------------------------------------------------------------------


@pytest.mark.needs_processes("this ends one")
def test_a_pools_life_is_told_in_order() -> None:
    told: list[events.Event] = []
    with events.listen(told.append):
        with Pool(2) as pool:
            pids = pool.pids()
            pool.reset()
            with pytest.raises(NodeDied):
                pool[1].submit(os._exit, 3).result()
            pool[1].submit(abs, 1).result()
        wait_for(lambda: isinstance(told[-1], events.PoolStopped))
    started = [event for event in told if isinstance(event, events.NodeStarted)]
    assert [(event.node, event.pid) for event in sorted(started[:2], key=lambda e: e.node)] == [
        *enumerate(pids)
    ]
    assert (started[-1].node, started[-1].incarnation) == (1, 1)
    kinds = [type(event) for event in told]
    assert kinds.count(events.NodeStarted) == 5
    assert [kind for kind in kinds if kind is not events.NodeStarted] == [
        events.PoolStarted,
        events.PoolReset,
        events.NodeEnded,
        events.PoolStopped,
    ]
    for event in told:
        if isinstance(event, events.PoolStarted | events.PoolReset):
            assert event.size == 2 and 0 < event.seconds < 60
        if isinstance(event, events.NodeEnded):
            assert (event.node, event.exit_code) == (1, 3)
    moments = [event.at for event in told]
    assert moments == sorted(moments) and abs(moments[-1] - time.time()) < 60


def test_a_hook_that_fails_hinders_neither_the_pool_nor_other_hooks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[events.Event] = []

    answers: list[int] = []

    def fail(event: events.Event) -> None:
        raise ZeroDivisionError

    def use_the_pool(event: events.Event) -> None:
        if isinstance(event, events.PoolReset):
            answers.append(pool.submit(abs, -5).result(20))

    with events.listen(fail), events.listen(use_the_pool), events.listen(told.append):
        with Pool(1) as pool:
            wait_for(lambda: any(isinstance(event, events.PoolStarted) for event in told))
            pool.reset()
            wait_for(lambda: answers == [5])
    assert "a hook failed on NodeStarted" in caplog.text
    with pytest.raises(UsageError, match="cannot call 3"), events.listen(3):  # type: ignore[arg-type]
        pass


def test_state_that_the_leak_guard_costs_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    told: list[events.Event] = []
    with Pool(1, max_items_per_node=3) as pool, events.listen(told.append):
        pool.evalq("logged = 1", replay=True)
        list(pool.map(abs, range(9)))
        assert not [event for event in told if isinstance(event, events.StateLost)]
        pool.evalq("unlogged = 1")
        list(pool.map(abs, range(9)))
        wait_for(lambda: events.StateLost in map(type, told))
        wait_for(lambda: "node 0 was replaced and had state that was not exported" in caplog.text)
        assert pool.evalq("(logged, 'unlogged' in globals())") == [(1, False)]


# -- statistics ----------------------------------------------------------------------------------


@pytest.mark.needs_processes("none is busy while another thread looks")
def test_what_runs_now_counts_as_busy() -> None:
    go = threading.Event()
    with Pool(2) as pool:
        pool.serve("go", lambda _: go.wait(20))
        began = time.monotonic()
        slow = pool[1].submit(azpool.pool.ask, "go", None)
        wait_for(lambda: pool.statistics().nodes[1].busy_share > 0.3)
        assert time.monotonic() - began < 10
        idle, busy = pool.statistics().nodes
        assert (idle.state, busy.state) == ("ready", "busy")
        assert idle.busy_share < 0.1
        go.set()
        slow.result()


@pytest.mark.needs_processes("this ends one")
def test_statistics_go_on_behind_an_index_and_begin_anew_with_a_reset() -> None:
    with Pool(1) as pool:
        list(pool.map(abs, range(50)))
        with pytest.raises(NodeDied):
            pool.submit(os._exit, 1).result()
        list(pool.map(abs, range(30)))
        (node,) = pool.statistics().nodes
        assert node.items == 80
        assert node.incarnation >= 1
        pool.reset()
        fresh = pool.statistics()
        assert (fresh.items, fresh.nodes[0].items, fresh.nodes[0].incarnation) == (0, 0, 0)
        assert fresh.age_seconds < 10


def some_statistics(size: int) -> PoolStatistics:
    nodes = tuple(
        NodeStatistics(
            index=index,
            pid=1000 + index if index else 0,
            incarnation=index % 3,
            state="busy" if index % 10 == 1 else "ready",
            items=1000,
            busy_share=0.5,
            rss_bytes=20 * MIB,
            sent_bytes=2048,
            received_bytes=300,
        )
        for index in range(size)
    )
    return PoolStatistics(size=size, items=1000 * size, age_seconds=2.5, nodes=nodes)


def test_a_table_has_a_row_for_each_node_and_one_for_all() -> None:
    lines = [" ".join(line.split()) for line in str(some_statistics(3)).splitlines()]
    assert lines == [
        "3 nodes, 3,000 items in 2.5 s",
        "node pid life state items busy RSS sent received",
        "0 - 0 ready 1,000 50% 20.0 MiB 2.0 KiB 300 B",
        "1 1001 1 busy 1,000 50% 20.0 MiB 2.0 KiB 300 B",
        "2 1002 2 ready 1,000 50% 20.0 MiB 2.0 KiB 300 B",
        "all 3,000 50% 6.0 KiB 900 B",
    ]


def test_a_table_of_many_nodes_is_folded_by_state() -> None:
    lines = str(some_statistics(400)).splitlines()
    assert len(lines) == 2 + 23 + 2 + 1
    assert lines[24].split()[0] == "22"
    assert [line.split()[:3] for line in lines[25:]] == [
        ["+340", "ready", "340,000"],
        ["+37", "busy", "37,000"],
        ["all", "400,000", "50%"],
    ]
    assert max(map(len, lines)) <= 96


def test_a_notebook_shows_the_table() -> None:
    shown = some_statistics(2)._repr_html_()
    assert shown.startswith("<pre>") and shown.rstrip().endswith("</pre>")
    assert "2 nodes, 2,000 items" in shown and "1001" in shown
    pool = Pool(1)
    assert "1 node, 0 items" in pool._repr_html_()
    pool.close()
    assert pool._repr_html_() == "<pre>azpool.Pool: closed</pre>"
    assert repr(pool) == "<azpool.Pool: closed>"


def test_a_pool_that_is_shown_is_not_kept_alive() -> None:
    pool = Pool(1)
    repr(pool), pool.statistics(), pool._repr_html_(), pool[0].pid
    pool.close()
    seen = weakref.ref(pool)
    del pool
    assert seen() is None


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *(("chunksize", wrong) for wrong in (0, -1, 2.5, "3", True)),
        *(("buffersize", wrong) for wrong in (0, 2.5, "3")),
        *(("timeout", wrong) for wrong in ("3", float("nan"), True)),
        *(("deadline_seconds", wrong) for wrong in (0, -1, float("nan"), "3", True)),
        *(("retries", wrong) for wrong in (-1, 1.5, "1", True)),
        ("on_emit", 3),
    ],
)
def test_an_option_that_can_mean_nothing_is_refused_and_hurts_nobody(
    option: str, wrong: Any
) -> None:
    with Pool(1) as pool:
        with pytest.raises(UsageError, match=f"cannot .*{option}="):
            pool.map(abs, [1], **{option: wrong})
        assert pool.submit(abs, -1).result() == 1


def test_every_other_wrong_argument_is_named_and_changes_nothing() -> None:
    with Pool(2) as pool:
        for index in (2, -1, 0.5, "0", None, True):
            with pytest.raises(UsageError, match="cannot use node"):
                pool[index]  # type: ignore[index]
            with pytest.raises(UsageError, match="cannot use node"):
                pool.submit_to(index, abs, 1)  # type: ignore[arg-type]
        for values in ({1: 2}, {"": 1}, ["x"], "x"):
            with pytest.raises(UsageError, match="cannot export"):
                pool.export(values)  # type: ignore[arg-type]
        for name, handler in ((3, abs), ("x", 3)):
            with pytest.raises(UsageError, match="cannot serve"):
                pool.serve(name, handler)  # type: ignore[arg-type]
        for size in (0, -1, 2.5, "3", None):
            with pytest.raises(UsageError, match="cannot use size="):
                pool.resize(size)  # type: ignore[arg-type]
        for code in ("a = = 1", "return 3", "a\0b", "  x", 3):
            with pytest.raises(UsageError, match="cannot evaluate"):
                pool.evalq(code)  # type: ignore[arg-type]
        assert pool.evalq("sorted(n for n in globals() if n != '__builtins__')") == [[], []]
    for options in ({"preload": "numpy"}, {"preload": [1]}, {"start": "x"}, {"initializer": 3}):
        with pytest.raises(UsageError):
            Pool(1, **options)  # type: ignore[arg-type]
    for limit in ("max_items_per_node", "max_node_rss_bytes"):
        with pytest.raises(UsageError, match=f"cannot use {limit}="):
            Pool(1, **{limit: 0})
