"""Rate limits: Azure Resource Manager's token buckets, and Compute's own policies.

    request -> Limits.take -> remaining counts as headers, or 429 with Retry-After

Names and sizes of Compute's policies are what recordings of Azure/azure-cli count down from: of
`POLICIES` test_vmss_create_and_modify and test_vmss_run_command_v2 (August 2024), of
`OLDER_POLICIES`, which subscriptions may still have, test_vmss_reimage (September 2021) and
test_vmss_simulate_eviction (May 2022). What no recording shows is counted as learn.microsoft.com,
compute-throttling-limits, says: which calls are deletions, and a refill within three minutes.
Buckets refill in real time, whatever the world's clock does: Retry-After is waited for in it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpool.errors import UsageError
from azpool.testing.arm._clock import written
from azpool.testing.arm._routes import ArmError, Request

if TYPE_CHECKING:
    from azpool.testing.arm._world import World

__all__ = ["ARM_BUCKETS", "OLDER_POLICIES", "POLICIES", "Count", "Limits", "Policy", "charge"]

# A subscription and principal: how many at once, and how many more a second.
# learn.microsoft.com, azure-resource-manager/management/request-limits-and-throttling.
ARM_BUCKETS = {"reads": (250.0, 25.0), "writes": (200.0, 10.0), "deletes": (200.0, 10.0)}
KINDS = {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}
MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Count:
    """What a request is counted in: a bucket of its subscription, or of one resource in it.

    Attributes:
        name: as headers and refusals tell it.
        most: what the bucket holds; with 0 it is told as 0 in every answer and refuses nothing.
        seconds: in which an empty one is full again.
        resource: whether each machine or set has its own.
        each: whether each instance that the request is for counts, not the request.
    """

    name: str
    most: int
    seconds: float = 3 * MINUTE  # "bucket refill rate": a third of its capacity a minute
    resource: bool = False
    each: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The buckets that the requests of a method and path count in, in the order of the header."""

    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    counts: tuple[Count, ...]


def _policy(methods: str, path: str, *counts: Count) -> Policy:
    pattern = re.compile(f".*/providers/microsoft.compute/{path}$")
    return Policy(tuple(methods.split()), pattern, counts)


def _both(name: str, subscription: int, resource: int) -> tuple[Count, Count]:
    return (
        Count(f"{name}SubscriptionMaximum", subscription),
        Count(f"{name}Resource", resource, resource=True),
    )


_OPERATION = r"locations/[^/]+/operations/(?P<key>[^/]+)"
_SET = "(?P<key>virtualmachinescalesets/[^/]+)"
_INSTANCE = "(?P<key>virtualmachinescalesets/[^/]+/virtualmachines/[^/]+)"
_MACHINE = "(?P<key>virtualmachines/[^/]+)"
_ENDING = "(poweroff|deallocate)"  # counted among deletions, as the documentation has it

_QUEUED = Count("VmssQueuedVMOperations", 0)  # all recordings tell 0, of calls that were accepted
_BATCHED = (Count("VMScaleSetBatchedVMRequestsSubscriptionMaximum", 6000, each=True), _QUEUED)
_VIEWS = Count("VMScaleSetVMViewsSubscriptionMaximum", 30_000, each=True)
# Only the subscription's: the answers to calls for many instances name no bucket of their set.
_SET_ACTIONS = Count("VMScaleSetActionsSubscriptionMaximum", 1500)
_SET_ENDINGS = _both("DeleteVMScaleSet", 525, 12)

POLICIES = (
    _policy("GET", _OPERATION, *_both("GetOperation", 15_000, 45)),
    _policy("GET", f"{_SET}/virtualmachines", *_both("HighCostGetVMScaleSet", 1080, 30), _VIEWS),
    _policy("GET", f"{_SET}/instanceview", *_both("HighCostGetVMScaleSet", 1080, 30)),
    _policy("GET", f"{_INSTANCE}.*", *_both("GetVMScaleSetVM", 6000, 36)),
    _policy("GET", _SET, *_both("GetVMScaleSet", 2400, 36)),
    _policy("POST", f"{_INSTANCE}/{_ENDING}", *_both("DeleteVMScaleSetVM", 2000, 12), *_BATCHED),
    _policy("DELETE", f"{_INSTANCE}.*", *_both("DeleteVMScaleSetVM", 2000, 12), *_BATCHED),
    _policy("POST PUT PATCH", f"{_INSTANCE}.*", *_both("VMScaleSetVMActions", 2000, 12), *_BATCHED),
    _policy("POST", f"{_SET}/{_ENDING}", _SET_ENDINGS[0], *_BATCHED),
    _policy("POST", f"{_SET}/[^/]+", _SET_ACTIONS, *_BATCHED),
    _policy("DELETE", _SET, *_SET_ENDINGS, *_BATCHED),
    _policy("GET", f"{_MACHINE}.*", *_both("LowCostGet", 24_000, 36)),
    _policy("POST", f"{_MACHINE}/deallocate", *_both("DeleteVM", 1500, 12)),
    _policy("DELETE", _MACHINE, *_both("DeleteVM", 1500, 12)),
    _policy("POST PUT PATCH DELETE", f"{_MACHINE}.*", *_both("UpdateVM", 1500, 12)),
)


def _older(name: str, three: int, thirty: int) -> tuple[Count, Count]:
    return Count(f"{name}3Min", three), Count(f"{name}30Min", thirty, 30 * MINUTE)


_OLDER_BATCHED = (Count("VMScaleSetBatchedVMRequests5Min", 1200, 5 * MINUTE, each=True), _QUEUED)
_OLDER_ACTIONS = _older("VMScaleSetActions", 240, 1200)
_OLDER_VIEWS = Count("VMScaleSetVMViews3Min", 5000, each=True)

OLDER_POLICIES = (
    _policy("GET", _OPERATION, *_older("GetOperation", 15_000, 30_000)),
    _policy(
        "GET", f"{_SET}/virtualmachines", *_older("HighCostGetVMScaleSet", 180, 900), _OLDER_VIEWS
    ),
    _policy("GET", f"{_INSTANCE}.*", *_older("GetVMScaleSetVM", 1000, 5000), _OLDER_VIEWS),
    _policy(
        "POST PUT PATCH DELETE",
        f"{_INSTANCE}.*",
        *_OLDER_ACTIONS,
        *_older("VMScaleSetVMActions", 200, 1000),
        *_OLDER_BATCHED,
    ),
    _policy("POST", f"{_SET}/[^/]+", *_OLDER_ACTIONS, *_OLDER_BATCHED),
)


def charge(world: World, request: Request) -> int:
    """Say for how many instances of a scale set a request is: its `x-ms-request-charge`."""
    params = request.params
    if "set" not in params or "instance" in params:
        return 1
    group = f"/subscriptions/{params['subscription']}/resourceGroups/{params['group']}"
    key = f"{group}/providers/Microsoft.Compute/virtualMachineScaleSets/{params['set']}"
    scale_set = world.scale_sets.get(key.lower())
    ids = request.body.get("instanceIds") if isinstance(request.body, Mapping) else None
    if isinstance(ids, list) and ids and ids != ["*"]:
        return len({str(one) for one in ids})
    held = len(scale_set.machines) if scale_set is not None else 1
    return max(1, min(held, world.page_size) if request.method == "GET" else held)


@dataclass(slots=True)
class _Bucket:
    most: float
    per_second: float
    tokens: float
    at: float

    def refill(self, now: float) -> None:
        self.tokens = min(self.most, self.tokens + (now - self.at) * self.per_second)
        self.at = now

    def wait_seconds(self, amount: float) -> int:
        """Say in how many whole seconds it holds so many; an hour where it never does."""
        if self.per_second <= 0:
            return 3600
        return max(math.ceil((amount - self.tokens) / self.per_second), 1)


@dataclass(slots=True)
class Limits:
    """What may be asked how often.

    Attributes:
        buckets: size and refill a second: ARM's by `reads`, `writes`, `deletes`, of which one that
            is not there has no limit; and by their names those of Compute's that are to be smaller
            or quicker than they are.
        policies: Compute's: the first that fits a request counts it.
        subscriptions: where they hold; everywhere where it is empty.

    Raises:
        UsageError: there is no bucket of a name.
    """

    buckets: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(ARM_BUCKETS))
    policies: tuple[Policy, ...] = POLICIES
    subscriptions: frozenset[str] = frozenset()
    _state: dict[tuple[str, ...], _Bucket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {*ARM_BUCKETS, *(one.name for policy in self.policies for one in policy.counts)}
        for name in self.buckets:
            if name not in names:
                raise UsageError(
                    f"cannot limit {name!r}: no policy counts in it; take one of "
                    f"{', '.join(sorted(names))}"
                )

    def take(
        self, request: Request, subscription: str, now: float, instances: int = 1
    ) -> dict[str, str]:
        """Count a request for so many instances, and say what is left as headers.

        Raises:
            ArmError: 429, with Retry-After: nothing was counted.
        """
        if self.subscriptions and subscription not in self.subscriptions:
            return {}
        headers: dict[str, str] = {}
        kind = KINDS.get(request.method, "writes")
        arm = self.buckets.get(kind)
        if arm is not None:
            bucket = self._bucket((subscription.lower(), request.principal, kind), now, *arm)
            if bucket.tokens < 1:
                raise _throttled(kind, subscription, request.principal, bucket)
        headers |= self._policies(request, subscription, now, instances)
        if arm is not None:
            bucket.tokens -= 1
            headers[f"x-ms-ratelimit-remaining-subscription-{kind}"] = str(int(bucket.tokens))
        return headers

    def _policies(
        self, request: Request, subscription: str, now: float, instances: int
    ) -> dict[str, str]:
        found = self._counts(request, subscription)
        charged: list[tuple[Count, _Bucket, float]] = []
        for count, scope in found:
            most, refill = self.buckets.get(
                count.name, (float(count.most), count.most / count.seconds)
            )
            bucket = self._bucket((scope, count.name), now, most, refill)
            # One that is for more than a full bucket holds passes when it is full.
            charged.append((count, bucket, min(instances if count.each else 1, most)))
        for count, bucket, amount in charged:
            if bucket.tokens < amount:
                raise _policy_throttled(count, bucket, amount, _left(charged, count))
        for _, bucket, amount in charged:
            bucket.tokens -= amount
        headers = {"x-ms-ratelimit-remaining-resource": _left(charged)} if charged else {}
        if any(count.each for count, *_ in charged):
            headers["x-ms-request-charge"] = str(instances)
        return headers

    def _counts(self, request: Request, subscription: str) -> list[tuple[Count, str]]:
        """Find what a request is counted in, and whose each bucket is."""
        path = request.path.lower()
        for policy in self.policies:
            match = policy.pattern.match(path) if request.method in policy.methods else None
            if match is not None:
                resource = f"{path.partition('/providers/')[0]}/{match['key']}"
                owner = subscription.lower()
                return [(one, resource if one.resource else owner) for one in policy.counts]
        return []

    def _bucket(self, key: tuple[str, ...], now: float, most: float, per_second: float) -> _Bucket:
        bucket = self._state.get(key)
        if bucket is None:
            bucket = self._state[key] = _Bucket(most, per_second, most, now)
        bucket.refill(now)
        return bucket


def _left(charged: list[tuple[Count, _Bucket, float]], empty: Count | None = None) -> str:
    return ",".join(
        f"Microsoft.Compute/{count.name};{0 if count is empty else int(bucket.tokens)}"
        for count, bucket, _ in charged
    )


def _throttled(kind: str, subscription: str, principal: str, bucket: _Bucket) -> ArmError:
    seconds, what = bucket.wait_seconds(1), kind.removesuffix("s")
    return ArmError(
        429,
        "SubscriptionRequestsThrottled",
        f"Number of '{what}' requests for subscription '{subscription}' actor '{principal}' "
        f"exceeded. Please try again after '{seconds}' seconds after additional tokens are "
        "available. Refer to https://aka.ms/arm-throttling for additional information.",
        headers={
            "Retry-After": str(seconds),
            f"x-ms-ratelimit-remaining-subscription-{kind}": "0",
        },
    )


def _policy_throttled(count: Count, bucket: _Bucket, amount: float, left: str) -> ArmError:
    """Refuse as learn.microsoft.com, troubleshooting-throttling-errors shows it."""
    now = time.time()
    told = {
        "operationGroup": count.name,
        "startTime": written(now - count.seconds),
        "endTime": written(now),
        "allowedRequestCount": int(bucket.most),
        "measuredRequestCount": int(bucket.most - bucket.tokens + amount),
    }
    return ArmError(
        429,
        "OperationNotAllowed",
        "The server rejected the request because too many requests have been received for this "
        "subscription.",
        headers={
            "Retry-After": str(bucket.wait_seconds(amount)),
            "x-ms-ratelimit-remaining-resource": left,
        },
        details=[{"code": "TooManyRequests", "target": count.name, "message": json.dumps(told)}],
    )
