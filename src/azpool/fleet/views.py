"""What the service says of machines' states, as procedures need it: lists and single views.

Field names as in ComputeRP's own examples. A `View` tells power and provisioning in lower case, ""
where the service says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from azpool.fleet.calls import Answer, Call, Procedure
from azpool.fleet.target import InstanceKind, Target

__all__ = ["Listed", "View", "list_call", "list_views", "read_view", "view_call", "view_of"]

_SETTLED_POWER = frozenset({"", "running", "stopped", "deallocated", "hibernated", "unknown"})
_SETTLED = frozenset({"", "succeeded", "failed", "canceled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A machine's state at one moment.

    Attributes:
        power: `running`, `starting`, `stopped`, `deallocated`, ...
        provisioning: `succeeded`, `updating`, `failed`, `deleting`, ...
        code: what stands behind a failed one (`OSProvisioningTimedOut`), or "".
        message: the service's words about it, or "".
        size: the machine's size, where it was read, or "".
    """

    power: str = ""
    provisioning: str = ""
    code: str = ""
    message: str = ""
    size: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing is under way on it."""
        return self.power in _SETTLED_POWER and self.provisioning in _SETTLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a list of views told.

    Attributes:
        views: by resource id in lower case.
        refused: the answer that ended the list early; None where it is whole.
    """

    views: Mapping[str, View]
    refused: Answer | None = None


def view_of(machine: Any) -> View:
    """Read one machine (with its instance view), or an instance view alone."""
    row = machine if isinstance(machine, Mapping) else {}
    properties = row.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    view = properties.get("instanceView")
    view = view if isinstance(view, Mapping) else row
    power, code, message = "", "", ""
    provisioning = properties.get("provisioningState")
    provisioning = provisioning.lower() if isinstance(provisioning, str) else ""
    for status in view.get("statuses") or ():
        if not isinstance(status, Mapping):
            continue
        sort, _, rest = str(status.get("code") or "").partition("/")
        if sort.lower() == "powerstate":
            power = rest.lower()
        elif sort.lower() == "provisioningstate":
            # `ProvisioningState/failed/OSProvisioningTimedOut`
            word, _, code = rest.partition("/")
            message = str(status.get("message") or "")
            provisioning = word.lower()
    hardware = properties.get("hardwareProfile")
    size = hardware.get("vmSize") if isinstance(hardware, Mapping) else None
    return View(
        power=power, provisioning=provisioning, code=code, message=message, size=str(size or "")
    )


def view_call(target: Target) -> Call:
    """Make the call that reads one machine with its view."""
    arguments: dict[str, Any] = {"resource_group_name": target.group, "expand": "instanceView"}
    if target.uniform:
        method = "compute.virtual_machine_scale_set_vms.get"
        arguments.update(vm_scale_set_name=target.scale_set, instance_id=target.instance_id)
    else:
        method = "compute.virtual_machines.get"
        arguments.update(vm_name=target.name)
    return Call(
        subscription=target.subscription,
        method=method,
        arguments=arguments,
        repeatable=True,
        about=(target.index,),
        policy=(target.resource_id, "get"),
        note="looks at the machine",
    )


def list_call(target: Target, about: tuple[int, ...] = ()) -> Call:
    """Make the call that lists the views of the machines that are kept with this one."""
    arguments: dict[str, Any] = {}
    if target.kind is InstanceKind.VM:
        method = "compute.virtual_machines.list_all"
        arguments["status_only"] = "true"
    elif target.uniform:
        method = "compute.virtual_machine_scale_set_vms.list"
        arguments = {
            "resource_group_name": target.group,
            "virtual_machine_scale_set_name": target.scale_set,
            "expand": "instanceView",
        }
    else:
        method = "compute.virtual_machines.list"
        arguments = {
            "resource_group_name": target.group,
            "filter": f"'virtualMachineScaleSet/id' eq '{target.set_id}'",
            "expand": "instanceView",
        }
    return Call(
        subscription=target.subscription,
        method=method,
        arguments=arguments,
        repeatable=True,
        about=about,
        policy=(target.set_id or target.subscription, "list"),
        note="looks at the machines",
    )


def read_view(target: Target) -> Procedure[View | Answer]:
    """Look at one machine; an answer is why it can't be seen."""
    answer = yield view_call(target)
    assert answer is not None
    return view_of(answer.body) if answer.ok else answer


def list_views(targets: Sequence[Target]) -> Procedure[Listed]:
    """List the views of machines that are kept together, page by page."""
    about = tuple(target.index for target in targets)
    call = list_call(targets[0], about)
    views: dict[str, View] = {}
    seen: set[str] = set()
    while True:
        answer = yield call
        assert answer is not None
        if not answer.ok:
            return Listed(views=views, refused=answer)
        body = answer.body if isinstance(answer.body, Mapping) else {}
        views.update(_rows(body.get("value")))
        following = body.get("nextLink")
        if not isinstance(following, str) or not following or following in seen:
            return Listed(views=views)
        seen.add(following)
        call = Call(
            subscription=call.subscription,
            method="get",
            url=following,
            repeatable=True,
            about=about,
            policy=call.policy,
            note=call.note,
        )


def _rows(rows: Any) -> Iterable[tuple[str, View]]:
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping) and isinstance(row.get("id"), str):
            yield row["id"].lower(), view_of(row)
