"""Trees and lists, moved by the nodes of a pool to and from a real server."""

import contextlib
import os
import random
import signal

import pytest

from azpool import Pool, delete_pool, init_pool, pool_export, pool_map, pool_size
from azpool.errors import AccessDenied, NotFound
from azpool.report import State
from azpool.storage import Container, _books
from azpool.storage._stores import close_stores

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")


@pytest.fixture(scope="module", autouse=True)
def _pool():
    init_pool(3)
    yield
    delete_pool()
    close_stores()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_tree(folder, count=200, seed=1):
    some = random.Random(seed)
    for n in range(count):
        path = folder / f"d{n % 7}" / f"file {n}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(some.randbytes(some.choice([0, 1, 100, 4096, 70_000])))
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_tree_goes_up_and_comes_back_byte_for_byte(container, here):
    source = make_tree(here / "tree")
    report = container.upload_many("tree", "p")
    assert len(report.ok) == len(report) == 200
    assert report[0].target.startswith("p/tree/d0/")
    back = container.download_many("p/tree/", "back")
    assert len(back.ok) == 200
    assert contents(here / "back") == contents(source)
    assert back.bytes_moved == report.bytes_moved


def test_upload_and_download_of_a_tree_are_the_same_engine(container, here):
    source = make_tree(here / "tree", 20)
    assert len(container.upload("tree/").ok) == 20
    assert len(container.download("/", "back").ok) == 20
    assert contents(here / "back") == contents(source)


def test_big_and_small_files_together(container, here):
    source = make_tree(here / "tree", 30)
    (source / "big").write_bytes(random.Random(2).randbytes(40 * 1024 * 1024 + 7))
    assert all(o.ok for o in container.upload_many("tree/"))
    assert all(o.ok for o in container.download_many("/", "back"))
    assert contents(here / "back") == contents(source)


def test_bad_files_fail_by_name_and_the_others_are_moved(container, here):
    source = make_tree(here / "tree", 20)
    (source / "gone").symlink_to("nowhere")
    (source / "back\\slash").touch()
    os.mkfifo(source / "pipe")
    report = container.upload_many(["tree", "missing"])
    assert sorted(o.name for o in report.failed) == [
        "missing",
        "tree/back\\slash",
        "tree/gone",
        "tree/pipe",
    ]
    assert len(report.ok) == 20
    for outcome in report.failed:
        assert str(outcome.error).startswith(f"cannot upload {outcome.name!r}: ") or (
            outcome.name == "tree/back\\slash"
        )


def test_a_target_that_can_not_be_written_fails_and_the_others_are_moved(container, here):
    make_tree(here / "tree", 20)
    container.upload_many("tree/")
    (here / "back" / "d0").mkdir(parents=True)
    (here / "back" / "d1").write_bytes(b"in the way")
    (here / "back" / "d0" / "file 0.bin").mkdir()
    report = container.download_many("/", "back")
    failed = {o.source for o in report.failed}
    assert failed == {"d0/file 0.bin", "d1/file 1.bin", "d1/file 8.bin", "d1/file 15.bin"}
    assert all(o.error.code in {"EISDIR", "ENOTDIR", "EEXIST"} for o in report.failed)
    assert len(report.ok) == 16
    assert not [name for name in contents(here / "back") if name.endswith(".part")]


def test_an_unknown_container_is_one_reason_for_all_files(azurite, here):
    make_tree(here / "tree", 20)
    container = Container(f"{azurite.blob_url}/nowhere", key=azurite.key)
    report = container.upload_many("tree/")
    assert len(report.failed) == 20
    assert len(report.reasons()) == 1
    assert report[0].code == "ContainerNotFound"
    with pytest.raises(NotFound):
        container.download_many("/", "back")


def test_refused_credentials_are_one_reason_for_all_files(container, here):
    make_tree(here / "tree", 20)
    report = Container(container.url, key="d3Jvbmc=").upload_many("tree/")
    assert {type(o.error) for o in report} == {AccessDenied}
    assert "d3Jvbmc" not in repr(report)
    assert "d3Jvbmc" not in report.to_json()


def test_a_server_that_goes_away_is_one_reason(here):
    make_tree(here / "tree", 100)
    report = Container("http://127.0.0.1:1/dev/data", key="a2V5").upload_many("tree/")
    assert len(report.failed) == 100
    assert len(report.reasons()) == 1
    assert report.seconds < 30


def test_globs_and_lists(container, here):
    make_tree(here / "tree", 20)
    assert len(container.upload_many("tree/*/file 1*.bin", "g").ok) == 11
    assert container.exists("g/d1/file 1.bin")
    assert len(container.download_many("g/**/file 1?.bin", "back").ok) == 10
    report = container.download_many(["g/d1/file 1.bin", "g/d3", "no"], "list")
    assert {o.target for o in report.ok} == {
        "list/file 1.bin",
        "list/d3/file 10.bin",
        "list/d3/file 17.bin",
    }
    assert isinstance(report[-1].error, NotFound)


def test_relative_paths_are_those_of_the_master_at_the_call(container, here, monkeypatch):
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    make_tree(here / "elsewhere" / "tree", 20)
    assert len(container.upload_many("tree/").ok) == 20
    assert len(container.download_many("/", "back").ok) == 20
    assert (here / "elsewhere" / "back").is_dir()


def test_progress_is_told_in_the_callers_thread(container, here):
    import threading

    make_tree(here / "tree", 100)
    told, threads = [], set()

    def progress(now):
        told.append(now)
        threads.add(threading.current_thread())

    container.upload_many("tree/", progress=progress)
    assert told[-1].finished
    assert told[-1].files_done == told[-1].files_total == 100
    assert threads == {threading.current_thread()}


def test_a_pool_of_ones_own(container, here):
    make_tree(here / "tree", 40)
    with Pool(2) as pool:
        assert len(container.upload_many("tree/", pool=pool).ok) == 40
    assert pool_size() >= 3


def test_many_blobs_are_deleted_on_the_pool(container, here):
    make_tree(here / "tree", 100)
    container.upload_many("tree/")
    report = container.delete([info.name for info in container.list()])
    assert len(report.ok) == 100
    assert list(container.list()) == []


def test_report_retry_sends_what_failed(container, here):
    make_tree(here / "tree", 10)
    (here / "tree" / "late").symlink_to("../later")
    report = container.upload_many("tree/")
    assert [o.source for o in report.failed] == ["tree/late"]
    (here / "later").write_bytes(b"now")
    again = report.retry()
    assert [o.state for o in again] == [State.OK]
    assert container.exists("late")


def test_the_origins_example_a_container_exported_to_the_nodes(container, here):
    make_tree(here / "tree", 12)
    srcs = [str(p) for p in sorted((here / "tree").rglob("*.bin"))]
    dests = [f"in/{n}" for n in range(len(srcs))]
    pool_export(container=container)
    outcomes = pool_map(
        lambda src, dest: container.upload(src, dest),
        srcs,
        dests,
    )
    assert [o.target for o in outcomes] == dests
    assert [info.size_bytes for info in container.list("in/")] == [
        os.path.getsize(src) for _, src in sorted(zip(dests, srcs, strict=True))
    ]


def test_a_tree_moved_inside_a_node_is_moved_there(container, here):
    make_tree(here / "tree", 12)
    folder = str(here / "tree") + "/"
    pool_export(container=container)
    (report,) = pool_map(lambda src: container.upload_many(src, "n"), [folder])
    assert len(report.ok) == 12


def test_a_node_that_is_killed_loses_no_file(container, here, monkeypatch):
    monkeypatch.setattr(_books, "PROGRESS_SECONDS", 0)
    source = make_tree(here / "tree", 400)
    with Pool(3) as pool:
        killed = []

        def kill_one(now):
            if now.files_done > 50 and not now.finished and not killed:
                pid = pool.pids()[1]  # 0, or gone already, while that node is being replaced
                with contextlib.suppress(ProcessLookupError):
                    if pid:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

        report = container.upload_many(  # so few a second that it is not done before
            "tree/", pool=pool, progress=kill_one, max_requests_per_second=400
        )
    assert killed
    assert len(report.ok) == 400
    container.download_many("/", "back").raise_for_failures()
    assert contents(here / "back") == contents(source)
