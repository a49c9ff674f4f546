"""What is asked of virtual machines and of one instance of a scale set.

    POST .../start -> 202 + Azure-AsyncOperation, Location; `starting` until the operation ends

The same transitions serve many instances of a scale set (`_scale_sets.py`).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._disks import renew
from azpool.testing.arm._extensions import apply_model
from azpool.testing.arm._pages import page
from azpool.testing.arm._routes import (
    COMPUTE,
    SUBSCRIPTION,
    ArmError,
    Reply,
    Request,
    part,
    route,
    tags_of,
)
from azpool.testing.arm._subjects import INSTANCE, MACHINE, listed, machine_of
from azpool.testing.arm._views import machine_body, machine_view
from azpool.testing.arm._world import Machine

if TYPE_CHECKING:
    from azpool.testing.arm._operations import Failure
    from azpool.testing.arm._world import World

__all__ = ["CHANGES", "Change", "change"]


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation does to a machine's power: while it goes on, and at its end.

    None leaves it. `needs` are the states that it can begin in; () for any.
    """

    meanwhile: str | None = None
    ends: str | None = None
    provisioning: str = "Updating"
    needs: tuple[str, ...] = ()


CHANGES = {
    "start": Change("starting", "running"),
    "powerOff": Change("stopping", "stopped", needs=("running", "starting", "stopping", "stopped")),
    "deallocate": Change("deallocating", "deallocated"),
    "restart": Change(None, "running", needs=("running", "starting", "stopped")),
    "redeploy": Change(None, "running"),
    "reimage": Change(None, None),
    "reimageall": Change(None, None),
    "reapply": Change(None, None),
    "manualupgrade": Change(None, None),
    "delete": Change(None, None, provisioning="Deleting"),
}


def change(
    world: World, request: Request, kind: str, machines: Sequence[Machine], **more: Any
) -> Reply:
    """Begin one operation on machines, all at once; each that fails is left as it was.

    A partial failure (a `Failure` with `only`) fails the operation and those machines alone: an
    assumption, no recording shows one.
    """
    what = CHANGES[kind]
    for machine in machines:
        world.refuse_busy(machine)
        if what.needs and machine.power not in what.needs:
            raise ArmError(
                409,
                "OperationNotAllowed",
                f"Operation '{kind}' is not allowed on VM '{machine.name}' since it is "
                f"{machine.power}.",
            )
    before = {machine: machine.power for machine in machines}
    for machine in machines:
        world.set_provisioning(machine, what.provisioning)
        if what.meanwhile is not None and machine.power != what.ends:
            world.set_power(machine, what.meanwhile)

    def done(machine: Machine) -> None:
        if machine.deleted:
            return
        if kind == "delete":
            world.remove_machine(machine)
            return
        if what.ends is not None:
            world.set_power(machine, what.ends)
        if kind in ("reimage", "reimageall"):
            renew(world, machine, data=kind == "reimageall")
            machine.run_commands.clear()
        if kind == "manualupgrade":
            apply_model(world, machine)
        world.set_provisioning(machine, "Succeeded")

    def undone(failure: Failure) -> None:
        for machine in machines:
            if failure.only and machine.key not in failure.only:
                done(machine)
            elif not machine.deleted:
                power = before[machine]
                if power is not None:
                    world.set_power(machine, power)
                world.set_provisioning(machine, "Failed")
                machine.failure = failure.of(machine.key)

    def all_done() -> None:
        for machine in machines:
            done(machine)

    more = {"effects": all_done, "undone": undone} | more
    return world.operations.begin(request, kind, machines, **more)


def _act(kind: str, world: World, request: Request) -> Reply:
    return change(world, request, kind, [machine_of(world, request)])


for _kind in ("start", "powerOff", "deallocate", "restart", "redeploy", "reimage", "reimageall"):
    route("POST", f"{INSTANCE}/{_kind}")(functools.partial(_act, _kind))
for _kind in ("start", "powerOff", "deallocate", "restart", "redeploy", "reimage", "reapply"):
    route("POST", f"{MACHINE}/{_kind}")(functools.partial(_act, _kind))


@route("DELETE", MACHINE)
@route("DELETE", INSTANCE)
def delete(world: World, request: Request) -> Reply:
    """Delete a machine; one that is not there is no error."""
    try:
        machine = machine_of(world, request)
    except ArmError as error:
        if error.status == 404 and error.code != "ResourceGroupNotFound":
            return Reply(204)
        raise
    return change(world, request, "delete", [machine])


@route("GET", MACHINE)
@route("GET", INSTANCE)
def get(world: World, request: Request) -> Reply:
    machine = machine_of(world, request)
    return Reply(200, machine_body(world, machine, view=wants_view(request)))


@route("GET", f"{MACHINE}/instanceView")
@route("GET", f"{INSTANCE}/instanceView")
def get_view(world: World, request: Request) -> Reply:
    return Reply(200, machine_view(world, machine_of(world, request)))


@route("PATCH", MACHINE)
@route("PUT", MACHINE)
@route("PUT", INSTANCE)
def update(world: World, request: Request) -> Reply:
    """Change a machine's size or tags; a PUT makes one that is not there."""
    body = request.body if isinstance(request.body, Mapping) else {}
    try:
        machine = machine_of(world, request)
    except ArmError as error:
        if request.method == "PUT" and "instance" not in request.params and error.status == 404:
            return _create(world, request, body)
        raise
    world.refuse_busy(machine)
    size = str(part(part(body, "properties"), "hardwareProfile").get("vmSize") or machine.size)
    tags = tags_of(body) if body.get("tags") is not None else None
    world.set_provisioning(machine, "Updating")

    def done() -> None:
        machine.size = size
        if tags is not None:
            machine.tags = tags
        world.set_provisioning(machine, "Succeeded")

    answer = copy.deepcopy(machine_body(world, machine))
    return world.operations.begin(
        request,
        "resize" if size != machine.size else "update",
        [machine],
        status=200,
        body=answer,
        with_location=False,
        effects=done,
        undone=lambda _: world.set_provisioning(machine, "Failed"),
    )


def _create(world: World, request: Request, body: Mapping[str, Any]) -> Reply:
    params = request.params
    group = world.group(params["subscription"], params["group"])
    if not body.get("location"):
        raise ArmError(400, "LocationRequired", "The location property is required.")
    machine = world.add_machine(
        Machine(
            group,
            params["name"],
            str(body["location"]),
            tags=tags_of(body),
            power="starting",
            provisioning="Creating",
        )
    )

    def done() -> None:
        world.set_power(machine, "running")
        world.set_provisioning(machine, "Succeeded")

    return world.operations.begin(
        request,
        "create",
        [machine],
        status=201,
        body=machine_body(world, machine),
        with_location=False,
        effects=done,
        undone=lambda _: world.set_provisioning(machine, "Failed"),
    )


@route("GET", f"{COMPUTE}/virtualMachines")
@route("GET", f"{SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachines")
def get_all(world: World, request: Request) -> Reply:
    """List machines; with `statusOnly=true` their states alone."""
    wanted = _filter(request.query.get("$filter", ""))
    if wants_view(request) and not request.query.get("$filter"):
        # "This can only be specified if a valid $filter option is specified": the specification.
        raise ArmError(400, "BadRequest", "$expand is not supported without $filter.")
    found = [one for one in listed(world, request, world.machines) if wanted(one)]
    status_only = request.query.get("statusonly", "").lower() == "true"
    view = wants_view(request) or status_only
    return page(request, found, world.page_size, lambda one: machine_body(world, one, view=view))


def _filter(text: str) -> Callable[[Machine], bool]:
    """Read `'virtualMachineScaleSet/id' eq '<id>'`, the one filter that lists of machines know."""
    if not text:
        return lambda _: True
    parts = text.replace("'", " ").split()
    if len(parts) != 3 or parts[0].lower() != "virtualmachinescaleset/id" or parts[1] != "eq":
        raise ArmError(400, "BadRequest", f"The filter '{text}' is not supported.")
    wanted = parts[2].lower()
    return lambda one: one.scale_set is not None and one.scale_set.id.lower() == wanted


def wants_view(request: Request) -> bool:
    return request.query.get("$expand", "").lower() == "instanceview"
