"""What is left when the master ends, forks, or is interrupted: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from masters import is_alive, run_on_a_terminal, script, wait_until_gone


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def start(processes: list[subprocess.Popen[str]], folder: Path, text: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        script(folder, text), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    processes.append(process)
    return process


def read_pids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(pid) for pid in process.stdout.readline().split()]


SAY_PIDS = """
    import os, signal, sys, time
    import azpool
    pool = azpool.init_pool(4)
    def say_pids():
        print(*pool.call(os.getpid), pool.call(os.getppid)[0], flush=True)
"""


@pytest.mark.parametrize(
    "work",
    [
        "list(pool.map(lambda n: sum(range(10**7)), range(10**6)))",
        "[pool.reset() for _ in range(10**6)]",
        "[pool.export({'x': bytes(10**6)}) for _ in range(10**6)]",
    ],
)
def test_nothing_is_left_when_the_master_is_killed_in_the_midst(
    started: list[subprocess.Popen[str]], tmp_path: Path, work: str
) -> None:
    process = start(started, tmp_path, SAY_PIDS + f"    say_pids()\n    {work}\n")
    pids = read_pids(process)
    assert len(pids) == 5
    time.sleep(0.2)
    process.kill()
    process.wait()
    wait_until_gone(pids)


def test_nothing_is_left_when_a_fork_of_the_master_lives_on(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(
        started,
        tmp_path,
        SAY_PIDS
        + """
    child = os.fork()
    if child == 0:
        time.sleep(50)
        os._exit(0)
    print(child, end=" ")
    say_pids()
    time.sleep(60)
    """,
    )
    child, *pids = read_pids(process)
    process.kill()
    process.wait()
    try:
        wait_until_gone(pids)
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_fork_of_the_master_has_no_pool_and_touches_none(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(
        started,
        tmp_path,
        SAY_PIDS
        + """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point here
    child = os.fork()
    if child == 0:
        assert not azpool.pool_exists()
        try:
            pool.submit(abs, 1)
        except azpool.errors.PoolClosed as error:
            print(error)
        assert azpool.init_pool(1).submit(abs, -2).result() == 2
        azpool.delete_pool()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(pool.submit(abs, -7).result())
    """,
    )
    out, err = process.communicate(timeout=40)
    assert err == ""
    assert "of which this one is a fork" in out
    assert out.splitlines()[-1] == "7"
    assert process.returncode == 0


def test_an_exit_with_work_running_is_quick_and_says_what_was_stopped(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(
        started,
        tmp_path,
        SAY_PIDS
        + """
    futures = [pool.submit(time.sleep, 60) for _ in range(6)]
    say = [print(*[p for p in pool.pids()], flush=True)]
    """,
    )
    pids = read_pids(process)
    wait_until_gone([process.pid, *pids])
    _, err = process.communicate(timeout=40)
    assert err == "azpool: 6 unfinished jobs were stopped at exit\n"


def test_an_exit_says_too_what_was_stopped_before_what_it_imports_was_there(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import os, time\n"
        "time.sleep(0 if os.environ['MASTER'] == str(os.getpid()) else 60)\n"
        "def run(n): return n\n"
    )
    process = start(
        started,
        tmp_path,
        """
    import os
    os.environ["MASTER"] = str(os.getpid())
    import azpool, slow_module
    pool = azpool.init_pool(1)
    futures = [pool.submit(slow_module.run, n) for n in range(2)]
    stream = pool.map(slow_module.run, iter(range(10)))
    """,
    )
    _, err = process.communicate(timeout=40)
    assert err == "azpool: 3 unfinished jobs were stopped at exit\n"


def test_an_exit_without_work_says_nothing(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(started, tmp_path, SAY_PIDS + "    say_pids()\n")
    pids = read_pids(process)
    _, err = process.communicate(timeout=40)
    assert (err, process.returncode) == ("", 0)
    wait_until_gone(pids)


def test_ctrl_c_interrupts_what_runs_and_leaves_the_pool_usable(tmp_path: Path) -> None:
    out, code, seconds = run_on_a_terminal(
        tmp_path,
        """
        import os, time, azpool
        from azpool.pool import scheduler
        scheduler.GRACE_SECONDS = 20  # a node that has to wait for a core must not be killed
        pool = azpool.init_pool(2)
        before = pool.call(os.getpid)
        kept = pool.submit(lambda: (time.sleep(1.0), "kept")[1])
        try:
            print("now", flush=True)
            azpool.pool_lapply(range(4), lambda n: time.sleep(30))
        except KeyboardInterrupt:
            print("interrupted")
        print(kept.result(), azpool.pool_sapply([1, 2], abs), pool.call(os.getpid) == before)
        """,
        1,
    )
    assert out == "now\ninterrupted\nkept [1, 2] True\n"
    assert code == 0
    assert seconds < 15


def test_what_an_interrupt_keeps_from_being_closed_is_not_complained_of(tmp_path: Path) -> None:
    text = """
        import os, socket, sys, time, azpool
        from azpool.pool import scheduler
        scheduler.GRACE_SECONDS = 20  # as above
        def hold(path):
            one = socket.socket()
            open(path, "w").close()
            time.sleep(60)
            one.close()
        def drop():
            socket.socket()
        with azpool.Pool(1) as pool:
            before = pool.call(os.getpid)
            results = pool.map(hold, ["begun"])
            while not os.path.exists("begun"):
                time.sleep(0.01)
            results.close()
            print(pool.call(os.getpid) == before, file=sys.stderr, flush=True)
            pool.submit(drop).result()  # without an interrupt it is a leak as ever
    """
    ended = subprocess.run(
        [sys.executable, "-Werror", "-c", textwrap.dedent(text)],
        cwd=tmp_path, capture_output=True, text=True, timeout=40, check=True,
    )  # fmt: skip
    before, _, after = ended.stderr.partition("True\n")
    assert before == ""
    assert "unclosed <socket" in after


def test_an_item_that_ignores_the_interrupt_is_killed_after_the_grace(tmp_path: Path) -> None:
    out, code, seconds = run_on_a_terminal(
        tmp_path,
        """
        import glob, os, signal, threading, time, azpool
        pool = azpool.init_pool(2)
        def stubborn(n):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            open(f"running-{n}", "w").close()
            time.sleep(40)
        def press():
            while len(glob.glob("running-*")) < 2:
                time.sleep(0.01)
            print("now", flush=True)
        try:
            threading.Thread(target=press).start()
            azpool.pool_lapply(range(2), stubborn)
        except KeyboardInterrupt:
            print("interrupted")
        print(azpool.pool_sapply([1, 2], abs))
        """,
        1,
    )
    assert out == "now\ninterrupted\n[1, 2]\n"
    assert code == 0
    assert 1.5 < seconds < 20


def test_a_second_ctrl_c_kills_at_once(tmp_path: Path) -> None:
    out, code, seconds = run_on_a_terminal(
        tmp_path,
        """
        import glob, os, signal, threading, time, azpool
        from azpool.pool import reading, scheduler
        reading.GRACE_SECONDS = scheduler.GRACE_SECONDS = 20  # it is not the grace's end that kills
        pool = azpool.init_pool(2)
        def stubborn(n):
            signal.signal(signal.SIGINT, lambda *_: open(f"told-{n}", "w").close())
            open(f"running-{n}", "w").close()
            time.sleep(40)
        def press():
            for what in ("running-*", "told-*"):
                while len(glob.glob(what)) < 2:
                    time.sleep(0.01)
                time.sleep(0.5)  # who told the nodes waits for them
                print("now", flush=True)
        try:
            threading.Thread(target=press).start()
            azpool.pool_lapply(range(2), stubborn)
        except KeyboardInterrupt:
            print("interrupted")
        print(azpool.pool_sapply([1, 2], abs))
        """,
        2,
    )
    assert out == "now\nnow\ninterrupted\n[1, 2]\n"
    assert code == 0
    assert seconds < 10


def test_the_zygotes_death_costs_the_nodes_and_not_the_pool(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(
        started,
        tmp_path,
        SAY_PIDS
        + """
    zygote = pool.call(os.getppid)[0]
    begun = os.path.join(os.path.dirname(__file__), "begun")
    future = pool.submit(lambda: (open(begun, "w").close(), time.sleep(30)))
    while not os.path.exists(begun):
        time.sleep(0.005)
    os.kill(zygote, signal.SIGKILL)
    try:
        future.result(20)
    except azpool.errors.NodeDied as error:
        print("died", error.signal)
    print(azpool.pool_sapply([1, 2, 3], abs), pool.call(os.getppid)[0] != zygote)
    """,
    )
    out, err = process.communicate(timeout=40)
    assert out == "died 9\n[1, 2, 3] True\n", err
