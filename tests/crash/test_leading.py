"""Single calls whose callers make the pool's turns, and what can happen to them meanwhile."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from masters import HAMMER

# Whatever the machine's load, the thread parks after each call.
PRELUDE = """
import faulthandler, os, random, signal, sys, threading, time
import azpool
from azpool.pool import loop as loops

faulthandler.dump_traceback_later(40, exit=True)
loops.LOOK_SECONDS = loops.PARK_SECONDS = 0.05

def led(pool):
    return pool._supervisor._loop._led
"""

HAMMERED = (
    HAMMER
    + """
def use(pool):
    for n in range(20):
        assert pool.submit(abs, -n).result() == n
        assert pool.submit(divmod, 1, n % 2).exception() is None or n % 2 == 0

with azpool.Pool(2) as pool:
    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        ends = time.monotonic() + 4
        interrupted = 0
        # On a busy machine the interrupts come later.
        while time.monotonic() < ends or (
            (interrupted <= 20 or led(pool) <= 100) and time.monotonic() < ends + 20
        ):
            try:
                armed.append(1)
                while True:
                    use(pool)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                disarm()
            use(pool)
            assert len(pool.call(os.getpid)) == 2
            assert list(pool.map(abs, range(-20, 0))) == list(range(20, 0, -1))
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        over.append(1)
        thread.join()
    assert interrupted > 20, interrupted
    assert led(pool) > 100, led(pool)
print("fine")
"""
)

KILLED = """
def serve(pool):
    for n in range(50):
        assert pool.submit(abs, -n).result() == n

def in_a_thread_of_its_own(call, *args):
    thread = threading.Thread(target=call, args=args)
    thread.start()
    thread.join()

with azpool.Pool(2) as pool:
    in_a_thread_of_its_own(serve, pool)
    for n in range(10):
        zygote = pool.submit(os.getppid).result()
        for pid in (pool[n % 2].submit(os.getpid).result(), *([zygote] if n % 3 == 0 else [])):
            os.kill(pid, signal.SIGKILL)
        in_a_thread_of_its_own(lambda: [future_of(pool) for _ in range(5)])
        time.sleep(0.05)  # what started the replacement is gone
        in_a_thread_of_its_own(serve, pool)
        assert len(set(pool.call(os.getpid))) == 2
    before = led(pool)
    errors = []
    def many():
        try:
            serve(pool)
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert before > 100, before
print("fine")
"""

FUTURE_OF = """
def future_of(pool):
    try:
        return pool.submit(abs, -1).result(10)
    except azpool.errors.NodeDied:
        return None
"""


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + FUTURE_OF + script, *args],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_ctrl_c_at_any_moment_of_a_lead_leaves_the_pool_whole(seed: int) -> None:
    done = run(HAMMERED, str(seed))
    # Python itself tells of an interrupt that comes in a finalizer, and goes on.
    told = re.sub(
        r"(?ms)^Exception ignored in: <finalize object.*?^KeyboardInterrupt: *$", "", done.stderr
    )
    bad = [line for line in told.splitlines() if "Error" in line or "azpool" in line]
    assert (done.stdout, bad, done.returncode) == ("fine\n", [], 0), done.stderr


def test_nodes_and_zygotes_that_die_while_short_lived_threads_lead_are_replaced() -> None:
    done = run(KILLED)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
