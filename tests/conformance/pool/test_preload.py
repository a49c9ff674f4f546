"""Imports: made once for all nodes where that can be known, and never at the cost of a node.

Each test is a script of its own, for what the master has imported plays a part.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from azpool import Pool

# A module that notes who imports it, slowly enough to be worth new nodes.
NOTES_ITS_IMPORT = """
import os, time
with open(__file__ + ".log", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(0.05)
SEEN = os.environ.get("SEEN")
def where(n=0): return os.getpid()
def seen(n=0): return SEEN
class Thing: pass
"""

STARTS_THREADS = """
import os, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def parent(n=0): return os.getppid()
def threads(n=0): return threading.active_count()
def kernel_threads(n=0): return len(os.listdir("/proc/self/task"))
"""

ENDS_WHO_IMPORTS_IT = """
import os
if os.environ["MASTER"] != str(os.getpid()):
    os.write(2, b"no licence")
    os._exit(4)
def run(n): return n
"""

HEAD = """
import os
os.environ["MASTER"] = str(os.getpid())
import azpool
def importers(name):
    with open(name + ".py.log") as file:
        return [int(line) for line in file if int(line) != os.getpid()]
def zygote():
    return pool.call(os.getppid)[0]
"""


@pytest.fixture(scope="module", autouse=True)
def starter() -> Iterator[str]:
    """Spawned nodes share no imports: this module runs with the other starter alone."""
    os.environ["AZPOOL_START"] = "zygote"
    yield "zygote"
    del os.environ["AZPOOL_START"]


def run(folder: Path, script: str, **modules: str) -> str:
    """Run a script beside modules; returns what it said on standard error."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    path = folder / "script.py"
    path.write_text(HEAD + textwrap.dedent(script) + "print('fine')\n")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr
    return done.stderr


def test_what_the_first_calls_need_is_imported_once_for_all_nodes(tmp_path: Path) -> None:
    script = """
        import slow
        pool = azpool.init_pool(4)
        list(pool.map(slow.where, range(40)))
        pool.call(slow.where)
        assert importers("slow") == [zygote()]
        pool.reset()
        pool.call(slow.where)
        assert len(importers("slow")) == 1
        os.utime("slow.py", (1, 1))                 # a changed source: the zygote is renewed
        pool.reset()
        pool.call(slow.where)
        assert len(importers("slow")) == 2
        assert importers("slow")[1] == zygote()
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT) == ""


@pytest.mark.parametrize(
    "first",
    [
        "pool.call(slow.where)",
        "pool.submit(type, slow.Thing()).result()",
        "list(pool.map(type, [slow.Thing()] * 20))",
        "list(pool.map(type, iter([slow.Thing()] * 20)))",
        "pool.submit(lambda: slow.where()).result()",
        "pool.export({'thing': slow.Thing()})",
        "pool.call(slow.where, replay=True)",
        "pool.evalq('import slow\\nslow.where()')",
        "pool.evalq('from slow import where', replay=True)",
        "pool.add_initializer(slow.where)",
    ],
)
def test_whatever_comes_first_has_its_imports_made_once(tmp_path: Path, first: str) -> None:
    script = f"""
        import slow
        pool = azpool.Pool(4)
        {first}
        pool.call(slow.where)
        assert importers("slow") == [zygote()], importers("slow")
        pool.close()
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT) == ""


def test_an_initializers_imports_are_there_when_nodes_start(tmp_path: Path) -> None:
    script = """
        import slow
        with azpool.Pool(4, initializer=slow.where) as pool:
            first = pool.pids()
            assert importers("slow") == [zygote()]
            assert pool.call(slow.where) == first       # no node had to be replaced
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT) == ""


def test_exports_leave_nodes_fresh_and_calls_do_not(tmp_path: Path) -> None:
    script = """
        import slow, other
        pool = azpool.Pool(2)
        pool.export({"x": 1})
        pool.call(slow.where)                       # nodes that hold exports only are replaced
        assert importers("slow") == [zygote()]
        assert pool.evalq("x") == [1, 1]
        pids = pool.pids()
        assert pool.call(other.where) == pids       # nodes that ran calls never are
        assert sorted(importers("other")) == sorted(pids)
        pool.reset()                                # now it is known: once for all
        pool.call(abs, 1)
        pool.call(other.where)
        assert importers("other")[2:] == [zygote()]
        pool.close()
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT, other=NOTES_ITS_IMPORT) == ""


def test_nodes_that_have_all_that_a_call_imports_are_kept_however_late_the_answer_comes(
    tmp_path: Path,
) -> None:
    delays = """
        import builtins, time
        import slow
        find = builtins.__import__
        def find_late(name, *args, **kwargs):
            if name == "slow":
                time.sleep(0.05)                    # as on a machine that is busy
            return find(name, *args, **kwargs)
        builtins.__import__ = find_late
    """
    script = """
        with azpool.Pool(2, preload=["delays"]) as pool:
            import slow
            first = pool.pids()
            assert pool.call(slow.where) == first
            assert importers("slow") == [zygote()]
    """
    delays = textwrap.dedent(delays)
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT, delays=delays) == ""


def test_calls_keep_their_order_while_an_import_goes_on(tmp_path: Path) -> None:
    script = """
        import slow
        pool = azpool.Pool(1)
        read = lambda: (slow.SEEN, globals().get("x"))
        before = pool.submit(lambda: (slow.SEEN, azpool.exports.get("x")))
        pool.export({"x": 1})
        after = pool.submit(lambda: azpool.exports.get("x"))
        assert before.result() == (None, None), before.result()
        assert after.result() == 1
        pool.close()
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT) == ""


def test_a_changed_environment_is_seen_by_what_is_imported_after_a_reset(tmp_path: Path) -> None:
    script = """
        import slow
        pool = azpool.init_pool(2)
        assert pool.call(slow.seen) == [None, None]
        os.environ["SEEN"] = "this moment's"
        pool.reset()
        assert pool.call(slow.seen) == ["this moment's"] * 2
        assert len(importers("slow")) == 2
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT) == ""


def test_imports_happen_where_the_master_is(tmp_path: Path) -> None:
    script = """
        import shutil, sys
        pool = azpool.init_pool(2)
        os.mkdir("elsewhere")
        shutil.move("slow.py", "elsewhere")
        os.chdir("elsewhere")
        sys.path[0] = ""
        import slow
        pool.reset()
        pool.call(slow.where)
        assert importers("slow") == [zygote()]
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT) == ""


def test_an_import_that_starts_threads_is_kept_out_of_the_zygote(tmp_path: Path) -> None:
    script = """
        import threaded
        pool = azpool.init_pool(2)
        assert pool.call(threaded.threads) == [2, 2]
        assert pool.call(threaded.kernel_threads) == [2, 2]
        pool.reset()
        assert pool.call(threaded.threads) == [2, 2]
    """
    assert run(tmp_path, script, threaded=STARTS_THREADS) == ""


def test_a_preload_that_starts_threads_costs_no_other_one_and_no_node_is_forked_from_it(
    tmp_path: Path,
) -> None:
    script = """
        import slow, late
        with azpool.Pool(3, preload=["slow", "threaded", "late"]) as pool:
            assert pool.evalq("import sys; 'threaded' in sys.modules") == [False] * 3
            assert pool.evalq("'slow' in sys.modules and 'late' in sys.modules") == [True] * 3
            assert importers("slow")[-1] == importers("late")[-1] == zygote()
            import threaded
            assert pool.call(threaded.threads) == [2] * 3
            pool.reset()                        # it is not tried a second time
            pool.call(threaded.threads)
            assert importers("slow")[-1] == zygote()
    """
    said = run(
        tmp_path, script, slow=NOTES_ITS_IMPORT, threaded=STARTS_THREADS, late=NOTES_ITS_IMPORT
    )
    told = "cannot preload threaded: its import starts threads; each node imports it for itself"
    assert said == f"{told}\n"


def test_an_import_that_ends_the_zygote_fails_its_own_calls_alone(tmp_path: Path) -> None:
    script = """
        import deadly, slow
        pool = azpool.init_pool(2)
        error = pool.submit(deadly.run, 1).exception()
        pool.export({"kept": 1})
        assert type(error) is azpool.errors.NodeDied and "no licence" in error.stderr, error
        assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
        assert pool.evalq("kept") == [1, 1]
        pool.reset()
        pool.call(slow.where)                       # what follows is preloaded as ever
        assert importers("slow") == [zygote()]
    """
    run(tmp_path, script, deadly=ENDS_WHO_IMPORTS_IT, slow=NOTES_ITS_IMPORT)


def test_a_preload_that_cannot_be_imported_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(1, preload=["nothing_of_that_name"]) as pool:
        assert pool.submit(abs, -1).result() == 1
    assert "cannot preload nothing_of_that_name: ModuleNotFoundError: No module" in caplog.text


def test_what_a_module_says_when_it_is_imported_is_said_once(tmp_path: Path) -> None:
    noisy = NOTES_ITS_IMPORT + textwrap.dedent("""
        import logging, sys, warnings
        print("printed")
        sys.stderr.write("written\\n")
        warnings.warn("warned")
        logging.getLogger("noisy").warning("logged")
    """)
    script = """
        pool = azpool.Pool(3)
        pool.evalq("import noisy")
        assert importers("noisy") == [zygote()]
        pool.reset()
        pool.close()
    """
    said = run(tmp_path, script, noisy=noisy)
    assert all(line.startswith("[zygote] ") for line in said.splitlines())
    for word in ("printed", "written", "UserWarning: warned", "logged"):
        assert len([line for line in said.splitlines() if line.endswith(word)]) == 1, said


def test_a_reset_in_the_midst_of_an_import_releases_what_waited_for_it(tmp_path: Path) -> None:
    script = """
        import slow
        pool = azpool.Pool(2)
        waiting = pool.submit(slow.where)
        pool.reset(restart=True)
        assert waiting.result() > 0
        pool.close()
        pool = azpool.Pool(2)
        waiting = pool.submit(slow.where)
        pool.close()                                # what was queued is done first
        assert waiting.result() > 0
    """
    assert run(tmp_path, script, slow=NOTES_ITS_IMPORT) == ""


def test_numpy_is_preloaded_with_one_blas_thread() -> None:
    with Pool(2, preload=["numpy"]) as pool:
        assert pool.evalq("import sys; 'numpy' in sys.modules") == [True, True]
        assert pool.evalq("import os; len(os.listdir('/proc/self/task'))") == [1, 1]
        assert pool.evalq("os.environ.get('OPENBLAS_NUM_THREADS')") == [None, None]
