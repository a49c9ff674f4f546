"""Which budgets a call counts in, what answers teach of them, and which gate a 429 closes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.fleet.budget import BUCKETS, Budget, policies_of, retry_after_seconds
from azpool.fleet.calls import Answer, Call, Kind

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
OTHER = "9c6d3f7e-94ab-4c0a-8dfa-5c3f4c1f2a10"
LEFT = "x-ms-ratelimit-remaining-subscription-"
POLICIES = "x-ms-ratelimit-remaining-resource"


def call(
    number: int = 0, *, kind: Kind = Kind.WRITE, subscription: str = SUB, operation: str = "start"
) -> Call:
    policy = (f"/machines/{number}", operation)
    return Call(subscription=subscription, method="m", kind=kind, policy=policy)


def answered(budget: Budget, now: float, asked: Call, answer: Answer, **more: Any) -> None:
    wait, taken = budget.take(now, asked)
    assert wait == 0
    budget.answered(now, asked, answer, taken, **more)


def refused(seconds: str = "10", **facts: Any) -> Answer:
    headers = {"retry-after": seconds, **facts.pop("headers", {})}
    return Answer(status=429, headers=headers, **facts)


# --- what headers say -----------------------------------------------------------------------------


def test_policies_are_read_by_their_names():
    header = "Microsoft.Compute/UpdateVMSubscriptionMaximum;1499,Microsoft.Compute/StartResource;11"
    assert policies_of(header) == {"UpdateVMSubscriptionMaximum": 1499, "StartResource": 11}


@pytest.mark.parametrize("header", ["", ";", ",,", "x", "x;", ";1", "x;one", "x;nan", "x;inf"])
def test_policies_that_cannot_be_read_are_left_out(header: str):
    assert policies_of(header) == {}


@given(st.text())
def test_no_header_is_too_odd_to_read(text: str):
    policies_of(text)
    seconds = retry_after_seconds(Answer(status=429, headers={"retry-after": text}), 0.0)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "250", "retry-after": "17"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        (
            {
                "retry-after": "Wed, 25 Nov 2026 10:00:30 GMT",
                "date": "Wed, 25 Nov 2026 10:00:00 GMT",
            },
            30,
        ),
        (
            {
                "retry-after": "Wed, 25 Nov 2026 10:00:00 GMT",
                "date": "Wed, 25 Nov 2026 10:00:30 GMT",
            },
            0,
        ),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_milliseconds_or_a_date(
    headers: dict[str, str], seconds: float | None
):
    assert retry_after_seconds(Answer(status=429, headers=headers)) == seconds


# --- which gate closes ----------------------------------------------------------------------------


def test_nothing_is_held_back_before_a_header_says_so():
    budget = Budget()
    assert [budget.take(0.0, call(n))[0] for n in range(1000)] == [0.0] * 1000


def test_who_is_refused_waits_for_all_that_wait_already():
    budget = Budget()
    _, keys = budget.take(0.0, call())
    told = {f"{LEFT}writes": "0"}
    answered(budget, 0.0, call(1), Answer(status=202, headers=told))
    refill = BUCKETS[Kind.WRITE].refill_per_second
    waits = [budget.wait_behind(0.0, keys, {keys[0]: ahead}) for ahead in (0, 49, 99, 10_000)]
    assert waits[1:3] == pytest.approx([50 / refill, 100 / refill], rel=0.03)
    assert 0 < waits[0] < 0.5
    # Nobody waits longer than until the bucket is full.
    assert waits[3] == pytest.approx(BUCKETS[Kind.WRITE].capacity / refill, rel=0.03)


def test_a_429_of_arm_closes_its_subscription_and_kind_alone():
    budget = Budget()
    answered(budget, 0.0, call(), refused(code="SubscriptionRequestsThrottled"))
    assert budget.wait_seconds(0.0, call(1)) == 10
    assert budget.wait_seconds(0.0, call(1, kind=Kind.READ)) == 0
    assert budget.wait_seconds(0.0, call(1, subscription=OTHER)) == 0
    assert budget.wait_seconds(10.0, call(1)) == 0


def test_a_429_of_a_machine_s_policy_holds_back_that_machine_alone():
    budget = Budget()
    used_up = {POLICIES: "Microsoft.Compute/StartVMResource;0,Microsoft.Compute/StartVMMax;900"}
    answered(budget, 0.0, call(1), refused(code="OperationNotAllowed", headers=used_up))
    assert budget.wait_seconds(0.0, call(1)) == 10
    assert budget.wait_seconds(0.0, call(2)) == 0
    assert budget.wait_seconds(0.0, call(1, operation="resize")) == 0


def test_a_429_of_a_subscription_s_policy_holds_back_what_counts_in_it():
    budget = Budget()
    details = [{"code": "TooManyRequests", "target": "StartVMSubscriptionMaximum"}]
    body = {"error": {"code": "OperationNotAllowed", "details": details}}
    answered(budget, 0.0, call(1), refused(code="OperationNotAllowed", body=body))
    assert budget.wait_seconds(0.0, call(2)) == 10
    assert budget.wait_seconds(0.0, call(2, operation="resize")) == 0
    assert budget.wait_seconds(0.0, call(2, subscription=OTHER)) == 0


def test_a_429_that_names_nothing_closes_the_kind():
    budget = Budget()
    answered(budget, 0.0, call(1), refused())
    assert budget.wait_seconds(0.0, call(2)) == 10


@given(jitter=st.floats(0, 0.999), seconds=st.integers(0, 3600))
def test_jitter_makes_a_wait_longer_and_never_shorter(jitter: float, seconds: int):
    budget = Budget()
    answered(budget, 0.0, call(), refused(str(seconds)), jitter=jitter)
    assert seconds <= budget.wait_seconds(0.0, call()) <= seconds * 1.25


def test_principals_have_budgets_of_their_own_names():
    one, other = Budget("one"), Budget("other")
    assert one.keys(call()) != other.keys(call())


# --- what is left ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_what_arm_says_is_left_is_kept_to_and_refills(kind: Kind):
    budget = Budget()
    headers = {f"{LEFT}{kind.value}s": "2"}
    answered(budget, 0.0, call(kind=kind), Answer(status=200, headers=headers))
    assert [budget.take(0.0, call(n, kind=kind))[0] for n in range(2)] == [0, 0]
    wait, _ = budget.take(0.0, call(3, kind=kind))
    assert wait == pytest.approx(1 / BUCKETS[kind].refill_per_second)
    assert budget.take(wait + 0.001, call(3, kind=kind))[0] == 0


def test_what_waits_is_told_in_words():
    budget = Budget()
    answered(budget, 0.0, call(), refused(code="SubscriptionRequestsThrottled"))
    assert budget.in_words(call(1), 0.0) == "writes of 0b1f…"


class Bucket:
    """ARM's side: a token bucket that says what is left and refuses what it hasn't."""

    def __init__(self, kind: Kind) -> None:
        self.size = BUCKETS[kind]
        self.left = float(self.size.capacity)
        self.now = 0.0

    def ask(self, now: float) -> Answer:
        refilled = self.left + (now - self.now) * self.size.refill_per_second
        self.left, self.now = min(self.size.capacity, refilled), now
        if self.left < 1:
            return refused("1", code="SubscriptionRequestsThrottled")
        self.left -= 1
        return Answer(status=202, headers={f"{LEFT}writes": str(int(self.left))})


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=300))
def test_one_who_keeps_to_it_is_never_refused(gaps: list[float]):
    budget, bucket = Budget(), Bucket(Kind.WRITE)
    now = 0.0
    for number, gap in enumerate([0.0] * 190 + gaps):
        now += gap
        wait, taken = budget.take(now, call(number))
        while wait:
            now += wait
            wait, taken = budget.take(now, call(number))
        answer = bucket.ask(now)
        assert answer.status == 202
        budget.answered(now, call(number), answer, taken)
