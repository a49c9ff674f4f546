"""The measures of `benchmarks/pool.py`: each a function of one peer that returns its figures.

Each runs in a process of its own (`_pool_one.py`), which ends with it, so no measure meets the
threads, caches or memory of another. Times are seconds, memory is bytes.
"""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time

import _pool_tasks as tasks
import _processes as processes
from _pool_peers import Azpool, Peer, worker_memory

from azpool.testing.leaks import mark_processes, processes_marked

NODES = 10
MEASURES = {}


def measure(**options):
    """Register a measure: `peers` says which run it, all by default."""

    def register(function):
        function.peers = options.get("peers", lambda _: True)
        MEASURES[function.__name__] = function
        return function

    return register


def not_heavy(peer):
    return not peer.heavy


def only(*kinds):
    return lambda peer: type(peer).__name__ in kinds


@contextlib.contextmanager
def running(peer, size=NODES):
    """Have a pool whose workers have all answered; it yields their pids."""
    peer.start(size)
    try:
        yield peer.meet()[1]
    finally:
        peer.close()


def clocked(call, *args, **options):
    began = time.perf_counter()
    call(*args, **options)
    return time.perf_counter() - began


# --- time -------------------------------------------------------------------------------------


@measure()
def start(peer: Peer, quick):
    """From nothing to an answer of each worker."""
    began = time.perf_counter()
    peer.start(NODES)
    met_at, pids = peer.meet()
    seconds = met_at - began if met_at else time.perf_counter() - began
    time.sleep(0.3)
    figures = {"start": seconds, "idle_pss": worker_memory(pids)}
    closing = clocked(peer.close)
    return {**figures, "close": closing}


@measure()
def call(peer: Peer, quick):
    """One call and its answer, on a pool that is warm."""
    count = peer.calls // 5 if quick else peer.calls
    with running(peer):
        for _ in range(max(5, count // 10)):
            peer.call(abs, -1)
        return {"call": statistics.median(clocked(peer.call, abs, -1) for _ in range(count))}


@measure()
def single(peer: Peer, quick):
    """Items of a map and calls of their own, sent one at a time: how many a second."""
    count = peer.single_items // 5 if quick else peer.single_items
    with running(peer):
        peer.map(abs, range(count // 10), chunksize=1)
        mapped = statistics.median(
            clocked(peer.map, abs, range(count), chunksize=1) for _ in range(3)
        )
        submitted = statistics.median(clocked(peer.send, abs, count // 2) for _ in range(3))
    return {"single": count / mapped, "submitted": count // 2 / submitted}


@measure()
def trivial(peer: Peer, quick):
    """A map of `abs` over 100,000 integers, warm: by default, and with the best chunks tried."""
    count = peer.default_items
    if quick and count < 100_000:
        count //= 5
    with running(peer):
        peer.map(abs, range(count // 2))
        figures = {"default": count / _median_map(peer, count, None)}
        for chunksize in peer.chunks:
            rate = 100_000 / _median_map(peer, 100_000, chunksize)
            if rate > figures.get("best", 0):
                figures |= {"best": rate, "best_chunk": chunksize}
    return {"best": figures["default"], **figures}


def _median_map(peer: Peer, count, chunksize):
    return statistics.median(
        clocked(peer.map, abs, range(count), chunksize=chunksize) for _ in range(5)
    )


@measure()
def sleeping(peer: Peer, quick):
    """Items that sleep 1-50 ms, most of them shortly, beside the ideal schedule of their sum."""
    naps = _naps(300 if quick else 1000)
    ideal = max(sum(naps) / NODES, *naps)
    with running(peer):
        peer.map(tasks.nap, [0.0] * NODES, chunksize=1)
        default = clocked(peer.map, tasks.nap, naps)
        one_by_one = clocked(peer.map, tasks.nap, naps, chunksize=1)
    return {"sleep_default": default / ideal, "sleep_single": one_by_one / ideal}


def _naps(count):
    random.seed(7)
    return [0.001 + 0.049 * random.random() ** 3 for _ in range(count)]


# --- state ------------------------------------------------------------------------------------


@measure()
def export(peer: Peer, quick):
    """An array of 200 MB on every worker; then all read it, which maps its pages."""
    import numpy as np

    array = np.ones((40_000_000 if quick else 200_000_000) // 8)
    with running(peer):
        peer.meet(tasks.meet_with_numpy)
        before = _memory_of_all()
        seconds = clocked(peer.export, array)
        read = clocked(peer.read)
        added = _memory_of_all() - before
    return {"export": seconds, "export_read": read, "export_copies": added / array.nbytes}


def _memory_of_all():
    return sum(map(processes.pss_bytes, processes.tree(os.getpid())))


@measure()
def renew(peer: Peer, quick):
    """Fresh workers in the place of all, each of which has answered."""
    with running(peer):
        rounds = 2 if quick or peer.heavy else 5
        return {"renew": statistics.median(clocked(peer.renew) for _ in range(rounds))}


@measure(peers=not_heavy)
def killed(peer: Peer, quick):
    """SIGKILL for an idle worker, until all workers answer again."""
    with running(peer) as pids:
        began = time.perf_counter()
        how = peer.recover(pids[NODES // 2])
        return {"killed": time.perf_counter() - began, "killed_how": how}


@measure(peers=only("Azpool"))
def replaced(peer: Azpool, quick):
    """SIGKILL for a node, until its replacement has served an item."""
    times = []
    with running(peer):
        for number in range(4 if quick else 10):
            index = number % NODES
            victim = peer.pool.pids()[index]
            began = time.perf_counter()
            os.kill(victim, 9)
            # Sent before the death is known, the call is run by the replacement or lost with it.
            while peer.pool.submit_to(index, os.getpid).exception() is not None:
                pass
            if peer.pool.submit_to(index, os.getpid).result() == victim:
                raise RuntimeError("the victim answered")
            times.append(time.perf_counter() - began)
    return {"replaced": statistics.median(times)}


BUSY = """
import os, sys, time
import azpool
pool = azpool.init_pool({nodes})
pool.call(os.getpid)
busy = [pool.submit(time.sleep, 600) for _ in range({nodes})]
while not all(call.running() for call in busy):
    time.sleep(0.01)
print("busy", flush=True)
sys.stdin.read()
"""


@measure(peers=only("Azpool"))
def gone(peer: Azpool, quick):
    """From the end of the master, by SIGKILL and by its own exit, until no process is left.

    All nodes are busy then.
    """
    figures = {}
    for name, end in (("gone_killed", subprocess.Popen.kill), ("gone_exit", _let_end)):
        times = []
        for _ in range(1 if quick else 5):
            marker = mark_processes()
            command = [sys.executable, "-c", BUSY.format(nodes=NODES)]
            pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet) as master:
                del os.environ[marker]
                master.stdout.readline()
                began = time.perf_counter()
                end(master)
                while [*processes_marked(marker)]:
                    master.poll()
                times.append(time.perf_counter() - began)
        figures[name] = statistics.median(times)
    return figures


def _let_end(master):
    master.stdin.close()


@measure(peers=not_heavy)
def idle(peer: Peer, quick):
    """Wake-ups and CPU of every process and thread while a pool has nothing to do."""
    seconds = 2.0 if quick else 5.0
    with running(peer):
        peer.map(abs, range(1000))
        time.sleep(0.5)
        pids = processes.tree(os.getpid())
        mine = (threading.get_native_id(),)
        before = processes.activity(pids, mine)
        time.sleep(seconds)
        after = processes.activity(pids, mine)
    return {
        "wakeups": (after[0] - before[0]) / seconds,
        "idle_cpu": (after[1] - before[1]) / 1e9 / seconds,
    }


# --- imports ----------------------------------------------------------------------------------


@measure(peers=not_heavy)
def heavy(peer: Peer, quick):
    """A first job whose module imports azure.storage.blob, on all fresh workers."""
    one = statistics.median(_import_seconds("azure.storage.blob") for _ in range(3))
    from _pool_heavy import meet_heavy  # the master has it too: it names the function

    with running(peer):
        peer.renew()  # a pool whose nodes have run a call keeps them, with what they imported
        began = time.perf_counter()
        met_at, _ = peer.meet(meet_heavy)
    return {"heavy": met_at - began, "heavy_one": one, "heavy_ratio": (met_at - began) / one}


def _import_seconds(module):
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    )


@measure()
def importing(peer: Peer, quick):
    """Import the library in a new interpreter, and count the modules that this loads."""
    code = (
        "import sys, time; old = set(sys.modules); t = time.perf_counter(); "
        f"import {peer.module}; t = time.perf_counter() - t; new = set(sys.modules) - old; "
        "tops = {name.partition('.')[0] for name in new} - sys.stdlib_module_names; "
        "import json; print(json.dumps([t, len(new), sorted(tops)]))"
    )
    found = []
    for _ in range(3 if quick else 7):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, check=True)
        found.append(json.loads(done.stdout))
    seconds, modules, tops = sorted(found)[len(found) // 2]
    return {"import": seconds, "import_modules": modules, "import_foreign": tops}


# --- growth -----------------------------------------------------------------------------------


@measure(peers=only("Azpool", "Pool"))
def growth(peer: Peer, quick):
    """What one more item costs, from 10^5 items to 10^7 (10^6 in a hurry)."""
    steps = (10_000, 100_000, 1_000_000) if quick else (100_000, 1_000_000, 10_000_000)
    with running(peer):
        peer.map(abs, range(steps[0]))
        few, some, many = (
            statistics.median(clocked(_count_up, peer, step) for _ in range(repeats))
            for step, repeats in zip(steps, (5, 3, 1), strict=True)
        )
    early = (some - few) / (steps[1] - steps[0])
    late = (many - some) / (steps[2] - steps[1])
    return {"item_early": early, "item_late": late, "item_growth": late / early}


def _count_up(peer, count):
    peer.map(abs, range(count))


@measure(peers=only("Azpool", "Pool", "ProcessPool"))
def hundred(peer: Peer, quick):
    """The same map on 100 nodes and on 10."""
    count = 200_000 if quick else 1_000_000
    chunksize = None if isinstance(peer, Azpool) else 2_500
    seconds = {}
    for size in (10, 100):
        with running(peer, size):
            peer.map(abs, range(count // 4), chunksize=chunksize)
            seconds[size] = min(
                clocked(peer.map, abs, range(count), chunksize=chunksize) for _ in range(3)
            )
    return {"hundred": seconds[100] / seconds[10]}


__all__ = ["MEASURES", "NODES"]
