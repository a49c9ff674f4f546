"""Azure Resource Manager's budgets: which a call counts in, and what answers say of them.

    Call -> Budget.keys(call) -> azpool.limits.Gates
    Answer -> Budget.answered(now, call, answer): learns what is left; a 429 closes the right gate

Two sorts. ARM's own are a subscription's, a principal's and a kind's (reads, writes, deletes).
Compute has policies besides, named in its answers alone (`Microsoft.Compute/UpdateVMResource;11`):
which of them an operation counts in is learnt with its first answer.

What no header has told is not assumed: gates hold what was seen. Safe for threads: operations of
one process share a budget.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from azpool.fleet.calls import Answer, Call, Kind
from azpool.limits import GateOptions, Gates, GateStatistics

__all__ = ["BUCKETS", "Bucket", "Budget", "policies_of", "retry_after_seconds"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: what it holds when full, and what it gains a second."""

    capacity: int
    refill_per_second: float


BUCKETS = {
    # learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling:
    # for each subscription and service principal.
    Kind.READ: Bucket(250, 25.0),
    Kind.WRITE: Bucket(200, 10.0),
    Kind.DELETE: Bucket(200, 10.0),
}

# Compute's policies whose refill is documented or follows from what the headers count down from: a
# long-running operation may be asked for 15 times a minute (45 in three), and all of a subscription
# 5,000 times (15,000 in three).
_POLICY_REFILL = {
    "getoperationresource": 15 / 60,
    "getoperationsubscriptionmaximum": 5_000 / 60,
}

_LEFT = {
    Kind.READ: "x-ms-ratelimit-remaining-subscription-reads",
    Kind.WRITE: "x-ms-ratelimit-remaining-subscription-writes",
    Kind.DELETE: "x-ms-ratelimit-remaining-subscription-deletes",
}
_POLICIES_LEFT = "x-ms-ratelimit-remaining-resource"
MOST_POLICIES = 16  # an answer names two or three


def policies_of(header: str) -> dict[str, float]:
    """Read `Microsoft.Compute/UpdateVMSubscriptionMaximum;1499,Microsoft.Compute/...Resource;11`.

    Names are as sent; what can't be read is left out.
    """
    left: dict[str, float] = {}
    for part in header.split(","):
        name, _, count = part.strip().rpartition(";")
        name = name.rpartition("/")[2].strip()
        try:
            number = float(count)
        except ValueError:
            continue
        if name and math.isfinite(number) and len(left) < MOST_POLICIES:
            left[name] = number
    return left


def retry_after_seconds(answer: Answer, wall: float | None = None) -> float | None:
    """Answer what the service asks to wait, in seconds, or None where it says nothing.

    A date is relative to the answer's own `Date`, or else to `wall`, seconds since the epoch.
    """
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001)):
        number = _number(answer.headers.get(name))
        if number is not None:
            return number * unit
    text = answer.headers.get("retry-after")
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        return number
    then = _date(text)
    now = _date(answer.headers.get("date", "")) or wall
    return None if then is None or now is None else max(0.0, then - now)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


class Budget:
    """The gates of one principal, and which of them a call passes.

    Args:
        principal: who calls, in any words: budgets are each principal's own.
        options: of the gates.
    """

    def __init__(self, principal: str = "", *, options: GateOptions | None = None) -> None:
        self.principal = principal
        self._gates = Gates(options or GateOptions())
        self._lock = threading.Lock()
        self._learnt: dict[tuple[str, str], dict[str, None]] = {}

    def keys(self, call: Call) -> list[Hashable]:
        """Answer the buckets that a call counts in, as far as they are known."""
        keys: list[Hashable] = [(call.subscription, self.principal, call.kind)]
        keys += [_policy_key(call, name) for name in self._learnt.get(_sort(call), ())]
        return keys

    def wait_seconds(self, now: float, call: Call) -> float:
        """Answer how long until the call may be sent; 0.0 is now. Takes nothing."""
        with self._lock:
            return self._gates.wait_seconds(self.keys(call), now)

    def take(self, now: float, call: Call) -> tuple[float, list[Hashable]]:
        """Take one from every bucket of the call, or none.

        Returns:
            0.0, or how long to wait; and what was taken from, for `answered`.
        """
        with self._lock:
            keys = self.keys(call)
            return self._gates.take(keys, now), keys

    def wait_behind(
        self, now: float, keys: Iterable[Hashable], ahead: Mapping[Hashable, int]
    ) -> float:
        """Answer how long until what was refused may be sent, if all that waits goes first.

        Args:
            now: the time.
            keys: what `take` answered.
            ahead: how many others wait at each bucket.
        """
        with self._lock:
            return max(self._gates[key].wait_seconds(now, ahead.get(key, 0) + 1) for key in keys)

    def answered(
        self,
        now: float,
        call: Call,
        answer: Answer,
        taken: list[Hashable],
        *,
        jitter: float = 0.0,
        wall: float | None = None,
    ) -> None:
        """Take an answer's word for what is left, and close what a 429 names.

        Args:
            now: the time.
            call: what was sent.
            answer: what came back, or that nothing did.
            taken: what `take` answered.
            jitter: in [0, 1), random; lengthens the wait after a 429, never shortens it.
            wall: seconds since the epoch, for a Retry-After that is a date.
        """
        with self._lock:
            refused = answer.status == 429
            self._gates.answered(taken, now, success=not refused)
            left = policies_of(answer.headers.get(_POLICIES_LEFT, ""))
            if call.policy is not None or call.poll:
                known = self._learnt.setdefault(_sort(call), {})
                known.update(dict.fromkeys(left))
            self._learn(now, call, answer, left)
            if refused:
                seconds = retry_after_seconds(answer, wall)
                for key in self._named(call, answer, left):
                    self._gates.close(key, now, seconds, jitter=jitter)

    def _learn(self, now: float, call: Call, answer: Answer, left: dict[str, float]) -> None:
        bucket = BUCKETS[call.kind]
        number = _number(answer.headers.get(_LEFT[call.kind]))
        if number is not None:
            self._gates.learn(
                (call.subscription, self.principal, call.kind),
                now,
                number,
                refill_per_second=bucket.refill_per_second,
                capacity=max(bucket.capacity, number),
            )
        for name, count in left.items():
            refill = _POLICY_REFILL.get(name.lower(), 0.0)
            self._gates.learn(
                _policy_key(call, name), now, max(0.0, count), refill_per_second=refill
            )

    def _named(self, call: Call, answer: Answer, left: dict[str, float]) -> list[Hashable]:
        """Which gates a 429 speaks of: Compute's policies that are used up, else ARM's own."""
        own: Hashable = (call.subscription, self.principal, call.kind)
        if answer.code == "SubscriptionRequestsThrottled":
            return [own]
        # Its words name the policy. Its header counts all that the call is subject to, and one of
        # them (VmssQueuedVMOperations) is told as 0 of calls that are accepted, too.
        names = _targets_of(answer.body) or [name for name, count in left.items() if count <= 0]
        if names and (call.policy is not None or call.poll):
            self._learnt.setdefault(_sort(call), {}).update(dict.fromkeys(names))
            return [_policy_key(call, name) for name in names]
        return [own]

    def statistics(self, now: float) -> dict[Hashable, GateStatistics]:
        """Answer what each gate knows, frozen."""
        with self._lock:
            return self._gates.statistics(now)

    def in_words(self, call: Call, now: float) -> str:
        """Say which budget holds the call back longest: `writes of 4f1c…`."""
        with self._lock:
            key = max(self.keys(call), key=lambda one: self._gates.wait_seconds([one], now))
        where = call.subscription if len(call.subscription) <= 5 else call.subscription[:4] + "…"
        if isinstance(key, tuple) and key[0] == "policy":
            return f"{key[3]} of {where}"
        return f"{call.kind.value}s of {where}"


def _sort(call: Call) -> tuple[str, str]:
    """What calls have in common that count in the same policies."""
    operation = "poll" if call.poll else "" if call.policy is None else call.policy[1]
    return (call.subscription, operation)


def _policy_key(call: Call, name: str) -> Hashable:
    resource = ""
    # Compute names what it counts by: `...Resource` for each machine or set, else the subscription.
    if name.lower().endswith("resource"):
        resource = (call.url or "") if call.poll else (call.policy or ("", ""))[0]
    return ("policy", call.subscription, resource.lower(), name)


def _targets_of(body: object) -> list[str]:
    """Read which policies the body of a 429 names: `error.details[].target`."""
    error = body.get("error", body) if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if not isinstance(details, list):
        return []
    names = [one.get("target") for one in details if isinstance(one, dict)]
    return [name for name in names if isinstance(name, str) and name and "/" not in name]
