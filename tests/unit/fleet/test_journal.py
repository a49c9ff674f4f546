"""Journals of fleets: whole lines, one holder, and what each cut of the file tells."""

import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import FleetError, LocalFileError, UsageError
from azpool.fleet.calls import Answer, Call, Kind
from azpool.fleet.journal import Journal
from azpool.fleet.outcome import InstanceOutcome
from azpool.report import State

PLAN = {"operation": "start", "steps": [{"place": 0}, {"place": 1}]}
CLIENT = {"base_url": "https://x"}
CALL = Call(subscription="s", method="compute.virtual_machines.begin_start", kind=Kind.WRITE)
ACCEPTED = Answer(
    status=202,
    headers={
        "azure-asyncoperation": "https://x/op",
        "location": "https://x/loc",
        "retry-after": "7",
        "x-ms-request-id": "r1",
        "x-secret": "no",
    },
)
FAILED = InstanceOutcome(
    index=1,
    name="b",
    state=State.FAILED,
    error=FleetError("cannot start 'b': no (409 Conflict)", status=409, code="Conflict"),
    seconds=1.5,
    attempts=3,
    resource_id="/b",
    instance_id="b",
    operation="start",
    status=409,
    code="Conflict",
    message="no",
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal")


def written(path):
    """A journal in which one step is accepted, one is unsure, one has ended."""
    journal = Journal.create(path, PLAN, CLIENT)
    first = journal.intend(0, CALL)
    journal.answered(0, first, ACCEPTED)
    journal.note(0, name="azpool-1")
    second = journal.intend(1, CALL)
    journal.answered(1, second, Answer(status=None, code="Timeout"))
    journal.ended(FAILED)
    journal.close()


def past_of(path):
    journal, past = Journal.open(path)
    journal.close()
    return past


def test_what_was_written_is_what_is_told(path):
    written(path)
    past = past_of(path)
    assert (past.plan, past.client) == (PLAN, CLIENT)
    step = past.step(0)
    (intent,) = step.intents
    assert (intent.answered, intent.status, intent.url) == (True, 202, "https://x/op")
    assert intent.headers == {
        "azure-asyncoperation": "https://x/op",
        "location": "https://x/loc",
        "retry-after": "7",
    }
    assert (intent.request_id, intent.method) == ("r1", CALL.method)
    assert (step.untouched, step.unsure, step.notes) == (False, False, {"name": "azpool-1"})
    assert past.step(7).untouched
    (outcome,) = past.outcomes.values()
    assert outcome.to_dict() == FAILED.to_dict()
    assert (outcome.error.status, outcome.error.code) == (409, "Conflict")


def test_lost_answer_leaves_its_step_unsure_and_a_refusal_does_not(path):
    written(path)
    assert past_of(path).step(1).unsure
    journal, _ = Journal.open(path)
    number = journal.intend(1, CALL)
    journal.answered(1, number, Answer(status=409))
    journal.close()
    assert not past_of(path).step(1).unsure


def test_call_that_never_left_is_no_doubt(path):
    journal = Journal.create(path, PLAN, CLIENT)
    number = journal.intend(0, CALL)
    journal.answered(0, number, Answer(status=None, sent=False, code="ServiceRequestError"))
    journal.close()
    step = past_of(path).step(0)
    assert (step.unsure, step.intents[0].status) == (False, None)


def test_file_is_for_its_owner_alone_and_holds_no_body(path):
    journal = Journal.create(path, PLAN, CLIENT)
    call = Call(subscription="s", method="m", arguments={"body": {"script": "hush"}})
    journal.intend(0, call)
    journal.close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path) as file:
        assert "hush" not in file.read()


@given(st.floats(0, 1))
def test_journal_cut_at_any_byte_tells_what_its_whole_lines_tell(tmp_path_factory, share):
    path = str(tmp_path_factory.mktemp("cut") / "journal")
    written(path)
    with open(path, "rb") as file:
        whole = file.read()
    first = whole.index(b"\n") + 1
    cut = first + round(share * (len(whole) - first))
    with open(path, "wb") as file:
        file.write(whole[:cut])
    journal, past = Journal.open(path)
    lines = whole[:cut].split(b"\n")[:-1]
    told = sum(len(step.intents) for step in past.steps.values())
    assert told == sum(b'"intend"' in line for line in lines)
    # An intent without its whole answer is in doubt: nothing is sent for it again.
    if told and not any(b'"answered"' in line for line in lines):
        assert past.step(0).unsure
    # And it goes on from there.
    number = journal.intend(5, CALL)
    journal.answered(5, number, ACCEPTED)
    journal.close()
    assert not past_of(path).step(5).unsure


def test_journal_is_one_process_s_at_a_time(path):
    journal = Journal.create(path, PLAN, CLIENT)
    with pytest.raises(LocalFileError, match="another process works on it"):
        Journal.open(path)
    code = (
        "from azpool.fleet.journal import Journal\n"
        "try:\n    Journal.open(__import__('sys').argv[1])\n"
        "except Exception as error:\n    print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "LocalFileError\n"
    journal.close()
    journal.close()
    past_of(path)


def test_file_that_is_there_is_never_overwritten(path):
    written(path)
    with pytest.raises(UsageError, match="it is there"):
        Journal.create(path, PLAN, CLIENT)
    assert past_of(path).plan == PLAN


def test_journal_of_nothing_is_refused(path):
    with pytest.raises(UsageError, match="there is no such journal"):
        Journal.open(path)
    with pytest.raises(LocalFileError, match="No such file"):
        Journal.create(f"{path}/x/y", PLAN, CLIENT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n",
        "[]\n",
        '{"journal":99}\n',
        '{"journal":1}\n',
        '{"journal":1,"at":0,"plan":{},"client":{}}\n{"answered":0,"number":1}\n',
        '{"journal":1,"at":0,"plan":{},"client":{}}\nnonsense\n{"note":0,"notes":{}}\n',
        '{"journal":1,"at":0,"plan":{},"client":{}}\n{"ended":{"state":"great"}}\n',
    ],
)
def test_damaged_journal_says_so_and_is_let_go(path, text):
    with open(path, "w") as file:
        file.write(text)
    for _ in range(2):
        with pytest.raises(LocalFileError, match="cannot resume"):
            Journal.open(path)


def test_removed_journal_is_gone_and_takes_no_more(path):
    journal = Journal.create(path, PLAN, CLIENT)
    journal.remove()
    journal.remove()
    journal.intend(0, CALL)
    assert not os.path.exists(path)
