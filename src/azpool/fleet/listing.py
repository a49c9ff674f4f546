"""Procedures that read: a scale set, machines, their states, and what they are connected to.

    Fleet -> members(...), machines(...), again(...) -> Procedure -> run.gather -> answers

A list is read to its last page or not at all: half a list would be an inventory that is silently
short. What can't be read is told: of the whole by a `FleetError`, of one machine by its `unread`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from azpool.errors import FleetError
from azpool.fleet.calls import Answer, Call, Kind, Procedure
from azpool.fleet.ids import ResourceId, parse_id, scale_set_id
from azpool.fleet.instance import Instance, InstanceKind
from azpool.fleet.reading import Json, ScaleSet, States, instance_of, scale_set_of, states_of

__all__ = [
    "Pages",
    "blank",
    "by_owner",
    "failure",
    "get_call",
    "list_call",
    "listed",
    "machine",
    "machines",
    "members",
    "owner_of",
    "pages",
    "read_call",
    "resource",
    "scale_set",
    "states_by_key",
    "statuses",
    "why",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """A list, whole; or why there is none.

    Attributes:
        items: all of it; () where it was refused.
        refused: the answer that says why, or None.
    """

    items: tuple[Json, ...] = ()
    refused: Answer | None = None

    def checked(self, what: str, resource_id: str = "") -> tuple[Json, ...]:
        """Answer the items.

        Raises:
            FleetError: it was refused; the message says `cannot list <what>`.
        """
        if self.refused is not None:
            raise failure(f"cannot list {what}", self.refused, resource_id)
        return self.items


def failure(doing: str, answer: Answer, resource_id: str = "") -> FleetError:
    """Make the error of an answer: `cannot read ...: <the service's words> (404 NotFound)`."""
    return FleetError(
        f"{doing}: {why(answer)}",
        status=answer.status,
        code=answer.code,
        resource_id=resource_id or None,
        request_id=answer.request_id,
        correlation_id=answer.correlation_id,
    )


def why(answer: Answer) -> str:
    """Say in a line why an answer is none: `The Resource ... was not found (404 NotFound)`."""
    facts = " ".join(str(fact) for fact in (answer.status, answer.code) if fact is not None)
    words = (answer.message.strip().partition("\n")[0] or "no answer").rstrip(".")
    return f"{words} ({facts})" if facts else words


def read_call(subscription: str, method: str, **arguments: Any) -> Call:
    """Make a call that reads, and so may be repeated."""
    return Call(
        subscription=subscription,
        method=method,
        arguments=arguments,
        kind=Kind.READ,
        repeatable=True,
    )


def pages(call: Call) -> Procedure[Pages]:
    """Read a list to its end: a page is a call of its own, the next one a GET of its address."""
    items: list[Json] = []
    seen: set[str] = set()
    while True:
        answer = yield call
        assert answer is not None
        if not answer.ok:
            return Pages(refused=answer)
        value = answer.body.get("value") if isinstance(answer.body, Mapping) else None
        if not isinstance(value, list):
            return Pages(refused=_no_list(answer))
        items += [item for item in value if isinstance(item, Mapping)]
        following = answer.body.get("nextLink")
        if not following:
            return Pages(items=tuple(items))
        if following in seen:
            return Pages(refused=_no_list(answer, "its pages go round in a circle"))
        seen.add(following)
        call = replace(call, method="get", arguments={}, url=str(following))


def _no_list(answer: Answer, words: str = "the answer holds no list") -> Answer:
    return Answer(status=None, headers=answer.headers, code="BadResponse", message=words)


def resource(call: Call) -> Procedure[Answer]:
    """Make one call."""
    answer = yield call
    assert answer is not None
    return answer


def get_call(one: ResourceId) -> Call:
    """Make the call that reads one machine with its instance view."""
    owner = one.parent
    if owner is not None:
        return read_call(
            one.subscription,
            "compute.virtual_machine_scale_set_vms.get",
            resource_group_name=one.group,
            vm_scale_set_name=owner.name,
            instance_id=one.name,
            expand="instanceView",
        )
    return read_call(
        one.subscription,
        "compute.virtual_machines.get",
        resource_group_name=one.group,
        vm_name=one.name,
        expand="instanceView",
    )


def list_call(owner: ResourceId, *, flexible: bool) -> Call:
    """Make the call that lists a scale set's machines with their instance views."""
    if not flexible:
        return read_call(
            owner.subscription,
            "compute.virtual_machine_scale_set_vms.list",
            resource_group_name=owner.group,
            virtual_machine_scale_set_name=owner.name,
            expand="instanceView",
        )
    return read_call(
        owner.subscription,
        "compute.virtual_machines.list",
        resource_group_name=owner.group,
        filter=f"'virtualMachineScaleSet/id' eq '{owner}'",
        expand="instanceView",
    )


def scale_set(owner: ResourceId) -> Procedure[ScaleSet]:
    """Read a scale set itself.

    Raises:
        FleetError: it can't be read.
    """
    answer = yield read_call(
        owner.subscription,
        "compute.virtual_machine_scale_sets.get",
        resource_group_name=owner.group,
        vm_scale_set_name=owner.name,
    )
    assert answer is not None
    if not answer.ok or not isinstance(answer.body, Mapping):
        raise failure(f"cannot read the scale set {owner.name!r}", answer, str(owner))
    return scale_set_of(answer.body)


def members(owner: ResourceId) -> Procedure[list[Instance]]:
    """Read a scale set of either kind, and all machines of it.

    Raises:
        FleetError: it can't be read, or its list can't be read to the end.
    """
    known = yield from scale_set(owner)
    found = yield from pages(list_call(owner, flexible=known.flexible))
    items = found.checked(f"the instances of {owner.name!r}", str(owner))
    return [_within(instance_of(item), owner) for item in items]


def _within(instance: Instance, owner: ResourceId) -> Instance:
    """Say of a machine that a scale set's own list has, that it is one of its."""
    if instance.kind is InstanceKind.VM:
        return replace(instance, kind=InstanceKind.FLEXIBLE, scale_set=owner.name)
    return instance


def listed(owner: ResourceId, *, flexible: bool) -> Procedure[Pages]:
    """List a scale set's machines, whose kind is known."""
    return pages(list_call(owner, flexible=flexible))


def machines(subscription: str, group: str | None) -> Procedure[Pages]:
    """List the virtual machines of a resource group, or of all; without their states."""
    if group is None:
        return pages(read_call(subscription, "compute.virtual_machines.list_all"))
    return pages(
        read_call(subscription, "compute.virtual_machines.list", resource_group_name=group)
    )


def statuses(subscription: str) -> Procedure[Pages]:
    """List the states of all virtual machines of a subscription: one list for all."""
    return pages(read_call(subscription, "compute.virtual_machines.list_all", status_only="true"))


def states_by_key(items: Iterable[Json]) -> dict[str, States]:
    """Answer the states of a list by resource id in lower case."""
    found = {}
    for item in items:
        properties = item.get("properties")
        view = properties.get("instanceView") if isinstance(properties, Mapping) else None
        found[str(item.get("id")).lower()] = states_of(view)
    return found


def machine(one: ResourceId) -> Procedure[Instance]:
    """Read one machine; one that can't be read says why in `unread`."""
    answer = yield get_call(one)
    assert answer is not None
    if answer.ok and isinstance(answer.body, Mapping) and answer.body.get("id"):
        return instance_of(answer.body)
    return replace(blank(one), unread=why(answer))


def blank(one: ResourceId) -> Instance:
    """Make the instance that a machine is before it is read: its id alone."""
    owner = one.parent
    return Instance(
        resource_id=str(one),
        instance_id=one.name,
        name=one.name if owner is None else f"{owner.name}_{one.name}",
        kind=InstanceKind.VM if owner is None else InstanceKind.UNIFORM,
        scale_set=None if owner is None else owner.name,
    )


def owner_of(instance: Instance) -> ResourceId | None:
    """Answer the id of an instance's scale set, or None."""
    if instance.scale_set is None:
        return None
    one = parse_id(instance.resource_id)
    return scale_set_id(one.subscription, one.group, instance.scale_set)


def by_owner(instances: Sequence[Instance]) -> dict[ResourceId | str, list[Instance]]:
    """Group instances by what lists them: their scale set, else their subscription."""
    groups: dict[ResourceId | str, list[Instance]] = {}
    for instance in instances:
        key = owner_of(instance) or instance.subscription.lower()
        groups.setdefault(key, []).append(instance)
    return groups
