"""Downloads in parts whose digest reads behind them, and what may become of it."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

import azpool
from azpool import Pool
from azpool.errors import IntegrityError
from azpool.storage import _fronts
from azpool.storage._fronts import GIVEN_UP, Front
from azpool.storage._stores import close_stores, open_store
from azpool.storage.plan import VERIFIED_SMALL_FILE_BYTES

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]

SIZE = VERIFIED_SMALL_FILE_BYTES + 20 * 1024 * 1024 + 7


@pytest.fixture(scope="module", autouse=True)
def _stores():
    yield
    close_stores()


@pytest.fixture(scope="module")
def content():
    return random.Random(3).randbytes(SIZE)


@pytest.fixture
def pool():
    with Pool(3) as made:
        yield made


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def big(container, content, here, pool):
    """A blob with an MD5."""
    (here / "big").write_bytes(content)
    assert container.upload_many(["big"], verify="md5", pool=pool).ok
    (here / "big").unlink()
    return container


@pytest.fixture
def patient(monkeypatch):
    """Digests that wait for parts however slow the machine is."""
    monkeypatch.setattr(_fronts, "GIVE_UP_SECONDS", 50)


@pytest.fixture
def asked(monkeypatch):
    """What the digests' nodes asked, and what they were told."""
    told = []

    def beyond(front, number):
        answer = original(front, number)
        told.append((number, answer))
        return answer

    original = Front.beyond
    monkeypatch.setattr(Front, "beyond", beyond)
    return told


def is_whole(folder, content):
    assert [path.name for path in folder.iterdir()] == ["big"]
    return (folder / "big").read_bytes() == content


def test_the_digest_of_a_download_reads_behind_its_parts(big, here, content, pool, asked, patient):
    report = big.download_many(["big"], ".", verify="md5", pool=pool)
    assert report.ok
    assert is_whole(here, content)
    assert asked[0][0] == 0
    assert asked[-1][1] == 11  # all parts of 8 MiB
    assert not _fronts._fronts


def test_a_blob_whose_digest_is_another_s_is_not_kept(container, here, content, pool, asked):
    store = open_store(container._recipe)
    step = SIZE // 2 + 1
    for number in (0, 1):
        store.stage("big", f"{number}", content[number * step : (number + 1) * step])
    store.commit("big", ["0", "1"], md5=bytes(16))
    (outcome,) = container.download_many(["big"], ".", verify="md5", pool=pool)
    assert isinstance(outcome.error, IntegrityError)
    assert asked
    assert list(here.iterdir()) == []


def test_nodes_that_die_meanwhile_cost_nothing(big, here, content, pool, monkeypatch):
    killed = []

    def beyond(front, number):
        if len(killed) < 2:
            killed.append(number)
            pid = pool.pids()[len(killed)]  # 0, or gone already, while that node is being replaced
            with contextlib.suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGKILL)
        return original(front, number)

    original = Front.beyond
    monkeypatch.setattr(Front, "beyond", beyond)
    report = big.download_many(["big"], ".", verify="md5", pool=pool)
    assert report.ok, report.failed
    assert killed
    assert is_whole(here, content)
    assert not _fronts._fronts


def test_others_work_on_all_nodes_but_one_stops_no_download(big, here, content, pool, asked):
    over = threading.Event()
    pool.serve("over", lambda _: over.wait(50))
    busy = [pool[n].submit(azpool.pool.ask, "over", None) for n in (0, 1)]
    try:
        report = big.download_many(["big"], ".", verify="md5", pool=pool)
    finally:
        over.set()
    assert report.ok
    assert asked[-1][1] == GIVEN_UP
    assert is_whole(here, content)
    assert [call.result(10) for call in busy] == [True, True]


def test_with_one_node_the_file_is_read_when_it_is_whole(big, here, content, asked):
    with Pool(1) as alone:
        assert big.download_many(["big"], ".", verify="md5", pool=alone).ok
    assert not asked
    assert is_whole(here, content)


def test_a_front_passes_parts_that_came_early_and_ends(patient):
    front = Front("run", 7, [0, 2])
    assert front.beyond(0) == 1
    front.done(1)
    assert front.beyond(1) == 3
    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(front.beyond(3)))
    thread.start()
    front.done(3)
    thread.join()
    assert waiting == [4]
    thread = threading.Thread(target=lambda: waiting.append(front.beyond(4)))
    thread.start()
    front.end()
    front.end()
    thread.join()
    assert waiting == [4, GIVEN_UP]
    assert _fronts._answer(("run", 7, 0)) == GIVEN_UP


def test_a_front_is_waited_for_no_longer_than_others_may_be_kept_waiting(monkeypatch):
    monkeypatch.setattr(_fronts, "GIVE_UP_SECONDS", 0.05)
    front = Front("run", 8, [])
    began = time.monotonic()
    assert front.beyond(0) == GIVEN_UP
    assert time.monotonic() - began >= 0.05
    front.end()
