"""Rate limits: Azure Resource Manager's token buckets, and Compute's own policies.

    request -> Limits.take -> remaining counts as headers, or 429 with Retry-After

Buckets refill in real time, whatever the speed of the world's clock: a Retry-After is waited for
in it. Sizes and names of Compute's policies are those whose remaining counts the recordings show
at their first use; that they refill over a minute is documented (learn.microsoft.com,
"Compute throttling"), how evenly is an assumption.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from azpool.testing.arm._routes import ArmError, Request

__all__ = ["ARM_BUCKETS", "Limits", "Policy"]

# A subscription and principal: how many at once, and how many more a second.
# learn.microsoft.com, azure-resource-manager/management/request-limits-and-throttling.
ARM_BUCKETS = {"reads": (250.0, 25.0), "writes": (200.0, 10.0), "deletes": (200.0, 10.0)}
KINDS = {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}
MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of Compute: by `<name>Resource` and `<name>SubscriptionMaximum`, in `seconds`."""

    name: str
    method: str
    pattern: re.Pattern[str]
    resource: int
    subscription: int
    seconds: float = MINUTE


def _policy(
    name: str,
    method: str,
    path: str,
    resource: int,
    subscription: int,
    seconds: float = MINUTE,
) -> Policy:
    pattern = re.compile(f".*/providers/microsoft.compute/{path}$")
    return Policy(name, method, pattern, resource, subscription, seconds)


_SET = "(?P<key>virtualmachinescalesets/[^/]+"
POLICIES = (
    # 15 polls a minute of one operation, 5,000 of a subscription: older names of it end in `3Min`.
    _policy("GetOperation", "GET", r"locations/[^/]+/operations/(?P<key>[^/]+)", 45, 15_000, 180.0),
    _policy("HighCostGetVMScaleSet", "GET", rf"{_SET})/virtualmachines", 30, 1_080),
    _policy("GetVMScaleSetVM", "GET", rf"{_SET}/virtualmachines/[^/]+).*", 36, 6_000),
    _policy("VMScaleSetVMActions", "POST", rf"{_SET}/virtualmachines/[^/]+)/.*", 12, 2_000),
    _policy("VMScaleSetVMActions", "PUT", rf"{_SET}/virtualmachines/[^/]+)/.*", 12, 2_000),
    _policy("VMScaleSetVMActions", "PATCH", rf"{_SET}/virtualmachines/[^/]+)/.*", 12, 2_000),
    _policy("DeleteVMScaleSetVM", "DELETE", rf"{_SET}/virtualmachines/[^/]+).*", 12, 2_000),
    _policy("LowCostGet", "GET", r"(?P<key>virtualmachines/[^/]+).*", 36, 24_000),
    _policy("UpdateVM", "POST", r"(?P<key>virtualmachines/[^/]+)/.*", 12, 1_500),
    _policy("UpdateVM", "PUT", r"(?P<key>virtualmachines/[^/]+).*", 12, 1_500),
    _policy("UpdateVM", "PATCH", r"(?P<key>virtualmachines/[^/]+).*", 12, 1_500),
)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def refill(self, now: float, most: float, per_second: float) -> None:
        self.tokens = min(most, self.tokens + (now - self.at) * per_second)
        self.at = now


@dataclass(slots=True)
class Limits:
    """What may be asked how often.

    Attributes:
        buckets: ARM's, by `reads`, `writes`, `deletes`: size and refill a second; one that is not
            there has no limit.
        policies: Compute's.
        subscriptions: where they hold; everywhere where it is empty.
    """

    buckets: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(ARM_BUCKETS))
    policies: tuple[Policy, ...] = POLICIES
    subscriptions: frozenset[str] = frozenset()
    _state: dict[tuple[str, ...], _Bucket] = field(default_factory=dict)

    def take(self, request: Request, subscription: str, now: float) -> dict[str, str]:
        """Count a request, and say what is left as headers.

        Raises:
            ArmError: 429, with Retry-After: nothing was counted.
        """
        headers: dict[str, str] = {}
        if self.subscriptions and subscription not in self.subscriptions:
            return headers
        kind = KINDS.get(request.method, "writes")
        key = (subscription.lower(), request.principal, kind)
        arm = self.buckets.get(kind)
        if arm is not None:
            bucket = self._bucket(key, now, *arm)
            if bucket.tokens < 1:
                raise _throttled(kind, subscription, request.principal, bucket, arm[1])
        spent = self._policy(request, subscription, now)
        if arm is not None:
            bucket.tokens -= 1
            headers[f"x-ms-ratelimit-remaining-subscription-{kind}"] = str(int(bucket.tokens))
        if spent:
            headers["x-ms-ratelimit-remaining-resource"] = ",".join(spent)
        return headers

    def _policy(self, request: Request, subscription: str, now: float) -> list[str]:
        path = request.path.lower()
        for policy in self.policies:
            if policy.method != request.method:
                continue
            match = policy.pattern.match(path)
            if match is None:
                continue
            owner = subscription.lower()
            scope = path.partition("/providers/")[0] + match["key"]
            parts = [
                (f"{policy.name}SubscriptionMaximum", (owner, policy.name), policy.subscription),
                (f"{policy.name}Resource", (scope, policy.name, "resource"), policy.resource),
            ]
            found = []
            for name, key, most in parts:
                bucket = self._bucket(key, now, most, most / policy.seconds)
                if bucket.tokens < 1:
                    raise _policy_throttled(name, bucket, most / policy.seconds)
                found.append((name, bucket))
            for _, bucket in found:
                bucket.tokens -= 1
            return [f"Microsoft.Compute/{name};{int(one.tokens)}" for name, one in found]
        return []

    def _bucket(self, key: tuple[str, ...], now: float, most: float, per_second: float) -> _Bucket:
        bucket = self._state.get(key)
        if bucket is None:
            bucket = self._state[key] = _Bucket(most, now)
        bucket.refill(now, most, per_second)
        return bucket


def _wait(bucket: _Bucket, per_second: float) -> int:
    return max(math.ceil((1 - bucket.tokens) / per_second), 1) if per_second > 0 else 3600


def _throttled(
    kind: str, subscription: str, principal: str, bucket: _Bucket, per_second: float
) -> ArmError:
    seconds, what = _wait(bucket, per_second), kind.removesuffix("s")
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


def _policy_throttled(name: str, bucket: _Bucket, per_second: float) -> ArmError:
    seconds = _wait(bucket, per_second)
    words = "The server rejected the request because too many requests have been received"
    return ArmError(
        429,
        "OperationNotAllowed",
        f"{words} for this subscription.",
        headers={
            "Retry-After": str(seconds),
            "x-ms-ratelimit-remaining-resource": f"Microsoft.Compute/{name};0",
        },
        details=[{"code": "TooManyRequests", "target": name, "message": f"{words}: {name}."}],
    )
