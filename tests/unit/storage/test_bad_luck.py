"""Bad luck of every kind: that file's outcome is right, the others are done, nothing is left.

A real client, real sockets and real files; the service is scripted.
"""

from __future__ import annotations

import os
import secrets
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import blob_server as bad
from blob_server import blob_server, refuse
from scripted_server import scripted

from azpool.errors import (
    AccessDenied,
    BadResponse,
    Conflict,
    ConnectionFailed,
    IntegrityError,
    LocalFileError,
    NotFound,
    ServerError,
    Throttled,
)
from azpool.storage._batch import Action, Direction, Task, run_job
from azpool.storage._retry import RetryOptions
from azpool.storage._stores import close_stores
from azpool.storage.options import Overwrite, TransferOptions
from azpool.storage.plan import WHOLE_BYTES, Job, Transfer, parts

pytestmark = pytest.mark.outer

RETRY = RetryOptions(attempts=3, first_delay_seconds=0.001)
SIZES = [5000, WHOLE_BYTES * 4]
BIG = 17 * 1024 * 1024


@pytest.fixture
def service():
    with blob_server() as blobs:
        yield blobs
        close_stores()


@pytest.fixture
def run(service, tmp_path):
    """Run a job over a real client."""

    def run(direction, *items, job=None, silence=20.0, threads=3, attempts=3, **options):
        task = Task(
            recipe=service.recipe(read_timeout_seconds=silence),
            direction=direction,
            cwd=str(tmp_path),
            run=secrets.token_hex(8),
            options=TransferOptions(**options),
            retry=replace(RETRY, attempts=attempts),
        )
        return sorted(run_job(task, job or Job(files=items, threads=threads)))

    return run


def body_of(name, size):
    return (name.encode() * (size // len(name) + 1))[:size]


def sources(folder, size, names=("a", "bad", "z")):
    items = []
    for place, name in enumerate(names):
        (folder / name).write_bytes(body_of(name, size))
        mtime_ns = (folder / name).stat().st_mtime_ns
        items.append(Transfer(place, name, name, size, mtime_ns=mtime_ns))
    return items


def stored(service, size, names=("a", "bad", "z")):
    for name in names:
        service.blobs[name] = body_of(name, size)
    return [Transfer(n, name, f"out/{name}", size, '"1"') for n, name in enumerate(names)]


def left(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def all_done(results, attempts):
    assert [r.action for r in results] == [Action.DONE] * len(results), results
    assert [r.error for r in results] == [None] * len(results)
    assert sum(r.attempts for r in results) == len(results) + attempts


def one_failed(results, kind):
    first, failed, last = results
    assert first.action is last.action is Action.DONE
    assert failed.action is Action.FAILED
    assert type(failed.error) is kind
    assert failed.bytes_moved == 0
    assert failed.seconds > 0
    return failed


ONCE = {
    "reset before the answer": bad.reset,
    "closed before the answer": bad.close,
    "half a head": bad.half_a_head,
    "500": refuse(500, "InternalError"),
    "500 with Retry-After": refuse(500, "InternalError", "Retry-After: 0\r\n"),
    "503": refuse(503, "ServerBusy"),
    "503 with Retry-After": refuse(503, "ServerBusy", "Retry-After: 0\r\n"),
    "503 with milliseconds": refuse(503, "ServerBusy", "x-ms-retry-after-ms: 20\r\n"),
    "429": refuse(429, "TooManyRequests"),
    "429 with Retry-After": refuse(429, "TooManyRequests", "Retry-After: 0\r\n"),
}
FOR_GOOD = {
    "reset": (bad.reset, ConnectionFailed, None, 3),
    "500": (refuse(500, "InternalError"), ServerError, 500, 3),
    "503": (refuse(503, "ServerBusy"), Throttled, 503, 3),
    "429": (refuse(429, "TooManyRequests"), Throttled, 429, 3),
    "403": (refuse(403, "AuthenticationFailed"), AccessDenied, 403, 1),
    "404": (refuse(404, "BlobNotFound"), NotFound, 404, 1),
    "409": (refuse(409, "LeaseIdMissing"), Conflict, 409, 1),
    "412": (refuse(412, "ConditionNotMet"), Conflict, 412, 1),
    "no HTTP": (bad.no_http, BadResponse, None, 1),
}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize("size", SIZES)
def test_an_upload_gets_over_what_happens_once(service, run, tmp_path, size, fault):
    service.faults["bad"] = [fault]
    results = run(Direction.UPLOAD, *sources(tmp_path, size))
    # A connection that had been idle may be replaced without counting as an attempt.
    all_done(results, sum(r.attempts for r in results) - 3)
    assert service.blobs == {name: body_of(name, size) for name in ("a", "bad", "z")}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize("size", SIZES)
def test_a_download_gets_over_what_happens_once(service, run, tmp_path, size, fault):
    items = stored(service, size)
    service.faults["bad"] = [fault]
    results = run(Direction.DOWNLOAD, *items)
    all_done(results, sum(r.attempts for r in results) - 3)
    for name in ("a", "bad", "z"):
        assert (tmp_path / "out" / name).read_bytes() == body_of(name, size)
    assert left(tmp_path) == ["out/a", "out/bad", "out/z"]


@pytest.mark.parametrize("fault", FOR_GOOD.values(), ids=FOR_GOOD)
@pytest.mark.parametrize("size", SIZES)
def test_an_upload_that_fails_for_good_says_why(service, run, tmp_path, size, fault):
    fault, kind, status, attempts = fault
    service.always["bad"] = fault
    failed = one_failed(run(Direction.UPLOAD, *sources(tmp_path, size)), kind)
    assert (failed.error.status, failed.attempts) == (status, attempts)
    assert failed.error.request_id == (f"r-{status}" if status else None)
    assert failed.error.path == "bad"
    assert failed.throttled == (3 if status in (429, 503) else 0)
    assert set(service.blobs) == {"a", "z"}


@pytest.mark.parametrize("fault", FOR_GOOD.values(), ids=FOR_GOOD)
@pytest.mark.parametrize("size", SIZES)
def test_a_download_that_fails_for_good_says_why_and_leaves_nothing(
    service, run, tmp_path, size, fault
):
    fault, kind, status, attempts = fault
    items = stored(service, size)
    service.always["bad"] = fault
    failed = one_failed(run(Direction.DOWNLOAD, *items), kind)
    assert (failed.error.status, failed.attempts) == (status, attempts)
    assert left(tmp_path) == ["out/a", "out/z"]


IN_BODY = {
    "cut short": bad.short_body,
    "reset": bad.reset_in_body,
    "reset late": bad.reset_late_in_body,
    "more than was asked for": bad.too_much,
}


@pytest.mark.parametrize("fault", IN_BODY.values(), ids=IN_BODY)
@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_does_not_come_whole_is_asked_for_again(service, run, tmp_path, size, fault):
    items = stored(service, size)
    service.faults["bad"] = [fault(size), fault(size)]
    results = run(Direction.DOWNLOAD, *items)
    # A reset that overtakes the answer on a kept connection looks like that connection's end, and
    # is made good without an attempt.
    unseen = fault is bad.reset_in_body and results[1].attempts == 2
    all_done(results, 1 if unseen else 2)
    assert (tmp_path / "out/bad").read_bytes() == body_of("bad", size)
    assert left(tmp_path) == ["out/a", "out/bad", "out/z"]


@pytest.mark.parametrize("fault", IN_BODY.values(), ids=IN_BODY)
@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_never_comes_whole_is_never_a_file(service, run, tmp_path, size, fault):
    items = stored(service, size)
    service.always["bad"] = fault(size)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/bad").write_bytes(b"old")
    first, failed, last = run(Direction.DOWNLOAD, *items)
    assert (failed.action, failed.attempts) == (Action.FAILED, 3)
    assert isinstance(failed.error, ConnectionFailed | IntegrityError)
    assert first.action is last.action is Action.DONE
    assert (tmp_path / "out/bad").read_bytes() == b"old"
    assert left(tmp_path) == ["out/a", "out/bad", "out/z"]


@pytest.mark.parametrize("size", SIZES)
def test_changed_bytes_are_seen_by_their_md5_alone(service, run, tmp_path, size):
    items = stored(service, size)
    service.faults["bad"] = [bad.other_bytes(size)]
    all_done(run(Direction.DOWNLOAD, *items, verify="md5"), 1)
    assert (tmp_path / "out/bad").read_bytes() == body_of("bad", size)
    service.faults["bad"] = [bad.other_bytes(size)]
    all_done(run(Direction.DOWNLOAD, *items), 0)
    assert (tmp_path / "out/bad").read_bytes() == b"z" * size


@pytest.mark.parametrize("size", SIZES)
def test_a_silent_server_is_a_time_out_and_counts_as_throttling(service, run, tmp_path, size):
    items = stored(service, size)
    service.faults["bad"] = [bad.silent, bad.silent_in_body(size)]
    results = run(Direction.DOWNLOAD, *items, silence=1.0, attempts=6)
    assert [r.action for r in results] == [Action.DONE] * 3
    assert results[1].attempts >= 3 and results[1].throttled >= 2
    assert (tmp_path / "out/bad").read_bytes() == body_of("bad", size)
    service.always["bad"] = bad.silent
    failed = one_failed(
        run(Direction.UPLOAD, *sources(tmp_path, size), silence=1.0), ConnectionFailed
    )
    assert (failed.error.code, failed.attempts) == ("ETIMEDOUT", 3)
    assert "no answer in time" in str(failed.error)


@pytest.mark.parametrize("size", SIZES)
def test_a_slow_server_is_no_time_out(service, run, tmp_path, size):
    items = stored(service, size)
    service.faults["bad"] = [bad.slow(body_of("bad", size))]
    all_done(run(Direction.DOWNLOAD, *items, silence=5.0), 0)
    assert (tmp_path / "out/bad").read_bytes() == body_of("bad", size)


@pytest.mark.parametrize("fault", [bad.reset, bad.close, bad.read_some_and_reset])
@pytest.mark.parametrize("size", SIZES)
def test_connections_cut_before_and_while_the_request_is_read(service, run, tmp_path, size, fault):
    service.at_connect = [fault, fault]
    all_done(run(Direction.UPLOAD, *sources(tmp_path, size)), 2)
    assert service.blobs == {name: body_of(name, size) for name in ("a", "bad", "z")}


@pytest.mark.parametrize("verify", [None, "md5"])
@pytest.mark.parametrize("overwrite", [Overwrite.FAIL, Overwrite.NEVER])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_whose_answer_was_lost_is_not_taken_for_somebody_elses(
    service, run, tmp_path, size, overwrite, verify
):
    service.lost_answers = {"bad"}
    items = sources(tmp_path, size)
    all_done(run(Direction.UPLOAD, *items, overwrite=overwrite, verify=verify), 1)
    assert service.blobs["bad"] == body_of("bad", size)


@pytest.mark.parametrize("overwrite", [Overwrite.FAIL, Overwrite.NEVER])
def test_what_somebody_else_wrote_meanwhile_stays_and_is_told(service, run, tmp_path, overwrite):
    items = sources(tmp_path, 5000)
    service.blobs["bad"] = b"another's"
    service.faults["bad"] = [bad.reset]
    results = run(Direction.UPLOAD, *items, overwrite=overwrite)
    if overwrite is Overwrite.FAIL:
        assert one_failed(results, Conflict).attempts == 2
    else:
        assert [r.action for r in results] == [Action.DONE, Action.SKIPPED, Action.DONE]
    assert service.blobs["bad"] == b"another's"


def big_source(folder):
    (folder / "big").write_bytes(os.urandom(BIG))
    return Transfer(0, "big", "big", BIG, mtime_ns=(folder / "big").stat().st_mtime_ns)


@pytest.mark.parametrize("verify", [None, "md5"])
def test_parts_get_over_cut_connections_up_and_down(service, run, tmp_path, verify):
    item = big_source(tmp_path)
    service.at_connect = [bad.read_some_and_reset, bad.reset]
    service.faults["big"] = [bad.reset, refuse(503, "ServerBusy"), bad.half_a_head]
    job = Job(parts=tuple(parts(item)), threads=2)
    results = run(Direction.UPLOAD, job=job, verify=verify, attempts=6)  # one part may meet all
    assert [(r.part, r.action) for r in results] == [(n, Action.DONE) for n in range(3)]
    held = [body for _, body in sorted(service.blocks["big"].items())]
    assert b"".join(held) == (tmp_path / "big").read_bytes()

    service.blobs["big"] = b"".join(held)
    item = Transfer(0, "big", "out/big", BIG, '"1"')
    size = parts(item)[0].length
    service.faults["big"] = [bad.reset_in_body(size), bad.short_body(size), bad.too_much(size)]
    job = Job(parts=tuple(parts(item)), threads=1)
    results = run(Direction.DOWNLOAD, job=job, attempts=4)  # one part may meet all
    assert [(r.part, r.action) for r in results] == [(n, Action.DONE) for n in range(3)]
    (part_file,) = (tmp_path / "out").iterdir()
    assert part_file.name.endswith(".part")
    assert part_file.read_bytes() == service.blobs["big"]


def test_a_part_that_can_not_be_had_fails_with_the_servers_words(service, run, tmp_path):
    service.blobs["big"] = bytes(BIG)
    item = Transfer(0, "big", "out/big", BIG, '"1"')
    service.faults["big"] = [refuse(412, "ConditionNotMet")]
    results = run(Direction.DOWNLOAD, job=Job(parts=tuple(parts(item)), threads=1))
    assert [r.action for r in results] == [Action.FAILED, Action.DONE, Action.DONE]
    assert (results[0].error.status, results[0].error.request_id) == (412, "r-412")


@pytest.mark.parametrize("size", SIZES)
def test_a_target_that_can_not_be_written_stops_no_other(service, run, tmp_path, size):
    items = stored(service, size, ("a", "bad", "z", "y"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/bad").mkdir()  # a folder is where the file should be
    (tmp_path / "file").write_bytes(b"")
    items[3] = items[3]._replace(target="file/below/y")
    results = run(Direction.DOWNLOAD, *items)
    assert [r.action for r in results] == [Action.DONE, Action.FAILED, Action.DONE, Action.FAILED]
    assert [results[n].error.code for n in (1, 3)] == ["EISDIR", "ENOTDIR"]
    assert [results[n].attempts for n in (1, 3)] == [1, 1]
    assert left(tmp_path) == ["file", "out/a", "out/z"]


def mounts(folder, options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "out"
    folder.mkdir()
    if not mounts(folder, "size=1m"):
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("big", [3 << 20, 5 << 20])
def test_a_full_disk_fails_what_does_not_fit_and_nothing_else(
    service, run, tmp_path, small_disk, big
):
    items = stored(service, 5000)
    service.blobs["bad"] = bytes(big)
    items[1] = items[1]._replace(size_bytes=big)
    failed = one_failed(run(Direction.DOWNLOAD, *items, threads=1), LocalFileError)
    assert (failed.error.code, failed.attempts) == ("ENOSPC", 1)
    assert "no space left on the disk; free some" in str(failed.error)
    assert left(tmp_path) == ["out/a", "out/z"]


def test_a_full_disk_fails_the_parts_that_do_not_fit(service, run, tmp_path, small_disk):
    service.blobs["big"] = bytes(BIG)
    item = Transfer(0, "big", "out/big", BIG, '"1"')
    results = run(Direction.DOWNLOAD, job=Job(parts=tuple(parts(item)), threads=2))
    assert {r.error.code for r in results} == {"ENOSPC"}


@pytest.mark.parametrize("size", SIZES)
def test_a_read_only_target_is_named(service, run, tmp_path, size):
    folder = tmp_path / "out"
    folder.mkdir()
    if not mounts(folder, "size=1m,ro"):
        pytest.skip("mounting a read-only file system is not permitted here")
    try:
        results = run(Direction.DOWNLOAD, *stored(service, size))
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert {r.error.code for r in results} == {"EROFS"}
    assert {r.attempts for r in results} == {1}


ODD_NAMES = [
    "é/e\u0301", "100%", "a%20b", "#1?x=y", "a b+c", "dot.", ".hidden", "...", "CON", "aux.txt",
    "Case", "case", "ü" * 80, "<&>\"'", "~tilde", "[x]{y}|^`", "😀",
]  # fmt: skip


def test_odd_names_go_and_come_back(service, run, tmp_path):
    for number, name in enumerate(ODD_NAMES):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes(f"{number}".encode())
    names = [*ODD_NAMES, "x/" * 500 + "y" * 24]
    (tmp_path / "src/long").write_bytes(b"long")
    files = [f"src/{name}" for name in ODD_NAMES] + ["src/long"]
    items = [
        Transfer(n, file, name, os.stat(tmp_path / file).st_size)
        for n, (name, file) in enumerate(zip(names, files, strict=True))
    ]
    assert len(names[-1]) == 1024
    all_done(run(Direction.UPLOAD, *items), 0)
    assert set(service.blobs) == set(names)
    down = [
        Transfer(n, name, f"out/{file}", item.size_bytes)
        for n, (name, file, item) in enumerate(zip(names, files, items, strict=True))
    ]
    all_done(run(Direction.DOWNLOAD, *down), 0)
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / file).read_bytes()


def test_20000_files_in_one_folder_take_seconds(service, run, tmp_path):
    """Kept small for the suite; 100,000 were tried by hand."""
    for n in range(2000):
        service.blobs[f"{n}"] = b"x"
    items = [Transfer(n, f"{n % 2000}", f"out/{n}", 1) for n in range(20_000)]
    begun = time.monotonic()
    results = run(Direction.DOWNLOAD, *items, threads=8)
    assert all(r.action is Action.DONE for r in results)
    assert len(os.listdir(tmp_path / "out")) == 20_000
    assert time.monotonic() - begun < 60  # hundreds a second at the least, whatever the machine


def test_credentials_that_end_in_the_middle_are_borrowed_anew_once(service, tmp_path):
    from azpool.storage._rest import open_store
    from azpool.storage._signing import BorrowedSigner

    class Lent:
        def __init__(self):
            self.values = ["sig=old", "sig=new"]
            self.asked = 0

        def borrow(self, *purpose, refused=False):
            self.asked += refused
            return self

        @property
        def value(self):
            return self.values[min(self.asked, 1)]

    seen = []

    def picky(connection, request):
        sas = b"sig=new" in request.split(b"\r\n")[0]
        seen.append(sas)
        fault = refuse(403, "AuthenticationFailed") if not sas else refuse(404, "BlobNotFound")
        fault(connection, service)

    service.handle = picky
    store = open_store(f"{service.server.url}/acct", "box", service.recipe().auth)
    lent = Lent()
    store._service._sign = BorrowedSigner(lent, service.server.url, "box")
    with pytest.raises(NotFound):
        store.get("x", length=1)
    assert (seen, lent.asked) == ([False, True], 1)
    with pytest.raises(NotFound):
        store.get("x", length=1)
    assert (seen, lent.asked) == ([False, True, True], 1)
    # And where another one is refused too, that is the end.
    lent.values = ["sig=old", "sig=other"]
    with pytest.raises(AccessDenied) as refused:
        store.get("x", length=1)
    assert refused.value.status == 403
    assert "sig=" not in str(refused.value)
    assert lent.asked == 2
    store.close()


def test_a_wrong_certificate_fails_each_file_at_once_and_says_why(service, tmp_path):
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def script(connection):
        context.wrap_socket(connection.sock, server_side=True)

    with scripted(script) as server:
        recipe = replace(service.recipe(), account_url=f"https://127.0.0.1:{server.port}/acct")
        for direction in (Direction.UPLOAD, Direction.DOWNLOAD):
            task = Task(
                recipe=recipe, direction=direction, cwd=str(tmp_path), run="r" * 16, retry=RETRY
            )
            results = run_job(task, Job(files=tuple(sources(tmp_path, 10)), threads=2))
            assert [r.action for r in results] == [Action.FAILED] * 3
            assert [r.attempts for r in results] == [1] * 3
            assert "its certificate is not trusted" in str(results[0].error)
            assert "ca_file" in str(results[0].error)
        close_stores()
    assert left(tmp_path) == ["a", "bad", "z"]


@pytest.mark.parametrize("size", SIZES)
def test_files_go_through_the_proxy_that_the_environment_names(
    service, tmp_path, monkeypatch, size
):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", service.server.url)
    recipe = replace(service.recipe(), account_url="http://acct.blob.example")
    up = Task(
        recipe=recipe, direction=Direction.UPLOAD, cwd=str(tmp_path), run="u" * 16, retry=RETRY
    )
    items = sources(tmp_path, size)
    all_done(run_job(up, Job(files=tuple(items), threads=2)), 0)
    down = replace(up, direction=Direction.DOWNLOAD)
    back = [Transfer(i.place, i.target, f"out/{i.target}", size, '"1"') for i in items]
    all_done(run_job(down, Job(files=tuple(back), threads=2)), 0)
    for name in ("a", "bad", "z"):
        assert (tmp_path / "out" / name).read_bytes() == body_of(name, size)
