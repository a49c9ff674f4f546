"""`azpool.testing.leaks` finds each kind of thing that is left over, and nothing else."""

import os
import subprocess
import sys
import threading
import time

import pytest

from azpool.testing.leaks import (
    Leaks,
    Snapshot,
    mark_processes,
    processes_marked,
    temporary_files_in,
)

SLEEP = [sys.executable, "-c", "print('up', flush=True); input()"]


@pytest.fixture
def marker():
    marker = mark_processes()
    yield marker
    del os.environ[marker]


def start(command, **options):
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )
    line = process.stdout.readline()
    return process, line


def stop(process):
    process.communicate("\n")


def test_nothing_is_left_by_nothing():
    before = Snapshot.take()
    assert not Snapshot.take().since(before)
    assert str(Leaks()) == "nothing left behind"


def test_child_process_is_found():
    before = Snapshot.take()
    process, _ = start(SLEEP)
    leaks = Snapshot.take().since(before)
    stop(process)
    assert len(leaks.processes) == 1
    assert str(process.pid) in leaks.processes[0]
    assert "input()" in str(leaks)


def test_grandchild_in_a_session_of_its_own_is_found():
    before = Snapshot.take()
    code = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen({SLEEP!r}, stdout=subprocess.DEVNULL, start_new_session=True)\n"
        "print(p.pid, flush=True)\n"
        "p.wait()"
    )
    process, line = start([sys.executable, "-c", code])
    leaks = Snapshot.take().since(before)
    stop(process)
    assert len(leaks.processes) == 2
    assert any(line.strip() in text for text in leaks.processes)


def test_orphan_is_found_by_its_marker(marker):
    before = Snapshot.take(marker)
    code = (
        "import subprocess, sys, os\n"
        f"p = subprocess.Popen({SLEEP!r}, start_new_session=True)\n"
        "os.write(1, b'%d\\n' % p.pid)\n"
        "os._exit(0)"
    )
    process, line = start([sys.executable, "-c", code])
    said = {line.strip(), process.stdout.readline().strip()}  # by both, in any order
    assert "up" in said
    (line,) = said - {"up"}
    process.wait()
    try:
        leaks = Snapshot.take(marker).since(before)
        assert any(line.strip() in text for text in leaks.processes)
        assert int(line) in {found.pid for found in processes_marked(marker)}
    finally:
        stop(process)
    # Its standard input is closed, so it ends by itself.
    assert not Snapshot.take_settled(before, marker=marker)


def test_thread_is_found():
    before = Snapshot.take()
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="left-over")
    thread.start()
    leaks = Snapshot.take().since(before)
    go.set()
    thread.join()
    assert leaks.threads == ("thread left-over",)


def test_fd_is_found():
    before = Snapshot.take()
    fd = os.memfd_create("left-over")
    leaks = Snapshot.take().since(before)
    os.close(fd)
    assert len(leaks.fds) == 1
    assert "left-over" in leaks.fds[0]


def test_file_is_found(tmp_path):
    before = Snapshot.take(folders=(tmp_path,))
    (tmp_path / "left-over").touch()
    leaks = Snapshot.take(folders=(tmp_path,)).since(before)
    assert leaks.files == (f"file {tmp_path}/left-over",)


def test_what_goes_within_the_grace_is_no_leak():
    before = Snapshot.take()
    looked = threading.Event()

    def end_soon():
        looked.wait()
        time.sleep(0.1)

    threading.Thread(target=end_soon).start()
    assert Snapshot.take().since(before)
    looked.set()
    assert not Snapshot.take_settled(before)


def test_kinds_that_may_stay_are_left_out():
    before = Snapshot.take()
    fd = os.memfd_create("left-over")
    leaks = Snapshot.take_settled(before, kinds=("threads", "processes"))
    os.close(fd)
    assert not leaks


def test_temporary_files_go_where_they_are_told(tmp_path):
    import tempfile

    with temporary_files_in(tmp_path):
        name = tempfile.mkdtemp()
        assert os.environ["TMPDIR"] == str(tmp_path)
    assert name.startswith(str(tmp_path))
    assert tempfile.gettempdir() != str(tmp_path)
