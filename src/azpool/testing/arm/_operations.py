"""Long-running operations: what takes time, where its state is asked for, and how it ends.

    handler -> world.operations.begin(...) -> 202/200/201 + Azure-AsyncOperation, Location
    client  -> GET .../locations/L/operations/ID               {"status": "InProgress"} ...
            -> GET .../locations/L/operations/ID&monitor=true  202 ... 200/204 with the result

`effects` come about when the operation ends, not before: a machine that is being started is
`starting` until then. A fault may let it end as Failed; `undone` comes about instead then.
"""

from __future__ import annotations

import heapq
import itertools
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._clock import written
from azpool.testing.arm._routes import ArmError, Reply, Request, route

if TYPE_CHECKING:
    from azpool.testing.arm._world import (  # noqa: TC004 -- it imports this
        Machine,
        ScaleSet,
        World,
    )

__all__ = ["SECONDS", "Failure", "Operation", "Operations"]

# How long operations take, unless told otherwise, by kind (in simulated seconds). They are of the
# size that the recordings show: a reimage of two instances 87 s, an instance started 30 s and less.
SECONDS: dict[str, float] = {
    "start": 30.0,
    "powerOff": 20.0,
    "deallocate": 40.0,
    "restart": 30.0,
    "redeploy": 90.0,
    "reimage": 90.0,
    "reimageall": 90.0,
    "reapply": 20.0,
    "resize": 60.0,
    "update": 20.0,
    "create": 60.0,
    "delete": 40.0,
    "manualupgrade": 60.0,
}
OTHER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Failure:
    """How an operation ends that does not succeed.

    Attributes:
        code: Compute's, as `VMStartTimedOut`, `AllocationFailed`.
        message: its words.
        only: keys of machines (instance id or name) that it fails for; empty for all: the others of
            the same operation are done.
        each: why it fails for machines that have causes of their own, by key.
    """

    code: str
    message: str = "The operation failed."
    only: tuple[str, ...] = ()
    each: Mapping[str, Failure] = field(default_factory=dict)

    def of(self, key: str) -> Failure:
        """Say why it failed for one machine."""
        return self.each.get(key, self)


@dataclass(slots=True, eq=False)
class Operation:
    """One operation under way, or ended.

    Attributes:
        kind: what `seconds` are set by: `start`, `powerOff`, `runCommand`, ...
        subjects: the machines or scale sets that are busy with it.
        status: `InProgress`, `Succeeded`, `Failed` or `Canceled`.
        output: what stands in `properties.output` of the status document of one that succeeded.
        result: makes the body of the last answer of the `Location`; none is an empty 200.
        ready: whether it may end, asked once it is due: it goes on until then.
        ends_as: asked after `effects` whether it failed all the same.
    """

    id: str
    kind: str
    provider: str
    subscription: str
    location: str
    subjects: tuple[Machine | ScaleSet, ...]
    began_at: float
    due_at: float
    effects: Callable[[], None] | None = None
    undone: Callable[[Failure], None] | None = None
    failure: Failure | None = None
    output: Callable[[], Any] | None = None
    result: Callable[[], Any] | None = None
    ready: Callable[[], bool] | None = None
    ends_as: Callable[[], Failure | None] | None = None
    retry_after_seconds: float | None = None
    status: str = "InProgress"
    ended_at: float | None = None
    polls: list[float] = field(default_factory=list)  # real monotonic times of each


class Operations:
    """All operations of a world.

    Attributes:
        seconds: how long each kind takes; `default_seconds` for those that are not in it.
        retry_after_seconds: what the first answer tells by default; None tells nothing, as Compute
            mostly does of scale sets.
        poll_retry_after_seconds: what answers of polls tell while it goes on; None for nothing.
        failures: asked for each operation that begins how it is to end; set by the faults.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.seconds: dict[str, float] = dict(SECONDS)
        self.default_seconds = OTHER_SECONDS
        self.retry_after_seconds: float | None = 10
        self.poll_retry_after_seconds: float | None = None
        self.failures: Callable[[Request, Operation], Failure | None] | None = None
        self.all: dict[str, Operation] = {}
        self._due: list[tuple[float, int, Operation]] = []
        self._numbers = itertools.count()

    def begin(
        self,
        request: Request,
        kind: str,
        subjects: Iterable[Machine | ScaleSet] = (),
        *,
        effects: Callable[[], None] | None = None,
        undone: Callable[[Failure], None] | None = None,
        seconds: float | None = None,
        location: str | None = None,
        provider: str = "Microsoft.Compute",
        status: int = 202,
        body: Any = None,
        output: Callable[[], Any] | None = None,
        result: Callable[[], Any] | None = None,
        azure_async: bool = True,
        with_location: bool = True,
        failure: Failure | None = None,
        ready: Callable[[], bool] | None = None,
        ends_as: Callable[[], Failure | None] | None = None,
        occupies: bool = True,
    ) -> Reply:
        """Begin one and write the answer that says so.

        The subjects become busy (callers ask `refuse_busy` first) until it ends. `status` and
        `body` are the answer's; `azure_async` and `with_location` say which of the two addresses
        stand in it. With `occupies=False` the subjects stay free for other operations.
        """
        world, now = self._world, self._world.clock.now()
        subjects = tuple(subjects)
        operation = Operation(
            id=str(uuid.uuid4()),
            kind=kind,
            provider=provider,
            subscription=request.params["subscription"],
            location=location or (subjects[0].location if subjects else "eastus"),
            subjects=subjects,
            began_at=now,
            due_at=now + (self.duration(kind) if seconds is None else seconds),
            effects=effects,
            undone=undone,
            output=output,
            result=result,
            retry_after_seconds=self.retry_after_seconds,
            failure=failure,
            ready=ready,
            ends_as=ends_as,
        )
        if operation.failure is None and self.failures is not None:
            operation.failure = self.failures(request, operation)
        if occupies:
            for subject in subjects:
                subject.busy = operation
        self.all[operation.id] = operation
        heapq.heappush(self._due, (operation.due_at, next(self._numbers), operation))
        address = (
            f"{request.base or world.base}/subscriptions/{operation.subscription}/providers/"
            f"{provider}/locations/{operation.location}/operations/{operation.id}"
            f"?p={uuid.uuid5(uuid.NAMESPACE_URL, operation.subscription)}"
        )
        version = f"api-version={request.api_version}"
        headers = {}
        if azure_async:
            headers["Azure-AsyncOperation"] = f"{address}&{version}"
        if with_location:
            headers["Location"] = f"{address}&monitor=true&{version}"
        if operation.retry_after_seconds is not None:
            headers["Retry-After"] = self.retry_after(operation.retry_after_seconds)
        return Reply(status, body, headers)

    def duration(self, kind: str) -> float:
        return self.seconds.get(kind, self.default_seconds)

    def retry_after(self, seconds: float) -> str:
        """Write simulated seconds as a header: in whole real ones, 0 where they are less than 1.

        The official clients read nothing but whole numbers.
        """
        real = self._world.clock.real(seconds)
        return "0" if real < 1 else str(math.ceil(real))

    def settle(self, now: float) -> None:
        """End what is due, in its order."""
        waiting = []
        while self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)
            due_at, _, operation = entry
            if operation.status != "InProgress":
                continue
            if operation.ready is None or operation.ready():
                self._end(operation, due_at)
            else:
                waiting.append(entry)
        for entry in waiting:
            heapq.heappush(self._due, entry)

    def next_due(self) -> float | None:
        """When the next one ends, in simulated time; None where nothing is under way."""
        return self._due[0][0] if self._due else None

    def cancel(self, operation: Operation) -> None:
        """End one now, without its effects."""
        self._finish(operation, "Canceled", self._world.clock.now())

    def _end(self, operation: Operation, at: float) -> None:
        failure = operation.failure
        self._finish(operation, "Succeeded" if failure is None else "Failed", at)
        if failure is None:
            if operation.effects is not None:
                operation.effects()
            if operation.ends_as is not None and (failed := operation.ends_as()) is not None:
                operation.status, operation.failure = "Failed", failed
        elif operation.undone is not None:
            operation.undone(failure)

    def _finish(self, operation: Operation, status: str, at: float) -> None:
        operation.status, operation.ended_at = status, at
        for subject in operation.subjects:
            if subject.busy is operation:
                subject.busy = None


@route(
    "GET", "/subscriptions/{subscription}/providers/{provider}/locations/{location}/operations/{id}"
)
def poll(world: World, request: Request) -> Reply:
    """Answer a poll: the status document, or with `monitor=true` what the Location gives."""
    operation = world.operations.all.get(request.params["id"])
    if (
        operation is None
        or operation.subscription.lower() != request.params["subscription"].lower()
    ):
        raise ArmError(404, "NotFound", "The operation was not found.")
    operation.polls.append(world.real_time())
    headers = {}
    every = world.operations.poll_retry_after_seconds
    if operation.status == "InProgress" and every is not None:
        headers["Retry-After"] = world.operations.retry_after(every)
    if request.query.get("monitor") == "true":
        return _monitored(request, operation, headers)
    return Reply(200, _document(operation), headers)


def _monitored(request: Request, operation: Operation, headers: dict[str, str]) -> Reply:
    if operation.status == "InProgress":
        headers["Location"] = f"{request.base}{request.target}"
        return Reply(202, None, headers)
    if operation.failure is not None:
        raise ArmError(409, operation.failure.code, operation.failure.message)
    if operation.result is None:
        return Reply(200, None, headers)
    return Reply(200, operation.result(), headers)


def _document(operation: Operation) -> dict[str, Any]:
    document: dict[str, Any] = {"startTime": written(operation.began_at)}
    if operation.ended_at is not None:
        document["endTime"] = written(operation.ended_at)
    document["status"] = operation.status
    if operation.status == "Succeeded" and operation.output is not None:
        document["properties"] = {"output": operation.output()}
    if operation.status == "Failed" and operation.failure is not None:
        failure = operation.failure
        document["error"] = {"code": failure.code, "message": failure.message}
    document["name"] = operation.id
    return document
