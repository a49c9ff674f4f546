"""Addressable nodes, their log, their replacement between items, and what is known of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

import azpool
from azpool import Pool, ensure_pool, events
from azpool.errors import NodeDied, PoolBroken, PoolClosed, UsageError


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill(pool: Pool, index: int) -> None:
    with pytest.raises(NodeDied):
        pool[index].submit(os._exit, 1).result()


@pytest.mark.needs_processes("they have no pids of their own")
def test_a_node_is_addressed_by_its_index() -> None:
    with Pool(3) as pool:
        pids = pool.call(os.getpid)
        assert [node.submit(os.getpid).result() for node in pool.nodes] == pids
        assert pool[2].pid == pids[2]
        assert repr(pool[1]) == "<azpool node 1>"
        kill(pool, 2)
        assert pool[2].submit(os.getpid).result() not in pids
        with pytest.raises(UsageError, match="cannot use node 3"):
            pool[3]
        with pytest.raises(UsageError, match="cannot use node -1"):
            pool[-1]


def test_resize_grows_and_shrinks_and_keeps_the_state_of_those_that_stay() -> None:
    with Pool(2) as pool:
        pool.evalq("kept = 1")
        pids = pool.call(os.getpid)
        pool.resize(4)
        assert pool.size == 4
        assert pool.call(os.getpid)[:2] == pids
        slow = [pool[index].submit(lambda: (time.sleep(0.2), "done")[1]) for index in (3, 3, 2)]
        pool.resize(1)
        assert pool.size == 1
        assert [future.result() for future in slow] == ["done"] * 3
        assert pool.evalq("kept") == [1]
        assert list(pool.map(abs, range(10))) == list(range(10))


@pytest.mark.needs_processes("they have no pids of their own")
def test_the_pids_can_be_read_at_any_moment_of_a_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(1) as pool:
        (pid,) = pool.pids()
        perform = pool._supervisor._perform
        seen: list[list[int]] = []

        def look_and_perform(*args: Any) -> None:
            seen.append([node.pid for node in pool.nodes])
            perform(*args)

        monkeypatch.setattr(pool._supervisor, "_perform", look_and_perform)
        pool.resize(3)
        assert [pid, 0, 0] in seen


def test_a_storm_of_resizes_loses_nothing() -> None:
    with Pool(2) as pool:
        results = pool.map(lambda n: (time.sleep(0.002), n)[1], range(500))
        for size in (5, 1, 4, 2, 6, 1, 3):
            pool.resize(size)
        assert list(results) == list(range(500))
        assert pool.size == 3
        assert pool.call(azpool.pool.current_node) == [0, 1, 2]


@pytest.mark.needs_processes("this ends one")
def test_initializers_compose_and_are_run_on_every_node_that_ever_starts() -> None:
    with Pool(2, initializer=remember, initargs=("first",)) as pool:
        pool.add_initializer(remember, "second")
        pool.add_initializer(remember, "second")
        assert pool.evalq("seen") == [["first", "second"]] * 2
        kill(pool, 0)
        assert pool.evalq("seen") == [["first", "second"]] * 2
        pool.reset()
        pool.resize(3)
        assert pool.evalq("seen") == [["first", "second"]] * 3


@pytest.mark.needs_processes("no thread waits while another ends the pool")
def test_an_export_that_waits_when_its_pool_is_deleted_is_told_so(tmp_path: Path) -> None:
    def stubborn() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        (tmp_path / "begun").touch()
        time.sleep(60)

    failures: list[BaseException] = []

    def export(pool: Pool) -> None:
        try:
            pool.export({"late": 1})
        except PoolClosed as error:
            failures.append(error)

    pool = Pool(1)
    pool.submit(stubborn)
    wait_for((tmp_path / "begun").exists)
    exporting = threading.Thread(target=export, args=(pool,))
    exporting.start()
    wait_for(lambda: pool._supervisor.current.exports)  # type: ignore[union-attr]
    pool.delete()
    exporting.join(20)
    assert "was closed" in str(failures[0])


def remember(word: str) -> None:
    azpool.exports.setdefault("seen", []).append(word)


def test_an_initializer_that_fails_is_not_added() -> None:
    with Pool(1) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.add_initializer(divmod, 1, 0)
        pool.reset()
        assert pool.call(abs, -1) == [1]
    with pytest.raises(PoolBroken, match="set-up failed: ZeroDivisionError") as caught:
        Pool(1, initializer=divmod, initargs=(1, 0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.needs_processes("this ends one")
def test_what_is_replayed_comes_in_order_before_anything_else() -> None:
    with Pool(2) as pool:
        pool.evalq("steps = ['code']", replay=True)
        pool.export({"added": "export"})
        pool.evalq("steps.append(added)", replay=True)
        pool.evalq("steps.append('not replayed')")
        kill(pool, 1)
        assert pool[1].submit(lambda: steps).result() == ["code", "export"]  # type: ignore[name-defined]
        pool.resize(3)
        assert pool[2].submit(lambda: steps).result() == ["code", "export"]  # type: ignore[name-defined]
        pool.reset()
        assert pool.evalq("'steps' in globals()") == [False] * 3


@pytest.mark.needs_processes("they have no pids of their own")
def test_a_node_is_replaced_after_so_many_items_and_has_its_exports_again() -> None:
    with Pool(2, max_items_per_node=10) as pool:
        pool.export({"base": 100})
        seen = list(pool.map(lambda n: (base + n, os.getpid()), range(95)))  # type: ignore[name-defined]
        assert [value for value, _ in seen] == list(range(100, 195))
        pids = [pid for _, pid in seen]
        assert all(pids.count(pid) <= 10 for pid in pids)
        assert len(set(pids)) >= 10


@pytest.mark.needs_processes("they have no memory of their own")
def test_a_node_that_has_grown_too_large_is_replaced_between_items() -> None:
    with Pool(1, max_node_rss_bytes=200 << 20) as pool:
        (before,) = pool.call(os.getpid)

        def hoard(n: int) -> int:
            if n == 1:  # and kept: the master may look when this node runs the next item
                azpool.exports["hoard"] = b"x" * (300 << 20)
            return n

        assert list(pool.map(hoard, range(4), chunksize=1)) == [0, 1, 2, 3]
        assert pool.call(os.getpid) != [before]


@pytest.mark.needs_processes("none is busy while another thread looks")
def test_statistics_tell_what_each_node_did() -> None:
    with Pool(2) as pool:
        list(pool.map(lambda n: time.sleep(0.001), range(100), chunksize=5))
        go = threading.Event()
        pool.serve("go", lambda _: go.wait(30))
        running = pool[1].submit(azpool.pool.ask, "go")
        wait_for(lambda: pool.statistics().nodes[1].state == "busy")
        told = pool.statistics()
        assert (told.size, told.items) == (2, 100)
        assert [node.pid for node in told.nodes] == pool.pids()
        first = told.nodes[0]
        assert first.state == "ready" and first.incarnation == 0
        assert 0 < first.busy_share <= 1
        assert first.rss_bytes > 1 << 20
        assert first.sent_bytes > 100 and first.received_bytes > 100
        table = str(told)
        assert "2 nodes, 100 items" in table and "busy" in table
        assert "<pre>" in pool._repr_html_()
        with pytest.raises(AttributeError):
            told.size = 3  # type: ignore[misc]
        go.set()
        running.result()


def test_ensure_pool_does_not_reset_what_others_set_up() -> None:
    try:
        ensure_pool(1).export({"package.setting": 5})
        assert ensure_pool(2).call(lambda: azpool.exports["package.setting"]) == [5, 5]
    finally:
        azpool.delete_pool()


@pytest.mark.needs_processes("this ends one")
def test_state_that_dies_with_a_node_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    told: list[events.Event] = []
    with Pool(2) as pool, events.listen(told.append):
        pool.evalq("logged = 1", replay=True)
        pool.export({"exported": 2})
        pool.evalq("logged + exported")
        kill(pool, 0)
        pool.evalq("unlogged = 3")
        kill(pool, 1)
        wait_for(lambda: any(isinstance(event, events.StateLost) for event in told))
        assert [e.node for e in told if isinstance(e, events.StateLost)] == [1]
        assert [e.node for e in told if isinstance(e, events.NodeEnded)] == [0, 1]
        wait_for(lambda: "replay=True brings such state back" in caplog.text)
