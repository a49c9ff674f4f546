"""One request to Azure Resource Manager, and what came back, as plain records.

    procedure -> Call -> the loop in the master -> node (_arm.perform) -> Answer -> procedure

Both are plain values that pickle small. Arguments are what the official client's method takes, with
bodies as the JSON that the service reads, so that nothing here or above needs an SDK.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

__all__ = ["Answer", "Call", "Kind", "Pause", "Procedure", "Stopped"]

T = TypeVar("T")


class Kind(enum.Enum):
    """Which of ARM's budgets a request counts in."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        subscription: the id of the subscription that it is sent to.
        method: the official client's own name of it, as `compute.virtual_machines.begin_start`
            (`compute`, `network` and `resources` are the clients); `get` for the plain GET of
            `url`: a poll, or the next page of a list.
        arguments: what the method takes, by name: plain values, bodies as ARM's JSON. A value that
            is secret is an `azpool.storage.Secret`-like object that no repr shows.
        url: for `get` alone: an absolute address that the service gave.
        kind: the budget that it counts in.
        policy: what Compute counts it by besides: (resource id, kind of operation); None for none.
        repeatable: it may be sent again when it is not known whether it arrived.
        about: the instances that it concerns, as indices in the fleet.
        poll: it only asks how far a long-running operation is.
        part: it is for some of the instances that its procedure is for: how its operation ends says
            nothing of the others.
        note: what it does in a few words, for whoever watches: `reads the output`.
    """

    subscription: str
    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    url: str | None = None
    kind: Kind = Kind.READ
    policy: tuple[str, str] | None = None
    repeatable: bool = False
    about: tuple[int, ...] = ()
    poll: bool = False
    part: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back of a call.

    Attributes:
        status: HTTP status; None where no answer came.
        headers: those that matter, by their names in lower case.
        body: the JSON of the answer, plain; None where it had none.
        code: ARM's code of an error (`Conflict`, `AuthorizationFailed`); for a call that got no
            answer the type of the client's error.
        message: the service's own words, or the client's.
        sent: False where the request certainly never left: it may be sent again, whatever it is.
        seconds: from sending to the answer, on the node.
    """

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    code: str | None = None
    message: str = ""
    sent: bool = True
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is not None and self.status < 400

    @property
    def request_id(self) -> str | None:
        """The service's own id of the request, for a support ticket."""
        return self.headers.get("x-ms-request-id")

    @property
    def correlation_id(self) -> str | None:
        return self.headers.get("x-ms-correlation-request-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A procedure's wish to go on later: `seconds` from now, without holding anything meanwhile."""

    seconds: float


class Stopped(Exception):
    """Raised in a procedure at its `yield`: nothing new is sent for it but what cleans up.

    A procedure that has something to clean up catches it, yields those calls, and returns what
    became; what does not catch it ends there.

    Attributes:
        reason: `interrupted` or `timeout`.
    """

    def __init__(self, reason: str = "interrupted") -> None:
        super().__init__(reason)
        self.reason = reason


Procedure: TypeAlias = Generator[Call | Pause, Answer | None, T]
"""Yields calls and pauses, gets the answer of each (None for a pause), returns what became.

A call that changes something and whose answer was lost gets an answer with status None: what became
of it is the procedure's to find out. At its `yield` it may get `Stopped`."""
