"""The pools that `benchmarks/pool.py` compares, each behind the same few methods.

A peer is used in a process of its own that has nothing else to do. Its library is imported by
`load`, before any clock runs. `everywhere` runs a call once on each worker: where workers have no
address, as many calls are sent as there are workers, and they wait for each other (`meet`).
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import _pool_tasks as tasks
import _processes as processes

MEET_SECONDS = 20


class DoesNotStart(Exception):
    """A peer can't be had here; the text says why."""


class Meeting:
    """A place where `size` workers meet: all have answered when the last has come."""

    def __init__(self, size):
        self._folder = tempfile.TemporaryDirectory()
        self.address = f"{self._folder.name}/meeting"
        self._size = size
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(self.address)
        self._sock.listen(size)
        self._sock.settimeout(MEET_SECONDS)
        self._done = threading.Event()
        self.pids = []
        self.met_at = 0.0
        threading.Thread(target=self._welcome, daemon=True).start()

    def _welcome(self):
        guests = []
        with contextlib.suppress(TimeoutError):
            for _ in range(self._size):
                guest, _ = self._sock.accept()
                guests.append(guest)
                self.pids.append(int(guest.recv(16)))
            self.met_at = time.perf_counter()
        for guest in guests:
            guest.close()
        self._sock.close()
        self._done.set()

    def wait(self):
        """Return the moment when the last one came."""
        self._done.wait(MEET_SECONDS)
        self._folder.cleanup()
        if len(set(self.pids)) < self._size:
            raise RuntimeError(f"{len(set(self.pids))} of {self._size} workers answered")
        return self.met_at


class Peer:
    """See the module."""

    name = ""
    module = ""
    forks_master = False  # its workers are forks of the user's process
    default_items = 100_000  # of a map with its default chunks: fewer where that takes long
    single_items = 20_000  # of a map one by one
    calls = 1_000
    chunks = (500, 2_500, 10_000, 25_000)  # tried for its best
    heavy = False  # takes seconds to start: only the main measures

    def load(self):
        """Import the library.

        Raises:
            DoesNotStart: it is not installed here.
        """
        try:
            self.library = import_module(self.module)
        except ImportError as error:
            raise DoesNotStart(f"not installed ({error})") from error

    def start(self, size):
        raise NotImplementedError

    def call(self, function, *args):
        """Make one call and wait for its answer."""
        raise NotImplementedError

    def send(self, function, count):
        """Queue `count` calls one by one and wait for all."""
        futures = [self.submit(function, number) for number in range(count)]
        for future in futures:
            future.result()

    def map(self, function, items, chunksize=None):
        """Map, and read every result."""
        raise NotImplementedError

    def everywhere(self, function, *args):
        """Run a call that meets the others once on each worker."""
        futures = [self.submit(function, *args) for _ in range(self.size)]
        for future in futures:
            future.result()

    def meet(self, function=tasks.meet, *args):
        """Run a meeting on all workers; returns when the last one came, and the pids."""
        meeting = Meeting(self.size)
        self.everywhere(function, *args, meeting.address)
        return meeting.wait(), meeting.pids

    def export(self, array):
        """Have every worker hold an array; they may be new workers for it."""
        self.close()
        self.start(self.size, initializer=tasks.hold, initargs=(array,))
        self.meet()

    def read(self):
        """Have every worker read what was exported."""
        self.meet(tasks.read_held)

    def renew(self):
        """Have fresh workers, all of which have answered."""
        self.close()
        self.start(self.size)
        self.meet()

    def recover(self, victim):
        """Kill a worker, then have all of them answer again; how this pool does it.

        A pool that breaks is made anew, as its users have to.
        """
        os.kill(victim, signal.SIGKILL)
        try:
            self.meet()
        except multiprocessing.TimeoutError:
            self.close()
            raise RuntimeError("hangs after a worker was killed") from None
        except Exception:
            self.renew()
            return "broken, made anew"
        return "replaced"

    def close(self):
        raise NotImplementedError


class Azpool(Peer):
    name = "azpool"
    module = "azpool"

    def start(self, size):
        self.size = size
        self.pool = self.library.init_pool(size)

    def submit(self, function, *args):
        return self.pool.submit(function, *args)

    def call(self, function, *args):
        return self.pool.submit(function, *args).result()

    def map(self, function, items, chunksize=None):
        deque(self.pool.map(function, items, chunksize=chunksize), maxlen=0)

    def everywhere(self, function, *args):
        self.pool.call(function, *args)

    def export(self, array):
        self.pool.export({"benchmark_array": array})

    def read(self):
        self.meet(tasks.read_exported)

    def renew(self):
        self.pool.reset()

    def close(self):
        self.pool.close()


class Pool(Peer):
    module = "multiprocessing.pool"

    def __init__(self, start_method):
        self.method = start_method
        self.name = f"multiprocessing.Pool, {start_method}"
        self.forks_master = start_method == "fork"

    def start(self, size, **options):
        self.size = size
        self.pool = multiprocessing.get_context(self.method).Pool(size, **options)

    def call(self, function, *args):
        return self.pool.apply(function, args)

    def send(self, function, count):
        for waiting in [self.pool.apply_async(function, (n,)) for n in range(count)]:
            waiting.get()

    def map(self, function, items, chunksize=None):
        self.pool.map(function, items, chunksize)

    def everywhere(self, function, *args):
        # `get` waits for ever where a worker was killed: cpython #96062.
        for waiting in [self.pool.apply_async(function, args) for _ in range(self.size)]:
            waiting.get(MEET_SECONDS)

    def close(self):
        self.pool.terminate()
        self.pool.join()


class Executor(Peer):
    """Whatever is a `concurrent.futures.Executor`; its default map sends items one by one."""

    default_items = 10_000
    single_items = 10_000

    def submit(self, function, *args):
        return self.pool.submit(function, *args)

    def call(self, function, *args):
        return self.pool.submit(function, *args).result()

    def map(self, function, items, chunksize=None):
        deque(self.pool.map(function, items, chunksize=chunksize or 1), maxlen=0)

    def close(self):
        self.pool.shutdown(wait=True)


class ProcessPool(Executor):
    module = "concurrent.futures.process"

    def __init__(self, start_method):
        self.method = start_method
        self.name = f"ProcessPoolExecutor, {start_method}"

    def start(self, size, **options):
        self.size = size
        context = multiprocessing.get_context(self.method)
        self.pool = ProcessPoolExecutor(size, mp_context=context, **options)


class Loky(Executor):
    name = module = "loky"

    def start(self, size, **options):
        self.size = size
        self.pool = self.library.get_reusable_executor(size, timeout=None, **options)

    def close(self):
        self.pool.shutdown(wait=True, kill_workers=True)


class Mpire(Peer):
    module = "mpire"
    single_items = 10_000

    def __init__(self, start_method):
        self.method = start_method
        self.name = f"mpire, {start_method}"
        self.forks_master = start_method == "fork"

    def start(self, size, **options):
        self.size = size
        options = {"start_method": self.method, "keep_alive": True, **options}
        self.pool = self.library.WorkerPool(size, **options)

    def call(self, function, *args):
        return self.pool.apply(function, args)

    def send(self, function, count):
        for waiting in [self.pool.apply_async(function, (n,)) for n in range(count)]:
            waiting.get()

    def map(self, function, items, chunksize=None):
        self.pool.map(function, items, chunk_size=chunksize)

    def everywhere(self, function, *args):
        for waiting in [self.pool.apply_async(function, args) for _ in range(self.size)]:
            waiting.get(MEET_SECONDS)

    def export(self, array):
        self.close()
        self.start(self.size, shared_objects=array)
        self.meet(tasks.take_shared)

    def read(self):
        self.meet(tasks.take_shared)

    def close(self):
        self.pool.terminate()


class Joblib(Peer):
    name = module = "joblib"
    single_items = 5_000
    calls = 200
    array = None

    def start(self, size):
        self.size = size
        self.pool = self.library.Parallel(n_jobs=size)
        self.pool.__enter__()

    def call(self, function, *args):
        return self.pool([self.library.delayed(function)(*args)])

    def map(self, function, items, chunksize=None):
        delayed = self.library.delayed(function)
        self.pool.batch_size = chunksize or "auto"
        self.pool(delayed(item) for item in items)

    def send(self, function, count):
        self.map(function, range(count), chunksize=1)

    def everywhere(self, function, *args):
        self.pool.batch_size = 1
        self.pool(self.library.delayed(function)(*args) for _ in range(self.size))

    def export(self, array):
        self.array = array  # arguments that are large arrays travel as a file in memory
        self.read()

    def read(self):
        self.meet(tasks.hold_and_meet, self.array)

    def close(self):
        from joblib.externals.loky import get_reusable_executor

        self.pool.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


class Ipyparallel(Peer):
    name = module = "ipyparallel"
    default_items = 100_000
    single_items = 500
    calls = 100
    heavy = True

    def start(self, size):
        import logging

        self.size = size
        options = {"controller_ip": "127.0.0.1", "log_level": logging.ERROR}
        self.cluster = self.library.Cluster(n=size, profile_dir=_profile(), **options)
        self.client = self.cluster.start_and_connect_sync(activate=False)
        self.direct = self.client[:]
        self.view = self.client.load_balanced_view()

    def submit(self, function, *args):
        return self.view.apply_async(function, *args)

    def call(self, function, *args):
        return self.view.apply_sync(function, *args)

    def send(self, function, count):
        self.client.wait([self.submit(function, number) for number in range(count)])

    def map(self, function, items, chunksize=None):
        if chunksize is None:
            self.direct.map_sync(function, items)
        else:
            self.view.map_sync(function, items, chunksize=chunksize)

    def everywhere(self, function, *args):
        self.direct.apply_sync(function, *args)

    def export(self, array):
        self.direct.push({"benchmark_array": array}, block=True)

    def read(self):
        self.direct.execute("benchmark_sum = benchmark_array.sum()", block=True)

    def close(self):
        self.client.close()
        self.cluster.stop_cluster_sync()


class Dask(Peer):
    name = "dask.distributed"
    module = "distributed"
    default_items = 2_000
    single_items = 1_000
    calls = 200
    chunks = ()
    heavy = True

    def start(self, size):
        self.size = size
        self.cluster = self.library.LocalCluster(
            n_workers=size,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
        )
        self.client = self.library.Client(self.cluster)

    def submit(self, function, *args):
        return self.client.submit(function, *args, pure=False)

    def call(self, function, *args):
        return self.submit(function, *args).result()

    def map(self, function, items, chunksize=None):
        futures = self.client.map(function, list(items), pure=False, batch_size=None)
        self.client.gather(futures)

    def everywhere(self, function, *args):
        self.client.run(function, *args)

    def export(self, array):
        self.future = self.client.scatter(array, broadcast=True)

    def read(self):
        key = self.future.key
        self.client.run(lambda dask_worker: float(dask_worker.data[key].sum()))

    def close(self):
        self.client.close()
        self.cluster.close()


def _profile():
    """ipyparallel keeps its files in a profile; one that goes with this process's folder."""
    folder = f"{tempfile.gettempdir()}/profile"
    os.makedirs(f"{folder}/log", exist_ok=True)
    return folder


def make_peers():
    """Return the peers by name, azpool first."""
    found = [
        Azpool(),
        Pool("forkserver"),
        Pool("spawn"),
        Pool("fork"),
        ProcessPool("forkserver"),
        ProcessPool("spawn"),
        Loky(),
        Mpire("fork"),
        Mpire("forkserver"),
        Joblib(),
        Ipyparallel(),
        Dask(),
    ]
    return {peer.name: peer for peer in found}


def worker_memory(pids):
    """Return the mean PSS of workers in bytes."""
    return sum(map(processes.pss_bytes, pids)) / len(pids)
