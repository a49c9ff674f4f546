"""The real command, in processes of its own, against Azurite: codes, messages, streams, signals."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from azpool.storage import Container
from azpool.storage._stores import close_stores
from azpool.testing.azurite import free_port

pytestmark = pytest.mark.once

COMMAND = [sys.executable, "-W", "error", "-m", "azpool"]
SECONDS = 50


@pytest.fixture(autouse=True)
def state(tmp_path_factory, monkeypatch):
    """The folder of the journals of one test."""
    folder = tmp_path_factory.mktemp("state") / "jobs"
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def azpool(azure_environment, tmp_path):
    """Run the command to its end in an empty folder."""

    def run(*arguments, environment=None, **options):
        ended = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            **options,
        )
        assert "Traceback" not in ended.stderr
        return ended

    return run


@pytest.fixture
def address(azure_environment, container_name):
    """An empty container, removed after the test."""
    place = Container(f"az://{container_name}")
    place.create()
    yield f"az://{container_name}"
    place.remove()
    close_stores()


def make_files(folder, count=20, size_bytes=100):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        sub = folder / f"{number % 3}"
        sub.mkdir(exist_ok=True)
        sub.joinpath(f"{number:04d}.bin").write_bytes(os.urandom(size_bytes))
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_goes_up_and_comes_back_byte_for_byte(azpool, address, tmp_path):
    files = make_files(tmp_path / "in", 50)
    up = azpool("cp", "in/", f"{address}/run-7")
    assert (up.returncode, up.stdout) == (0, "")
    assert "uploaded 50 files (4.9 KiB) in " in up.stderr.splitlines()[-1]
    down = azpool("cp", f"{address}/run-7/", "out")
    assert down.returncode == 0
    assert contents(tmp_path / "out") == contents(files)


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_pool_has_the_size_that_was_asked_for(azpool, address, tmp_path, nodes):
    make_files(tmp_path / "in")
    ended = azpool("cp", "--json", "--nodes", nodes, "in", address)
    assert ended.returncode == 0
    assert json.loads(ended.stdout.splitlines()[0])["nodes"] == nodes


def test_every_form_of_address_works(azpool, azurite, address, tmp_path):
    (tmp_path / "a b#.txt").write_text("hello")
    url = f"{azurite.blob_url}/{address.removeprefix('az://')}"
    environment = {"AZURE_STORAGE_CONNECTION_STRING": ""}
    key = ["--key", azurite.key]
    assert azpool("cp", "a b#.txt", f"{url}/in/", *key, environment=environment).returncode == 0
    assert azpool("ls", f"{url}/in", *key, environment=environment).stdout == "a b#.txt\n"
    endpoint = ["--endpoint", azurite.blob_url, *key]
    came = azpool("cp", f"{address}/in/a b#.txt", "x", *endpoint, environment=environment)
    assert came.returncode == 0
    assert (tmp_path / "x").read_text() == "hello"
    came = azpool("cp", f"{url}/in/a%20b%23.txt", "y", *key, environment=environment)
    assert came.returncode == 0
    assert (tmp_path / "y").read_text() == "hello"


def test_no_overwrite_leaves_what_is_there(azpool, address, tmp_path):
    (tmp_path / "a").write_text("one")
    assert azpool("cp", "a", address).returncode == 0
    (tmp_path / "a").write_text("two")
    ended = azpool("cp", "--no-overwrite", "a", address)
    assert ended.returncode == 0
    assert "1 skipped" in ended.stderr
    assert azpool("cp", f"{address}/a", "b").returncode == 0
    assert (tmp_path / "b").read_text() == "one"


def test_containers_are_made_listed_and_removed(azpool, container_name):
    address = f"az://{container_name}"
    assert azpool("mb", address).returncode == 0
    assert azpool("mb", address).returncode == 1
    assert azpool("mb", "--exist-ok", address).returncode == 0
    assert container_name in azpool("ls").stdout.splitlines()
    assert azpool("rb", address).returncode == 0
    assert container_name not in azpool("ls").stdout.splitlines()


def test_folders_are_listed_and_deleted(azpool, address, tmp_path):
    make_files(tmp_path / "in", 9)
    assert azpool("cp", "in/", address).returncode == 0
    assert azpool("ls", address).stdout == "0/\n1/\n2/\n"
    assert len(azpool("ls", "-lr", address).stdout.splitlines()) == 9
    assert azpool("rm", f"{address}/0/").returncode == 2
    assert azpool("rm", "-r", f"{address}/0/").returncode == 2
    assert azpool("rm", "-r", "--dry-run", f"{address}/0/").stdout.count("would delete") == 3
    assert azpool("rm", "-r", "--yes", f"{address}/0/").returncode == 0
    assert azpool("ls", address).stdout == "1/\n2/\n"
    assert azpool("rb", address).returncode == 2


def test_json_is_one_event_a_line(azpool, address, tmp_path):
    make_files(tmp_path / "in", 30)
    ended = azpool("cp", "--json", "in", "nope", address)
    assert (ended.returncode, ended.stderr) == (1, "")
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "end"
    files = [event for event in events if event["event"] == "file"]
    assert len(files) == 31
    assert [event["source"] for event in files if event["state"] == "failed"] == ["nope"]
    assert events[-1]["ok"] == 30
    assert {"progress", "file", "start", "end"} >= {event["event"] for event in events}


# -- bad input: one message, the right code, and the others still moved ---------------------------


def one_message(ended, code, *parts):
    assert ended.returncode == code, ended.stderr
    # A machine that is slow gets a line of progress before it.
    others = ("uploading: ", "downloading: ", "deleting: ", "  request id ")
    lines = [line for line in ended.stderr.splitlines() if not line.startswith(others)]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("azpool: cannot ")
    for part in parts:
        assert part in lines[0]


def test_sources_that_do_not_exist(azpool, address):
    one_message(azpool("cp", "nope", address), 3, "'nope'", "no such file")
    one_message(azpool("cp", "*.nope", address), 3, "'*.nope'")
    one_message(azpool("cp", f"{address}/nope", "x"), 3, "'nope'")
    one_message(azpool("cp", f"{address}/nope/", "x"), 3)
    one_message(azpool("cp", f"{address}/*.nope", "x"), 3)
    one_message(azpool("ls", f"{address}/nope"), 3)
    one_message(azpool("rm", f"{address}/nope"), 3)
    one_message(azpool("rm", "-r", "--yes", f"{address}/nope/"), 3)


def test_an_empty_folder(azpool, address, tmp_path):
    (tmp_path / "empty").mkdir()
    one_message(azpool("cp", "empty", address), 3, "'empty'")
    one_message(azpool("cp", f"{address}/", "x"), 3)


def test_files_that_cannot_be_read_do_not_stop_the_others(azpool, address, tmp_path):
    make_files(tmp_path / "in", 6)
    (tmp_path / "in" / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in" / "pipe")
    unreadable = tmp_path / "in" / "unreadable"
    unreadable.write_text("x")
    unreadable.chmod(0)
    expected = 2 if os.geteuid() == 0 else 3
    ended = azpool("cp", "in/", address)
    assert ended.returncode == 1
    assert f", {expected} failed" in ended.stderr
    assert "dangling" in ended.stderr
    assert "pipe" in ended.stderr
    assert len(azpool("ls", "-r", address).stdout.splitlines()) == 9 - expected


def test_one_file_that_is_none(azpool, address, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    one_message(azpool("cp", "pipe", address), 1, "'pipe'")


def test_a_folder_where_a_file_is_meant(azpool, address, tmp_path):
    make_files(tmp_path / "in", 3)
    (tmp_path / "target" / "0000.bin").mkdir(parents=True)
    assert azpool("cp", "in/0/", address).returncode == 0
    one_message(azpool("cp", f"{address}/", "target"), 1, "folder")
    assert list((tmp_path / "target").rglob("*")) == [tmp_path / "target" / "0000.bin"]


def test_an_unknown_container(azpool, tmp_path):
    make_files(tmp_path / "in", 3)
    missing = "az://no-such-container"
    one_message(azpool("cp", "in/0/0000.bin", missing), 1, "container does not exist")
    several = azpool("cp", "in", missing)
    assert several.returncode == 1
    assert "  3 failed: the container does not exist" in several.stderr
    one_message(azpool("cp", f"{missing}/", "x"), 1, "container does not exist")
    one_message(azpool("ls", missing), 1, "container does not exist")
    one_message(azpool("rb", missing), 1, "container does not exist")


def test_refused_credentials(azpool, address, tmp_path):
    make_files(tmp_path / "in", 3)
    wrong = ["--key", "d3Jvbmcga2V5"]
    one_message(azpool("cp", "in/0/0000.bin", address, *wrong), 4, "403")
    assert azpool("cp", "in", address, *wrong).returncode == 4
    one_message(azpool("cp", f"{address}/x", "y", *wrong), 4, "403")
    one_message(azpool("ls", *wrong), 4, "403")
    one_message(azpool("ls", address, "--anonymous"), 4)
    one_message(azpool("ls", address, "--sas", "sv=2024-11-04&sig=d3Jvbmc%3D"), 4)
    assert not (tmp_path / "y").exists()


def test_no_credentials_at_all(azpool):
    environment = {"AZURE_STORAGE_CONNECTION_STRING": ""}
    one_message(azpool("ls", "az://demo", environment=environment), 2, "AZURE_STORAGE_ACCOUNT")
    url = "https://acme.blob.core.windows.net/demo"
    one_message(azpool("ls", url, environment=environment), 2, "AZURE_STORAGE_KEY")


def test_a_server_that_is_not_there(azpool, azurite, tmp_path):
    make_files(tmp_path / "in", 3)
    gone = f"http://127.0.0.1:{free_port()}/devstoreaccount1/demo"
    key = ["--key", azurite.key]
    one_message(azpool("cp", "in/0/0000.bin", gone, *key), 1, "nothing listens there")
    several = azpool("cp", "in", gone, *key)
    assert several.returncode == 1
    assert "  3 failed: " in several.stderr
    assert "nothing listens there" in several.stderr
    one_message(azpool("ls", gone, *key), 1, "nothing listens there")


def test_destinations_that_cannot_be_written(azpool, address, tmp_path):
    make_files(tmp_path / "in", 6)
    assert azpool("cp", "in/", address).returncode == 0
    (tmp_path / "file").write_text("mine")
    one_message(azpool("cp", f"{address}/", "file"), 1, "'file'", "file, not a folder")
    below = azpool("cp", f"{address}/", "file/below")
    assert below.returncode == 1
    assert "  6 failed: a part of the path is a file, not a folder" in below.stderr
    one_message(azpool("cp", f"{address}/0/0000.bin", "file/below/x"), 1)
    (tmp_path / "partly").mkdir()
    (tmp_path / "partly" / "0").write_text("in the way")
    ended = azpool("cp", f"{address}/", "partly")
    assert ended.returncode == 1
    assert "downloaded 4 of 6 files" in ended.stderr
    left = sorted(contents(tmp_path / "partly"))
    assert left == ["0", "1/0001.bin", "1/0004.bin", "2/0002.bin", "2/0005.bin"]
    assert (tmp_path / "file").read_text() == "mine"


def test_two_sources_for_one_target(azpool, address, tmp_path):
    for folder in ("a", "b"):
        make_files(tmp_path / folder, 1)
    ended = azpool("cp", "a/0/0000.bin", "b/0/0000.bin", address)
    one_message(ended, 2, "both would become '0000.bin'")
    assert azpool("ls", address).stdout == ""


# -- streams and signals --------------------------------------------------------------------------


def test_a_reader_that_has_enough_ends_ls_quietly(azpool, address, tmp_path):
    make_files(tmp_path / "in" / ("long" * 50), 600, 1)
    assert azpool("cp", "in", address).returncode == 0
    with subprocess.Popen(  # neither side can hold all of it, so more is to be written
        [*COMMAND, "ls", "-r", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pipesize=4096,
    ) as child:
        assert child.stdout.read(1)
        child.stdout.close()
        said = child.stderr.read()
        assert (child.wait(SECONDS), said) == (141, b"")


def interrupted(arguments, folder, *, after, number=signal.SIGINT, per_second=50):
    """Run the command, send it a signal once `after` files are done, answer how it ended.

    It sends so few requests that it is not done before the signal comes.
    """
    command = [*COMMAND, "cp", "--json", "--cap-requests", str(per_second), *arguments]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        done = 0
        for line in child.stdout:
            if json.loads(line)["event"] == "file":
                done += 1
                if done == after:
                    child.send_signal(number)
        said = child.stderr.read()
        return child.wait(SECONDS), said, done


def test_ctrl_c_on_the_way_up_says_what_was_done(azpool, address, tmp_path):
    make_files(tmp_path / "in", 500, 4096)
    code, said, _ = interrupted(["in/", address], tmp_path, after=10)
    assert code == 130
    found = re.fullmatch(
        r"azpool: interrupted: ([\d,]+) of 500 files uploaded \(.*\), ([\d,]+) not done; "
        r"azpool jobs resume ([0-9a-f]{8}) goes on from there\n",
        said,
    )
    assert found, said
    told = [int(number.replace(",", "")) for number in found.groups()[:2]]
    assert sum(told) == 500
    there = len(azpool("ls", "-r", address).stdout.splitlines())
    assert told[0] <= there < 500
    ended = azpool("cp", "--no-overwrite", "in/", address)
    assert ended.returncode == 0
    assert f"{there:,} skipped" in ended.stderr
    assert azpool("jobs", "rm", found[3]).returncode == 0
    assert azpool("jobs").stderr == "no jobs: all transfers are done\n"


# -- jobs: what was cut short goes on --------------------------------------------------------------


def only_job(azpool):
    (job,) = [json.loads(line) for line in azpool("jobs", "list", "--json").stdout.splitlines()]
    return job


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_a_signal_cut_short_is_resumed(azpool, address, tmp_path, state, number):
    files = make_files(tmp_path / "in", 1500, 4096)
    code, said, _ = interrupted(["in/", address], tmp_path, after=50, number=number, per_second=300)
    assert code in {130, -signal.SIGKILL}
    job = only_job(azpool)
    assert job["state"] == "interrupted"
    assert code != 130 or f"azpool jobs resume {job['id']} goes on from there" in said
    shown = azpool("jobs", "show").stdout
    assert shown.startswith(f"job {job['id']}  interrupted\n")
    assert "of 1,500" in shown
    ended = azpool("jobs", "resume", "--json")
    assert ended.returncode == 0, ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    end = events[-1]
    assert (end["event"], end["ok"], end["failed"], end["job"]) == ("end", 1500, 0, None)
    assert end["before"] >= job["files_done"]
    # What was done is neither moved nor told again.
    moved = [event for event in events if event["event"] == "file"]
    assert len(moved) == 1500 - end["before"]
    assert azpool("jobs").stdout == ""
    assert list(state.iterdir()) == []
    assert azpool("cp", f"{address}/", "out").returncode == 0
    assert contents(tmp_path / "out") == contents(files)


def test_a_download_that_was_cut_short_is_resumed(azpool, address, tmp_path):
    files = make_files(tmp_path / "in", 900, 4096)
    assert azpool("cp", "in/", address).returncode == 0
    code, said, _ = interrupted([f"{address}/", "out"], tmp_path, after=20, per_second=300)
    assert code == 130
    assert "azpool jobs resume" in said
    assert azpool("jobs", "resume", only_job(azpool)["id"][:5]).returncode == 0
    assert contents(tmp_path / "out") == contents(files)


def test_what_failed_is_tried_again_by_resume(azpool, address, tmp_path):
    make_files(tmp_path / "in", 40)
    for name in ("x", "y"):
        (tmp_path / "in" / name).symlink_to("nowhere")
    ended = azpool("cp", "in/", address)
    assert ended.returncode == 1
    job = only_job(azpool)
    assert job["state"] == "failed"
    assert ended.stderr.splitlines()[-1] == f"  azpool jobs resume {job['id']} tries the 2 again"
    assert "2  no such file or folder" in azpool("jobs", "show").stdout
    (tmp_path / "in" / "x").unlink()
    (tmp_path / "in" / "x").write_text("here now")
    ended = azpool("jobs", "resume")
    assert ended.returncode == 1
    assert "uploaded 41 of 42 files" in ended.stderr
    assert "40 of them before" in ended.stderr
    (tmp_path / "in" / "y").unlink()
    (tmp_path / "in" / "y").write_text("here too")
    assert azpool("jobs", "resume").returncode == 0
    assert azpool("jobs", "resume").returncode == 3


def test_resume_check_moves_again_what_is_no_longer_there(azpool, address, tmp_path):
    make_files(tmp_path / "in", 40)
    (tmp_path / "in" / "x").symlink_to("nowhere")
    assert azpool("cp", "in/", address).returncode == 1
    assert azpool("rm", f"{address}/0/0000.bin", f"{address}/1/0001.bin").returncode == 0
    (tmp_path / "in" / "x").unlink()
    (tmp_path / "in" / "x").write_text("here now")
    assert azpool("jobs", "resume", "--check").returncode == 0
    assert len(azpool("ls", "-r", address).stdout.splitlines()) == 41


def test_a_resume_signs_in_again_and_no_journal_holds_a_secret(
    azpool, azurite, address, tmp_path, state
):
    make_files(tmp_path / "in", 40)
    (tmp_path / "in" / "x").symlink_to("nowhere")
    url = f"{azurite.blob_url}/{address.removeprefix('az://')}"
    nothing = {"AZURE_STORAGE_CONNECTION_STRING": ""}
    key = ["--key", azurite.key]
    assert azpool("cp", "in/", url, *key, environment=nothing).returncode == 1
    kept = b"".join(path.read_bytes() for path in state.iterdir())
    assert azurite.key.encode() not in kept
    assert azurite.key[:20].encode() not in kept
    one_message(azpool("jobs", "resume", environment=nothing), 2, "AZURE_STORAGE_KEY")
    ended = azpool("jobs", "resume", *key, environment=nothing)
    assert ended.returncode == 1
    assert "uploaded 40 of 41 files (3.9 KiB), 40 of them before" in ended.stderr


def test_a_job_that_a_process_works_on_is_left_alone(azpool, address, tmp_path):
    make_files(tmp_path / "in", 300, 100)
    arguments = [*COMMAND, "cp", "--json", "--cap-requests", "3", "in/", address]
    with subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        for line in child.stdout:
            if json.loads(line)["event"] == "file":
                break
        job = only_job(azpool)
        assert job["state"] == "running"
        assert azpool("jobs", "resume").returncode == 3
        busy = azpool("jobs", "resume", job["id"])
        one_message(busy, 1, f"process {child.pid} works on it")
        one_message(azpool("jobs", "rm", job["id"]), 1, f"process {child.pid} works on it")
        child.send_signal(signal.SIGINT)
        child.stdout.read()
        assert child.wait(SECONDS) == 130
    assert azpool("jobs", "rm", "--all", "--yes").returncode == 0


# -- options of cp ---------------------------------------------------------------------------------


def test_a_dry_run_moves_nothing_and_tells_what_a_run_would_do(azpool, address, tmp_path):
    make_files(tmp_path / "in", 30)
    assert azpool("cp", "in/0/", f"{address}/p/0").returncode == 0
    ended = azpool("cp", "--dry-run", "--overwrite", "never", "in/", f"{address}/p")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"would upload 20 files (2.0 KiB) to {address}/p\n")
    assert "would skip 10: it exists [in/0/0000.bin, in/0/0003.bin" in ended.stdout
    lines = azpool("cp", "--dry-run", "--json", "in/", f"{address}/p").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["would_upload"] * 30 + ["plan"]
    assert len(azpool("ls", "-r", address).stdout.splitlines()) == 10
    down = azpool("cp", "--dry-run", f"{address}/p/", "out")
    assert down.stdout.startswith("would download 10 files (1.0 KiB) to out\n")
    assert not (tmp_path / "out").exists()


def test_modes_of_overwriting(azpool, address, tmp_path):
    files = make_files(tmp_path / "in", 6)
    assert azpool("cp", "in/", address).returncode == 0
    (files / "0" / "0000.bin").write_bytes(b"changed")
    for mode, moved in (("if-different", 1), ("if-newer", 0), ("never", 0)):
        ended = azpool("cp", "--overwrite", mode, "in/", address)
        assert ended.returncode == 0
        assert f"uploaded {moved} of 6 files" in ended.stderr, mode
        assert f"{6 - moved} skipped" in ended.stderr
    refused = azpool("cp", "--overwrite", "fail", "in/", address)
    one_message(refused, 1, "exists; nothing was moved")


def test_what_is_stored_with_an_upload(azpool, address, tmp_path):
    (tmp_path / "a").write_text("x")
    os.utime(tmp_path / "a", (1_000_000_000, 1_000_000_000))
    stored = ["--metadata", "who=me", "--content-type", "text/x-own", "--cache-control", "no-store"]
    verified = azpool("cp", "--verify", "md5", *stored, "a", address)
    assert verified.returncode == 0
    blob = json.loads(azpool("ls", "--json", address).stdout)
    assert blob["content_type"] == "text/x-own"
    assert blob["metadata"]["who"] == "me"
    assert blob["md5"] == base64.b64encode(hashlib.md5(b"x").digest()).decode()
    down = azpool("cp", "--preserve-times", "--verify", "md5", f"{address}/a", "b")
    assert down.returncode == 0
    assert (tmp_path / "b").stat().st_mtime == 1_000_000_000


def test_max_failures_stops_and_can_be_resumed(azpool, address, tmp_path):
    make_files(tmp_path / "in", 30)
    assert azpool("cp", "in/", address).returncode == 0
    (tmp_path / "out").mkdir()
    for folder in "012":
        (tmp_path / "out" / folder).write_text("in the way")
    arguments = ["--max-failures", "3", "--nodes", "1", "--max-concurrency", "1"]
    ended = azpool("cp", *arguments, "--json", f"{address}/", "out")
    assert ended.returncode == 1
    end = json.loads(ended.stdout.splitlines()[-1])
    assert end["failed"] >= 3
    assert end["failed"] + end["not_done"] == 30
    for folder in "012":
        (tmp_path / "out" / folder).unlink()
    assert azpool("jobs", "resume").returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "in")


def test_the_report_has_every_file(azpool, address, tmp_path):
    make_files(tmp_path / "in", 30)
    (tmp_path / "in" / "x").symlink_to("nowhere")
    ended = azpool("cp", "--report", "r.json", "--no-journal", "in/", address)
    assert ended.returncode == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counts"] == {"ok": 30, "failed": 1}
    assert len(report["outcomes"]) == 31
    assert azpool("jobs").stdout == ""


def test_a_home_that_cannot_be_written_stops_no_transfer(azpool, address, tmp_path):
    make_files(tmp_path / "in", 5)
    (tmp_path / "file").write_text("no folder")
    environment = {"AZPOOL_STATE_HOME": str(tmp_path / "file" / "jobs")}
    ended = azpool("cp", "in/", address, environment=environment)
    assert ended.returncode == 0
    assert ended.stderr.startswith("this transfer could not be resumed: no folder ")


# -- signals on the way down -----------------------------------------------------------------------


def test_ctrl_c_on_the_way_down_leaves_whole_files_only(azpool, address, tmp_path):
    files = make_files(tmp_path / "in", 500, 4096)
    assert azpool("cp", "in/", address).returncode == 0
    code, said, _ = interrupted([f"{address}/", "out"], tmp_path, after=10)
    assert code == 130
    assert said.startswith("azpool: interrupted: ")
    wanted, came = contents(files), contents(tmp_path / "out")
    assert 0 < len(came) < 500
    assert came.items() <= wanted.items()


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_ctrl_c_writes_the_report_that_was_asked_for(azpool, address, tmp_path, ending):
    make_files(tmp_path / "in", 2000, 100)
    path = tmp_path / f"r.{ending}"
    command = ["--report", str(path), "in/", address]
    code, said, _ = interrupted(command, tmp_path, after=10)
    assert code == 130
    done = int(re.search(r"interrupted: ([\d,]+) of 2,000", said)[1].replace(",", ""))
    text = path.read_text()
    assert text.count("in/") >= 2000
    if ending == "json":
        report = json.loads(text)
        assert len(report["outcomes"]) == 2000
        assert set(report["counts"]) == {"ok", "unknown"}
        assert report["counts"]["ok"] >= done > 0
    assert "jobs resume" in said


def test_sigterm_ends_it_as_cleanly(azpool, address, tmp_path):
    make_files(tmp_path / "in", 500, 4096)
    code, said, _ = interrupted(["in/", address], tmp_path, after=10, number=signal.SIGTERM)
    assert code == 143
    assert said.startswith("azpool: interrupted: ")


def on_a_terminal(arguments, folder, *, columns=100, rows=30, environment=None):
    """Run the command on a pseudo-terminal and answer (exit code, all that it wrote)."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        child = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
        )
        os.close(slave)
        written = bytearray()
        # Reading a terminal whose last process has ended is an error on Linux, not an end.
        with contextlib.suppress(OSError):
            while piece := os.read(master, 65536):
                written += piece
        return child.wait(SECONDS), written.decode()
    finally:
        os.close(master)


def screen(written):
    """Take the escape sequences out."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)


@pytest.mark.parametrize(("columns", "rows"), [(40, 30), (60, 5), (80, 24), (160, 50)])
def test_a_terminal_shows_live_progress_and_then_the_summary(address, tmp_path, columns, rows):
    make_files(tmp_path / "in", 400, 100)
    # Held to a rate, it takes longer than some frames on any machine.
    command = ["cp", "--cap-requests", "400", "in/", address]
    code, written = on_a_terminal(command, tmp_path, columns=columns, rows=rows)
    assert code == 0
    shown = screen(written)
    assert "↑ uploading to" in shown
    assert re.search(r"\d+ of 400", shown)
    last = " ".join(shown.splitlines()[-2:])
    assert "✓ uploaded 400 files (39.1 KiB) in" in shown.replace("\r\n", " ")
    assert "uploading" not in last
    assert written.count("\x1b[?25h") == written.count("\x1b[?25l") > 0
    assert max(len(line) for line in re.split(r"[\r\n]+", shown)) <= columns


def test_a_terminal_shows_failures_with_their_reasons(address, tmp_path):
    make_files(tmp_path / "in", 5)
    for name in ("x", "y"):
        (tmp_path / "in" / name).symlink_to("nowhere")
    code, written = on_a_terminal(["cp", "in/", address], tmp_path)
    assert code == 1
    shown = screen(written)
    assert "✗ uploaded 5 of 7 files" in shown
    assert re.search(r"2\s+no such file or folder", shown)
    assert "in/x" in shown


def test_no_color_is_kept_to(address, tmp_path):
    make_files(tmp_path / "in", 50)
    _, written = on_a_terminal(["cp", "in/", address], tmp_path, environment={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*[3-9][0-9][0-9;]*m", written)


def test_a_terminal_is_asked_before_a_folder_is_deleted(azpool, address, tmp_path):
    make_files(tmp_path / "in", 3)
    assert azpool("cp", "in/", address).returncode == 0
    child, master = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*COMMAND, "rm", "-r", f"{address}/"])
    written = b""
    with contextlib.suppress(OSError):
        while b"[y/N]" not in written:
            written += os.read(master, 4096)
        os.write(master, b"n\n")
        while piece := os.read(master, 4096):
            written += piece
    _, status = os.waitpid(child, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"Delete 3 blobs" in written
    assert b"nothing was deleted" in written
    assert len(azpool("ls", "-r", address).stdout.splitlines()) == 3


# -- start-up -------------------------------------------------------------------------------------


def modules_after(*arguments):
    """Answer which modules a run of the command has loaded."""
    script = (
        "import sys; from azpool.cli import main; code = main(sys.argv[1:]); "
        "print('\\nMODULES', code, *sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    _, code, *modules = ended.stdout.rpartition("\nMODULES")[2].split(" ")
    assert code == "0", ended.stderr
    return {module.strip() for module in modules}


def test_cp_with_a_key_loads_no_azure_sdk_and_no_rich(address, tmp_path):
    (tmp_path / "a").write_text("x")
    loaded = modules_after("cp", str(tmp_path / "a"), address)
    assert not {name for name in loaded if name.split(".")[0] in {"azure", "rich", "requests"}}


def test_cp_of_a_folder_loads_no_rich(address, tmp_path):
    make_files(tmp_path / "in", 30)
    loaded = modules_after("cp", "--progress", "always", f"{tmp_path}/in/", address)
    assert not {name for name in loaded if name.split(".")[0] in {"azure", "rich"}}


@pytest.mark.parametrize(
    "arguments", [("--help",), ("fleet",), ("fleet", "--help"), ("fleet", "start", "--help")]
)
def test_help_loads_neither_rich_nor_what_it_is_about(arguments):
    loaded = modules_after(*arguments)
    assert not {name for name in loaded if name.split(".")[0] in {"azure", "rich", "requests"}}
    heavy = ("azpool.storage", "azpool.pool", "azpool.fleet", "azpool.identity")
    assert not {name for name in loaded if name.startswith(heavy)}


def test_python_m_and_the_script_are_the_same_command():
    script = Path(sys.executable).with_name("azpool")
    if not script.exists():
        pytest.skip("azpool is not installed, only on the path")
    for command in ([str(script)], COMMAND):
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert re.fullmatch(r"azpool \d+\.\d+\S*\n", said.stdout)
