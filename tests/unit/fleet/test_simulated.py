"""Whole operations in simulated time: what the loop promises, whatever the service does.

The loop, the procedures, the budgets and the calendar of polls are the real ones; nodes, service
and clock are pretended, so that an hour passes in a moment and a seed brings everything back.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azpool.fleet import _running
from azpool.fleet._clock import Clock
from azpool.fleet._gathering import BUNDLE, _Asked
from azpool.fleet.budget import BUCKETS
from azpool.fleet.calls import Answer, Call, Kind
from azpool.fleet.ids import vm_id
from azpool.fleet.instance import InstanceKind
from azpool.fleet.plan import Plan, make_plan
from azpool.fleet.target import Target
from azpool.report import State

if TYPE_CHECKING:
    from azpool.fleet.outcome import FleetReport

pytestmark = pytest.mark.once  # long, and the same on every Python

SUBSCRIPTIONS = ("0b1f6471-1bf0-4dda-aec3-cb9272f09590", "9c6d3f7e-94ab-4c0a-8dfa-5c3f4c1f2a10")
LEFT = "x-ms-ratelimit-remaining-subscription-"
LATENCY_SECONDS = 0.1
LIST = "https://arm/list/"
PAGE = 500


def target(index: int, subscription: str) -> Target:
    name = f"vm{index}"
    return Target(
        index=index,
        resource_id=str(vm_id(subscription, "rg", name)),
        name=name,
        instance_id=name,
        subscription=subscription,
        group="rg",
        scale_set=None,
        kind=InstanceKind.VM,
        location="westus",
    )


class Time(Clock):
    """A clock that nothing but waiting moves."""

    def __init__(self, seed: int) -> None:
        self.time = 1000.0
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return 1.8e9 + self.time

    def jitter(self) -> float:
        return self._random.random()

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def wait(
        self, futures: Collection[Future[Any]], timeout_seconds: float | None
    ) -> set[Future[Any]]:
        if not futures and timeout_seconds is None:
            return set()
        until = math.inf if timeout_seconds is None else self.time + timeout_seconds
        while not (done := {future for future in futures if future.done()}):
            if not self._events or self._events[0][0] > until:
                assert until < math.inf, "it would sleep for ever"
                self.time = until
                break
            self.time, _, event = heapq.heappop(self._events)
            event()
        return done


@dataclass
class Machine:
    """One machine, and what came for it."""

    posts: list[tuple[float, int | None]] = field(default_factory=list)
    accepted: int = 0
    ends: float = math.inf
    fate: str = "running"
    polls: list[float] = field(default_factory=list)


class Service:
    """ARM with its buckets, machines that take time to start, and bad luck by a seed."""

    size = 10

    def __init__(
        self,
        clock: Time,
        seed: int,
        *,
        seconds: float = 30.0,
        trouble: dict[str, float] | None = None,
        tight: float = 1.0,
    ) -> None:
        self.clock = clock
        self.seconds = seconds
        self.trouble = trouble or {}
        self.random = random.Random(seed)
        self.machines: defaultdict[str, Machine] = defaultdict(Machine)
        self.buckets: dict[tuple[str, Kind], tuple[float, float]] = {}
        self.tight = tight
        self.closed: dict[tuple[str, Kind], float] = {}
        self.refused: Counter[str] = Counter()
        self.early: list[tuple[float, Call]] = []
        self.sent: list[tuple[float, Call]] = []
        self.pages: list[float] = []

    # --- the nodes ------------------------------------------------------------------------------

    def submit(self, fn: Any, /, *args: Any, **_: Any) -> Future[Any]:
        del fn
        calls: list[Call] = args[0]
        now = self.clock.time
        future: Future[Any] = Future()
        answers: list[Answer] = []
        for call in calls:
            self.sent.append((now, call))
            if now < self.closed.get((call.subscription, call.kind), 0.0):
                self.early.append((now, call))

        def arrive() -> None:
            answers.extend(self.answer(call) for call in calls)

        def come_back() -> None:
            for call, answer in zip(calls, answers, strict=True):
                if answer.status == 429:
                    until = self.clock.time + float(answer.headers["retry-after"])
                    key = (call.subscription, call.kind)
                    self.closed[key] = max(until, self.closed.get(key, 0.0))
            future.set_result(answers)

        self.clock.at(now + LATENCY_SECONDS / 2, arrive)
        self.clock.at(now + LATENCY_SECONDS, come_back)
        return future

    # --- the service ----------------------------------------------------------------------------

    def take(self, call: Call) -> float | None:
        """Take one from a bucket: answer what is left, or None where there is nothing."""
        size = BUCKETS[call.kind]
        capacity, refill = size.capacity * self.tight, size.refill_per_second * self.tight
        key = (call.subscription, call.kind)
        left, then = self.buckets.get(key, (capacity, self.clock.time))
        left = min(capacity, left + (self.clock.time - then) * refill)
        ok = left >= 1
        self.buckets[key] = (left - ok, self.clock.time)
        return left - 1 if ok else None

    def answer(self, call: Call) -> Answer:
        left = self.take(call)
        if left is None:
            self.refused[call.subscription] += 1
            code = "SubscriptionRequestsThrottled"
            return Answer(status=429, code=code, headers={"retry-after": "5"})
        headers = {f"{LEFT}{call.kind.value}s": str(int(left))}
        if call.method == "compute.virtual_machines.list_all" or LIST in str(call.url):
            return self.page(call, headers)
        if call.method == "get":
            return self.poll(call, headers)
        name = str(call.arguments["vm_name"])
        machine = self.machines[f"{call.subscription}/{name}"]
        if call.kind is Kind.READ:
            return self.view(machine, headers)
        return self.post(call, name, machine, headers)

    def draw(self) -> str:
        """Draw what goes wrong with a call, or ""."""
        names = [name for name in self.trouble if name != "poll"]
        shares = [self.trouble[name] for name in names]
        nothing = max(0.0, 1.0 - sum(shares))
        return self.random.choices(["", *names], [nothing, *shares])[0]

    def post(self, call: Call, name: str, machine: Machine, headers: dict[str, str]) -> Answer:
        trouble = self.draw()
        if trouble == "unsent":
            return Answer(status=None, code="ServiceRequestError", sent=False)
        if trouble in {"409", "403", "503"}:
            machine.posts.append((self.clock.time, int(trouble)))
            return Answer(status=int(trouble), code=f"Code{trouble}", headers=headers)
        machine.accepted += 1
        machine.ends = self.clock.time + self.seconds * (0.5 + self.random.random())
        machine.fate = "failed" if trouble == "fails" else "running"
        machine.posts.append((self.clock.time, 202))
        if trouble == "lost":
            return Answer(status=None, code="ServiceResponseError", sent=True)
        url = f"https://arm/{call.subscription}/{name}"
        return Answer(status=202, headers={**headers, "azure-asyncoperation": url})

    def poll(self, call: Call, headers: dict[str, str]) -> Answer:
        machine = self.machines[str(call.url).removeprefix("https://arm/")]
        machine.polls.append(self.clock.time)
        if self.random.random() < self.trouble.get("poll", 0.0):
            return Answer(status=500, headers=headers)
        if self.clock.time < machine.ends:
            return Answer(status=200, headers=headers, body={"status": "InProgress"})
        if machine.fate == "failed":
            body = {"status": "Failed", "error": {"code": "AllocationFailed", "message": "no"}}
            return Answer(status=200, headers=headers, body=body)
        return Answer(status=200, headers=headers, body={"status": "Succeeded"})

    def page(self, call: Call, headers: dict[str, str]) -> Answer:
        """One page of the states of a subscription's machines."""
        self.pages.append(self.clock.time)
        names = [name for name in self.machines if name.startswith(call.subscription)]
        start = int(str(call.url).removeprefix(LIST)) if call.url else 0
        rows = []
        for name in names[start : start + PAGE]:
            view = self.view(self.machines[name], {}).body
            rows.append({"id": str(vm_id(call.subscription, "rg", name.split("/")[1])), **view})
        body = {"value": rows}
        if start + PAGE < len(names):
            body["nextLink"] = f"{LIST}{start + PAGE}"
        return Answer(status=200, headers=headers, body=body)

    def view(self, machine: Machine, headers: dict[str, str]) -> Answer:
        power, provisioning = "deallocated", "succeeded"
        if machine.accepted:
            busy = self.clock.time < machine.ends
            power = "starting" if busy else "running" if machine.fate == "running" else "stopped"
            provisioning = "updating" if busy else "succeeded"
        codes = [f"PowerState/{power}", f"ProvisioningState/{provisioning}"]
        statuses = [{"code": code} for code in codes]
        body = {"properties": {"instanceView": {"statuses": statuses}}}
        return Answer(status=200, headers=headers, body=body)


def start(
    service: Service, count: int, *, subscriptions: int = 1, **how: Any
) -> tuple[FleetReport, float]:
    """Start machines; answers the report and the simulated seconds that it took."""
    targets = [target(n, SUBSCRIPTIONS[n % subscriptions]) for n in range(count)]
    plan = make_plan("start", targets, batch=how.pop("batch", None))
    began = service.clock.time
    end = _running._Running.close

    def close(running: Any) -> None:
        end(running)
        later = [what for _, _, what in running._later if isinstance(what, _Asked)]
        assert +running._held_back == Counter(key for what in later for key in what.held)

    # Whatever happened, no call that is gone is counted among those that wait for budget.
    with mock.patch.object(_running._Running, "close", close):
        report = _run(plan, service, how)
    return report, service.clock.time - began


def _run(plan: Plan, service: Service, how: dict[str, Any]) -> FleetReport:
    return _running.run(
        plan,
        performer=lambda calls: [],
        pool=service,
        progress=None,
        budget=None,
        clock=service.clock,
        **{"timeout_seconds": None, "max_failures": None, **how},
    )


def machine_of(service: Service, index: int, subscriptions: int = 1) -> Machine:
    return service.machines[f"{SUBSCRIPTIONS[index % subscriptions]}/vm{index}"]


SHARES = st.fixed_dictionaries(
    {},
    optional={
        name: st.floats(0.0, 0.15)
        for name in ("lost", "unsent", "409", "403", "503", "fails", "poll")
    },
)


@pytest.mark.parametrize("subscriptions", [1, 2])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 300),
    seconds=st.floats(1.0, 600.0),
    tight=st.sampled_from([1.0, 0.3, 0.1]),
    trouble=SHARES,
    batch=st.none() | st.integers(1, 50),
)
def test_whatever_happens_everyone_is_told_the_truth_and_nobody_is_asked_twice(
    seed: int,
    count: int,
    subscriptions: int,
    seconds: float,
    tight: float,
    trouble: dict[str, float],
    batch: int | None,
):
    clock = Time(seed)
    service = Service(clock, seed, seconds=seconds, trouble=trouble, tight=tight)
    report, _ = start(service, count, subscriptions=subscriptions, batch=batch)
    assert [one.index for one in report] == list(range(count))
    assert service.early == [], "sent before its Retry-After had passed"
    for index, outcome in enumerate(report):
        machine = machine_of(service, index, subscriptions)
        assert machine.accepted <= 1, "started twice"
        if outcome.state is State.OK:
            assert machine.accepted and machine.fate == "running"
            assert clock.time >= machine.ends
        elif outcome.state is State.FAILED:
            assert machine.fate == "failed" or not machine.accepted
        else:
            # Only what was lost on the way, or kept from being sent, is not known.
            assert outcome.state is State.UNKNOWN
            assert {"lost", "poll", "unsent", "503"} & trouble.keys()
        gaps = [b - a for a, b in itertools.pairwise(machine.polls)]
        assert all(gap >= _running.POLL_SECONDS - 1e-6 for gap in gaps)


@pytest.mark.parametrize(("count", "seconds"), [(200, 30.0), (500, 60.0), (1000, 120.0)])
def test_what_goes_well_takes_little_longer_than_the_budget_and_the_machines_do(
    count: int, seconds: float
):
    clock = Time(7)
    service = Service(clock, 7, seconds=seconds)
    report, took = start(service, count)
    assert len(report.ok) == count
    writes = BUCKETS[Kind.WRITE]
    last_sent = max(0.0, (count - writes.capacity) / writes.refill_per_second)
    # Machines take up to half as long again; what is sent last ends last.
    assert took <= 1.3 * (last_sent + 1.5 * seconds)
    assert sum(service.refused.values()) <= 20


def test_two_subscriptions_do_not_wait_for_each_other():
    clock = Time(3)
    both = Service(clock, 3, seconds=5.0)
    alone = Service(Time(3), 3, seconds=5.0)
    _, took_both = start(both, 800, subscriptions=2)
    _, took_alone = start(alone, 400)
    assert took_both <= 1.15 * took_alone


def test_polls_leave_the_bucket_of_reads_what_it_regains():
    service = Service(Time(5), 5, seconds=300.0)
    start(service, 600)
    polls = Counter(math.floor(at) for at, call in service.sent if call.poll)
    ends = Counter(math.floor(one.ends) for one in service.machines.values())
    for second, count in polls.items():
        # Each that ends brings some others forward.
        near = sum(ends[second - back] for back in range(12))
        assert count <= BUCKETS[Kind.READ].refill_per_second + 5 * near + 1
    assert not service.refused


def test_thousands_under_way_are_listed_and_asked_for_when_they_are_done():
    # They take 10 to 30 min and are begun within 4, so that all are under way together.
    service = Service(Time(11), 11, seconds=1200.0)
    report, _ = start(service, 2500)
    assert len(report.ok) == 2500
    begun, over = service.pages[0] + 60, service.pages[-1]
    assert over - begun > 600
    every = [at for one in service.machines.values() for at in one.polls]
    polls = sum(begun < at < over for at in every)
    ends = sum(begun < one.ends < over for one in service.machines.values())
    # In turn all of them would have been asked for 25 times a second.
    assert ends < polls < 25 * (over - begun) / 4
    assert len(service.pages) < 2 * (over - begun)
    assert not service.refused
    # Whose machine was done was soon asked for.
    late = sorted(one.polls[-1] - one.ends for one in service.machines.values())
    assert late[len(late) // 2] < 20
    assert late[-1] < 65


def test_a_crowd_whose_list_is_refused_is_asked_for_in_turn():
    service = Service(Time(12), 12, seconds=600.0)
    service.page = lambda call, headers: Answer(status=403, code="AuthorizationFailed")
    report, _ = start(service, 2500)
    assert len(report.ok) == 2500
    late = max(one.polls[-1] - one.ends for one in service.machines.values())
    assert late < 2500 / 20 + 10


@pytest.mark.parametrize("limit", [300.0, 500.0])
def test_time_runs_out_for_a_crowd(limit: float):
    service = Service(Time(13), 13, seconds=1200.0)
    report, took = start(service, 2000, timeout_seconds=limit)
    assert took <= limit + _running.GRACE_SECONDS + 1
    assert len(report) == 2000
    assert {one.state for one in report} <= {State.UNKNOWN, State.CANCELLED}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), limit=st.floats(0.5, 80.0))
def test_time_that_runs_out_leaves_everyone_an_outcome(seed: int, limit: float):
    service = Service(Time(seed), seed, trouble={"lost": 0.1})
    report, took = start(service, 260, timeout_seconds=limit)
    assert len(report) == 260
    assert took <= limit + _running.GRACE_SECONDS + 1
    for index, outcome in enumerate(report):
        machine = machine_of(service, index)
        if outcome.state is State.CANCELLED:
            assert not machine.accepted, "it was sent, and is told as not sent"


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    allowed=st.integers(0, 20),
    batch=st.none() | st.integers(1, 30),
    count=st.integers(20, 500),
)
def test_too_many_failures_send_nothing_new(seed: int, allowed: int, batch: int | None, count: int):
    service = Service(Time(seed), seed, trouble={"409": 0.3})
    report, _ = start(service, count, batch=batch, max_failures=allowed)
    states = Counter(one.state for one in report)
    # What had left already when one too many failed: a bundle on each node, or a batch.
    on_their_way = service.size * BUNDLE if batch is None else batch
    assert states[State.FAILED] <= allowed + on_their_way
    assert states.keys() <= {State.OK, State.FAILED, State.SKIPPED}
    if states[State.SKIPPED]:
        assert states[State.FAILED] > allowed
    for index, outcome in enumerate(report):
        if outcome.state is State.SKIPPED:
            assert not machine_of(service, index).posts
            assert "max_failures" in outcome.message
