"""The runner, on nodes that are scripted: what is reported, repeated, and left behind."""

import os
import threading

import pytest

from azpool.errors import (
    AccessDenied,
    Conflict,
    ConnectionFailed,
    IntegrityError,
    NodeDied,
    NotFound,
    PoolClosed,
    StorageError,
    Throttled,
)
from azpool.report import State
from azpool.storage import _books, transfer
from azpool.storage._batch import Direction, run_job
from azpool.storage._retry import RetryOptions
from azpool.storage._sources import Planned, Selection, select_uploads
from azpool.storage.options import Overwrite, TransferOptions
from azpool.storage.plan import PART_BYTES, SMALL_FILE_BYTES
from azpool.storage.transfer import Call, move

RETRY = RetryOptions(attempts=3, first_delay_seconds=0.001)
OPTIONS = TransferOptions()
NEVER = TransferOptions(overwrite=Overwrite.NEVER)
BIG = SMALL_FILE_BYTES + PART_BYTES // 2


class Stage(transfer.Inline):
    """Runs jobs in this process; `act(job)` may answer with a node's end."""

    slots = 4
    parallel = False

    def __init__(self, act=lambda job: None):
        self.act = act
        self.jobs = []

    def run(self, task, jobs, on_results, *, ahead, ordered):
        for job in jobs:
            self.jobs.append(job)
            answer = self.act(job)
            if isinstance(answer, int):  # dies after it has reported that many
                results = run_job(task, job)
                on_results(results[:answer])
                yield NodeDied("node 1 died (signal 9)", node=1, signal=9)
            else:
                yield answer if answer is not None else run_job(task, job, emit=on_results)


@pytest.fixture
def on(monkeypatch):
    """Let the next calls run on these nodes."""

    def use(nodes):
        monkeypatch.setattr(transfer, "_choose_nodes", lambda *_, **__: nodes)
        return nodes

    return use


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    for n in range(30):
        (tmp_path / "src" / f"f{n:02}").write_bytes(b"%d" % n)
    return tmp_path


def call(direction, recipe, options=OPTIONS):
    return Call(direction=direction, recipe=recipe, options=options, retry=RETRY, cwd=os.getcwd())


def up(recipe, sources="src", options=OPTIONS, **more):
    return move(call(Direction.UPLOAD, recipe, options), select_uploads(sources, ""), **more)


def down(recipe, store, target="out", options=OPTIONS, **more):
    things = [
        Planned(name, f"{target}/{name}", len(body), etag)
        for name, (body, etag) in sorted(store.blobs.items())
    ]
    return move(call(Direction.DOWNLOAD, recipe, options), Selection(things=things), **more)


def left(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_every_file_goes_up_and_has_its_outcome_in_order(files, recipe, store, on):
    on(Stage())
    report = up(recipe)
    assert [o.source for o in report] == [f"src/f{n:02}" for n in range(30)]
    assert [o.index for o in report] == list(range(30))
    assert all(o.ok and o.attempts == 1 for o in report)
    assert report.bytes_moved == sum(len(b) for b, _ in store.blobs.values()) == 50
    assert store.blobs["src/f07"][0] == b"7"


def test_a_failed_file_stops_no_other(files, recipe, make_store, on):
    store = make_store(put=[None, AccessDenied("cannot upload 'x': refused", status=403), None])
    on(Stage())
    report = up(recipe)
    assert len(report.ok) == 29
    assert report.failed[0].status == 403
    assert len(store.calls) == 30


def test_what_may_succeed_is_repeated_and_counted(files, recipe, make_store, on):
    make_store(put=[Throttled("busy", status=503, retry_after_seconds=0.001), ConnectionFailed()])
    on(Stage())
    report = up(recipe, "src/f00")
    assert report[0].ok
    assert report[0].attempts == 3


def test_attempts_end_and_the_last_error_is_kept(files, recipe, make_store, on):
    make_store(put=[Throttled(f"busy {n}", status=503) for n in range(9)])
    on(Stage())
    report = up(recipe, "src/f00")
    assert report[0].attempts == 3
    assert str(report[0].error) == "busy 2"


def test_a_server_that_is_not_there_does_not_cost_its_retries_for_each_file(
    files, recipe, make_store, on
):
    store = make_store(put=[ConnectionFailed("no server") for _ in range(1000)])
    on(Stage())
    report = up(recipe)
    assert len(report.failed) == 30
    assert len(store.calls) < 3 * 30


def test_a_bug_in_one_file_is_that_files_failure(files, recipe, make_store, on):
    make_store(put=[ZeroDivisionError("oops")])
    on(Stage())
    report = up(recipe)
    assert len(report.ok) == 29
    assert isinstance(report.failed[0].error, StorageError)
    assert "ZeroDivisionError: oops" in str(report.failed[0].error)


def test_a_dead_nodes_rest_is_run_once_more_and_what_it_reported_is_not(files, recipe, store, on):
    deaths = iter([2])
    nodes = on(Stage(lambda job: next(deaths, None) if len(job.files) > 2 else None))
    report = up(recipe)
    assert len(report.ok) == 30
    again = [job for job in nodes.jobs[1:] if job.files[0] in nodes.jobs[0].files]
    assert [len(job.files) for job in again] == [1] * (len(nodes.jobs[0].files) - 2)


def test_what_a_dead_node_had_moved_and_not_told_is_no_conflict(files, recipe, store, on):
    deaths = iter([0])
    on(Stage(lambda job: next(deaths, None)))
    report = up(recipe, options=TransferOptions(overwrite=Overwrite.FAIL))
    assert len(report.ok) == 30


def test_a_file_that_kills_its_node_fails_alone(files, recipe, store, on):
    def act(job):
        return 0 if any(f.source == "src/f05" for f in job.files) else None

    on(Stage(act))
    report = up(recipe)
    assert [o.source for o in report.failed] == ["src/f05"]
    assert isinstance(report.failed[0].error, NodeDied)


def test_a_job_that_could_not_run_is_run_again_file_by_file(files, recipe, store, on):
    answers = iter([ValueError("no such recipe")])
    nodes = on(Stage(lambda job: next(answers, None)))
    report = up(recipe)
    assert len(report.ok) == 30
    assert [job.files for job in nodes.jobs if len(job.files) == 1] == [
        (t,) for t in nodes.jobs[0].files
    ]


def test_what_can_not_run_even_by_itself_fails_with_its_own_error(files, recipe, store, on):
    def act(job):
        return ValueError("no") if any(f.source == "src/f05" for f in job.files) else None

    on(Stage(act))
    report = up(recipe)
    assert [(o.source, str(o.error)) for o in report.failed] == [("src/f05", "no")]


def test_a_pool_that_fails_ends_the_call_and_leaves_nothing(files, recipe, store, on):
    store.fill("a", "b")
    on(Stage(lambda job: PoolClosed("closed")))
    with pytest.raises(PoolClosed):
        down(recipe, store)
    assert left(files / "out") == [] if (files / "out").exists() else True


def test_existing_blobs_are_skipped_on_request(files, recipe, store, on):
    on(Stage())
    store.fill("src/f03", body=b"old")
    report = up(recipe, options=NEVER)
    assert [o.source for o in report.skipped] == ["src/f03"]
    assert len(report.ok) == 29
    assert store.blobs["src/f03"][0] == b"old"


def test_existing_files_are_skipped_on_request(files, recipe, store, on):
    on(Stage())
    store.fill("a", "b", "big", body=b"new")
    (files / "out").mkdir()
    (files / "out" / "a").write_bytes(b"old")
    report = down(recipe, store, options=NEVER)
    assert [o.source for o in report.skipped] == ["a"]
    assert (files / "out" / "a").read_bytes() == b"old"
    assert (files / "out" / "b").read_bytes() == b"new"


def test_a_big_file_goes_up_in_parts_and_comes_back(files, recipe, store, on):
    on(Stage())
    body = os.urandom(BIG)
    (files / "big").write_bytes(body)
    report = up(recipe, ["big", "src/f00"])
    assert [o.bytes_moved for o in report] == [BIG, 1]
    assert store.blobs["big"][0] == body
    assert sum(1 for method, _ in store.calls if method == "stage") == 3
    report = down(recipe, store)
    assert all(o.ok for o in report)
    assert (files / "out" / "big").read_bytes() == body
    assert left(files / "out") == ["big", "f00"]


def test_a_big_download_that_fails_leaves_no_part(files, recipe, make_store, on):
    store = make_store(get=[None, NotFound("gone", status=404)])
    store.fill("big", body=b"x" * BIG)
    on(Stage())
    report = down(recipe, store)
    assert report.failed[0].status == 404
    assert report.bytes_moved == 0
    assert left(files / "out") == []


def test_a_blob_that_changes_between_its_parts_is_not_kept(files, recipe, make_store, on):
    store = make_store(get=[None, lambda name: store.fill(name, body=b"y" * BIG)])
    store.fill("big", body=b"x" * BIG)
    on(Stage())
    report = down(recipe, store)
    assert isinstance(report.failed[0].error, Conflict)
    assert left(files / "out") == []


def test_a_blob_that_grew_since_it_was_listed_is_not_kept_cut_off(files, recipe, store, on):
    store.fill("a", body=b"12345")
    things = [Planned("a", "out/a", 3)]
    on(Stage())
    report = move(call(Direction.DOWNLOAD, recipe), Selection(things=things))
    assert isinstance(report[0].error, IntegrityError)
    assert left(files / "out") == [] if (files / "out").exists() else True


def test_a_big_file_that_changes_while_it_is_read_is_not_committed(files, recipe, make_store, on):
    def grow(_):
        with (files / "big").open("ab") as file:
            file.write(b"more")

    store = make_store(stage=[None, None, grow])
    (files / "big").write_bytes(b"x" * BIG)
    on(Stage())
    report = up(recipe, "big")
    assert isinstance(report[0].error, IntegrityError)
    assert "big" not in store.blobs


def test_an_existing_big_blob_is_skipped_before_its_parts_are_sent(files, recipe, store, on):
    (files / "big").write_bytes(b"x" * BIG)
    store.fill("big")
    on(Stage())
    report = up(recipe, "big", options=NEVER)
    assert report[0].state is State.SKIPPED
    assert not any(method == "stage" for method, _ in store.calls)


def test_a_dead_nodes_parts_are_run_again(files, recipe, store, on):
    deaths = iter([1])
    on(Stage(lambda job: next(deaths, None) if len(job.parts) > 1 or job.parts else None))
    body = os.urandom(BIG)
    (files / "big").write_bytes(body)
    report = up(recipe, "big")
    assert report[0].ok
    assert store.blobs["big"][0] == body


def test_ctrl_c_leaves_no_unfinished_file(files, recipe, store, on):
    store.fill("big", body=b"x" * BIG)
    seen = []

    class Interrupted(Stage):
        def run(self, task, jobs, on_results, *, ahead, ordered):
            on_results(run_job(task, next(iter(jobs))))
            seen.extend(left(files / "out"))
            raise KeyboardInterrupt
            yield

    on(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        down(recipe, store)
    assert len(seen) == 1
    assert left(files / "out") == []


def test_an_interrupted_job_ends_its_threads(files, recipe, make_store, on, monkeypatch):
    over, during = threading.Event(), []
    make_store(put=[None] + [lambda _: over.wait(20)] * 29)
    on(transfer.Inline())
    before = threading.active_count()

    def interrupt(progress):
        if progress.files_done:
            during.append(threading.active_count())
            over.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(_books, "PROGRESS_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        up(recipe, progress=interrupt)
    assert during[0] > before
    assert threading.active_count() == before


def test_empty_folders_are_made_by_the_master(files, recipe, store, on):
    on(Stage())
    things = [Planned("x/", "out/x", folder=True), Planned("y/", "src/f00", folder=True)]
    report = move(call(Direction.DOWNLOAD, recipe), Selection(things=things))
    assert report[0].ok
    assert (files / "out" / "x").is_dir()
    assert report[1].state is State.FAILED


def test_progress_tells_every_outcome_once_and_the_end(files, recipe, make_store, on):
    make_store(put=[NotFound("gone")])
    on(Stage())
    told = []
    report = up(recipe, progress=told.append)
    last = told[-1]
    assert last.finished
    assert (last.files_done, last.files_failed, last.files_total) == (30, 1, 30)
    assert last.bytes_done == report.bytes_moved
    assert last.in_flight == 0
    ended = [outcome for progress in told for outcome in progress.ended]
    assert sorted(o.index for o in ended) == list(range(30))


def test_retry_runs_what_failed(files, recipe, make_store, on):
    make_store(put=[AccessDenied("refused")] * 2)
    on(Stage())
    report = up(recipe)
    failed = [o.source for o in report.failed]
    assert len(failed) == 2
    again = report.retry()
    assert [o.source for o in again] == failed
    assert all(o.ok for o in again)


def test_retry_of_a_missing_source_finds_it_when_it_is_there(files, recipe, store, on):
    on(Stage())
    report = up(recipe, ["late", "src/f00"])
    assert report.retry()[0].state is State.FAILED
    (files / "late").write_bytes(b"now")
    assert report.retry()[0].ok
    assert store.blobs["late"][0] == b"now"


def test_many_blobs_are_deleted_with_an_outcome_each(recipe, store, on):
    on(Stage())
    store.fill("a", "b")
    things = [Planned(name, "") for name in ("a", "b", "no")]
    report = move(call(Direction.DELETE, recipe), Selection(things=things))
    assert [o.state for o in report] == [State.OK, State.OK, State.FAILED]
    assert store.blobs == {}


@pytest.mark.parametrize(
    ("direction", "verify", "small", "big", "cores", "nodes"),
    [
        (Direction.UPLOAD, "md5", 0, 1, 2, 2),
        (Direction.UPLOAD, "md5", 100, 1, 1, 2),
        (Direction.UPLOAD, "md5", 101, 1, 2, 4),
        (Direction.UPLOAD, "md5", 5, 0, 2, 4),
        (Direction.UPLOAD, "md5", 0, 3, 32, 10),
        (Direction.UPLOAD, None, 0, 3, 2, 4),
        (Direction.UPLOAD, None, 0, 3, 8, 10),
        (Direction.UPLOAD, None, 301, 3, 2, 4),
        (Direction.DOWNLOAD, None, 301, 0, 1, 2),
        (Direction.DOWNLOAD, None, 301, 0, 64, 10),
        (Direction.DOWNLOAD, "md5", 0, 3, 2, 2),
        (Direction.DOWNLOAD, None, 0, 3, 2, 4),
    ],
)
def test_no_more_nodes_than_keep_the_cores_busy(
    recipe, monkeypatch, direction, verify, small, big, cores, nodes
):
    class Counts:
        def open_counts(self):
            return small, big

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    one = call(direction, recipe, options=TransferOptions(verify=verify))
    assert transfer._useful_nodes(one, Counts(), 10) == nodes
    assert transfer._useful_nodes(one, Counts(), 1) == 1
