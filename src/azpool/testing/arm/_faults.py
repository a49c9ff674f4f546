"""What goes wrong: requests that are refused, lost or cut, and operations that fail.

    faults.refuse("POST", "*/start", 409, "Conflict", times=3)   the next three of these
    faults.refuse("*", "*", 500, "InternalServerError", share=0.1, seed=7)
    faults.fail("start", "AllocationFailed", only=("3", "17"))   the operation, for those machines

Rules are asked in the order in which they were made; the first that applies decides.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from azpool.testing.arm._operations import Failure, Operation

if TYPE_CHECKING:
    from azpool.testing.arm._routes import Request

__all__ = ["Faults", "Loss", "Rule"]


class Loss(Enum):
    """How an answer fails to come."""

    UNSENT = "unsent"  # cut before anything happened
    UNANSWERED = "unanswered"  # it happened, and the connection was cut


@dataclass(slots=True)
class Rule:
    """One rule for requests.

    Attributes:
        method: `POST`, or `*` for any.
        path: a pattern of shell style on the path in lower case: `*/start`.
        times: how often it applies; None for always.
        share: to which share of those that match, drawn by `seed` in their order.
        skip: how many that match go by first.
        applied: how often it did.
    """

    method: str
    path: str
    status: int = 500
    code: str = "InternalServerError"
    message: str = "An internal error occurred."
    retry_after: str | None = None
    loss: Loss | None = None
    times: int | None = None
    share: float = 1.0
    skip: int = 0
    seed: int = 0
    applied: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.path = self.path.lower()

    def applies(self, request: Request) -> bool:
        if self.method not in ("*", request.method):
            return False
        if not fnmatch.fnmatchcase(request.path.lower(), self.path):
            return False
        if self.times is not None and self.applied >= self.times:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.share < 1 and self._random.random() >= self.share:
            return False
        self.applied += 1
        return True


@dataclass(slots=True)
class _Failing:
    kind: str
    failure: Failure
    only: frozenset[str]
    times: int | None


@dataclass(slots=True)
class Faults:
    """All that goes wrong in a world."""

    rules: list[Rule] = field(default_factory=list)
    _failing: list[_Failing] = field(default_factory=list)

    def refuse(
        self,
        method: str,
        path: str,
        status: int = 500,
        code: str = "InternalServerError",
        message: str = "An internal error occurred.",
        *,
        retry_after: str | None = None,
        times: int | None = None,
        share: float = 1.0,
        skip: int = 0,
        seed: int = 0,
    ) -> Rule:
        """Answer requests with an error; `applied` of the rule counts them."""
        rule = Rule(
            method,
            path,
            status,
            code,
            message,
            retry_after,
            times=times,
            share=share,
            skip=skip,
            seed=seed,
        )
        self.rules.append(rule)
        return rule

    def lose(
        self,
        method: str,
        path: str,
        *,
        handled: bool,
        times: int | None = 1,
        share: float = 1.0,
        skip: int = 0,
        seed: int = 0,
    ) -> Rule:
        """Cut the connections of requests: before they do anything, or after (`handled`)."""
        loss = Loss.UNANSWERED if handled else Loss.UNSENT
        rule = Rule(method, path, loss=loss, times=times, share=share, skip=skip, seed=seed)
        self.rules.append(rule)
        return rule

    def fail(
        self,
        kind: str,
        code: str,
        message: str = "The operation failed.",
        *,
        only: Collection[str] = (),
        times: int | None = None,
    ) -> None:
        """Let operations of a kind (`start`, `runCommand`; `*` for any) end as Failed.

        `only` are the instance ids, names or resource ids of machines that they fail for; the
        others of the same operation are done. Where several rules with `only` hit one operation,
        each machine fails as the first that names it says, and the operation as the first of all.
        """
        named = frozenset(one.lower() if one.startswith("/") else one for one in only)
        failing = _Failing(kind, Failure(code, message), named, times)
        self._failing.append(failing)

    def clear(self) -> None:
        self.rules.clear()
        self._failing.clear()

    def of(self, request: Request) -> Rule | None:
        return next((rule for rule in self.rules if rule.applies(request)), None)

    def of_operation(self, _request: Request, operation: Operation) -> Failure | None:
        """Say how an operation that begins is to end; for `Operations.failures`."""
        names = {
            str(getattr(subject, "key", subject.name)): subject.id.lower()
            for subject in operation.subjects
        }
        each: dict[str, Failure] = {}
        for one in self._failing:
            if one.kind not in ("*", operation.kind) or one.times == 0:
                continue
            hit = [
                key
                for key, identifier in names.items()
                if key not in each and (key in one.only or identifier in one.only)
            ]
            if one.only and not hit:
                continue
            if one.times is not None:
                one.times -= 1
            if not one.only:
                return one.failure
            each |= dict.fromkeys(hit, one.failure)
        if not each:
            return None
        first = next(iter(each.values()))
        return Failure(first.code, first.message, tuple(each), each)
