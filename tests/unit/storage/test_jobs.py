"""Calls with a journal: what is left of them, and that they go on where they were."""

import os
import threading

import pytest

from azpool.errors import ConnectionFailed, IntegrityError, LocalFileError, NotFound, UsageError
from azpool.pool.engines.inline import InlinePool
from azpool.report import State
from azpool.storage import _batch, _books, _planning, _pump, _settler, jobs, plan
from azpool.storage._ledger import Ledger
from azpool.storage._retry import RetryOptions
from azpool.storage._stored import MTIME, mtime_of
from azpool.storage.container import Container
from azpool.storage.jobs import JobState
from azpool.storage.journal import Journal, run_of
from azpool.storage.plan import PART_BYTES, SMALL_FILE_BYTES, block_id

BIG = SMALL_FILE_BYTES + PART_BYTES // 2


@pytest.fixture(autouse=True)
def _parts_with_md5_too(monkeypatch):
    """Files of the same size move in parts, whether their MD5 is wanted or not."""
    monkeypatch.setattr(plan, "VERIFIED_SMALL_FILE_BYTES", SMALL_FILE_BYTES)


POOL = InlinePool()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(_books, "PROGRESS_SECONDS", 0)
    # Results come with whole jobs: what an interrupted one had not told would be moved again.
    monkeypatch.setattr(_batch, "EMIT_SECONDS", 3600)
    for n in range(30):
        (tmp_path / "here" / f"f{n:02}").write_bytes(b"%d" % n)
    return tmp_path / "here"


@pytest.fixture
def container(recipe, make_store):
    return Container._of(recipe, RetryOptions(attempts=1))


def journals(here):
    folder = here.parent / "state"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def stop_when(condition):
    def told(progress):
        if condition(progress):
            raise KeyboardInterrupt

    return told


def interrupted(container, sources, dest="", *, when, down=False, **more):
    move = container.download_many if down else container.upload_many
    with pytest.raises(KeyboardInterrupt):
        move(sources, dest, journal=True, pool=POOL, progress=stop_when(when), **more)
    (job,) = jobs.jobs()
    assert job.state is JobState.INTERRUPTED
    return job


def resumed(job, container, **more):
    return jobs.resume(job.id, container=container, pool=POOL, **more)


def test_a_call_that_ends_well_leaves_nothing(here, container, make_store):
    store = make_store()
    report = container.upload_many("f*", journal=True, pool=POOL)
    assert report.counts == {State.OK: 30}
    assert len(store.blobs) == 30
    assert journals(here) == []


def test_a_call_that_was_refused_leaves_nothing(here, container, make_store):
    make_store()
    with pytest.raises(UsageError, match="both would become"):
        container.upload_many(["f00", "f00"], journal=True, pool=POOL)
    assert journals(here) == []


def test_an_interrupted_upload_goes_on_and_repeats_nothing(here, container, make_store):
    store = make_store()
    job = interrupted(container, "f*", when=lambda p: p.files_done >= 7)
    assert (job.files_total, job.planned, job.direction) == (30, True, "upload")
    assert job.sources == ("f*",)
    before = len(store.blobs)
    assert job.files_done == before
    store.calls.clear()
    report = resumed(job, container)
    assert [o.source for o in report] == [f"f{n:02}" for n in range(30)]
    assert report.counts == {State.OK: 30}
    assert len([c for c in store.calls if c[0] == "put"]) == 30 - before
    assert {name: body for name, (body, _) in store.blobs.items()} == {
        f"f{n:02}": b"%d" % n for n in range(30)
    }
    assert journals(here) == []


def test_an_interrupted_plan_is_made_anew_where_it_began(here, container, make_store, monkeypatch):
    make_store()
    monkeypatch.setattr(_planning, "TELL_SECONDS", -1)
    job = interrupted(container, "f*", "p/", when=lambda p: p.planning and p.files_total)
    assert not job.planned
    assert job.files_total == 30
    monkeypatch.chdir("/")
    (here / "f30").write_bytes(b"30")
    report = resumed(job, container)
    assert [o.target for o in report] == [f"p/f{n:02}" for n in range(31)]
    assert report.counts == {State.OK: 31}
    assert os.getcwd() == "/"


def test_what_was_moved_and_not_written_down_is_no_conflict(here, container, make_store):
    store = make_store()
    job = interrupted(container, "f*", when=lambda p: p.files_done >= 7, overwrite="fail")
    store.fill(*[f"f{n:02}" for n in range(30)], body=b"as if it had been moved")
    assert resumed(job, container).counts == {State.OK: 30}


def test_relative_paths_are_those_of_the_call(here, container, make_store, monkeypatch):
    store = make_store()
    job = interrupted(container, "f*", when=lambda p: p.files_done >= 7)
    monkeypatch.chdir("/")
    assert resumed(job, container).counts == {State.OK: 30}
    assert len(store.blobs) == 30


def test_what_failed_is_kept_and_tried_again(here, container, make_store):
    store = make_store(put=[None, ConnectionFailed("no"), None])
    report = container.upload_many(
        [f"f{n:02}" for n in range(30)] + ["gone"], journal=True, pool=POOL
    )
    assert report.counts == {State.OK: 29, State.FAILED: 2}
    assert "is kept in" in report.notes[-1]
    (job,) = jobs.jobs()
    assert job.state is JobState.FAILED
    assert (job.files_done, job.files_failed) == (31, 2)
    (here / "gone").write_bytes(b"here")
    again = resumed(job, container)
    assert again.counts == {State.OK: 31}
    assert store.blobs["gone"][0] == b"here"
    assert journals(here) == []
    assert report.counts == {State.OK: 29, State.FAILED: 2}  # it tells of its own call


def test_a_source_that_has_changed_is_moved_as_it_is_now(here, container, make_store):
    store = make_store()
    job = interrupted(container, "f*", when=lambda p: p.files_done >= 7)
    (here / "f29").write_bytes(b"longer than it was")
    os.unlink(here / "f28")
    report = resumed(job, container)
    assert [o.source for o in report.failed] == ["f28"]
    assert store.blobs["f29"][0] == b"longer than it was"
    assert [j.id for j in jobs.jobs()] == [job.id]


def test_check_moves_again_what_is_not_there_any_more(here, container, make_store):
    store = make_store()
    job = interrupted(container, "f*", when=lambda p: p.files_done >= 7)
    (lost, cut), kept = list(store.blobs)[:2], len(store.blobs) - 2
    del store.blobs[lost]
    store.fill(cut, body=b"another size")
    store.calls.clear()
    assert resumed(job, container, check=True).counts == {State.OK: 30}
    assert len([c for c in store.calls if c[0] == "put"]) == 30 - kept
    assert store.blobs[cut][0] == cut[1:].lstrip("0").encode() or cut == "f00"


def test_check_looks_at_local_files_after_downloads(here, container, make_store):
    store = make_store()
    store.fill(*[f"b{n:02}" for n in range(20)], body=b"body")
    job = interrupted(container, "/", "out", when=lambda p: p.files_done >= 7, down=True)
    one, two = sorted((here / "out").iterdir())[:2]
    one.unlink()
    two.write_bytes(b"")
    assert resumed(job, container, check=True).counts == {State.OK: 20}
    assert {p.read_bytes() for p in (here / "out").iterdir()} == {b"body"}


def test_a_download_whose_blob_has_changed_is_moved_as_it_is_now(here, container, make_store):
    store = make_store()
    store.fill(*[f"b{n:02}" for n in range(20)], body=b"body")
    job = interrupted(container, "/", "out", when=lambda p: p.files_done >= 7, down=True)
    done = {p.name for p in (here / "out").iterdir()}
    store.fill(*[f"b{n:02}" for n in range(20)], body=b"new body")
    assert resumed(job, container).counts == {State.OK: 20}
    for path in (here / "out").iterdir():
        assert path.read_bytes() == (b"body" if path.name in done else b"new body")


# -- big files ----------------------------------------------------------------------------------


def stop_after_parts(monkeypatch, count):
    """Interrupt the call when so many parts are journaled."""
    real, seen = _settler.Settler.add_part, []

    def add_part(self, place, number):
        real(self, place, number)
        seen.append(number)
        if len(seen) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(_settler.Settler, "add_part", add_part)
    return lambda: monkeypatch.setattr(_settler.Settler, "add_part", real)


@pytest.fixture
def big(here):
    body = os.urandom(BIG)
    (here / "big").write_bytes(body)
    return body


def cut_short(container, monkeypatch, sources="big", dest="", *, parts=2, down=False, **more):
    undo = stop_after_parts(monkeypatch, parts)
    job = interrupted(container, sources, dest, when=lambda p: False, down=down, **more)
    undo()
    return job


@pytest.mark.parametrize("verify", [None, "md5"])
def test_an_upload_goes_on_at_the_part(here, container, make_store, monkeypatch, big, verify):
    store = make_store()
    job = cut_short(container, monkeypatch, verify=verify)
    store.calls.clear()
    report = resumed(job, container)
    assert report.counts == {State.OK: 1}
    assert report[0].bytes_moved == BIG
    assert [c[0] for c in store.calls].count("stage") == 1
    assert store.blobs["big"][0] == big
    assert journals(here) == []


def test_blocks_that_the_service_has_forgotten_are_sent_again(
    here, container, make_store, monkeypatch, big
):
    store = make_store()
    job = cut_short(container, monkeypatch)
    ledger = Ledger(job.path, new=False)
    forgotten = min(ledger.parts_done(0))
    ledger.close()
    del store.blocks["big"][block_id(run_of(job.id), forgotten)]
    store.calls.clear()
    assert resumed(job, container).counts == {State.OK: 1}
    assert [c[0] for c in store.calls].count("stage") == 2
    assert store.blobs["big"][0] == big


def test_a_changed_source_starts_again_however_many_blocks_are_there(
    here, container, make_store, monkeypatch, big
):
    store = make_store()
    job = cut_short(container, monkeypatch)
    body = os.urandom(BIG)
    (here / "big").write_bytes(body)
    job = cut_short_again(job, container, monkeypatch)
    assert resumed(job, container).counts == {State.OK: 1}
    assert store.blobs["big"][0] == body


def cut_short_again(job, container, monkeypatch):
    undo = stop_after_parts(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        resumed(job, container)
    undo()
    return jobs.job(job.id)


def test_a_commit_that_nobody_wrote_down_is_found(here, container, make_store, monkeypatch, big):
    store = make_store()
    real = _books.Books._finished

    def die(self, finished):
        raise KeyboardInterrupt

    monkeypatch.setattr(_books.Books, "_finished", die)
    job = interrupted(container, "big", when=lambda p: False)
    monkeypatch.setattr(_books.Books, "_finished", real)
    store.calls.clear()
    report = resumed(job, container)
    assert report.counts == {State.OK: 1}
    assert [c[0] for c in store.calls] == ["head"]
    assert mtime_of(store.kept["big"].metadata, None) == (here / "big").stat().st_mtime_ns
    assert MTIME in store.kept["big"].metadata


def test_another_blob_of_that_name_is_no_commit_of_ours(
    here, container, make_store, monkeypatch, big
):
    store = make_store()
    job = cut_short(container, monkeypatch, parts=3)
    store.blocks.clear()
    store.fill("big", body=b"x" * BIG)
    assert resumed(job, container).counts == {State.OK: 1}
    assert store.blobs["big"][0] == big


@pytest.mark.parametrize("verify", [None, "md5"])
def test_a_download_goes_on_at_the_part(here, container, make_store, monkeypatch, big, verify):
    store = make_store()
    store.put("big", big)
    job = cut_short(container, monkeypatch, "big", "out", down=True, verify=verify)
    (left,) = here.glob(".out.*.part")
    store.calls.clear()
    assert resumed(job, container).counts == {State.OK: 1}
    assert [c[0] for c in store.calls].count("get") == 1
    assert (here / "out").read_bytes() == big
    assert not left.exists()
    assert journals(here) == []


@pytest.mark.parametrize("harm", ["gone", "short", "changed"])
def test_a_download_starts_again_where_its_beginning_is_worth_nothing(
    here, container, make_store, monkeypatch, big, harm
):
    store = make_store()
    store.put("big", big)
    job = cut_short(container, monkeypatch, "big", "out", down=True)
    (left,) = here.glob(".out.*.part")
    if harm == "gone":
        left.unlink()
    elif harm == "short":
        os.truncate(left, 100)
    else:
        big = os.urandom(BIG)
        store.put("big", big)
    store.calls.clear()
    assert resumed(job, container).counts == {State.OK: 1}
    assert [c[0] for c in store.calls].count("get") == 3
    assert (here / "out").read_bytes() == big


# A file's clock may be a little behind: coarse, or that of a file server.
@pytest.mark.parametrize(("behind", "gets"), [(-60, 0), (1.5, 0), (60, 3)])
def test_a_rename_that_nobody_wrote_down_is_found(
    here, container, make_store, monkeypatch, big, behind, gets
):
    store = make_store()
    store.put("big", big)
    real = _books.Books._finished
    monkeypatch.setattr(_books.Books, "_finished", lambda *_: stop_when(lambda _: True)(None))
    job = interrupted(container, "big", "out", when=lambda p: False, down=True)
    monkeypatch.setattr(_books.Books, "_finished", real)
    changed = (here / "out").stat().st_ctime
    ledger = Ledger(job.path, new=False)
    ledger.note(started=repr(changed + behind))
    ledger.close()
    store.calls.clear()
    assert resumed(job, container).counts == {State.OK: 1}
    assert [c[0] for c in store.calls].count("get") == gets


def test_a_download_that_is_another_than_the_blob_says_is_never_renamed(
    here, container, make_store, big
):
    store = make_store()
    store.put("big", big)
    store.kept["big"] = store.kept["big"]._replace(md5=b"z" * 16)
    report = container.download_many("big", "out", pool=POOL, verify="md5", journal=True)
    assert isinstance(report[0].error, IntegrityError)
    assert sorted(p.name for p in here.glob("*out*")) == []
    assert list(here.glob(".out.*")) == []


def test_removing_a_job_removes_its_unfinished_downloads(
    here, container, make_store, monkeypatch, big
):
    store = make_store()
    store.put("big", big)
    job = cut_short(container, monkeypatch, "big", "out", down=True)
    assert list(here.glob(".out.*.part"))
    jobs.remove(job.id)
    assert list(here.glob(".out.*")) == []
    assert journals(here) == []
    with pytest.raises(UsageError):
        jobs.job(job.id)


# -- what is asked and what is refused ---------------------------------------------------------


def test_no_secret_is_in_a_journal(here, tmp_path, monkeypatch):
    key = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
    container = Container("http://127.0.0.1:9/devstoreaccount1/data", key=key)
    with pytest.raises(KeyboardInterrupt):
        container.upload_many(
            "f*", journal=str(tmp_path / "j"), pool=POOL, progress=stop_when(lambda p: True)
        )
    held = b"".join(p.read_bytes() for p in tmp_path.glob("j*"))
    assert b"devstoreaccount1" in held
    assert key.encode() not in held
    jobs.remove(str(tmp_path / "j"))
    assert list(tmp_path.glob("j*")) == []


def test_a_job_that_runs_can_be_seen_and_not_touched(here, container, make_store):
    make_store()
    seen = []

    def look(progress):
        if progress.files_done >= 5 and not seen:
            (job,) = jobs.jobs()
            seen.append(job)
            for touch in (jobs.remove, lambda i: jobs.resume(i, container=container)):
                with pytest.raises(LocalFileError, match="works on it"):
                    touch(job.id)

    assert len(container.upload_many("f*", journal=True, pool=POOL, progress=look).ok) == 30
    assert seen[0].state is JobState.RUNNING


def test_a_damaged_journal_is_listed_and_can_be_removed(here, container, make_store):
    make_store()
    job = interrupted(container, "f*", when=lambda p: p.files_done >= 7)
    with open(job.path, "r+b") as file:
        file.write(b"\0" * 200)
    (found,) = jobs.jobs()
    assert (found.state, found.id) == (JobState.UNREADABLE, job.id)
    assert "cannot use the journal" in found.problem
    with pytest.raises(LocalFileError):
        resumed(job, container)
    jobs.remove(job.id)
    assert jobs.jobs() == []
    assert journals(here) == []


def test_a_job_is_not_gone_on_with_in_another_container(here, container, make_store):
    make_store()
    job = interrupted(container, "f*", when=lambda p: p.files_done >= 7)
    other = Container("http://memory.invalid/dev/other", anonymous=True)
    with pytest.raises(UsageError, match="the job is of"):
        jobs.resume(job.id, container=other)
    assert jobs.job(job.id).state is JobState.INTERRUPTED
    jobs.remove(job.id)


def test_a_container_that_can_not_be_asked_leaves_the_job_as_it_was(
    here, container, make_store, monkeypatch, big
):
    store = make_store()
    job = cut_short(container, monkeypatch)
    store.staged = lambda name: (_ for _ in ()).throw(NotFound("no container"))
    with pytest.raises(NotFound):
        resumed(job, container)
    del store.staged
    store.calls.clear()
    assert resumed(job, container).counts == {State.OK: 1}
    assert [c[0] for c in store.calls].count("stage") == 1


@pytest.mark.parametrize("planned", [False, True])
def test_the_folder_of_a_container_is_remembered(here, container, make_store, monkeypatch, planned):
    store = make_store()
    monkeypatch.setattr(_planning, "TELL_SECONDS", -1)

    def when(progress):
        return progress.files_done >= 7 if planned else progress.planning and progress.files_total

    job = interrupted(container.at("sub"), "f*", when=when)
    assert (job.planned, job.files_total) == (planned, 30)
    assert resumed(job, container).counts == {State.OK: 30}
    assert set(store.blobs) == {f"sub/f{n:02}" for n in range(30)}


def test_too_many_failures_end_a_call_and_leave_the_rest_to_a_resume(here, container, make_store):
    store = make_store(put=[ConnectionFailed("no")] * 3)
    report = container.upload_many("f*", journal=True, pool=POOL, max_failures=3)
    assert report.counts[State.FAILED] == 3
    assert report.counts[State.CANCELLED] + report.counts.get(State.OK, 0) == 27
    assert report.counts[State.CANCELLED] >= 10
    (job,) = jobs.jobs()
    assert job.state is JobState.INTERRUPTED
    assert resumed(job, container).counts == {State.OK: 30}
    assert len(store.blobs) == 30


def test_the_journals_thread_ends_with_the_call(here, container, make_store):
    make_store()
    before = threading.active_count()
    container.upload_many("f*", journal=True, pool=POOL)
    assert threading.active_count() == before


def test_what_ended_is_written_down_even_while_nothing_else_comes(
    here, container, make_store, monkeypatch
):
    monkeypatch.setattr(_settler, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(_batch, "EMIT_SECONDS", 0.01)
    written = threading.Event()
    seen = []

    def slow(name):
        path = jobs.jobs()[0].path
        for _ in range(500):
            seen.append(jobs.job(path).files_done)
            if seen[-1]:
                return
            written.wait(0.01)

    make_store(put=[None] * 10 + [slow])
    names = [f"f{n:02}" for n in range(12)]
    assert len(container.upload_many(names, journal=True, pool=POOL).ok) == 12
    assert seen[-1] > 0


def test_a_full_disk_ends_the_call_and_the_job_can_go_on(here, container, make_store, monkeypatch):
    make_store()
    real = Journal.create

    def tight(path=None):
        kept = real(path)
        kept.ledger.rows("PRAGMA max_page_count = 12")
        return kept

    monkeypatch.setattr(Journal, "create", tight)
    names = [f"f{n:02}" for n in range(30)]
    error = ConnectionFailed("x" * 3000)
    make_store(put=[error] * 30)
    with pytest.raises(LocalFileError, match="no space left on the disk"):
        container.upload_many(names, journal=True, pool=POOL)
    monkeypatch.undo()
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(here.parent / "state"))
    monkeypatch.chdir(here)
    (job,) = jobs.jobs()
    make_store()
    assert resumed(job, container).counts == {State.OK: 30}


def test_what_became_of_each_thing_can_be_read_while_a_job_waits(here, container, make_store):
    make_store(put=[ConnectionFailed("cannot reach it: down; wait")])
    container.upload_many("f*", journal=True, pool=POOL)
    (job,) = jobs.jobs()
    report = jobs.report(job.id)
    assert report.title == "upload"
    assert report.counts == {State.OK: 29, State.FAILED: 1}
    assert len(report.failed) == 1
    assert isinstance(report.failed[0].error, ConnectionFailed)
    assert jobs.job(job.id) == job


def test_parts_of_unfinished_files_count_as_moved(here, container, make_store, monkeypatch, big):
    make_store()
    job = cut_short(container, monkeypatch)
    assert 0 < job.bytes_done < BIG
    assert job.bytes_done % PART_BYTES == 0


def test_a_big_file_under_way_is_told_of(here, container, make_store, monkeypatch, big):
    # Were its parts one job, the file could be whole before anyone is told.
    monkeypatch.setattr(_pump, "PARTS_PER_JOB", 1)
    make_store()
    told = []
    container.upload_many("big", pool=POOL, progress=told.append)
    moving = [progress.moving[0] for progress in told if progress.moving]
    assert {(one.name, one.size_bytes) for one in moving} == {("big", BIG)}
    assert any(one.bytes_done for one in moving)
    assert told[-1].moving == ()


def test_the_first_that_is_told_names_the_job(here, container, make_store):
    make_store()
    told = []
    container.upload_many("f*", journal=True, pool=POOL, progress=told.append)
    assert told[0].planning
    assert len({progress.job for progress in told}) == 1
    assert told[0].job
