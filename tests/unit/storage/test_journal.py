"""The journal as a file: where it lies, who holds it, and that it goes."""

import os
import stat
import subprocess
import sys

import pytest

from azpool.errors import LocalFileError, UsageError
from azpool.storage import journal
from azpool.storage.journal import Journal, find_journal, is_held, run_of, state_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"AZPOOL_STATE_HOME": "/a", "XDG_STATE_HOME": "/x"}, "/a"),
        ({"XDG_STATE_HOME": "/x"}, "/x/azpool/jobs"),
        ({"XDG_STATE_HOME": "relative"}, os.path.expanduser("~/.local/state/azpool/jobs")),
        ({}, os.path.expanduser("~/.local/state/azpool/jobs")),
    ],
)
def test_where_journals_lie(environ, expected):
    assert state_folder(environ) == expected


def test_only_the_user_may_read_them(folder):
    kept = Journal.create()
    kept.ledger.note(x="y")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert {f.name.removeprefix(kept.id) for f in files} >= {".journal", ".journal.lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    kept.close(remove=True)
    assert list(folder.iterdir()) == []


def test_a_done_one_is_gone_and_can_still_be_read(folder):
    kept = Journal.create()
    kept.ledger.note(x="y")
    kept.finish(done=True)
    assert list(folder.iterdir()) == []
    assert kept.ledger.facts()["x"] == "y"
    kept.ledger.close()
    assert list(folder.iterdir()) == []


def test_another_one_stays_and_can_be_taken_over(folder):
    kept = Journal.create()
    kept.ledger.note(x="y")
    kept.finish(done=False)
    other = Journal.open(kept.path)
    assert (other.id, other.ledger.facts()["x"]) == (kept.id, "y")
    other.ledger.note(x="z")
    assert kept.ledger.facts()["x"] == "y"  # its report tells of its own call
    kept.ledger.close()
    other.close(remove=True)


def test_two_processes_are_kept_apart(folder):
    kept = Journal.create()
    assert is_held(kept.path)
    script = "import sys; from azpool.storage.journal import Journal; Journal.open(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, kept.path], capture_output=True, text=True, check=False
    )
    assert f"process {os.getpid()} works on it; wait for that one, or end it" in done.stderr
    with pytest.raises(LocalFileError) as caught:
        Journal.open(kept.path)
    assert caught.value.code == "EBUSY"
    kept.close()
    assert not is_held(kept.path)
    Journal.open(kept.path).close(remove=True)


def test_a_killed_process_holds_nothing(folder):
    script = (
        "import os, signal; from azpool.storage.journal import Journal; "
        "j = Journal.create(); print(j.path, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    path = done.stdout.strip()
    assert not is_held(path)
    Journal.open(path).close(remove=True)
    assert list(folder.iterdir()) == []


def test_a_child_does_not_hold_its_parents_journal(folder):
    kept = Journal.create()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent has looked
        os._exit(0)
    kept.close()
    held = is_held(kept.path)
    os.close(reader)
    os.close(writer)
    os.waitpid(child, 0)
    assert not held
    Journal.open(kept.path).close(remove=True)


def test_a_path_of_ones_own_must_be_new(folder, tmp_path):
    path = str(tmp_path / "mine")
    kept = Journal.create(path)
    kept.close()
    with pytest.raises(UsageError, match="there is one"):
        Journal.create(path)
    assert find_journal(path) == path
    Journal.open(path).close(remove=True)
    assert not folder.exists()


def test_a_folder_that_can_not_be_written_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "file" / "x"))
    with pytest.raises(LocalFileError, match="cannot make folder"):
        Journal.create()


def test_a_beginning_of_an_id_is_enough_where_no_other_has_it(folder):
    folder.mkdir()
    for name in ("abc1", "abd2"):
        (folder / f"{name}.journal").touch()
    assert find_journal("abc") == str(folder / "abc1.journal")
    with pytest.raises(UsageError, match="2 jobs begin so"):
        find_journal("ab")
    with pytest.raises(UsageError, match="cannot find the job"):
        find_journal("f")
    with pytest.raises(UsageError, match="cannot find the job"):
        find_journal("no/such/path")


def test_runs_differ_in_the_characters_that_part_names_have():
    runs = {run_of(f"{n:08x}")[:8] for n in range(2000)}
    assert len(runs) == 2000
    assert run_of("a") == run_of("a")


def test_a_damaged_one_can_be_removed(folder):
    kept = Journal.create()
    kept.close()
    with open(kept.path, "wb") as file:
        file.write(b"x" * 5000)
    journal.remove_files(kept.path)
    assert list(folder.iterdir()) == []
