"""The ten functions, held to what the origin promises."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import azpool
from azpool import (
    delete_pool,
    ensure_pool,
    get_pool,
    init_pool,
    pool_call,
    pool_evalq,
    pool_exists,
    pool_export,
    pool_lapply,
    pool_map,
    pool_sapply,
    pool_size,
)
from azpool.errors import CannotPickle, NoPool, PoolClosed, UsageError
from azpool.pool import supervisor as supervisors


@pytest.fixture
def session() -> Iterator[None]:
    try:
        yield
    finally:
        delete_pool()


def test_the_origins_own_table(session: None) -> None:
    init_pool(2)
    assert pool_size() == 2
    assert pool_sapply(range(1, 6), lambda x: x) == [1, 2, 3, 4, 5]
    assert pool_lapply(range(1, 6), lambda x: x) == [1, 2, 3, 4, 5]
    assert pool_map(lambda x, y: x + y, range(1, 6), more_args={"y": 2}) == [3, 4, 5, 6, 7]
    pool_export(origin_y=42)
    assert pool_lapply([0], lambda x: x + origin_y) == [42]
    init_pool(2)
    assert pool_evalq("sorted(n for n in globals() if n != '__builtins__')") == [[], []]
    with pytest.raises(NameError, match="origin_y"):
        pool_lapply([0], lambda x: x + origin_y)
    delete_pool()
    assert not pool_exists()


def test_without_a_pool_every_function_says_to_call_init_pool() -> None:
    calls = [
        get_pool,
        lambda: pool_export(x=1),
        lambda: pool_lapply([1], abs),
        lambda: pool_sapply([1], abs),
        lambda: pool_map(abs, [1]),
        lambda: pool_call(os.getpid),
        lambda: pool_evalq("1"),
    ]
    for call in calls:
        with pytest.raises(NoPool, match=r"init_pool\(\)"):
            call()
    assert pool_size() == 0
    assert not pool_exists()
    delete_pool()  # harmless


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", True, [4]])
def test_wrong_sizes_are_refused_before_anything_starts(size: object) -> None:
    for make in (init_pool, ensure_pool, azpool.Pool):
        with pytest.raises(UsageError, match="cannot use size="):
            make(size)  # type: ignore[arg-type]
    assert not pool_exists()


def test_init_grows_and_never_shrinks(session: None) -> None:
    init_pool(2)
    init_pool(3)
    assert pool_size() == 3
    init_pool(1)
    assert pool_size() == 3
    init_pool()
    assert pool_size() == 3


def test_ensure_pool_grows_and_keeps_state(session: None) -> None:
    ensure_pool(1)
    pool_evalq("kept = 'yes'")
    ensure_pool(2)
    assert pool_size() == 2
    assert pool_evalq("globals().get('kept')") == ["yes", None]
    assert ensure_pool(1).size == 2


def test_after_init_every_node_is_fresh(
    session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_pool(2)
    before = pool_call(os.getpid)
    pool_evalq("import os; os.chdir('/'); os.environ['DIRTY'] = '1'; import colorsys")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_THIS_MOMENT", "yes")
    monkeypatch.syspath_prepend(str(tmp_path))
    init_pool(2)
    assert not set(before) & set(pool_call(os.getpid))
    assert pool_call(os.getcwd) == [str(tmp_path)] * 2
    assert pool_call(os.environ.get, "OF_THIS_MOMENT") == ["yes", "yes"]
    assert pool_call(os.environ.get, "DIRTY") == [None, None]
    assert pool_evalq("import sys; sys.path") == [sys.path] * 2
    assert pool_evalq("'colorsys' in sys.modules") == pool_evalq("'colorsys' in sys.modules")


def test_a_deleted_working_directory_is_no_obstacle(
    session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    init_pool(1)
    assert pool_sapply([1], lambda x: x) == [1]


def test_restart_begins_with_a_new_interpreter(session: None) -> None:
    init_pool(1)
    (first,) = pool_call(os.getppid)
    init_pool(1)
    assert pool_call(os.getppid) == [first]
    init_pool(1, restart=True)
    assert pool_call(os.getppid) != [first]


def test_export_finds_locals_then_globals_and_takes_values(session: None) -> None:
    init_pool(1)
    local = "near"
    pool_export("local", "DEFINED_HERE", given=3)
    assert pool_evalq("(local, DEFINED_HERE, given)") == [("near", "module", 3)]
    with pytest.raises(NameError, match="cannot export 'nothing_of_that_name'"):
        pool_export("local", "nothing_of_that_name")
    with pytest.raises(UsageError, match="cannot export nothing"):
        pool_export()


DEFINED_HERE = "module"


def test_an_export_that_cannot_travel_changes_nothing(session: None) -> None:
    init_pool(2)
    with pytest.raises(CannotPickle, match="cannot send the export a, lock"):
        pool_export(a=1, lock=threading.Lock())
    assert pool_evalq("'a' in globals()") == [False, False]


def test_evalq_answers_with_the_last_expression_and_keeps_what_it_assigns(session: None) -> None:
    init_pool(2)
    assert pool_evalq("a = 1") == [None, None]
    assert pool_evalq("a += 1\na") == [2, 2]
    assert pool_lapply([1], lambda x: x + a) == [3]
    with pytest.raises(UsageError, match=r"cannot evaluate the code: .*nothing was run"):
        pool_evalq("a = = 1")


def test_call_answers_by_node_and_names_those_that_failed(session: None) -> None:
    init_pool(3)
    assert pool_call(azpool.pool.current_node) == [0, 1, 2]

    def fail_on_one() -> int:
        if azpool.pool.current_node() == 1:
            raise ValueError("not me")
        return 1

    with pytest.raises(ExceptionGroup, match="failed on 1 of 3 nodes") as caught:
        pool_call(fail_on_one)
    (error,) = caught.value.exceptions
    assert isinstance(error, ValueError)
    assert "on node 1" in str(error.__notes__)


def test_lists_of_unequal_lengths_are_refused(session: None) -> None:
    init_pool(1)
    with pytest.raises(UsageError, match="lengths 2, 3"):
        pool_map(lambda a, b: a, [1, 2], [1, 2, 3])
    with pytest.raises(UsageError, match="constants go into more_args"):
        pool_map(lambda a, b: a, [1, 2], 3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give the items first"):
        pool_lapply(abs, [1, 2])  # type: ignore[arg-type]
    assert pool_map(abs, []) == []


def test_sapply_simplifies_by_the_callable_that_it_is_given(session: None) -> None:
    init_pool(1)
    assert pool_sapply([1, 2], lambda x, y: x * y, 3, simplify=tuple) == (3, 6)
    assert pool_lapply([1, 2], lambda x, *, z: x + z, z=1) == [2, 3]


def test_pool_functions_on_a_node_run_inline(session: None) -> None:
    init_pool(2)

    def nested(x: int) -> tuple[bool, int, list[int], int]:
        init_pool(5)
        return pool_exists(), pool_size(), pool_map(lambda y: x * y, range(3)), os.getpid()

    results = pool_lapply([1, 2], nested)
    assert [r[:3] for r in results] == [(True, 1, [0, 1, 2]), (True, 1, [0, 2, 4])]
    assert {r[3] for r in results} <= set(pool_call(os.getpid))


def test_a_pool_that_was_got_before_delete_says_that_it_is_closed(session: None) -> None:
    pool = init_pool(1)
    delete_pool()
    with pytest.raises(PoolClosed, match="it is closed"):
        pool.submit(abs, 1)


def test_a_script_without_a_guard_works_with_lambdas_closures_and_main(tmp_path: Path) -> None:
    import subprocess

    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from azpool import init_pool, pool_sapply, pool_export, pool_map
        print("run")
        init_pool(2)
        class Point:
            def __init__(self, x): self.x = x
        offset = 10
        def shifted(p): return Point(p.x + offset)
        def make(k): return lambda v: v * k
        out = pool_sapply([Point(1), Point(2)], shifted)
        assert all(isinstance(p, Point) for p in out), out
        print([p.x for p in out], pool_sapply([1, 2], make(3)))
        x = 42
        pool_export("x")
        print(pool_sapply(range(1, 11), lambda y: x + y))
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stderr == ""
    assert done.stdout == f"run\n[11, 12] [3, 6]\n{list(range(43, 53))}\n"


def test_the_prompt_works() -> None:
    import subprocess

    lines = "import azpool\nazpool.init_pool(1)\nk = 2\n"
    lines += "azpool.pool_sapply([1, 2], lambda x: x * k)\n"
    done = subprocess.run(
        [sys.executable, "-i"], input=lines, capture_output=True, text=True, timeout=50, check=False
    )
    assert "[2, 4]" in done.stdout


def test_packages_add_their_own_initializers_and_share_the_pool(session: None) -> None:
    ensure_pool(1, initializer=azpool.exports.__setitem__, initargs=("one", 1))
    ensure_pool(2, initializer=azpool.exports.__setitem__, initargs=("two", 2))
    assert pool_evalq("(one, two)") == [(1, 2)] * 2
    init_pool()
    assert pool_evalq("(one, two)") == [(1, 2)] * 2


def test_what_is_replayed_reaches_a_node_that_replaces_another(session: None) -> None:
    init_pool(1)
    pool_evalq("code = 'replayed'", replay=True)
    pool_call(azpool.exports.__setitem__, "call", "replayed", replay=True)
    with pytest.raises(azpool.errors.NodeDied):
        get_pool().submit(os._exit, 1).result()
    assert pool_evalq("(code, globals()['call'])") == [("replayed", "replayed")]


def test_the_exit_knows_what_it_stopped_where_a_zygote_takes_long_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = azpool.Pool(1)
    pool.submit(time.sleep, 60)
    supervisor = pool._supervisor
    call, close = supervisor._loop.call, supervisor._engine.close
    closing, waited = threading.Event(), threading.Event()

    def call_and_see(function: Callable[..., None], *args: object) -> None:
        call(function, *args)
        assert closing.wait(10)

    def close_late() -> None:
        closing.set()
        waited.wait(10)
        close()

    with monkeypatch.context() as patched:
        patched.setattr(supervisors, "ABORT_SECONDS", 0.05)
        patched.setattr(supervisor._loop, "call", call_and_see)
        patched.setattr(supervisor._engine, "close", close_late)
        try:
            assert supervisor.abort() == 1
        finally:
            waited.set()
            assert supervisor.wait_closed(20)
    pool.delete()
