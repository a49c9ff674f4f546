"""Descriptors run out: each call says so, the pool stays as it was and goes on when there are some.

Each test is a master of its own, with a limit of its own. What it takes away it gives back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ALL_BUT = """
import contextlib, os, resource, sys, warnings
import azpool
from azpool.errors import *
import numpy

warnings.simplefilter("error")
LIMIT = 150
resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
big = numpy.ones(4 << 20, dtype="u1")

@contextlib.contextmanager
def all_taken_but(left):
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(left):
        os.close(taken.pop())
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)

def error_of(call, *args):
    try:
        call(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"

def serves(pool):
    assert list(pool.map(abs, range(100))) == list(range(100))
    assert all(pool.call(os.getpid))
"""
NO_FILES = "Too many open files (24); close files or raise the limit (ulimit -n)"


def run_alone(text: str, start: str = "zygote", stderr: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ALL_BUT + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "AZPOOL_START": start},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == stderr
    return done.stdout.splitlines()


STARTERS = pytest.mark.parametrize("start", ["zygote", "spawn"])


@STARTERS
def test_a_pool_that_finds_no_descriptors_says_so(start: str) -> None:
    lines = run_alone(
        """
        import gc
        for left in (0, 2, 4, 6, 9, 13, 18, 28, 48, 78, 140):
            gc.collect()
            before = len(os.listdir("/proc/self/fd"))
            with all_taken_but(left):
                try:
                    with azpool.Pool(8) as pool:
                        serves(pool)
                    print("enough")
                except (azpool.errors.PoolError, OSError) as error:
                    print(type(error).__name__, error)
                    del error
            gc.collect()
            assert len(os.listdir("/proc/self/fd")) == before, left
        """,
        start,
    )
    assert lines[-1] == "enough"
    for line in lines[:-1]:
        assert line == "enough" or "too many open files" in line.lower()
    assert f"PoolBroken cannot start nodes: {NO_FILES}, then init_pool(restart=True)" in lines


@STARTERS
@pytest.mark.parametrize("left", [0, 1, 4, 9, 14])
def test_a_growth_or_a_reset_that_finds_none_leaves_the_pool_as_it_was(
    start: str, left: int
) -> None:
    lines = run_alone(
        f"""
        with azpool.Pool(2) as pool:
            pool.export({{"kept": 1}})
            before = pool.call(os.getpid)
            with all_taken_but({left}):
                print(error_of(pool.resize, 9))
                print(error_of(pool.reset, 9))
                assert pool.size == 2
                assert pool.evalq("kept") == [1, 1]
                serves(pool)
            assert pool.call(os.getpid) == before
            assert pool.evalq("kept") == [1, 1]
            pool.resize(5)
            serves(pool)
            assert pool.evalq("kept") == [1] * 5
            pool.reset()
            serves(pool)
        """,
        start,
    )
    assert lines == [
        f"PoolBroken: cannot add nodes: {NO_FILES}; the pool has its 2 nodes as before",
        f"PoolBroken: cannot start nodes: {NO_FILES}; the pool goes on with the nodes that it had",
    ]


def test_what_needs_a_descriptor_to_travel_fails_alone() -> None:
    lines = run_alone(
        """
        with azpool.Pool(2) as pool:
            before = pool.call(os.getpid)
            pool.export({"kept": 1})
            pool.serve("big", lambda _: big)
            captured = big.copy()
            with all_taken_but(0):
                print(pool.submit(len, big).exception())
                print(error_of(list, pool.map(len, [big, big])))
                print(error_of(pool.export, {"kept": big}))
                print(error_of(pool.add_initializer, len, big))
                print(pool.submit(lambda: len(captured)).exception())
                print(pool.submit(azpool.pool.ask, "big", 1).exception())
                assert pool.evalq("kept") == [1, 1]
                serves(pool)
            with all_taken_but(3):  # the log and the function keep theirs
                pool.export({"kept": big})
                assert pool.evalq("len(kept)") == [len(big)] * 2
                assert pool.submit(len, big).result() == len(big)
                assert pool.submit(lambda: len(captured)).exception() is None
            assert pool.submit(len, big).result() == len(big)
            assert pool.submit(azpool.pool.ask, "big", 1).result().nbytes == len(big)
            assert pool.call(os.getpid) == before
            serves(pool)
        """
    )
    cause = "[Errno 24] Too many open files; free memory or descriptors"
    assert lines == [
        f"cannot send arguments: {cause}",
        f"PoolError: cannot send arguments: {cause}",
        f"PoolError: cannot set up the nodes: {cause}",
        f"PoolError: cannot set up the nodes: {cause}",
        f"cannot send the function: {cause}",
        f"cannot send the answer: {cause}",
    ]


@STARTERS
@pytest.mark.parametrize("left", [0, 1])
def test_a_killed_node_is_replaced_as_soon_as_there_are_some(start: str, left: int) -> None:
    lines = run_alone(
        f"""
        import io, logging
        logged = io.StringIO()
        logging.basicConfig(format="%(message)s", stream=logged)
        with azpool.Pool(2) as pool:
            pool.export({{"kept": 1}})
            before = pool.pids()
            with all_taken_but({left}):
                print(type(pool.submit_to(0, os._exit, 1).exception()).__name__)
                # What the dead node had is free again; it must not be enough for another.
                with all_taken_but({left}):
                    print(pool.submit_to(0, abs, 1).exception())
                    print(pool.submit_to(0, abs, 1).exception())
                    serves_alone = list(pool.map(abs, range(100)))
                    assert serves_alone == list(range(100))
                    assert pool.pids()[1] == before[1]
                    pool.export({{"kept": 2}})
                    assert pool.submit_to(1, lambda: kept).result() == 2
                    print(error_of(pool.resize, 3))
                    assert pool.size == 2
            assert pool.submit_to(0, lambda: kept).result() == 2
            assert pool.pids()[1] == before[1]
            serves(pool)
        print(logged.getvalue(), end="")
        """,
        start,
    )
    assert lines[0] == "NodeDied"
    lack = f"cannot start nodes: {NO_FILES}, and call again"
    log = "cannot start node 0: Too many open files (24); it is tried again until it can be"
    refused = f"PoolBroken: cannot add nodes: {NO_FILES}; the pool has its 2 nodes as before"
    assert lines[1:] == [lack, lack, refused, log]


def test_a_pool_whose_last_node_has_no_replacement_says_so_and_comes_back() -> None:
    lines = run_alone(
        """
        import logging
        logging.disable()
        with azpool.Pool(1) as pool:
            serves(pool)  # nodes that have run something are not replaced for an import's sake
            with all_taken_but(0):
                print(type(pool.submit(os._exit, 1).exception()).__name__)
                with all_taken_but(0):
                    for _ in range(3):
                        print(error_of(list, pool.map(abs, range(100))))
                        print(error_of(pool.submit(abs, -1).result))
            serves(pool)
            assert pool.submit(abs, -1).result() == 1
        """
    )
    lack = f"PoolBroken: cannot start nodes: {NO_FILES}, and call again"
    assert lines == ["NodeDied"] + [lack] * 6


# A node that is forked while there is the file `armed` says nothing until there is none.
MUTE = """
import os, pathlib, time

def wait():
    while pathlib.Path(__file__).with_name("armed").exists():
        time.sleep(0.005)

os.register_at_fork(after_in_child=wait)
"""


def test_a_node_whose_descriptor_is_lost_on_its_way_is_none(tmp_path: Path) -> None:
    (tmp_path / "mute.py").write_text(MUTE)
    lines = run_alone(
        f"""
        import logging, pathlib, signal, threading, time
        from azpool.pool import watch
        logging.disable()
        watch.LOOK_SECONDS = 60.0  # the pool is not to wake the zygote
        sys.path.append({str(tmp_path)!r})
        armed = pathlib.Path({str(tmp_path)!r}, "armed")

        def count():
            return len(os.listdir("/proc/self/fd"))

        def wait_for(condition):
            while not condition():
                time.sleep(0.001)

        with azpool.Pool(2, preload=["mute"]) as pool:
            channels = pool._supervisor._engine._channels

            def births_told():  # each with a descriptor
                return all(channel.pidfd >= 0 for channel in [*channels.values()])

            def request_left():
                return any(key.node == 2 and not c.theirs for key, c in [*channels.items()])

            before = pool.pids()
            zygote = pool.submit(os.getppid).result()
            wait_for(births_told)
            open_before = count()
            os.kill(zygote, signal.SIGSTOP)
            armed.touch()  # else its hello may come before the news of its birth
            errors = []
            growing = threading.Thread(target=lambda: errors.append(error_of(pool.resize, 3)))
            growing.start()
            # In this order: there are as many for a moment while the channel is made, too.
            wait_for(request_left)
            wait_for(lambda: count() == open_before + 4)
            with all_taken_but(0):
                os.kill(zygote, signal.SIGCONT)
                growing.join()
            armed.unlink()
            print(*errors)
            assert pool.pids() == before
            pool.resize(3)
            serves(pool)
            wait_for(births_told)
            assert count() == open_before + 5, (count(), open_before)
        """
    )
    lost = "its descriptor was lost: too many open files"
    remedy = "close files or raise the limit (ulimit -n)"
    assert lines == [
        f"PoolBroken: cannot add nodes: {lost}; {remedy}; the pool has its 2 nodes as before"
    ]


def test_a_thread_that_snatches_descriptors_breaks_nothing_for_good() -> None:
    lines = run_alone(
        """
        import logging, random, threading, time
        logging.getLogger("azpool").setLevel("CRITICAL")
        draw = random.Random(5)
        stop = threading.Event()

        def snatch():
            taken = []
            while not stop.is_set():
                try:
                    for _ in range(draw.randrange(60)):
                        taken.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    pass
                for _ in range(draw.randrange(len(taken) + 1)):
                    os.close(taken.pop())
                stop.wait(0.0005)
            for fd in taken:
                os.close(fd)

        with azpool.Pool(4) as pool:
            pool.export({"kept": 1})
            threads = [threading.Thread(target=snatch) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(20):
                calls = (
                    (pool.resize, draw.randrange(3, 9)),
                    (pool.submit(os._exit, 1).result,),
                    (pool.submit(len, big).result,),
                    (pool.export, {"other": big}),
                    (pool.reset,),
                )
                text = error_of(*draw.choice(calls))
                known = ("none", "PoolBroken", "NodeDied", "PoolError", "TypeError")
                assert text.startswith(known), text
            stop.set()
            for thread in threads:
                thread.join()
            # Nodes of the last resets may still be ending, and hold theirs until they have.
            for _ in range(100):
                text = error_of(lambda: pool.reset(restart=True))
                if text == "none":
                    break
                assert text.startswith("PoolBroken"), text
                time.sleep(0.05)
            serves(pool)
            assert error_of(pool.submit(len, big).result) == "none"
        print("done")
        """
    )
    assert lines == ["done"]
