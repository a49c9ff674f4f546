"""What is very large, and what there is no room for: memory, shared memory, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from azpool import Pool

GIB = 1 << 30
OVER_2_GIB = 2 * GIB + (1 << 20)


def run_alone(text: str) -> list[str]:
    prelude = """
import os, resource, sys, threading
import azpool
import numpy

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
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    Path(sys.prefix).name.startswith(".venv-"),
    reason="runs on the default Python alone: it takes long, and tests the system's calls",
)
@pytest.mark.skipif(free_bytes() < 10 * GIB, reason="needs 10 GiB of free memory")
@pytest.mark.timeout(85)  # a machine touches so much memory for the first time at 0.5-1 GiB/s
@pytest.mark.parametrize("make", [np.zeros, bytes], ids=["array", "bytes"])
def test_more_than_2_gib_travel_both_ways(make: Callable[..., Any]) -> None:
    big = make(OVER_2_GIB, "u1") if make is np.zeros else bytes(OVER_2_GIB)
    with Pool(1) as pool:
        back = pool.submit(lambda value: value, big).result()
        assert len(back) == OVER_2_GIB
        assert type(back) is type(big)
        assert back[0] == back[-1] == back[OVER_2_GIB // 2] == 0
    del back


def test_shared_memory_that_is_full_fails_what_needs_it() -> None:
    lines = run_alone(
        """
        big = numpy.ones(8 << 20, dtype="u1")
        with azpool.Pool(2) as pool:
            pool.export({"kept": 1})
            before = pool.call(os.getpid)
            # For a memfd the same as no room: it can't grow to that size.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
            print(pool.submit(len, big).exception())
            print(error_of(pool.export, {"kept": big}))
            assert pool.evalq("kept") == [1, 1]
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            pool.export({"kept": big})
            assert pool.evalq("len(kept)") == [8 << 20] * 2
            assert pool.call(os.getpid) == before
            serves(pool)
        """
    )
    assert lines == [
        "cannot send arguments: [Errno 27] File too large; free memory or descriptors",
        "PoolError: cannot set up the nodes: [Errno 27] File too large; free memory or descriptors",
    ]


def test_a_result_that_there_is_no_memory_for_fails_its_item() -> None:
    lines = run_alone(
        """
        import logging
        logging.disable()
        with azpool.Pool(2) as pool:
            serves(pool)
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), resource.RLIM_INFINITY))
            for make in (bytes, lambda size: numpy.zeros(size, dtype="u1")):
                error = pool.submit(make, 400 << 20).exception()
                print(type(error).__name__, "what it sent could not be read" in str(error))
                serves(pool)
        """
    )
    assert lines == ["NodeDied True"] * 2


@pytest.mark.parametrize("make", ["bytes(400 << 20)", "numpy.zeros(400 << 20, dtype='u1')"])
def test_an_argument_that_no_node_has_memory_for_fails_in_the_end(make: str) -> None:
    lines = run_alone(
        f"""
        import logging
        logging.disable()

        def be_small():
            import resource
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)

        with azpool.Pool(2, initializer=be_small) as pool:
            others = pool.map(abs, range(100), chunksize=1)
            error = pool.submit(len, {make}).exception()
            print(type(error).__name__, getattr(error, "begun", None))
            print(str(error).partition(" nodes")[0])
            assert list(others) == list(range(100))
            serves(pool)
        """
    )
    assert lines == ["NodeDied False", "cannot begin the item: 5"]


def test_threads_that_can_not_be_started_end_no_io_thread() -> None:
    lines = run_alone(
        """
        # The pool's I/O thread starts others, for handlers and callbacks: let that fail there.
        start = threading.Thread.start
        def refuse(self):
            if self.name.startswith("azpool"):
                raise RuntimeError("can't start new thread")
            start(self)

        with azpool.Pool(2) as pool:
            pool.serve("quick", lambda request: request)
            threading.Thread.start = refuse
            print(pool.submit(azpool.pool.ask, "quick", 1).exception())
            told = []
            pool.submit(abs, -1).add_done_callback(told.append)
            serves(pool)
            threading.Thread.start = start
            assert pool.submit(azpool.pool.ask, "quick", 1).result() == 1
            go = threading.Event()
            pool.serve("gate", lambda _: go.wait(20))
            last = pool.submit(azpool.pool.ask, "gate")
            last.add_done_callback(told.append)
            go.set()
            last.result()
        print(len(told))
        """
    )
    assert lines == [
        "cannot answer: can't start new thread; free memory or threads",
        "2",
    ]


def test_a_million_items_are_all_answered_in_order() -> None:
    with Pool(2) as pool:
        assert list(pool.map(abs, range(0, -(10**6), -1))) == list(range(10**6))
