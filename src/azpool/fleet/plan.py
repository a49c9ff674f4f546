"""What an operation will send, and what that takes; nothing is sent by making or printing a plan.

    Fleet.start(...) -> make_plan("start", targets, ...) -> Plan -> run(plan)
    Fleet.plan("start", ...) -> Plan, and its repr

Pure, but for the names that are drawn. A plan is made of steps: what one procedure does to some
instances. It can be written to a journal as plain values, without its secrets.
"""

from __future__ import annotations

import html
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from azpool.errors import UsageError
from azpool.fleet.budget import BUCKETS
from azpool.fleet.calls import Kind
from azpool.fleet.operations import Operation, operation_of
from azpool.fleet.target import Target
from azpool.report import format_seconds

__all__ = ["Plan", "Step", "make_plan"]

# A set can hold 1,000 instances: one call takes them all.
MOST_IN_ONE_CALL = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one procedure does.

    Attributes:
        place: its number in the plan, from 0.
        operation: a name of `operations.OPERATIONS`.
        targets: the instances that it is for; never none.
        arguments: the operation's own, plain values.
        secrets: those of them that no journal and no repr may hold, by name.
        name: of the run command that it makes on its machine; "" where it makes none. It stands in
            the plan so that whoever goes on with this knows it too.
    """

    place: int
    operation: str
    targets: tuple[Target, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Answer what is its own as plain values."""
        return {
            "place": self.place,
            "targets": [target.index for target in self.targets],
            "name": self.name,
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """The steps of an operation, and what they take; its repr tells it in words.

    Attributes:
        operation: what was asked for.
        targets: the instances, in the fleet's order.
        steps: every instance is in exactly one of them.
        wait: whether the operation's end is waited for; else it ends once it is accepted.
        batch: how many instances are under way at once at most; None for no limit.
    """

    operation: str
    targets: tuple[Target, ...]
    steps: tuple[Step, ...]
    wait: bool = True
    batch: int | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def known(self) -> Operation:
        return operation_of(self.steps[0].operation)

    @property
    def destroys(self) -> bool:
        """Whether it takes away what can't be had back."""
        return self.known.destroys

    @property
    def calls(self) -> dict[Kind, int]:
        """How many calls of each budget it takes if all goes well, polls apart."""
        return dict(sum((_calls_of(step, wait=self.wait) for step in self.steps), Counter[Kind]()))

    @property
    def batches(self) -> int:
        """In how many turns the instances are taken."""
        return math.ceil(len(self.targets) / self.batch) if self.batch else 1

    @property
    def sending_seconds(self) -> float:
        """How long the budgets need at least to let all calls through, full as they start.

        From Azure's documented token buckets, per subscription; what the service does with its
        machines takes its own time besides.
        """
        longest = 0.0
        for subscription in {target.subscription for target in self.targets}:
            calls = Counter[Kind]()
            for step in self.steps:
                if step.targets[0].subscription == subscription:
                    calls += _calls_of(step, wait=self.wait)
            for kind, count in calls.items():
                bucket = BUCKETS[kind]
                longest = max(longest, (count - bucket.capacity) / bucket.refill_per_second)
        return longest

    def to_dict(self) -> dict[str, Any]:
        """Answer it as plain values, without its secrets: of these the names alone.

        All steps have the same arguments: a script of 1 MB stands there once.
        """
        return {
            "operation": self.operation,
            "arguments": dict(self.steps[0].arguments),
            "secrets": sorted(self.steps[0].secrets),
            "targets": [target.to_dict() for target in self.targets],
            "steps": [step.to_dict() for step in self.steps],
            "wait": self.wait,
            "batch": self.batch,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], secrets: Mapping[str, Any] | None = None) -> Plan:
        """Make it of what `to_dict` answered; secrets that aren't given are `WITHHELD`."""
        targets = {one["index"]: Target.from_dict(one) for one in row["targets"]}
        given = {} if secrets is None else secrets
        steps = tuple(
            Step(
                place=one["place"],
                operation=row["operation"],
                targets=tuple(targets[index] for index in one["targets"]),
                arguments=row["arguments"],
                secrets={name: given.get(name, WITHHELD) for name in row["secrets"]},
                name=one["name"],
            )
            for one in row["steps"]
        )
        return cls(
            operation=row["operation"],
            targets=tuple(targets.values()),
            steps=steps,
            wait=row["wait"],
            batch=row["batch"],
        )

    def _rows(self) -> list[tuple[str, str]]:
        rows = []
        per = Counter(step.operation for step in self.steps)
        many = sum(len(step.targets) > 1 for step in self.steps)
        steps = ", ".join(f"{count:,} × {name}" for name, count in per.items())
        rows.append(("steps", steps + (f", {many:,} of them for many at once" if many else "")))
        calls = ", ".join(f"{count:,} {kind.value}s" for kind, count in self.calls.items())
        rows.append(("calls", calls + (", and the polls of what they begin" if self.wait else "")))
        for kind, count in self.calls.items():
            bucket = BUCKETS[kind]
            rows.append((
                f"budget of {kind.value}s",
                f"{count:,} of {bucket.capacity:,}, which gain {bucket.refill_per_second:,.0f}/s",
            ))  # fmt: skip
        sending = self.sending_seconds
        rows.append(
            ("to send them", format_seconds(sending) + " at least" if sending else "at once")
        )
        if self.batch:
            rows.append(("batches", f"{self.batches:,} of {self.batch:,} instances"))
        if self.destroys:
            rows.append(("destroys", "what it takes away can't be had back"))
        return rows

    def __repr__(self) -> str:
        rows = "\n".join(f"  {name:<18}{text}" for name, text in self._rows())
        return f"{self._headline()}\n{rows}"

    def _headline(self) -> str:
        subscriptions = len({target.subscription for target in self.targets})
        where = f" in {subscriptions} subscriptions" if subscriptions > 1 else ""
        count = len(self.targets)
        return (
            f"Plan: {self.operation} {count:,} instance{'s' if count != 1 else ''}{where};"
            " nothing is sent"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>"
            for name, text in self._rows()
        )
        return f"<table><caption>{html.escape(self._headline())}</caption>{rows}</table>"


class _Withheld:
    """Stands for a secret that a journal doesn't hold."""

    def __repr__(self) -> str:
        return "WITHHELD"


WITHHELD = _Withheld()


def _calls_of(step: Step, *, wait: bool) -> Counter[Kind]:
    """What a step sends if all goes well, polls apart."""
    known = operation_of(step.operation)
    if step.operation == "run_script":
        return Counter({Kind.WRITE: 1, Kind.READ: 1, Kind.DELETE: 1} if wait else {Kind.WRITE: 1})
    if step.operation == "add_extension":
        many = step.targets[0].uniform
        return Counter({Kind.WRITE: 2 if many else 1, Kind.READ: 1 if many else 0})
    if step.operation == "resize" and step.arguments.get("deallocate"):
        return Counter({Kind.WRITE: 3, Kind.READ: 1})
    if len(step.targets) > 1 and wait:
        return Counter({known.kind: 1, Kind.READ: 1})
    return Counter({known.kind: 1})


def make_plan(
    operation: str,
    targets: Iterable[Target],
    *,
    arguments: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
    wait: bool = True,
    batch: int | None = None,
) -> Plan:
    """Decide which steps an operation takes.

    Instances of one Uniform set share a step where the service takes many in one call, up to
    `batch` of them; every other instance has one of its own.

    Args:
        operation: a name of `operations.OPERATIONS`; `stop` and `reimage` choose their variant by
            the arguments `deallocate` (True) and `data_disks` (False).
        targets: the instances; their indices are 0, 1, ... in order.
        arguments: the operation's own.
        secrets: those that are secret, by name.
        wait: see `Plan`.
        batch: see `Plan`.

    Raises:
        UsageError: there is no such operation, it can't be done to one of the instances, or an
            argument makes no sense.
    """
    targets = tuple(targets)
    if not targets:
        raise UsageError(f"cannot {operation} an empty fleet: no instance was selected")
    if batch is not None and (type(batch) is not int or batch < 1):
        raise UsageError(
            f"cannot take {batch!r} instances at a time: batch is a whole number from 1"
        )
    known, plain = _variant(operation, dict(arguments or {}))
    for target in targets:
        _check_possible(known, target, plain)
    steps = [
        Step(
            place=place,
            operation=known.name,
            targets=group,
            arguments=plain,
            secrets=dict(secrets or {}),
            name=f"azpool-{uuid.uuid4().hex[:12]}" if known.name == "run_script" else "",
        )
        for place, group in enumerate(_groups(known, targets, batch))
    ]
    return Plan(operation=known.name, targets=targets, steps=tuple(steps), wait=wait, batch=batch)


def _variant(operation: str, arguments: dict[str, Any]) -> tuple[Operation, dict[str, Any]]:
    known = operation_of(operation)
    if known.name == "stop" and not arguments.pop("deallocate", True):
        known = operation_of("power_off")
    if known.name == "reimage" and arguments.pop("data_disks", False):
        known = operation_of("reimage_all")
    return known, arguments


def _check_possible(known: Operation, target: Target, arguments: Mapping[str, Any]) -> None:
    if known.name in {"run_script", "add_extension"}:
        return
    if known.name == "resize":
        if target.uniform:
            raise UsageError(
                f"cannot resize {target.name!r} alone: instances of a Uniform scale set have the"
                " size of their set; change the set's model and update its instances"
            )
        if not arguments.get("size"):
            raise UsageError("cannot resize: no size was given; name one, as 'Standard_D4s_v5'")
        return
    if (known.one or known.many if target.uniform else known.vm) is None:
        what = "instances of a Uniform scale set" if target.uniform else "virtual machines"
        disks = " with its data disks" if known.name == "reimage_all" else ""
        raise UsageError(
            f"cannot {known.verb} {target.name!r}{disks}: there is no such operation for {what}"
        )


def _groups(
    known: Operation, targets: Sequence[Target], batch: int | None
) -> Iterable[tuple[Target, ...]]:
    """Answer which instances share a step, in the order of the first of each."""
    most = min(batch or MOST_IN_ONE_CALL, MOST_IN_ONE_CALL)
    groups: list[list[Target]] = []
    open_groups: dict[str, list[Target]] = {}
    together = known.many is not None or known.name == "add_extension"
    for target in targets:
        if not (together and target.uniform and target.set_id):
            groups.append([target])
            continue
        group = open_groups.get(target.set_id.lower())
        if group is None or len(group) >= most:
            group = open_groups[target.set_id.lower()] = []
            groups.append(group)
        group.append(target)
    return (tuple(group) for group in groups)


def without_secrets(step: Step) -> Step:
    """Answer the step as a journal gives it back."""
    return replace(step, secrets=dict.fromkeys(step.secrets, WITHHELD))
