"""Operations followed to their end, by every way in which the service tells of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.fleet.calls import Answer, Call, Kind, Pause
from azpool.fleet.polling import Ending, follow, is_lost, poll_url, trouble_of

CALL = Call(subscription="s", method="compute.virtual_machines.begin_start", kind=Kind.WRITE)
REREAD = Call(subscription="s", method="compute.virtual_machines.get", repeatable=True)
ASYNC = {"azure-asyncoperation": "https://arm/operations/1", "location": "https://arm/results/1"}
LOCATION = {"location": "https://arm/results/1"}


def status(word: str, headers: dict[str, str] | None = None, **error: str) -> Answer:
    body: dict[str, Any] = {"status": word}
    if error:
        body["error"] = error
    return Answer(status=200, body=body, headers=headers or {})


def provisioned(word: str, code: int = 200) -> Answer:
    return Answer(status=code, body={"properties": {"provisioningState": word}})


def drive(begun: Answer, *polls: Answer, reread: Call | None = None) -> tuple[list[Any], Ending]:
    """Follow an operation through these polls; answers all that it asked for."""
    procedure = follow(CALL, begun, reread=reread)
    asked: list[Any] = []
    left = list(polls)
    try:
        step: Any = next(procedure)
        while True:
            asked.append(step)
            step = procedure.send(None if isinstance(step, Pause) else left.pop(0))
    except StopIteration as end:
        assert not left, "it ended before it was over"
        return asked, end.value


def test_the_operation_s_own_address_is_asked_before_the_result_s():
    asked, ending = drive(Answer(status=202, headers=ASYNC), status("Succeeded"))
    assert [one.url for one in asked if isinstance(one, Call)] == ["https://arm/operations/1"]
    assert all(one.poll and one.repeatable for one in asked if isinstance(one, Call))
    assert ending.ok


def test_each_answer_says_when_to_ask_again():
    first = Answer(status=202, headers={**ASYNC, "retry-after": "10"})
    waits = [status("InProgress", {"retry-after": "7"}), status("InProgress"), status("Succeeded")]
    asked, _ = drive(first, *waits)
    assert [one.seconds for one in asked if isinstance(one, Pause)] == [10, 7, 0]


@pytest.mark.parametrize("word", ["Failed", "Canceled", "failed"])
def test_an_operation_that_fails_tells_its_code_and_words(word: str):
    failed = status(word, code="AllocationFailed", message="no room")
    _, ending = drive(Answer(status=202, headers=ASYNC), status("InProgress"), failed)
    assert (ending.ok, ending.lost) == (False, False)
    assert (ending.trouble.code, ending.trouble.message) == ("AllocationFailed", "no room")


def test_one_that_fails_without_a_word_gets_a_code():
    _, ending = drive(Answer(status=202, headers=ASYNC), status("Canceled"))
    assert ending.trouble.code == "OperationCanceled"


def test_by_location_202_means_wait_and_anything_else_the_end():
    asked, ending = drive(
        Answer(status=202, headers=LOCATION), Answer(status=202), Answer(status=204)
    )
    assert [one.url for one in asked if isinstance(one, Call)] == ["https://arm/results/1"] * 2
    assert ending.ok


def test_a_location_that_moves_is_followed():
    moved = Answer(status=202, headers={"location": "https://arm/results/2"})
    asked, _ = drive(Answer(status=202, headers=LOCATION), moved, Answer(status=200))
    assert [one.url for one in asked if isinstance(one, Call)][-1] == "https://arm/results/2"


def test_where_no_address_is_named_the_resource_is_read_again():
    asked, ending = drive(
        provisioned("Creating", 201), provisioned("Creating"), provisioned("Failed"), reread=REREAD
    )
    assert {one.method for one in asked if isinstance(one, Call)} == {REREAD.method}
    assert not ending.ok


@pytest.mark.parametrize(
    "begun", [Answer(status=200), Answer(status=204), provisioned("Succeeded")]
)
def test_what_is_done_at_once_is_not_asked_for(begun: Answer):
    asked, ending = drive(begun, reread=REREAD)
    assert asked == []
    assert ending.ok


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (Answer(status=404, code="NotFound"), True),
        (Answer(status=410), True),
        (Answer(status=500), True),
        (Answer(status=None, code="ServiceResponseError"), True),
        (Answer(status=403, code="AuthorizationFailed"), False),
        (Answer(status=400), False),
    ],
)
def test_a_poll_that_tells_nothing_leaves_the_machine_s_state_to_tell(answer: Answer, lost: bool):
    _, ending = drive(Answer(status=202, headers=ASYNC), answer)
    assert (ending.ok, ending.lost) == (False, lost)


def test_lost_is_what_left_and_was_not_answered():
    assert is_lost(Answer(status=None))
    assert not is_lost(Answer(status=None, sent=False))
    assert not is_lost(Answer(status=500))


def test_parts_of_a_failure_are_told_by_their_targets():
    details = [{"target": "3", "code": "VMStartTimedOut", "message": "it took too long"}, "odd"]
    body = {"error": {"code": "Partly", "message": "some", "details": details}}
    trouble = trouble_of(Answer(status=200, body=body))
    assert trouble.details == (("3", "VMStartTimedOut", "it took too long"),)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "error", "code", "details", "properties", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=5))
def test_no_body_is_too_odd_to_be_read(bodies: list[Any]):
    procedure = follow(CALL, Answer(status=202, headers=ASYNC))
    next(procedure)
    answers = [Answer(status=200, body=body) for body in bodies]
    with pytest.raises(StopIteration) as ended:
        for answer in [*answers, status("Succeeded")]:
            procedure.send(None)
            procedure.send(answer)
    assert isinstance(ended.value.value, Ending)


def test_where_to_ask_is_what_the_headers_say():
    assert poll_url(Answer(status=202, headers=ASYNC)) == ASYNC["azure-asyncoperation"]
    assert poll_url(Answer(status=202, headers=LOCATION)) == LOCATION["location"]
    assert poll_url(Answer(status=202)) is None
