"""Procedures on pretended nodes: what goes out when, what is sent again, and what never is."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from azpool.errors import FleetError, NodeDied
from azpool.fleet import _gathering
from azpool.fleet._clock import Clock
from azpool.fleet.calls import Answer, Call, Kind, Pause, Procedure
from azpool.fleet.run import gather

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
OTHER = "9c6d3f7e-94ab-4c0a-8dfa-5c3f4c1f2a10"
DONE = Answer(status=200, body={})
REFUSED = Answer(status=429, code="TooManyRequests", headers={"retry-after": "0.3"})
LOST = Answer(status=None, code="ServiceResponseError", message="cut", sent=True)
UNSENT = Answer(status=None, code="ServiceRequestError", message="no route", sent=False)


class PretendedNodes:
    """Nodes that answer as `reply` says, each bundle after `seconds`; they keep what was sent."""

    def __init__(
        self,
        reply: Callable[[Call, int], Answer | Exception],
        *,
        size: int = 1,
        seconds: float = 0.0,
    ) -> None:
        self.size = size
        self.reply = reply
        self.seconds = seconds
        self.sent: list[tuple[float, Call]] = []
        self.most = self.most_bundles = 0
        self._under_way = self._bundles = 0
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        del fn, kwargs
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        now = time.monotonic()
        with self._lock:
            self.sent += [(now, call) for call in args[0]]
            self._under_way += len(args[0])
            self._bundles += 1
            self.most_bundles = max(self.most_bundles, self._bundles)
            self.most = max(self.most, self._under_way)
        thread = threading.Thread(target=self._answer, args=(future, args[0]))
        self._threads.append(thread)
        thread.start()
        return future

    def _answer(self, future: Future[Any], calls: list[Call]) -> None:
        time.sleep(self.seconds)
        answers = []
        for call in calls:
            with self._lock:
                self._times[call.method] += 1
                answers.append(self.reply(call, self._times[call.method]))
        with self._lock:
            self._under_way -= len(calls)
            self._bundles -= 1
        broken = [one for one in answers if isinstance(one, Exception)]
        if broken:
            future.set_exception(broken[0])
        else:
            future.set_result(answers)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.fixture
def nodes() -> Iterator[Callable[..., PretendedNodes]]:
    made: list[PretendedNodes] = []

    def make(*args: Any, **options: Any) -> PretendedNodes:
        made.append(PretendedNodes(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.join()


def asks(name: str, subscription: str = SUB, **facts: Any) -> Procedure[Answer | None]:
    return (yield Call(subscription=subscription, method=name, **{"repeatable": True, **facts}))


def run(nodes: PretendedNodes, procedures: list[Any], **options: Any) -> list[Any]:
    return gather(procedures, performer=lambda calls: [], pool=nodes, **options)


def times_of(nodes: PretendedNodes, name: str) -> list[float]:
    return [at for at, call in nodes.sent if call.method == name]


def test_each_procedure_gets_its_own_answers_in_order(nodes: Any):
    pool = nodes(lambda call, time: Answer(status=200, body=call.method), size=2)
    found = run(pool, [asks(f"m{n}") for n in range(50)])
    assert [one.body for one in found] == [f"m{n}" for n in range(50)]


def test_nodes_are_given_no_more_than_they_send_at_once(nodes: Any):
    pool = nodes(lambda call, time: DONE, size=2, seconds=0.01)
    run(pool, [asks(f"m{n}") for n in range(100)])
    assert (pool.most, pool.most_bundles) == (2 * _gathering.BUNDLE, 2)


def test_a_few_that_come_late_wait_for_a_node_that_is_free(nodes: Any):
    def late(number: int) -> Procedure[Any]:
        yield Pause(seconds=0.002 * number)
        return (yield Call(subscription=SUB, method=f"late{number}", repeatable=True))

    pool = nodes(lambda call, time: DONE, size=1, seconds=0.02)
    run(pool, [asks("first"), *(late(n) for n in range(30))])
    assert pool.most_bundles == 1


def test_after_a_429_nothing_of_its_budget_goes_out_before_retry_after(nodes: Any):
    pool = nodes(lambda call, time: REFUSED if (call.method, time) == ("m3", 1) else DONE)
    run(pool, [asks(f"m{n}") for n in range(60)])
    first = times_of(pool, "m3")[0]
    late = [at for at, _ in pool.sent if at > first]
    # The bundle that it was in left as one; its answer came after that.
    assert min(late) - first >= 0.3
    assert len(times_of(pool, "m3")) == 2


def test_another_subscription_is_not_held_up_by_a_429(nodes: Any):
    refused = Answer(status=429, code="TooManyRequests", headers={"retry-after": "3"})
    pool = nodes(lambda call, time: refused if (call.method, time) == ("m0", 1) else DONE)
    own = [asks(f"m{n}") for n in range(20)]
    others = [asks(f"o{n}", OTHER) for n in range(40)]
    run(pool, own + others)
    first, again = times_of(pool, "m0")
    assert again - first >= 3
    assert max(at for at, call in pool.sent if call.subscription == OTHER) < again


@pytest.mark.parametrize("answer", [Answer(status=503), Answer(status=500), LOST])
def test_what_is_safe_to_repeat_is_sent_again(nodes: Any, monkeypatch: Any, answer: Answer):
    monkeypatch.setattr(Clock, "jitter", lambda self: 0.0)
    pool = nodes(lambda call, time: answer if time == 1 else DONE)
    assert run(pool, [asks("m")]) == [DONE]
    first, second = times_of(pool, "m")
    assert second - first >= 1.0


@pytest.mark.parametrize("answer", [Answer(status=503), Answer(status=500), LOST])
def test_what_may_have_been_done_is_not(nodes: Any, answer: Answer):
    pool = nodes(lambda call, time: answer)
    assert run(pool, [asks("m", kind=Kind.WRITE, repeatable=False)]) == [answer]
    assert len(pool.sent) == 1


def test_what_certainly_never_left_is_sent_again_whatever_it_is(nodes: Any):
    pool = nodes(lambda call, time: UNSENT if time == 1 else DONE)
    assert run(pool, [asks("m", kind=Kind.WRITE, repeatable=False)]) == [DONE]


def test_what_a_dead_node_had_begun_is_lost_and_what_it_had_not_is_sent_again(nodes: Any):
    def reply(call: Call, time: int) -> Answer | Exception:
        return NodeDied(begun=call.method == "begun") if time == 1 else DONE

    pool = nodes(reply)
    (lost,) = run(pool, [asks("begun", kind=Kind.WRITE, repeatable=False)])
    assert (lost.status, lost.sent) == (None, True)
    assert run(pool, [asks("waiting", kind=Kind.WRITE, repeatable=False)]) == [DONE]


def test_a_pause_holds_nothing(nodes: Any):
    def pausing(name: str) -> Procedure[Any]:
        yield Pause(seconds=0.3)
        return (yield Call(subscription=SUB, method=name, repeatable=True))

    pool = nodes(lambda call, time: DONE)
    began = time.monotonic()
    run(pool, [pausing(f"m{n}") for n in range(200)])
    assert 0.3 <= time.monotonic() - began < 30  # one after the other they take 60 s
    assert min(at for at, _ in pool.sent) - began >= 0.3


def test_time_that_runs_out_says_what_was_read(nodes: Any):
    pool = nodes(lambda call, time: REFUSED if call.method == "never" else DONE)
    with pytest.raises(FleetError, match=r"cannot read it all within 3 s: 1 of 2 lists were read"):
        run(pool, [asks("once"), asks("never", OTHER)], timeout_seconds=3)


def test_what_a_procedure_raises_reaches_the_caller_when_all_have_ended(nodes: Any):
    def broken() -> Procedure[Any]:
        yield Call(subscription=SUB, method="m", repeatable=True)
        raise FleetError("no such list")

    pool = nodes(lambda call, time: DONE)
    with pytest.raises(FleetError, match="no such list"):
        run(pool, [broken(), asks("other")])
    assert len(pool.sent) == 2
