"""A job of short files: on one thread, or a few, over a real client and real sockets.

What happens to single files, test_bad_luck.py tests; what many requests share, test_flight.py.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from blob_server import blob_server, refuse

from azpool.storage._batch import Action, Direction, Task, run_job
from azpool.storage._pace import ENOUGH_FILES, SLOW_DISK_FLIGHTS, Pace, pace_of
from azpool.storage._retry import RetryOptions
from azpool.storage._stores import close_stores, open_store
from azpool.storage.options import TransferOptions
from azpool.storage.plan import WHOLE_BYTES, Job, Transfer


@pytest.fixture
def service():
    with blob_server() as blobs:
        yield blobs
        close_stores()


@pytest.fixture
def run(service, tmp_path):
    """Run a job over a real client."""

    def run(direction, *items, run_id=None, emit=None, attempts=3, **job):
        task = Task(
            recipe=service.recipe(),
            direction=direction,
            cwd=str(tmp_path),
            run=run_id or secrets.token_hex(8),
            options=TransferOptions(),
            retry=RetryOptions(attempts=attempts, first_delay_seconds=0.001),
        )
        return sorted(run_job(task, Job(files=items, **job), emit=emit))

    return run


def stored(service, count, size=100):
    for n in range(count):
        service.blobs[f"f{n:03}"] = b"%03d" % n + bytes(size - 3)
    return [Transfer(n, f"f{n:03}", f"out/f{n:03}", size, '"1"') for n in range(count)]


def sources(folder, count, size=100):
    items = []
    for n in range(count):
        path = folder / f"f{n:03}"
        path.write_bytes(b"%03d" % n + bytes(size - 3))
        mtime_ns = path.stat().st_mtime_ns
        items.append(Transfer(n, path.name, path.name, size, mtime_ns=mtime_ns))
    return items


def all_done(results, count):
    assert [r.place for r in results] == list(range(count))
    assert {r.action for r in results} == {Action.DONE}, results


class Together:
    """Holds answers back until so many requests are there, and sees on which threads it was."""

    def __init__(self, service, count):
        self.barrier = threading.Barrier(count, timeout=20)
        answer = service.handle

        def handle(connection, request):
            self.barrier.wait()
            answer(connection, request)

        service.handle = handle


@pytest.mark.parametrize("flights", [1, 3])
def test_as_many_are_under_way_as_the_job_says(service, run, tmp_path, flights):
    pace_of("the run").flights = flights
    items = sources(tmp_path, 36)
    Together(service, 12)
    seen = []
    service_put = service.put
    service.put = lambda *a: (seen.append(of_transfer()), service_put(*a))

    def of_transfer():
        return [t.name for t in threading.enumerate() if t.name.startswith("azpool-transfer")]

    all_done(run(Direction.UPLOAD, *items, threads=12, run_id="the run"), 36)
    assert max(map(len, seen)) == (0 if flights == 1 else flights)
    assert len(service.blobs) == 36
    assert service.server.connections == 12


def test_a_slow_disk_makes_no_more_requests_than_the_job_says(service, run, tmp_path):
    pace_of("the run").flights = 8
    now, most, lock = [0], [], threading.Lock()
    answer = service.put

    def put(*args):
        with lock:
            now[0] += 1
            most.append(now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        answer(*args)

    service.put = put
    all_done(run(Direction.UPLOAD, *sources(tmp_path, 20), threads=2, run_id="the run"), 20)
    assert max(most) <= 2


def test_short_and_long_files_of_one_job_are_all_moved(service, run, tmp_path):
    long = sources(tmp_path, 1, WHOLE_BYTES + 1)[0]._replace(place=20)
    os.rename(tmp_path / "f000", tmp_path / "long")
    long = long._replace(source="long", target="long")
    items = [*sources(tmp_path, 20), long]
    service.faults = {"long": [refuse(500, "x")], "f003": [refuse(500, "x")]}
    results = run(Direction.UPLOAD, *items, threads=5)
    all_done(results, 21)
    assert [r.place for r in results if r.attempts == 2] == [3, 20]
    assert len(service.blobs["long"]) == WHOLE_BYTES + 1


def test_blobs_are_deleted_together(service, run):
    service.put = None
    items = stored(service, 30)
    deleted = []

    def handle(connection, request):
        assert request.startswith(b"DELETE ")
        deleted.append(request.split(b" ")[1].rpartition(b"/")[2].decode())
        connection.answer(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    service.handle = handle
    all_done(run(Direction.DELETE, *items, threads=8), 30)
    assert sorted(deleted) == [item.source for item in items]


def test_results_are_told_while_others_are_still_waited_for(service, run):
    items = stored(service, 10)
    told = threading.Event()
    service.always = {"f009": lambda connection, blobs: (told.wait(20), answer(connection))}

    def answer(connection):
        refuse(404, "BlobNotFound")(connection, service)

    emitted = []

    def emit(results):
        emitted.extend(results)
        if len(emitted) == 9:
            told.set()

    (last,) = run(Direction.DOWNLOAD, *items, threads=10, emit=emit)
    assert told.is_set()
    assert sorted(r.place for r in emitted) == list(range(9))
    assert (last.place, last.action) == (9, Action.FAILED)


def test_a_rate_is_kept_and_no_request_is_made_meanwhile(service, run):
    items = stored(service, 13)
    begun = time.monotonic()
    all_done(run(Direction.DOWNLOAD, *items, threads=13, requests_per_second=20), 13)
    # 2 may come at once, and one more when there is none left.
    assert time.monotonic() - begun >= 10 / 20


def test_retry_after_holds_all_of_a_node_back(service, run):
    items = stored(service, 10)
    service.faults = {"f000": [refuse(503, "ServerBusy", "Retry-After: 1\r\n")]}
    asked = []
    answer = service.handle
    service.handle = lambda *a: (asked.append(time.monotonic()), answer(*a))
    all_done(run(Direction.DOWNLOAD, *items, threads=1), 10)
    assert asked[1] - asked[0] >= 1


def test_throttling_halves_what_is_in_flight_once(service, run):
    items = stored(service, 24)
    together = threading.Barrier(8, timeout=20)
    now, most, lock = [0], [], threading.Lock()
    busy = refuse(503, "ServerBusy")

    def refused(connection, blobs):
        together.wait()
        busy(connection, blobs)

    service.faults = {item.source: [refused] for item in items[:8]}
    answer = service.get

    def get(*args):
        with lock:
            now[0] += 1
            most.append(now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        answer(*args)

    service.get = get
    results = run(Direction.DOWNLOAD, *items, threads=8)
    all_done(results, 24)
    assert [r.throttled for r in results] == [1] * 8 + [0] * 16
    assert max(most) <= 4


@pytest.mark.parametrize("flights", [1, 3])
def test_an_interrupt_leaves_no_part_and_a_store_that_works(
    service, run, tmp_path, flights, monkeypatch
):
    pace_of("the run").flights = flights
    items = stored(service, 60)
    never = threading.Event()
    service.always = {f"f{n:03}": lambda *_: never.wait(20) for n in range(40, 60)}

    def emit(results):
        never.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Direction.DOWNLOAD, *items, threads=24, run_id="the run", emit=emit)
    assert not [t for t in threading.enumerate() if t.name.startswith("azpool-transfer")]
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.endswith(".part")]
    service.always = {}
    assert open_store(service.recipe()).head("f041").size_bytes == 100
    all_done(run(Direction.DOWNLOAD, *items, threads=24), 60)


def test_a_disk_that_has_to_be_waited_for_is_read_by_more_threads(
    service, run, tmp_path, monkeypatch
):
    items = sources(tmp_path, 2 * ENOUGH_FILES)
    read = os.pread
    together = threading.Barrier(SLOW_DISK_FLIGHTS, timeout=20)

    def slowly(*args):
        time.sleep(0.002)
        return read(*args)

    def all_at_once(*args):
        together.wait()
        return read(*args)

    monkeypatch.setattr(os, "pread", slowly)
    all_done(run(Direction.UPLOAD, *items, threads=16, run_id="slow"), len(items))
    assert pace_of("slow").flights == SLOW_DISK_FLIGHTS
    monkeypatch.setattr(os, "pread", all_at_once)
    all_done(run(Direction.UPLOAD, *items, threads=16, run_id="slow"), len(items))


def test_what_says_that_a_disk_is_slow():
    pace = Pace("run")
    pace.note_local(ENOUGH_FILES - 1, 1000, 10.0)  # too few to tell
    pace.note_local(100, 40, 10.0)  # a busy machine
    pace.note_local(100, 200, 0.05)  # other threads
    assert pace.flights == 1
    pace.note_local(100, 200, 0.2)
    assert pace.flights == SLOW_DISK_FLIGHTS


def test_without_descriptors_for_a_flight_threads_move_the_files(
    service, run, tmp_path, monkeypatch
):
    def none_left(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(select, "epoll", none_left)
    items = sources(tmp_path, 20)
    all_done(run(Direction.UPLOAD, *items, threads=4), 20)
    assert len(service.blobs) == 20
    assert service.server.connections <= 4
