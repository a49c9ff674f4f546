"""`azpool jobs`, on jobs that are made by hand."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from azpool.cli import _words as words
from azpool.cli._jobs_table import job_words, table
from azpool.cli._term import Terminal
from azpool.errors import AccessDenied
from azpool.report import State
from azpool.storage.jobs import JobInfo, JobState
from azpool.storage.outcome import FileOutcome


def a_job(**facts: Any) -> JobInfo:
    known: dict[str, Any] = {
        "id": "3f2a91bc",
        "path": "/state/3f2a91bc.journal",
        "state": JobState.INTERRUPTED,
        "direction": "upload",
        "url": "https://acme.blob.core.windows.net/backup",
        "sources": ("results/",),
        "dest": "run-7",
        "cwd": "/data",
        "started": datetime(2026, 11, 25, 14, 2, tzinfo=UTC),
        "planned": True,
        "files_total": 2000,
        "files_done": 1020,
        "files_failed": 5,
        "bytes_total": 8 * 2**30,
        "bytes_done": 4 * 2**30,
        "options": {"overwrite": "if-newer", "verify": "md5", "tags": {}, "tier": None},
    }
    return JobInfo(**known | facts)


def jobs_of_all_kinds() -> list[JobInfo]:
    return [
        a_job(id="aaaa0001", state=JobState.RUNNING, files_failed=0),
        a_job(id="bbbb0002", direction="download", sources=("a/", "b/*"), dest="out"),
        a_job(id="cccc0003", state=JobState.FAILED),
        a_job(id="dddd0004", planned=False),
        JobInfo(id="eeee0005", path="/p", state=JobState.UNREADABLE, problem="it is damaged"),
    ]


def test_no_jobs_are_no_error(azpool) -> None:
    ended = azpool("jobs")
    assert (ended.code, ended.out, ended.err) == (0, "", "no jobs: all transfers are done\n")
    assert azpool("jobs", "list", "--json").out == ""


def test_jobs_are_one_line_each_in_a_pipe(azpool, storage) -> None:
    storage.kept.infos = jobs_of_all_kinds()
    ended = azpool("jobs")
    lines = ended.out.splitlines()
    assert azpool("jobs", "list").out == ended.out
    assert lines[0].split() == ["job", "began", "state", "files", "bytes", "what"]
    assert lines[1].split()[3:] == [
        "running", "1,020", "of", "2,000", "4.0", "of", "8.0", "GiB",
        "↑", "/data/results/", "→", "acme/backup/run-7",
    ]  # fmt: skip
    assert "↓ acme/backup/a/ acme/backup/b/* → /data/out" in lines[2]
    assert " 5 failed " in lines[3]
    assert lines[4].split()[4:6] == ["-", "-"]
    assert lines[5].endswith("it is damaged")


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_a_terminal_gets_what_fits_it(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    infos = [*jobs_of_all_kinds(), a_job(sources=("x" * 300,), state=JobState.RUNNING)]
    lines = table(infos, Terminal(out=Tty(), err=Tty()))
    assert len(lines) == (1 + len(infos) if columns > 110 else 1 + 2 * len(infos))
    if columns >= 80:
        assert max(map(words.cells, lines)) <= columns


def test_a_job_says_all_that_is_known_of_it(azpool, storage) -> None:
    error = AccessDenied("cannot upload 'a.nc': refused (403); check it", path="a.nc", status=403)
    storage.kept.infos = [a_job()]
    storage.kept.failures = [
        FileOutcome(index=n, name="a.nc", state=State.FAILED, error=error) for n in range(5)
    ]
    ended = azpool("jobs", "show", "3f2a")
    assert ended.code == 0
    lines = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    facts = {line[0]: line[1] for line in lines if len(line) == 2}
    assert facts["job"] == "3f2a91bc  interrupted"
    assert facts["upload"] == "/data/results/"
    assert facts["to"] == "acme/backup/run-7"
    assert facts["files"] == "1,015 of 2,000, 5 failed"
    assert facts["bytes"] == "4.0 of 8.0 GiB"
    assert facts["options"] == "overwrite if-newer, verify md5"
    assert facts["5"] == "refused (403); check it"
    assert ended.out.endswith("\nazpool jobs resume 3f2a91bc goes on from there\n")
    named = azpool("jobs", "show", "-v")
    assert named.out.count("cannot upload 'a.nc'") == 5
    told = json.loads(azpool("jobs", "show", "--json").out)
    assert told["state"] == "interrupted"
    assert told["reasons"][0]["count"] == 5


def test_a_job_that_can_not_be_read_says_why(azpool, storage) -> None:
    storage.kept.infos = jobs_of_all_kinds()[-1:]
    ended = azpool("jobs", "show")
    assert ended.code == 0
    assert "problem   it is damaged" in ended.out
    assert "jobs resume" not in ended.out


def test_resume_goes_on_with_the_newest_that_does_not_run(azpool, storage) -> None:
    storage.kept.infos = [
        a_job(id="aaaa0001"),
        a_job(id="bbbb0002"),
        a_job(id="cccc0003", state=JobState.RUNNING),
    ]
    ended = azpool("jobs", "resume", "--key", "a2V5", "--nodes", "3")
    assert ended.code == 0
    assert ended.err.startswith("uploaded 3 files (12.0 KiB)")
    ((job_id, auth, check, pool),) = storage.kept.resumed
    assert (job_id, check, pool) == ("bbbb0002", False, "pool of 3")
    assert auth.arguments() == {"key": "a2V5"}
    assert azpool("jobs", "resume", "--check", "aaaa").code == 0
    assert storage.kept.resumed[-1][0] == "aaaa0001"
    assert storage.kept.resumed[-1][2] is True


def test_a_resume_that_fails_again_keeps_its_job(azpool, storage) -> None:
    storage.kept.infos = [a_job()]
    storage.one.failures = {"b": AccessDenied("cannot upload 'b': refused (403); check", path="b")}
    ended = azpool("jobs", "resume")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "  azpool jobs resume 3f2a91bc tries it again"
    assert storage.kept.removed == []
    events = [json.loads(line) for line in azpool("jobs", "resume", "--json").out.splitlines()]
    assert events[0]["verb"] == "upload"
    assert events[-1]["job"] == "3f2a91bc"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("resume",), 3, "cannot find a job: none is there"),
        (("show",), 3, "cannot find a job: none is there"),
        (("resume", "77"), 2, "cannot find the job '77': azpool jobs lists those there are"),
        (("rm", "77"), 2, "cannot find the job '77'"),
        (("rm",), 2, "give their ids, or --done, or --all"),
        (("rm", "--all", "--done"), 2, "give their ids, or --done, or --all"),
        (("rm", "--all", "3f2a"), 2, "give their ids, or --done, or --all"),
        (("zz",), 2, "no such command 'zz'"),
        (("resume", "--report", "x"), 2, "name it .json or .csv"),
    ],
)
def test_what_can_not_be_meant(azpool, arguments, code: int, message: str) -> None:
    ended = azpool("jobs", *arguments)
    assert ended.code == code
    assert message in ended.err
    assert ended.err.startswith("azpool: cannot ")
    assert ended.err.count("\n") == 1


def test_jobs_are_removed_by_id_all_or_done(azpool, storage) -> None:
    storage.kept.infos = jobs_of_all_kinds()
    ended = azpool("jobs", "rm", "bb", "bbbb0002", "cccc0003")
    assert (ended.code, ended.err) == (0, "removed bbbb0002\nremoved cccc0003\n")
    storage.kept.removed.clear()
    assert azpool("jobs", "rm", "--done").code == 0
    assert storage.kept.removed == ["cccc0003"]
    storage.kept.removed.clear()
    refused = azpool("jobs", "rm", "--all")
    assert refused.code == 2
    assert "cannot remove 4 jobs: there is no terminal to ask on; give --yes" in refused.err
    assert storage.kept.removed == []
    ended = azpool("jobs", "rm", "--all", "--yes", "--json")
    assert [json.loads(line)["job"] for line in ended.out.splitlines()] == [
        "bbbb0002", "cccc0003", "dddd0004", "eeee0005",
    ]  # fmt: skip


def test_a_job_at_work_is_not_removed_and_others_are(azpool, storage) -> None:
    storage.kept.infos = jobs_of_all_kinds()
    ended = azpool("jobs", "rm", "aaaa", "bbbb")
    assert ended.code == 1
    assert storage.kept.removed == ["bbbb0002"]
    assert "process 7 works on it" in ended.err


def test_places_are_named_as_short_as_they_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    here = a_job(cwd=str(tmp_path), sources=("a", "b", "c", "d", "e"))
    assert job_words(here) == ("a b c and 2 more", "acme/backup/run-7")
    emulator = a_job(url="http://127.0.0.1:10000/devstoreaccount1/backup", dest="")
    assert job_words(emulator)[1] == "http://127.0.0.1:10000/devstoreaccount1/backup"


def test_help_names_the_commands_of_jobs(azpool) -> None:
    for arguments in (("jobs", "--help"), ("--help",)):
        assert "resume" in azpool(*arguments).out
    assert "--check" in azpool("jobs", "resume", "--help").out
