"""The master is killed, or interrupted from a terminal, in each phase of a pool's life."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from masters import run_on_a_terminal, script, wait_until_gone

# Whoever comes to the slow part leaves a file named for itself.
PRELUDE = '''
import os, sys, threading, time
from pathlib import Path
import azpool

def slow(*_):
    Path(f"begun-{os.getpid()}-{os.getppid()}").touch()
    time.sleep(40)

class Slow:
    def __reduce__(self):
        return slow, ()

def when_armed():
    if Path("armed").exists():
        slow()

def arm():
    Path("armed").touch()

EVALUATED = """
import os, pathlib, time
pathlib.Path(f"begun-{os.getpid()}-{os.getppid()}").touch()
time.sleep(40)
"""

def in_handler():
    pool.serve("slow", slow)
    azpool.pool_lapply([1, 2], lambda n: azpool.pool.ask("slow"))

def closing():
    calls = [pool.submit(slow) for _ in range(2)]
    pool.close()
'''
PHASES = {
    "starting": "azpool.init_pool(2, initializer=slow)",
    "idle": "slow()",
    "mapping": "azpool.pool_lapply(range(4), slow)",
    "calling": "azpool.pool_call(slow)",
    "evaluating": "azpool.pool_evalq(EVALUATED)",
    "exporting": "pool.export({'x': Slow()})",
    "adding an initializer": "pool.add_initializer(slow)",
    "resetting": "arm(); azpool.init_pool()",
    "growing": "arm(); pool.resize(4)",
    "in a handler": "in_handler()",
    "closing": "closing()",
}
MAKES_THE_POOL = "pool = azpool.init_pool(2, initializer=when_armed)\n"


def begun(folder: Path) -> list[int]:
    """The processes that have come to the slow part, and their parents."""
    return [int(pid) for path in folder.glob("begun-*") for pid in path.name.split("-")[1:]]


@pytest.mark.parametrize("phase", PHASES)
def test_nothing_is_left_when_the_master_is_killed(phase: str, tmp_path: Path) -> None:
    pool = "" if phase == "starting" else MAKES_THE_POOL + "say_pids()\n"
    says = "def say_pids():\n    print(*pool.pids(), pool.call(os.getppid)[0], flush=True)\n"
    master = subprocess.Popen(
        script(tmp_path, PRELUDE + says + pool + PHASES[phase]),
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert master.stdout is not None
    try:
        pids = [int(pid) for pid in master.stdout.readline().split()] if pool else []
        end = time.monotonic() + 20
        while not begun(tmp_path):
            assert master.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        pids += [pid for pid in begun(tmp_path) if pid not in (master.pid, os.getpid())]
        assert pids
    finally:
        master.kill()
        master.wait()
        master.stdout.close()
    wait_until_gone(pids)


def test_nothing_is_left_when_the_master_is_killed_while_modules_are_preloaded(
    tmp_path: Path,
) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import os, pathlib, time\n"
        'pathlib.Path(f"begun-{os.getpid()}-{os.getppid()}").touch()\n'
        "time.sleep(40)\n"
    )
    text = "import azpool\nazpool.Pool(2, preload=['slow_module'])\n"
    master = subprocess.Popen(script(tmp_path, text), cwd=tmp_path)
    try:
        end = time.monotonic() + 20
        while not begun(tmp_path):
            assert time.monotonic() < end
            time.sleep(0.005)
    finally:
        master.kill()
        master.wait()
    wait_until_gone(begun(tmp_path))


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_ends_what_it_interrupts_and_the_pool_goes_on(
    phase: str, presses: int, tmp_path: Path
) -> None:
    pool = "" if phase == "starting" else MAKES_THE_POOL
    text = f"""{PRELUDE}
def press():
    while not list(Path().glob("begun-*")):
        time.sleep(0.005)
    while {phase == "closing"} and not pool.closed:  # a call may begin before the pool closes
        time.sleep(0.005)
    for _ in range({presses}):
        print("now", flush=True)
        time.sleep(0.05)

{pool}threading.Thread(target=press).start()
try:
    try:
        {PHASES[phase]}
    except KeyboardInterrupt:
        ends = time.monotonic() + 30
        while not Path("pressed-{presses}").exists() and time.monotonic() < ends:
            time.sleep(0.005)
        time.sleep({0.5 if presses > 1 else 0.01})  # the terminal passes it on
    else:
        print("not", end=" ")
except KeyboardInterrupt:
    pass  # the second one came when the first had done all its work
print("interrupted")
Path("armed").unlink(missing_ok=True)
if not azpool.pool_exists():
    azpool.init_pool(2)
print(azpool.pool_sapply(range(100), abs) == list(range(100)), len(azpool.pool_call(os.getpid)))
"""
    out, code, seconds = run_on_a_terminal(tmp_path, text, presses)
    end = "True 2\n"
    if phase == "closing":  # the calls were submitted: what they do is not Ctrl-C's
        end += "azpool: 2 unfinished jobs were stopped at exit\n"
    assert out == "now\n" * presses + "interrupted\n" + end
    assert code == 0
    assert seconds < 15
