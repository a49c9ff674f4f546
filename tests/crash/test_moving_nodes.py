"""Nodes killed, and Ctrl-C, at each phase of a transfer: a real pool, a scripted service."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "storage"))
import blob_server as bad
from blob_server import blob_server

from azpool import Pool
from azpool.storage import Container
from azpool.storage._stores import close_stores

SMALL = 5000
BIG = 17 * 1024 * 1024
NAMES = [f"f{n}" for n in range(6)]


@pytest.fixture
def service():
    with blob_server() as blobs:
        yield blobs
        close_stores()


@pytest.fixture
def pool():
    with Pool(1) as made:
        yield made


@pytest.fixture
def box(service):
    return Container(f"{service.server.url}/acct/box", anonymous=True)


def body_of(name, size):
    return (name.encode() * (size // len(name) + 1))[:size]


def left(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def then(action, size=0):
    """Do something when the request has come: before any of the answer, or in its middle."""

    def fault(connection, service):
        if size:
            connection.answer(bad.HEAD_206 % (size, size - 1, size), b"z" * (size // 2))
        action()
        connection.stop.wait(0.2)
        connection.sock.close()

    return fault


@pytest.mark.parametrize("size", [SMALL, BIG], ids=["small", "in parts"])
def test_a_node_killed_while_it_sends_loses_no_file(service, box, pool, tmp_path, size):
    (tmp_path / "src").mkdir()
    for name in NAMES:
        (tmp_path / "src" / name).write_bytes(body_of(name, SMALL))
    (tmp_path / "src/f3").write_bytes(body_of("f3", size))
    service.faults["f3"] = [then(lambda: os.kill(pool.pids()[0], signal.SIGKILL))]
    report = box.upload_many(f"{tmp_path}/src/", pool=pool)
    assert [outcome.name for outcome in report.failed] == []
    assert len(report.ok) == len(NAMES)
    assert set(service.blobs) == set(NAMES)
    for name in NAMES:
        assert service.blobs[name] == (tmp_path / "src" / name).read_bytes()


@pytest.mark.parametrize("size", [SMALL, 1 << 20, BIG], ids=["small", "long", "in parts"])
@pytest.mark.parametrize("in_body", [False, True])
def test_a_node_killed_while_it_receives_loses_no_file(service, box, pool, tmp_path, size, in_body):
    for name in NAMES:
        service.blobs[name] = body_of(name, SMALL)
    service.blobs["f3"] = body_of("f3", size)
    kill = then(
        lambda: os.kill(pool.pids()[0], signal.SIGKILL), min(size, 8 << 20) if in_body else 0
    )
    service.faults_of_get["f3"] = [kill]
    report = box.download_many(NAMES, tmp_path / "out", pool=pool)
    assert [outcome.name for outcome in report.failed] == []
    assert left(tmp_path) == [f"out/{name}" for name in NAMES]
    for name in NAMES:
        assert (tmp_path / "out" / name).read_bytes() == service.blobs[name]


def test_a_node_killed_by_the_same_file_each_time_fails_that_file_alone(
    service, box, pool, tmp_path
):
    for name in NAMES:
        service.blobs[name] = body_of(name, SMALL)

    def kill():
        pid = pool.pids()[0]
        if pid:
            os.kill(pid, signal.SIGKILL)

    service.faults_of_get["f3"] = [then(kill)] * 50
    report = box.download_many(NAMES, tmp_path / "out", pool=pool)
    assert [outcome.name for outcome in report.failed] == ["f3"]
    assert left(tmp_path) == [f"out/{name}" for name in NAMES if name != "f3"]


@pytest.mark.parametrize("size", [SMALL, 1 << 20])
@pytest.mark.parametrize("in_body", [False, True])
def test_ctrl_c_ends_a_download_and_leaves_no_half_file(
    service, box, pool, tmp_path, size, in_body
):
    for name in NAMES:
        service.blobs[name] = body_of(name, size)

    def fault(connection, service):
        if in_body:
            connection.answer(bad.HEAD_206 % (size, size - 1, size), b"z" * (size // 2))
        os.kill(os.getpid(), signal.SIGINT)
        connection.stop.wait(20)

    service.faults_of_get["f3"] = [fault]
    with pytest.raises(KeyboardInterrupt):
        box.download_many(NAMES, tmp_path / "out", pool=pool)
    for path in left(tmp_path):
        assert (tmp_path / path).read_bytes() == body_of(Path(path).name, size)
    # The pool is of use afterwards, and so is the container.
    assert len(box.download_many(NAMES, tmp_path / "out", pool=pool).ok) == len(NAMES)
    assert left(tmp_path) == [f"out/{name}" for name in NAMES]
