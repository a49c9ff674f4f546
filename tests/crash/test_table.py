"""How a task, an argument, a result or a node can end, where, and what is left: a pool that works.

Each cell says what the caller sees, what the other items do meanwhile, and that the pool serves 100
more items afterwards. Whatever runs on a node is made by functions, so that it travels by value.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from endings import (
    ENDINGS,
    SEEN,
    Check,
    deadline_of,
    died,
    late_identity,
    make_trap,
    make_unpicklable,
    serves_100_more,
    state_of,
    wait_until,
)

import azpool
from azpool import Pool
from azpool.errors import (
    CannotPickle,
    NodeDied,
    PoolBroken,
    PoolError,
    RemoteError,
    TaskTimeout,
)
from azpool.pool import node, scheduler, watch

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


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


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stage", STAGES)
def test_an_item_that_ends_its_node_is_the_only_one_that_fails(
    pool: Pool, stage: str, ending: str
) -> None:
    before = pool.call(os.getpid)
    others = pool.map(late_identity, range(40), chunksize=1)
    function, argument = make_victims(ending)[stage]
    (error,) = pool.map(
        function, [argument], deadline_seconds=deadline_of(ending), return_exceptions=True
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
    left = threading.Event()
    pool.serve("left", lambda _: left.wait(20))

    def wait_and_end(n: int) -> int:
        if n == 3:
            azpool.pool.ask("left")  # until the results of those before have
            end()
        return n

    answers = pool.map(
        wait_and_end,
        range(8),
        chunksize=8,
        deadline_seconds=deadline_of(ending),
        return_exceptions=True,
    )
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    left.set()
    error, *others = answers
    SEEN[ending](error)
    assert others == [4, 5, 6, 7]
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
        if n == 0:  # else those of the first may leave while others run
            node.ProcessNode._send_what_waits = lambda self: None  # type: ignore[method-assign]
        if n == 3:
            sys.stdout = make()
        return n

    answers = list(pool.map(work, range(4), chunksize=4, return_exceptions=True))
    for answer in answers:
        died(exit_code=6)(answer)
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


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_idle_node_that_ends_costs_no_item(
    pool: Pool, ending: str, timed: bool, quick_looks: None
) -> None:
    deadline_seconds = deadline_of(ending) if timed else None
    before = pool.call(os.getpid)
    end = ENDINGS[ending]
    asleep = threading.Event()
    ended = threading.Event()
    pool.serve("asleep", lambda _: asleep.wait(10))
    pool.serve("ended", lambda _: ended.set())

    def end_later() -> None:
        def wait_and_end() -> None:
            azpool.pool.ask("asleep")
            try:
                end()
            except (ValueError, SystemExit):  # it ends the thread, and would be printed
                azpool.pool.ask("ended")

        threading.Thread(target=wait_and_end, daemon=True).start()

    pool.submit_to(0, end_later).result()
    asleep.set()
    # Not while an item runs there: that one would have begun. The master may know of it or not.
    if ending in ("exception", "sys_exit"):
        ended.wait(10)
    else:
        wait_until(lambda: state_of(before[0]) in ("Tt" if ending == "stopped" else "ZX"))
    on_it = pool.submit_to(0, os.getpid)
    answers = pool.map(abs, range(100), deadline_seconds=deadline_seconds, chunksize=1)
    assert list(answers) == list(range(100))
    assert (on_it.result() == before[0]) == (ending in ("exception", "sys_exit"))
    assert pool.submit_to(1, os.getpid).result() == before[1]
    serves_100_more(pool)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find a stopped node soon."""
    monkeypatch.setattr(scheduler, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "WORK_LOOK_SECONDS", 0.05)


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
    "sys_exit": "sys.exit(3)",
    "os_exit": "os._exit(3)",
    "segfault": "ctypes.string_at(0)",
    "sigkill": "os.kill(os.getpid(), signal.SIGKILL)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
}
HARMLESS = ("exception", "sys_exit")  # at birth nobody can catch them: Python prints them
HOW = {
    "os_exit": "exit code 3",
    "segfault": "killed by SIGSEGV",
    "sigkill": "killed by SIGKILL",
    "stopped": "killed by SIGKILL, because a signal had stopped it, and nothing woke it",
}


class Births:
    """Ends so many nodes at their birth, from now on."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.ending = ending
        self.folder = folder / "births"
        self.folder.mkdir()
        (folder / "at_birth.py").write_text(AT_BIRTH.format(ending=AT_BIRTH_ENDINGS[ending]))

    def end(self, count: int) -> None:
        for name in os.listdir(self.folder):
            (self.folder / name).unlink(missing_ok=True)  # a node that is born now takes it
        for number in range(count):
            (self.folder / str(number)).touch()


@pytest.fixture
def births(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Births:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Births(tmp_path, request.param)


@pytest.mark.parametrize("births", AT_BIRTH_ENDINGS, indirect=True)
def test_a_node_that_ends_at_its_start_is_started_again(births: Births, quick_looks: None) -> None:
    births.end(2)
    with Pool(2, preload=["at_birth"]) as pool:
        serves_100_more(pool)
        births.end(2)
        others = pool.map(late_identity, range(40), chunksize=1, return_exceptions=True)
        with pytest.raises(NodeDied):
            pool.submit(os._exit, 1).result()
        assert [value for value in others if type(value) is not NodeDied] == list(range(40))
        serves_100_more(pool)


@pytest.mark.parametrize("births", HOW, indirect=True)
def test_nodes_that_always_end_at_their_start_break_the_pool(
    births: Births, quick_looks: None
) -> None:
    births.end(50)
    with pytest.raises(PoolBroken) as caught:
        Pool(2, preload=["at_birth"])
    text = f"cannot start nodes: a node ended at its start ({HOW[births.ending]})"
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith("; mend the cause, then init_pool(restart=True)")


@pytest.mark.parametrize("births", AT_BIRTH_ENDINGS, indirect=True)
def test_a_reset_whose_nodes_end_keeps_the_old_ones(births: Births, quick_looks: None) -> None:
    with Pool(2, preload=["at_birth"]) as pool:
        pool.export({"kept": 1})
        running = pool.submit(late_identity, 5)
        births.end(2)
        pool.reset()  # two births fail, the third ones do not
        assert running.result() == 5
        assert pool.evalq("'kept' in globals()") == [False, False]
        pool.export({"kept": 2})
        others = pool.map(late_identity, range(100))
        births.end(50)
        if births.ending in HARMLESS:
            pool.reset()
            pool.export({"kept": 2})
        else:
            with pytest.raises(PoolBroken) as caught:
                pool.reset()
            assert HOW[births.ending] in str(caught.value)
            assert str(caught.value).endswith("; the pool goes on with the nodes that it had")
        births.end(0)
        assert list(others) == list(range(100))
        assert pool.evalq("kept") == [2, 2]
        serves_100_more(pool)


@pytest.mark.parametrize("births", HOW, indirect=True)
def test_a_growth_whose_nodes_end_leaves_the_pool_as_it_was(
    births: Births, quick_looks: None
) -> None:
    with Pool(2, preload=["at_birth"]) as pool:
        pool.evalq("kept = 1")
        others = pool.map(late_identity, range(100))
        births.end(50)
        with pytest.raises(
            PoolBroken, match="cannot add nodes: a node ended at its start"
        ) as caught:
            pool.resize(4)
        assert HOW[births.ending] in str(caught.value)
        assert str(caught.value).endswith("; the pool has its 2 nodes as before")
        births.end(0)
        assert pool.size == 2
        assert list(others) == list(range(100))
        pool.resize(3)
        assert pool.evalq("'kept' in globals()") == [True, True, False]
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
            wait_and_end, range(2), deadline_seconds=10.0, return_exceptions=True, chunksize=1
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


def is_set_up_failure(ending: str, error: BaseException) -> None:
    if ending in ("exception", "sys_exit"):
        SEEN[ending](error.__cause__)
        cause = type(error.__cause__).__name__
        assert f"its set-up failed: {cause}: " in str(error)
    else:
        assert f"a node ended at its start ({HOW[ending]})" in str(error)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_initializer_that_ends_its_node_breaks_the_pool_with_the_cause(
    ending: str, quick_looks: None
) -> None:
    with pytest.raises(PoolBroken, match="cannot start nodes: ") as caught:
        Pool(2, initializer=ENDINGS[ending])
    is_set_up_failure(ending, caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_initializer_that_ends_its_node_in_a_reset_leaves_the_old_ones(
    ending: str, tmp_path: Path, quick_looks: None
) -> None:
    end, armed = ENDINGS[ending], tmp_path / "armed"

    def initialize() -> None:
        if armed.exists():
            end()

    with Pool(2, initializer=initialize) as pool:
        pool.export({"kept": 1})
        pool.call(late_identity, 0)  # its import may be worth new nodes: not later
        others = pool.map(late_identity, range(100))
        armed.touch()
        with pytest.raises(PoolBroken, match="; the pool goes on with the nodes") as caught:
            pool.reset()
        is_set_up_failure(ending, caught.value)
        armed.unlink()
        assert list(others) == list(range(100))
        assert pool.evalq("kept") == [1, 1]
        pool.reset()
        serves_100_more(pool)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_initializer_that_ends_its_node_is_not_added(
    pool: Pool, ending: str, quick_looks: None
) -> None:
    others = pool.map(late_identity, range(100))
    with pytest.raises((ValueError, PoolError)) as caught:
        pool.add_initializer(ENDINGS[ending])
    of_export(ending)(caught.value)
    assert list(others) == list(range(100))
    pool.reset()
    serves_100_more(pool)


def test_a_zygote_that_ends_in_a_preload_breaks_the_pool_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deadly.py").write_text("import os\nos.write(2, b'no licence')\nos._exit(4)\n")
    with pytest.raises(PoolBroken, match="the zygote ended with 4: no licence"):
        Pool(1, preload=["deadly"])


# -- during an export ----------------------------------------------------------------------------


def of_export(ending: str) -> Check:
    def check(error: Any) -> None:
        if ending == "stopped":
            died(of_signal=signal.SIGKILL)(error)
            assert HOW["stopped"] in str(error)
        else:
            SEEN[ending](error)
        if type(error) is NodeDied:
            assert str(error).startswith(f"cannot set up the nodes: node {error.node} (process ")
            assert str(error).endswith("; it was taken back from every node")

    return check


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_export_that_ends_its_node_is_taken_back(
    pool: Pool, ending: str, quick_looks: None
) -> None:
    pool.export({"a": "old"})
    others = pool.map(late_identity, range(100))
    with pytest.raises((ValueError, PoolError)) as caught:
        pool.export({"a": "new", "bad": make_trap(ENDINGS[ending])})
    of_export(ending)(caught.value)
    assert list(others) == list(range(100))
    assert pool.evalq("(a, 'bad' in globals())") == [("old", False)] * 2
    serves_100_more(pool)


def test_an_export_does_not_wait_for_an_idle_node_that_was_stopped(
    pool: Pool, quick_looks: None
) -> None:
    before = pool.call(os.getpid)
    os.kill(before[0], signal.SIGSTOP)
    pool.export({"c": "there"})
    assert pool.evalq("c") == ["there"] * 2
    assert pool.pids()[0] != before[0]
    assert pool.pids()[1] == before[1]
    serves_100_more(pool)


def test_an_initializer_takes_the_time_that_it_takes(quick_looks: None) -> None:
    with Pool(2, initializer=time.sleep, initargs=(0.5,)) as pool:  # ten looks long
        before = pool.pids()
        pool.add_initializer(time.sleep, 0.4)
        pool.export({"c": 1})
        assert pool.pids() == before


@pytest.fixture
def when_found_stopped(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Have a call made, with how often it was so by now, whenever a look finds a node stopped."""
    engine = pool._supervisor._engine
    look = engine.is_stopped
    found = 0

    def see(call: Callable[[int], None]) -> None:
        def look_and_tell(key: Any) -> bool:
            nonlocal found
            stopped = look(key)
            if stopped:
                found += 1
                call(found)
            return stopped

        monkeypatch.setattr(engine, "is_stopped", look_and_tell)

    return see


def test_a_node_that_goes_on_by_itself_is_not_ended(
    pool: Pool, quick_looks: None, when_found_stopped: Callable[[Any], None]
) -> None:
    before = pool.call(os.getpid)
    seen: list[int] = []

    def go_on(times: int) -> None:
        seen.append(times)
        if times == watch.STOPPED_LOOKS - 1:
            os.kill(before[0], signal.SIGCONT)

    when_found_stopped(go_on)
    os.kill(before[0], signal.SIGSTOP)
    pool.export({"c": "there"})
    assert pool.pids() == before
    assert seen == list(range(1, watch.STOPPED_LOOKS))


def test_an_item_that_was_stopped_and_has_no_deadline_may_go_on(
    pool: Pool, quick_looks: None, when_found_stopped: Callable[[Any], None]
) -> None:
    running, go, found = threading.Event(), threading.Event(), threading.Event()
    pool.serve("running", lambda _: running.set())
    pool.serve("go", lambda _: go.wait(30))

    def work() -> int:
        azpool.pool.ask("running")
        azpool.pool.ask("go")
        return os.getpid()

    before = pool.pids()
    answer = pool.submit_to(0, work)
    assert running.wait(20)
    when_found_stopped(lambda times: found.set() if times > 2 * watch.STOPPED_LOOKS else None)
    os.kill(before[0], signal.SIGSTOP)
    exporting = threading.Thread(target=pool.export, args=({"c": 1},))
    exporting.start()
    assert found.wait(20)
    assert exporting.is_alive()
    os.kill(before[0], signal.SIGCONT)
    go.set()
    exporting.join()
    assert answer.result() == before[0]
    serves_100_more(pool)


def test_a_zygote_that_was_stopped_is_woken_when_a_node_is_wanted(quick_looks: None) -> None:
    with Pool(2) as pool:
        running = pool.submit(late_identity, 5)
        os.kill(pool.submit(os.getppid).result(), signal.SIGSTOP)
        pool.reset()
        assert running.result() == 5
        serves_100_more(pool)


def test_a_node_that_never_says_hello_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "START_SECONDS", 0.2)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sleepy.py").write_text(
        "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(30))\n"
    )
    with pytest.raises(PoolBroken) as caught:
        Pool(1, preload=["sleepy"])
    cause = "killed by SIGKILL, because it had not answered within 0.2 s of its birth"
    assert f"a node ended at its start ({cause})" in str(caught.value)


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
    pool.serve("quick", lambda request: request)
    others = pool.map(lambda n: azpool.pool.ask("quick", n), range(20), chunksize=1)
    SEEN[ending](pool.submit(lambda: azpool.pool.ask("ending")).exception())
    assert list(others) == list(range(20))
    serves_100_more(pool)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_node_that_ends_while_it_asks_fails_its_item(pool: Pool, ending: str) -> None:
    end = ENDINGS[ending]
    go, asked = threading.Event(), threading.Event()

    def answer_slowly(_: Any) -> bool:
        asked.set()
        return go.wait(10)

    pool.serve("slow", answer_slowly)
    pool.serve("asked", lambda _: asked.wait(10))
    pool.serve("quick", lambda request: request)

    def ask_and_end(n: int) -> None:
        threading.Thread(target=azpool.pool.ask, args=("slow",), daemon=True).start()
        azpool.pool.ask("asked")
        end()

    others = pool.map(lambda n: azpool.pool.ask("quick", n), range(20), chunksize=1)
    (error,) = pool.map(
        ask_and_end, [1], deadline_seconds=deadline_of(ending), return_exceptions=True
    )
    go.set()
    SEEN[ending](error)
    assert list(others) == list(range(20))
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
