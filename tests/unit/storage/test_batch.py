"""One job on a node: what is verified, noticed, repeated, slowed down, and left behind."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time

import pytest

from azpool.errors import (
    AccessDenied,
    Conflict,
    ConnectionFailed,
    IntegrityError,
    LocalFileError,
    ServerError,
    Throttled,
)
from azpool.storage import _files
from azpool.storage._batch import Action, Direction, Task, run_job
from azpool.storage._pace import Pace, pace_of
from azpool.storage._retry import RetryOptions
from azpool.storage.options import Overwrite, TransferOptions
from azpool.storage.plan import MOST_THREADS, WHOLE_BYTES, Job, Transfer, block_id, parts
from azpool.storage.plan import Part as PlannedPart

RETRY = RetryOptions(attempts=3, first_delay_seconds=0.001)
RUN = "0123456789abcdef"
SECOND = 1_000_000_000
TWO_PARTS = 20 * 1024 * 1024


@pytest.fixture
def work(recipe, tmp_path):
    """Run one job in this process."""

    def run(direction, job=None, *, files=(), run_id=RUN, emit=None, **options):
        task = Task(
            recipe=recipe,
            direction=direction,
            cwd=str(tmp_path),
            run=run_id,
            options=TransferOptions(**options),
            retry=RETRY,
        )
        job = job or Job(files=tuple(files), threads=4)
        return sorted(run_job(task, job, emit=emit))

    return run


def source(folder, name, body):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    status = path.stat()
    return Transfer(0, name, f"up/{name}", status.st_size, mtime_ns=status.st_mtime_ns)


def planned(store, name, target=None, **more):
    body, etag = store.blobs[name]
    return Transfer(0, name, target or f"out/{name}", len(body), etag, **more)


def left(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


BODIES = [b"", b"small", os.urandom(WHOLE_BYTES), os.urandom(WHOLE_BYTES * 2 + 1)]


@pytest.mark.parametrize("body", BODIES, ids=len)
@pytest.mark.parametrize("verify", [None, "md5"])
def test_a_file_goes_up_with_type_time_and_md5(work, store, tmp_path, body, verify):
    item = source(tmp_path, "a/b.json", body)
    (result,) = work(Direction.UPLOAD, files=[item], verify=verify)
    assert (result.action, result.bytes_moved, result.attempts) == (Action.DONE, len(body), 1)
    assert result.md5 == (hashlib.md5(body).digest() if verify else None)
    assert store.blobs["up/a/b.json"][0] == body
    kept = store.kept["up/a/b.json"]
    assert kept.content_type == "application/json"
    assert kept.metadata.keys() == {"mtime"}
    seconds, _, fraction = kept.metadata["mtime"].removesuffix("Z").partition(".")
    told = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(item.mtime_ns // SECOND))
    assert (seconds, int(fraction)) == (told, item.mtime_ns % SECOND)


def test_what_the_user_says_is_stored_with_each_file(work, store, tmp_path):
    said = {"content_type": "a/b", "cache_control": "no-cache", "tags": {"k": "v"}, "tier": "Cool"}
    work(
        Direction.UPLOAD,
        files=[source(tmp_path, "x.json", b"1")],
        metadata={"Mtime": "mine", "k": "v"},
        **said,
    )
    kept = store.kept["up/x.json"]
    assert kept.content_type == "a/b"
    assert kept.metadata == {"Mtime": "mine", "k": "v"}
    assert (kept.properties.cache_control, kept.properties.tier) == ("no-cache", "Cool")
    assert kept.properties.tags == {"k": "v"}


@pytest.mark.parametrize("verify", [None, "md5"])
def test_parts_and_digest_of_a_big_file_go_up(work, store, tmp_path, verify):
    body = os.urandom(TWO_PARTS)
    item = source(tmp_path, "big", body)
    cut = parts(item)
    job = Job(parts=tuple(cut), digests=(item,), threads=2)
    results = work(Direction.UPLOAD, job, verify=verify)
    assert [r.part for r in results] == [-2, 0, 1, 2]
    assert all(r.action is Action.DONE for r in results)
    assert results[0].md5 == hashlib.md5(body).digest()
    assert results[0].bytes_moved == 0
    assert sum(r.bytes_moved for r in results) == len(body)
    held = store.staged("up/big")
    assert held == {block_id(RUN, part.number): part.length for part in cut}
    assert b"".join(store.blocks["up/big"][block_id(RUN, p.number)] for p in cut) == body


@pytest.mark.parametrize("body", BODIES, ids=len)
@pytest.mark.parametrize("verify", [None, "md5"])
def test_a_blob_comes_down(work, store, tmp_path, body, verify):
    store.put("x", body)
    (result,) = work(Direction.DOWNLOAD, files=[planned(store, "x")], verify=verify)
    assert (result.action, result.bytes_moved) == (Action.DONE, len(body))
    assert result.md5 == (hashlib.md5(body).digest() if verify else None)
    assert (tmp_path / "out/x").read_bytes() == body
    assert left(tmp_path) == ["out/x"]


def test_ranges_of_a_big_blob_come_down_and_their_file_is_digested(work, store, tmp_path):
    body = os.urandom(TWO_PARTS)
    store.put("x", body)
    item = planned(store, "x")
    results = work(Direction.DOWNLOAD, Job(parts=tuple(reversed(parts(item))), threads=3))
    assert [r.action for r in results] == [Action.DONE] * 3
    (digest,) = work(Direction.DOWNLOAD, Job(digests=(item,)), verify="md5")
    assert digest.md5 == hashlib.md5(body).digest()
    target = str(tmp_path / "out/x")
    _files.finish_part(target, "out/x", len(body), RUN, 5 * SECOND)
    assert (tmp_path / "out/x").read_bytes() == body
    assert os.stat(target).st_mtime_ns == 5 * SECOND
    assert left(tmp_path) == ["out/x"]


@pytest.mark.parametrize("body", BODIES[1:], ids=len)
@pytest.mark.parametrize("told_by", ["blob", "listing"])
def test_a_download_with_another_md5_is_never_seen(work, store, tmp_path, body, told_by):
    wrong = hashlib.md5(b"other").digest()
    store.put("x", body)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_bytes(b"old")
    item = planned(store, "x")
    if told_by == "blob":
        store.kept["x"] = store.kept["x"]._replace(md5=wrong)
    else:
        store.kept["x"] = store.kept["x"]._replace(md5=None)
        item = item._replace(md5=wrong)
    (result,) = work(Direction.DOWNLOAD, files=[item], verify="md5")
    assert result.action is Action.FAILED
    assert result.attempts == RETRY.attempts
    assert isinstance(result.error, IntegrityError)
    assert "not the MD5 that is stored with the blob" in str(result.error)
    assert (tmp_path / "out/x").read_bytes() == b"old"
    assert left(tmp_path) == ["out/x"]


@pytest.mark.parametrize("body", BODIES[1:], ids=len)
def test_a_blob_without_an_md5_is_checked_by_length_and_the_result_says_so(
    work, store, tmp_path, body
):
    store.put("x", body)
    store.kept["x"] = store.kept["x"]._replace(md5=None)
    (result,) = work(Direction.DOWNLOAD, files=[planned(store, "x")], verify="md5")
    assert result.action is Action.DONE
    assert result.md5 is None


@pytest.mark.parametrize("body", BODIES[1:], ids=len)
@pytest.mark.parametrize("now", [b"", b"shorter", os.urandom(WHOLE_BYTES * 3)], ids=len)
def test_a_blob_that_changed_its_size_is_not_kept(work, store, tmp_path, body, now):
    store.put("x", body)
    item = planned(store, "x")
    store.put("x", now)
    (result,) = work(Direction.DOWNLOAD, files=[item])
    assert result.action is Action.FAILED
    assert "it has changed since it was listed" in str(result.error)
    assert left(tmp_path) == []


def test_a_part_of_a_blob_that_changed_is_a_conflict_and_not_tried_again(work, store):
    store.put("x", bytes(TWO_PARTS))
    item = planned(store, "x")
    store.put("x", bytes(TWO_PARTS))
    results = work(Direction.DOWNLOAD, Job(parts=tuple(parts(item)), threads=2))
    assert {type(r.error) for r in results} == {Conflict}
    assert {r.attempts for r in results} == {1}


def test_bytes_changed_on_the_way_up_are_sent_again(work, make_store, tmp_path):
    store = make_store(put=[IntegrityError("cannot upload 'f': changed on the way", status=400)])
    item = source(tmp_path, "f", b"1")
    (result,) = work(Direction.UPLOAD, files=[item], verify="md5")
    assert (result.action, result.attempts) == (Action.DONE, 2)
    assert store.blobs["up/f"][0] == b"1"


def grow(path):
    with open(path, "ab") as file:
        file.write(b"+")


def shrink(path):
    os.truncate(path, os.stat(path).st_size - 1)


def write_to(path):
    with open(path, "r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(1, 1))


CHANGES = [(grow, "it grew"), (shrink, "it shrank"), (write_to, "it was written to")]


@pytest.mark.parametrize(("change", "words"), CHANGES)
@pytest.mark.parametrize("body", BODIES[1:], ids=len)
def test_a_source_that_changed_since_it_was_listed_is_not_sent(
    work, store, tmp_path, body, change, words
):
    item = source(tmp_path, "f", body)
    other = source(tmp_path, "g", b"still")._replace(place=1)
    change(tmp_path / "f")
    first, second = work(Direction.UPLOAD, files=[item, other])
    assert first.action is Action.FAILED
    assert f"{words}" in str(first.error) and "since it was listed" in str(first.error)
    assert first.attempts == 1
    assert second.action is Action.DONE
    assert set(store.blobs) == {"up/g"}


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_long_source_that_changes_while_it_is_sent_fails(
    work, make_store, tmp_path, change, words
):
    make_store(put=[lambda _: change(tmp_path / "f")])
    item = source(tmp_path, "f", BODIES[3])
    (result,) = work(Direction.UPLOAD, files=[item])
    assert result.action is Action.FAILED
    assert words in str(result.error) and "while it was read" in str(result.error)


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_part_of_a_source_that_changes_while_it_is_sent_fails(
    work, make_store, tmp_path, change, words
):
    make_store(stage=[lambda _: change(tmp_path / "f")])
    item = source(tmp_path, "f", bytes(TWO_PARTS))
    results = work(Direction.UPLOAD, Job(parts=tuple(parts(item)), threads=1))
    assert [r.action for r in results] == [Action.FAILED] * 3
    assert words in str(results[0].error)


@pytest.mark.parametrize("body", [b"1", bytes(TWO_PARTS)], ids=len)
def test_a_source_that_was_deleted_says_so(work, store, tmp_path, body):
    item = source(tmp_path, "f", body)
    (tmp_path / "f").unlink()
    job = Job(files=(item,)) if len(body) == 1 else Job(parts=tuple(parts(item)), digests=(item,))
    for result in work(Direction.UPLOAD, job):
        assert isinstance(result.error, LocalFileError)
        assert result.error.code == "ENOENT"
        assert "deleted since it was listed" in str(result.error)
        assert result.attempts == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_source_that_may_not_be_read_says_so(work, store, tmp_path):
    item = source(tmp_path, "f", b"1")
    (tmp_path / "f").chmod(0)
    (result,) = work(Direction.UPLOAD, files=[item])
    assert result.error.code == "EACCES"


@pytest.mark.parametrize("body", [b"1", bytes(TWO_PARTS)], ids=len)
def test_a_source_that_can_not_be_read_to_its_end_says_so(work, store, tmp_path, body, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "broken")

    item = source(tmp_path, "f", body)
    monkeypatch.setattr(os, "pread", broken)
    monkeypatch.setattr(os, "preadv", broken)
    job = Job(files=(item,)) if len(body) == 1 else Job(digests=(item,))
    (result,) = work(Direction.UPLOAD, job)
    assert (result.action, result.error.code) == (Action.FAILED, "EIO")
    assert "the disk failed; check the disk" in str(result.error)


# What becomes of a target that is there: local file's (size, time), blob's time and MD5.
OLD, NEW = 1_000 * SECOND, 2_000 * SECOND
SAME = hashlib.md5(b"blob").digest()
CASES = [
    (Overwrite.ALWAYS, b"blob", NEW, NEW, SAME, Action.DONE),
    (Overwrite.NEVER, b"old", OLD, NEW, SAME, Action.SKIPPED),
    (Overwrite.FAIL, b"old", OLD, NEW, SAME, Action.FAILED),
    (Overwrite.IF_NEWER, b"old", OLD, NEW, None, Action.DONE),
    (Overwrite.IF_NEWER, b"old", NEW, NEW, None, Action.SKIPPED),
    (Overwrite.IF_NEWER, b"old", NEW, OLD, None, Action.SKIPPED),
    (Overwrite.IF_NEWER, b"old", OLD, None, None, Action.DONE),
    (Overwrite.IF_DIFFERENT, b"old", NEW, NEW, SAME, Action.DONE),
    (Overwrite.IF_DIFFERENT, b"bleb", NEW, NEW, SAME, Action.SKIPPED),
    (Overwrite.IF_DIFFERENT, b"blob", OLD, NEW, SAME, Action.SKIPPED),
    (Overwrite.IF_DIFFERENT, b"bleb", OLD, NEW, SAME, Action.DONE),
    (Overwrite.IF_DIFFERENT, b"blob", OLD, NEW, None, Action.DONE),
    (Overwrite.IF_DIFFERENT, b"blob", OLD, None, None, Action.DONE),
]


@pytest.mark.parametrize(("mode", "local", "local_ns", "blob_ns", "md5", "expected"), CASES)
def test_what_becomes_of_a_file_that_is_there(
    work, store, tmp_path, mode, local, local_ns, blob_ns, md5, expected
):
    store.put("x", b"blob")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_bytes(local)
    os.utime(tmp_path / "out/x", ns=(local_ns, local_ns))
    item = planned(store, "x", mtime_ns=blob_ns, md5=md5)
    (result,) = work(Direction.DOWNLOAD, files=[item], overwrite=mode)
    assert result.action is expected
    assert (tmp_path / "out/x").read_bytes() == (b"blob" if expected is Action.DONE else local)
    if expected is Action.FAILED:
        assert (result.error.code, result.attempts) == ("EEXIST", 1)


@pytest.mark.parametrize("mode", Overwrite)
def test_a_file_that_is_not_there_is_downloaded_in_every_mode(work, store, tmp_path, mode):
    store.put("x", b"blob")
    (result,) = work(Direction.DOWNLOAD, files=[planned(store, "x")], overwrite=mode)
    assert result.action is Action.DONE


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (Overwrite.ALWAYS, Action.DONE),
        (Overwrite.NEVER, Action.SKIPPED),
        (Overwrite.FAIL, Action.FAILED),
        (Overwrite.IF_NEWER, Action.DONE),  # the plan has decided
        (Overwrite.IF_DIFFERENT, Action.DONE),
    ],
)
def test_what_becomes_of_a_blob_that_is_there(work, store, tmp_path, mode, expected):
    store.put("up/f", b"old")
    item = source(tmp_path, "f", b"new")
    (result,) = work(Direction.UPLOAD, files=[item], overwrite=mode)
    assert result.action is expected
    assert store.blobs["up/f"][0] == (b"new" if expected is Action.DONE else b"old")


@pytest.mark.parametrize("body", BODIES[1:], ids=len)
def test_times_are_restored_on_request_alone(work, store, tmp_path, body):
    store.put("x", body, metadata={"mtime": "2001-09-09T01:46:40.123456789Z"})
    told = 1_000_000_000 * SECOND + 123_456_789
    work(Direction.DOWNLOAD, files=[planned(store, "x")], preserve_times=True)
    assert os.stat(tmp_path / "out/x").st_mtime_ns == told
    work(Direction.DOWNLOAD, files=[planned(store, "x", mtime_ns=5)], preserve_times=True)
    assert os.stat(tmp_path / "out/x").st_mtime_ns == 5
    work(Direction.DOWNLOAD, files=[planned(store, "x", mtime_ns=5)])
    assert os.stat(tmp_path / "out/x").st_mtime_ns > told


def test_a_time_goes_up_and_comes_back_to_the_nanosecond(work, store, tmp_path):
    (tmp_path / "f").write_bytes(b"1")
    os.utime(tmp_path / "f", ns=(0, 1_234_567_890_987_654_321))
    item = Transfer(0, "f", "x", 1, mtime_ns=1_234_567_890_987_654_321)
    work(Direction.UPLOAD, files=[item])
    work(Direction.DOWNLOAD, files=[planned(store, "x")], preserve_times=True)
    assert os.stat(tmp_path / "out/x").st_mtime_ns == item.mtime_ns


def many(store, count):
    store.fill(*(f"f{n:02}" for n in range(count)))
    return tuple(planned(store, f"f{n:02}")._replace(place=n) for n in range(count))


class Gauge:
    """How many calls are under way at once."""

    def __init__(self):
        self.now = 0
        self.most = []
        self.lock = threading.Lock()

    def __enter__(self):
        with self.lock:
            self.now += 1
            self.most.append(self.now)

    def __exit__(self, *_):
        with self.lock:
            self.now -= 1


def test_a_job_runs_on_its_own_number_of_threads(work, make_store, tmp_path):
    gate = threading.Barrier(7, timeout=20)
    store = make_store(get=[lambda _: gate.wait()] * 14)
    results = work(Direction.DOWNLOAD, Job(files=many(store, 14), threads=7))
    assert [r.action for r in results] == [Action.DONE] * 14  # else the barrier had broken


def test_throttling_halves_the_threads_once_for_all_that_were_under_way(work, make_store):
    gauge, gate = Gauge(), threading.Barrier(8, timeout=20)

    def refuse(_):
        with gauge:
            gate.wait()
        raise Throttled("busy", status=503)

    def slow(_):
        with gauge:
            time.sleep(0.002)

    store = make_store(get=[refuse] * 8 + [slow] * 40)
    results = work(Direction.DOWNLOAD, Job(files=many(store, 40), threads=8))
    assert [r.action for r in results] == [Action.DONE] * 40
    assert max(gauge.most[:8]) == 8
    assert max(gauge.most[8:]) == 4
    assert sorted(r.throttled for r in results) == [0] * 32 + [1] * 8
    assert sorted(r.attempts for r in results) == [1] * 32 + [2] * 8


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (Throttled("busy", status=503), 1),
        (Throttled("busy", status=429), 1),
        (ConnectionFailed("no answer in time", code="ETIMEDOUT"), 1),
        (ServerError("it took too long", status=500, code="OperationTimedOut"), 1),
        (ServerError("oops", status=500, code="InternalError"), 0),
        (ConnectionFailed("cut", code="ECONNRESET"), 0),
    ],
)
def test_what_counts_as_throttling(work, make_store, error, counted):
    store = make_store(get=[error])
    (result,) = work(Direction.DOWNLOAD, Job(files=many(store, 1)))
    assert (result.action, result.attempts, result.throttled) == (Action.DONE, 2, counted)


def test_retry_after_closes_the_gate_for_the_whole_node(work, make_store):
    begun = []
    store = make_store(
        get=[
            Throttled("busy", status=503, retry_after_seconds=0.3),
            *[lambda _: begun.append(time.monotonic())] * 10,
        ]
    )
    start = time.monotonic()
    results = work(Direction.DOWNLOAD, Job(files=many(store, 10), threads=1))
    assert all(r.action is Action.DONE for r in results)
    assert len(begun) == 10
    assert min(begun) - start >= 0.3
    assert not pace_of(RUN).closed_until  # and open again


def test_a_unit_that_waits_holds_no_thread(work, make_store):
    store = make_store(get=[ServerError("oops", status=500, retry_after_seconds=2)])
    results = work(Direction.DOWNLOAD, Job(files=many(store, 3), threads=1))
    assert [r.attempts for r in results] == [2, 1, 1]
    assert [name for method, name in store.calls if method == "get"] == ["f00", "f01", "f02", "f00"]


def test_a_failure_keeps_the_servers_words(work, make_store):
    said = AccessDenied(
        "cannot download 'f00': refused", status=403, code="AuthenticationFailed", request_id="r-1"
    )
    store = make_store(get=[said])
    first, second = work(Direction.DOWNLOAD, Job(files=many(store, 2)))
    assert (first.error.status, first.error.code) == (403, "AuthenticationFailed")
    assert first.error.request_id == "r-1"
    assert (first.attempts, first.bytes_moved) == (1, 0)
    assert second.action is Action.DONE


def test_rates_are_kept_over_the_jobs_of_a_call(work, store):
    items = many(store, 30)
    start = time.monotonic()
    for at in range(0, 30, 10):
        job = Job(files=items[at : at + 10], threads=4, requests_per_second=100)
        assert all(r.action is Action.DONE for r in work(Direction.DOWNLOAD, job))
    # 30 requests at 100/s, some of which may come at once.
    assert time.monotonic() - start >= 0.18


def test_a_pace_spreads_requests_and_bytes():
    pace = Pace("run")
    assert pace.is_free
    pace.limit(10, None)
    assert not pace.is_free
    waits = [pace.wait_seconds(0, 100.0) for _ in range(4)]
    assert waits == pytest.approx([0, 0, 0.1, 0.2])
    pace.limit(None, 1000)
    waits = [pace.wait_seconds(500, 101.0) for _ in range(2)]
    pace.limit(None, 500)  # another share, the same debt
    waits += [pace.wait_seconds(500, 101.0)]
    assert waits == pytest.approx([0, 0.4, 1.8])
    pace.limit(None, None)
    assert pace.is_free
    pace.close(100.0, 5)
    assert not pace.is_free
    assert pace.wait_seconds(0, 103.0) == 2
    assert pace.wait_seconds(0, 106.0) == 0
    assert pace.is_free


def test_more_threads_than_most_are_no_use(work, make_store):
    store = make_store()
    before = threading.active_count()
    seen = []
    store.script["get"] = iter([lambda _: seen.append(threading.active_count())] * 500)
    work(Direction.DOWNLOAD, Job(files=many(store, 90), threads=500))
    assert max(seen) <= before + MOST_THREADS


def test_an_interrupt_while_parts_are_moved_leaves_the_part_file_alone(work, make_store, tmp_path):
    store = make_store(get=[None, KeyboardInterrupt()])
    store.put("x", bytes(TWO_PARTS))
    item = planned(store, "x")
    with pytest.raises(KeyboardInterrupt):
        work(Direction.DOWNLOAD, Job(parts=tuple(parts(item)), threads=1))
    assert left(tmp_path) == [f"out/.x.{RUN[:8]}.part"]  # it can be resumed


@pytest.mark.parametrize("body", BODIES[1:], ids=len)
def test_an_interrupt_while_a_file_is_written_leaves_nothing(
    work, store, tmp_path, body, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    store.put("x", body)
    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(Direction.DOWNLOAD, Job(files=(planned(store, "x"),)))
    assert left(tmp_path) == []


def test_what_a_killed_node_left_is_written_over(work, store, tmp_path):
    store.put("x", b"whole")
    (tmp_path / "out").mkdir()
    (tmp_path / f"out/.x.{RUN[:8]}.part").write_bytes(b"half of something longer")
    (result,) = work(Direction.DOWNLOAD, files=[planned(store, "x")])
    assert result.action is Action.DONE
    assert (tmp_path / "out/x").read_bytes() == b"whole"
    assert left(tmp_path) == ["out/x"]


def test_a_link_in_place_of_the_part_file_is_not_followed(work, store, tmp_path):
    store.put("x", b"whole")
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f"out/.x.{RUN[:8]}.part").symlink_to(tmp_path / "precious")
    (result,) = work(Direction.DOWNLOAD, files=[planned(store, "x")])
    assert (result.action, result.error.code) == (Action.FAILED, "ELOOP")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_every_thread_that_ends_leaves_its_work_to_another(work, make_store):
    # Threads end as others are refused; whatever the order, no unit is lost.
    for seed in range(20):
        errors = [None, Throttled("busy", status=503), ServerError("oops", status=500)]
        store = make_store(get=[errors[(seed * 7 + n * n) % 3] for n in range(30)])
        results = work(Direction.DOWNLOAD, Job(files=many(store, 20), threads=6))
        assert [r.place for r in results] == list(range(20))


def test_a_part_says_which_file_failed(work, make_store):
    store = make_store(get=[AccessDenied("cannot download 'x': refused", status=403)])
    store.put("x", bytes(TWO_PARTS))
    item = planned(store, "x")
    part = parts(item)[2]
    (result,) = work(Direction.DOWNLOAD, Job(parts=(PlannedPart(*part),)))
    assert (result.place, result.part, result.action) == (0, 2, Action.FAILED)
