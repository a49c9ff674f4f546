"""The journal: what it keeps, what it never holds, and what a half-written line means."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from azpool._version import __version__
from azpool.errors import LocalFileError, UsageError
from azpool.fleet.calls import Answer
from azpool.fleet.ids import vm_id
from azpool.fleet.journal import Journal
from azpool.fleet.plan import Plan, make_plan
from azpool.fleet.procedures import outcome_of
from azpool.fleet.target import Target
from azpool.identity.secret import Secret
from azpool.report import State

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"


def targets(count: int = 3) -> list[Target]:
    return [
        Target(
            index=number,
            resource_id=str(vm_id(SUB, "rg", f"vm{number}")),
            name=f"vm{number}",
            instance_id=f"vm{number}",
            subscription=SUB,
            group="rg",
        )
        for number in range(count)
    ]


def plan() -> Plan:
    return make_plan("start", targets())


def test_what_was_put_down_is_read_again(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal.begin(path, plan(), {"base_url": "https://x"})
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    journal.intend([(0, "start"), (1, "start"), (2, "start")])
    journal.withdrawn(1)
    poll = {"azure-asyncoperation": "https://x/1", "x-ms-request-id": "r"}
    journal.accepted(2, Answer(status=202, headers=poll))
    failed = outcome_of(targets()[0], "start", State.FAILED, Answer(status=409, code="C"), code="C")
    journal.ended(0, [failed])
    journal.close(keep=True)
    journal.close(keep=True)
    again, past = Journal.open(path, None)
    assert past.client == {"base_url": "https://x"}
    assert set(past.intended) == {0, 2}
    assert past.accepted[2].headers == {"azure-asyncoperation": "https://x/1"}
    (told,) = past.ended[0]
    assert (told.state, told.status, told.code) == (State.FAILED, 409, "C")
    assert str(told.error) == str(failed.error)
    assert past.plan.targets == plan().targets
    again.close(keep=False)
    assert not os.path.exists(path)


def test_what_was_done_before_a_call_that_was_withdrawn_still_holds(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal.begin(path, plan(), {})
    journal.intend([(0, "stop, it ran"), (1, "start")])
    journal.accepted(0, Answer(status=202, headers={"location": "https://x/1"}))
    journal.intend([(0, "resize, it ran")])
    journal.withdrawn(0)
    journal.withdrawn(1)
    journal.close(keep=True)
    again, past = Journal.open(path, None)
    again.close(keep=False)
    assert past.intended == {0: "stop, it ran"}
    assert past.accepted[0].headers == {"location": "https://x/1"}


def test_a_line_that_was_not_finished_never_happened(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal.begin(path, plan(), {})
    journal.intend([(0, "start")])
    whole = os.path.getsize(path)
    journal.intend([(1, "start")])
    journal.close(keep=True)
    os.truncate(path, whole + 7)
    again, past = Journal.open(path, None)
    assert set(past.intended) == {0}
    again.intend([(2, "start")])
    again.close(keep=True)
    again, past = Journal.open(path, None)
    assert set(past.intended) == {0, 2}
    again.close(keep=False)


def test_one_process_works_on_it_at_a_time(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal.begin(path, plan(), {})
    with pytest.raises(UsageError, match="it is there already"):
        Journal.begin(path, plan(), {})
    with pytest.raises(LocalFileError, match="another process works on it"):
        Journal.open(path, None)
    journal.close(keep=False)
    with pytest.raises(UsageError, match="there is no such journal"):
        Journal.open(path, None)


@pytest.mark.parametrize(
    "text",
    ["", "{}\n", "no json\n", "[]\n", '{"version": 2}\n', '{"version": "two"}\n', "\x00\n"],
)
def test_a_damaged_file_is_told_and_stays(tmp_path: Path, text: str):
    path = tmp_path / "journal"
    path.write_text(text)
    with pytest.raises(LocalFileError, match="it is damaged; look at the machines") as error:
        Journal.open(str(path), None)
    assert "version" not in str(error.value)
    assert path.exists()


def test_a_line_that_is_damaged_is_told(tmp_path: Path):
    path = tmp_path / "journal"
    journal = Journal.begin(str(path), plan(), {})
    journal.intend([(0, "start"), (1, "start")])
    journal.close(keep=True)
    head, first, second = path.read_text().splitlines()
    for broken in (first[:7], "5", '{"ended": 0, "outcomes": [{"state": "odd"}]}'):
        path.write_text(f"{head}\n{broken}\n{second}\n")
        with pytest.raises(LocalFileError, match="it is damaged"):
            Journal.open(str(path), None)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('"version": 99, "azpool": "7.5.0"', "of version 99, and this .* with azpool 7.5.0$"),
        ('"version": 1', "of version 1, and .* reads version 2; .* the azpool that wrote it$"),
    ],
)
def test_a_journal_of_another_version_says_which_azpool_reads_it(
    tmp_path: Path, head: str, words: str
):
    path = tmp_path / "journal"
    path.write_text("{" + head + ', "plan": {"unlike": "ours"}}\n')
    with pytest.raises(LocalFileError, match=words) as error:
        Journal.open(str(path), None)
    assert "damaged" not in str(error.value)
    assert path.exists()


def test_a_journal_says_which_azpool_wrote_it(tmp_path: Path):
    path = tmp_path / "journal"
    Journal.begin(str(path), plan(), {}).close(keep=True)
    head = json.loads(path.read_text().splitlines()[0])
    assert (head["version"], head["azpool"]) == (2, __version__)


def test_the_names_of_run_commands_are_in_it_and_a_script_once(tmp_path: Path):
    path = tmp_path / "journal"
    made = make_plan("run_script", targets(), arguments={"script": "a long script"})
    Journal.begin(str(path), made, {}).close(keep=True)
    assert path.read_text().count("a long script") == 1
    again, past = Journal.open(str(path), None)
    again.close(keep=False)
    assert past.plan.steps == made.steps
    assert len({step.name for step in past.plan.steps}) == len(made)


def test_no_secret_is_in_it(tmp_path: Path):
    path = tmp_path / "journal"
    made = make_plan(
        "run_script",
        targets(),
        arguments={"script": "echo"},
        secrets={"protected_parameters": {"p": Secret("s3cret")}},
    )
    journal = Journal.begin(str(path), made, {})
    journal.close(keep=True)
    assert "s3cret" not in path.read_text()
    again, past = Journal.open(str(path), None)
    assert repr(past.plan.steps[0].secrets) == "{'protected_parameters': WITHHELD}"
    again.close(keep=False)
