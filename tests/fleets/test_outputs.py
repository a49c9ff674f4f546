"""Scripts whose output is longer than what the service keeps: whole, by blobs of a real Azurite."""

from __future__ import annotations

import urllib.request

import pytest
from reached import crew

from azpool.errors import UsageError
from azpool.report import State
from azpool.testing.arm import Arm, Script

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]

LONG = "".join(f"line {number}\n" for number in range(2000))


@pytest.fixture
def arm(arm: Arm) -> Arm:
    arm.run_commands.scripts = lambda *_: Script(3, stdout=LONG, stderr="short\n")
    return arm


def read(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


@pytest.fixture
def url(kept: tuple[str, str]) -> str:
    """A container's address, with a SAS for what is written and read."""
    return "?".join(kept)


def test_without_a_container_the_end_is_had_and_said_to_be_that(arm: Arm):
    report = crew(arm, 3).run_script("x")
    for outcome in report:
        assert (outcome.state, outcome.exit_code) == (State.FAILED, 3)
        assert outcome.truncated
        assert LONG.endswith(outcome.stdout)
        assert len(outcome.stdout.encode()) == 4096


def test_with_a_container_all_of_it_is_read_back(arm: Arm, url: str):
    report = crew(arm, 3).run_script("x", output_container=url, read_output=read)
    for outcome in report:
        assert (outcome.exit_code, outcome.truncated) == (3, False)
        assert (outcome.stdout, outcome.stderr) == (LONG, "short\n")
    assert "sig=" not in report.to_json()
    assert "sig=" not in repr(report)


def test_an_output_that_cannot_be_read_back_keeps_its_end_and_says_so(arm: Arm, url: str):
    def broken(where: str) -> bytes:
        raise OSError(f"cannot read {where}")

    report = crew(arm, 3).run_script("x", output_container=url, read_output=broken)
    assert all(outcome.truncated and outcome.stdout for outcome in report)
    assert len([note for note in report.notes if "was not read: OSError" in note]) == 3
    assert "sig=" not in repr(report)


def test_a_container_without_a_reader_is_refused(arm: Arm):
    with pytest.raises(UsageError, match="give read_output"):
        crew(arm, 3).run_script("x", output_container="https://a/c?sig=x")
    assert not [one for one in arm.requests if one.method == "PUT"]
