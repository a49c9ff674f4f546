"""What is asked of scale sets: read, many instances at once, capacity, delete."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._machines import CHANGES, change, wants_view
from azpool.testing.arm._pages import page
from azpool.testing.arm._routes import (
    SUBSCRIPTION,
    ArmError,
    Reply,
    Request,
    part,
    route,
    tags_of,
    whole,
)
from azpool.testing.arm._subjects import SET, SETS, listed, scale_set_of
from azpool.testing.arm._views import machine_body, scale_set_body, scale_set_view

if TYPE_CHECKING:
    from azpool.testing.arm._operations import Failure
    from azpool.testing.arm._world import Machine, ScaleSet, World

__all__ = ["chosen"]

MOST = 1000  # instances of a set


def chosen(scale_set: ScaleSet, body: Any) -> list[Machine]:
    """Find the instances of `instanceIds`; all of them where it is missing, or holds `*`."""
    ids = body.get("instanceIds") if isinstance(body, Mapping) else None
    if ids is None or ids == ["*"]:
        return list(scale_set.machines.values())
    if not isinstance(ids, list) or not ids:
        raise ArmError(400, "InvalidParameter", "The value of parameter instanceIds is invalid.")
    missing = [str(one) for one in ids if str(one).lower() not in scale_set.machines]
    if missing:
        raise ArmError(
            400,
            "InvalidParameter",
            f"The provided instanceId {missing[0]} is not an active Virtual Machine Scale Set VM "
            "instanceId.",
        )
    return [scale_set.machines[key] for key in dict.fromkeys(str(one).lower() for one in ids)]


def _act(kind: str, world: World, request: Request) -> Reply:
    scale_set = scale_set_of(world, request)
    world.refuse_deleting(scale_set, request)
    if kind in ("manualupgrade", "delete") and not isinstance(request.body, Mapping):
        raise ArmError(400, "InvalidParameter", "Required parameter 'vmInstanceIDs' is missing.")
    machines = chosen(scale_set, request.body)
    return change(world, request, kind, machines, location=scale_set.location)


for _kind in CHANGES:
    if _kind != "reapply":
        route("POST", f"{SET}/{_kind}")(functools.partial(_act, _kind))


@route("GET", SET)
def get(world: World, request: Request) -> Reply:
    return Reply(200, scale_set_body(world, scale_set_of(world, request)))


@route("GET", f"{SET}/instanceView")
def get_view(world: World, request: Request) -> Reply:
    return Reply(200, scale_set_view(scale_set_of(world, request)))


@route("GET", SETS)
@route("GET", f"{SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachineScaleSets")
def get_all(world: World, request: Request) -> Reply:
    found = listed(world, request, world.scale_sets)
    return page(request, found, world.page_size, lambda one: scale_set_body(world, one))


@route("GET", f"{SET}/virtualMachines")
def list_machines(world: World, request: Request) -> Reply:
    """List the instances; of a Uniform set with instance views, where `$expand` asks for them.

    This list of a Flexible set knows no instance view (Azure/azure-sdk-for-go#19707): that of
    virtual machines has it, by the filter `'virtualMachineScaleSet/id' eq '<id>'`.
    """
    scale_set = scale_set_of(world, request)
    found = list(scale_set.machines.values())
    view = scale_set.uniform and wants_view(request)
    return page(request, found, world.page_size, lambda one: machine_body(world, one, view=view))


@route("PATCH", SET)
@route("PUT", SET)
def update(world: World, request: Request) -> Reply:
    """Change capacity, size or tags; instances keep their size until they are upgraded."""
    scale_set = scale_set_of(world, request)
    world.refuse_deleting(scale_set, request)
    world.refuse_busy(scale_set)
    body = request.body if isinstance(request.body, Mapping) else {}
    sku = part(body, "sku")
    capacity = whole(sku.get("capacity", len(scale_set.machines)), "sku.capacity")
    if capacity > MOST:
        raise ArmError(400, "InvalidParameter", "The value of parameter sku.capacity is invalid.")
    tags = tags_of(body)
    if sku.get("name") and sku["name"] != scale_set.size:
        scale_set.size = str(sku["name"])
        for machine in scale_set.machines.values():
            machine.latest_model = False
    if body.get("tags") is not None:
        scale_set.tags = tags
    scale_set.wanted = capacity
    world.set_provisioning(scale_set, "Updating")

    def done() -> None:
        for machine in list(scale_set.machines.values())[capacity:]:
            world.remove_machine(machine)
        while len(scale_set.machines) < capacity:
            world.add_instance(scale_set)
        scale_set.wanted = None
        world.set_provisioning(scale_set, "Succeeded")

    return world.operations.begin(
        request,
        "update",
        [scale_set],
        status=200,
        body=scale_set_body(world, scale_set),
        with_location=False,
        effects=done,
        undone=lambda _: world.set_provisioning(scale_set, "Failed"),
    )


@route("DELETE", SET)
def delete(world: World, request: Request) -> Reply:
    """Delete a scale set and all its instances."""
    try:
        scale_set = scale_set_of(world, request)
    except ArmError as error:
        if error.code == "ResourceNotFound":
            return Reply(204)
        raise
    world.refuse_deleting(scale_set, request)
    scale_set.deleting = True
    machines = list(scale_set.machines.values())
    for machine in machines:
        world.set_provisioning(machine, "Deleting")

    def undone(failure: Failure) -> None:
        scale_set.deleting = False
        world.set_provisioning(scale_set, "Failed")
        for machine in machines:
            if not machine.deleted:
                world.set_provisioning(machine, "Failed")
                machine.failure = failure.of(machine.key)

    return world.operations.begin(
        request,
        "delete",
        [scale_set],
        effects=lambda: world.remove_scale_set(scale_set),
        undone=undone,
    )
