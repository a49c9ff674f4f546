"""Transfers whose master is killed go on where they were, and every byte is right."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from azpool import delete_pool
from azpool.pool.engines.inline import InlinePool
from azpool.report import State
from azpool.storage import _stores, jobs
from azpool.storage._ledger import Ledger
from azpool.storage._stores import close_stores
from azpool.storage.plan import PART_BYTES
from azpool.testing.leaks import mark_processes, processes_marked

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]

# The process that is killed: by itself, so that the moment is the one that is meant.
CHILD = """
import os, signal, sys
from azpool import init_pool
from azpool.storage import Container

url, direction, sources, dest, when, count = sys.argv[1:]
container = Container(url)
init_pool(2)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def told(progress):
    if progress.planning:
        return die() if when == "planning" and progress.files_total else None
    if when == "files" and progress.files_done >= int(count):
        die()
    if when == "finished" and progress.finished:
        die()

if when == "planning":
    import azpool.storage._planning as planning
    planning.TELL_SECONDS = -1
if when == "parts":  # on few cores progress may be told of all of them at once
    from azpool.storage._settler import Settler
    add_part, parts = Settler.add_part, []
    def counted(self, place, number):
        add_part(self, place, number)
        parts.append(number)
        if len(parts) == int(count):
            die()
    Settler.add_part = counted
if when == "commit":
    import azpool.storage._finish as finish
    real = finish.commit if direction == "upload" else finish.finish_download
    def last(*args):
        real(*args)
        die()
    setattr(finish, "commit" if direction == "upload" else "finish_download", last)
import azpool.storage._books as books
books.PROGRESS_SECONDS = 0
move = container.upload_many if direction == "upload" else container.download_many
move(sources, dest, journal=True, progress=told)
print("not killed")
"""


@pytest.fixture(scope="module", autouse=True)
def _end():
    yield
    delete_pool()
    close_stores()


@pytest.fixture
def state(tmp_path, monkeypatch, azure_environment):
    folder = tmp_path / "state"
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def killed(container, direction, sources, dest, when, count=0):
    """Run a transfer that kills itself; answer the job that it leaves."""
    argv = [sys.executable, "-c", textwrap.dedent(CHILD)]
    argv += [container.url, direction, sources, dest, when, str(count)]
    marker = mark_processes()
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    finally:
        del os.environ[marker]
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    while [*processes_marked(marker)]:  # its nodes: they see within a second that it is gone
        time.sleep(0.01)
    (job,) = jobs.jobs()
    assert job.state is jobs.JobState.INTERRUPTED
    return job


def make_tree(folder, count, seed=3):
    some = random.Random(seed)
    for n in range(count):
        path = folder / f"d{n % 5}" / f"file {n}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(some.randbytes(some.choice([0, 1, 100, 4096])))
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stored(container):
    return {
        blob.name: container._store().get(blob.name, length=blob.size_bytes)[1]
        for blob in container.list()
    }


@pytest.mark.parametrize(("when", "count"), [("planning", 0), ("files", 1), ("files", 300)])
def test_an_upload_of_small_files_goes_on(container, state, tmp_path, when, count):
    tree = make_tree(tmp_path / "here" / "tree", 600)
    job = killed(container, "upload", "tree/", "", when, count)
    done_before = job.files_done
    puts = []
    report = jobs.resume(job.id, progress=lambda p: puts.extend(p.ended))
    assert len(report) == 600
    assert report.counts == {State.OK: 600}
    assert len(puts) == 600 - done_before  # what the journal holds as done is not moved again
    assert stored(container) == contents(tree)
    assert jobs.jobs() == []
    assert list(state.iterdir()) == []


@pytest.mark.parametrize(("when", "count"), [("files", 300), ("files", 599)])
def test_a_download_of_small_files_goes_on(container, state, tmp_path, when, count):
    tree = make_tree(tmp_path / "here" / "tree", 600)
    assert len(container.upload_many("tree/").ok) == 600
    job = killed(container, "download", "/", "back", when, count)
    moved = []
    report = jobs.resume(job.id, progress=lambda p: moved.extend(p.ended))
    assert report.counts == {State.OK: 600}
    assert len(moved) == 600 - job.files_done
    assert contents(tmp_path / "here" / "back") == contents(tree)
    assert list(state.iterdir()) == []


BIG = 6 * PART_BYTES + 12_345


@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize(("when", "count"), [("parts", 4), ("commit", 0)])
def test_a_big_file_goes_on_at_the_part(container, state, tmp_path, direction, when, count):
    body = random.Random(5).randbytes(BIG)
    big = tmp_path / "here" / "big"
    big.write_bytes(body)
    if direction == "download":
        container.upload_many("big")
        os.unlink(big)
    job = killed(container, direction, "big", "" if direction == "upload" else "back", when, count)
    done = parts_journaled(job)
    # Half a second of work may not have been written down; before a file is finished, all is.
    assert len(done) == 7 if when == "commit" else len(done) <= 4
    asked = []
    store = Counting(container._store(), asked)
    with in_place_of(container, store):
        report = jobs.resume(job.id, pool=InlinePool(), container=container)
    assert report.counts == {State.OK: 1}
    assert report[0].bytes_moved == BIG
    assert asked.count("stage" if direction == "upload" else "get") == 7 - len(done)
    if direction == "upload":
        assert stored(container) == {"big": body}
    else:
        assert (tmp_path / "here" / "back").read_bytes() == body
        assert [p.name for p in (tmp_path / "here").iterdir()] == ["back"]
    assert list(state.iterdir()) == []


def parts_journaled(job):
    ledger = Ledger(job.path, new=False)
    try:
        return ledger.parts_done(0)
    finally:
        ledger.close()


class Counting:
    """A store that notes what it is asked, at once or in steps."""

    def __init__(self, store, asked):
        self._store, self._asked = store, asked

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def noted(*args, **kwargs):
            self._asked.append(name.removesuffix("_steps"))
            return found(*args, **kwargs)

        return noted


@contextlib.contextmanager
def in_place_of(container, store):
    key = container._recipe.key
    real, _stores._stores[key] = _stores._stores[key], store
    yield
    _stores._stores[key] = real
