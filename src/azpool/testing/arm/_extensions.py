"""Extensions: of machines, of scale sets' instances, and in the model of a scale set.

    PUT machine/extensions/NAME   -> 201 Creating + Azure-AsyncOperation -> Succeeded
    PUT scale set/extensions/NAME -> the model; instances have it after `manualupgrade` alone where
                                     the set's upgrades are manual (`latestModelApplied` is false
                                     until then), else when the operation ends

What an extension does on a machine is not modelled: it succeeds, unless a fault says otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._clock import written
from azpool.testing.arm._routes import ArmError, Reply, Request, route, tags_of
from azpool.testing.arm._run_commands import (
    refuse_idle,
    silent,
)
from azpool.testing.arm._subjects import INSTANCE, MACHINE, SET, machine_of, scale_set_of
from azpool.testing.arm._world import MANUAL, Machine, ScaleSet, resource_not_found

if TYPE_CHECKING:
    from azpool.testing.arm._operations import Failure
    from azpool.testing.arm._world import World

__all__ = ["Extension", "apply_model", "model_extensions"]

REQUIRED = ("publisher", "type", "typeHandlerVersion")
SECRET = ("protectedSettings", "protectedSettingsFromKeyVault")


@dataclass(slots=True, eq=False)
class Extension:
    """One extension: of a machine, or of a scale set's model.

    `from_model` says that the machine has it from its scale set.
    """

    name: str
    location: str
    properties: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    provisioning: str = "Creating"
    provisioning_at: float = 0.0
    message: str = ""
    from_model: bool = False

    def written(self, owner: Machine | ScaleSet, *, view: bool = False) -> dict[str, Any]:
        in_model = isinstance(owner, ScaleSet)
        properties = {key: value for key, value in self.properties.items() if key not in SECRET}
        properties["provisioningState"] = self.provisioning
        if view and not in_model:
            properties["instanceView"] = self.view()
        body: dict[str, Any] = {
            "name": self.name,
            "id": f"{owner.id}/extensions/{self.name}",
            "type": _kind(owner),
        }
        if not in_model:
            body["location"] = self.location
            if self.tags:
                body["tags"] = self.tags
        return body | {"properties": properties}

    def view(self) -> dict[str, Any]:
        """Write what the machine's agent says of it."""
        state = self.provisioning.lower()
        words = {"succeeded": "Provisioning succeeded", "failed": "Provisioning failed"}
        return {
            "name": self.name,
            "type": f"{self.properties['publisher']}.{self.properties['type']}",
            "typeHandlerVersion": self.properties["typeHandlerVersion"],
            "statuses": [
                {
                    "code": f"ProvisioningState/{state}",
                    "level": "Error" if state == "failed" else "Info",
                    "displayStatus": words.get(state, "Not ready"),
                    "message": self.message,
                    "time": written(self.provisioning_at),
                }
            ],
        }


def _kind(owner: Machine | ScaleSet) -> str:
    kind = "virtualMachines"
    if isinstance(owner, ScaleSet):
        kind = "virtualMachineScaleSets"
    elif owner.instance_id is not None:
        kind = "virtualMachineScaleSets/virtualMachines"
    return f"Microsoft.Compute/{kind}/extensions"


def apply_model(world: World, machine: Machine) -> None:
    """Give a machine the extensions of its set's latest model, and take those that left it.

    For whoever lets an instance take the latest model: an upgrade, an automatic policy, its birth.
    """
    scale_set = machine.scale_set
    if scale_set is None:
        return
    for key, known in list(machine.extensions.items()):
        if known.from_model and key not in scale_set.extensions:
            del machine.extensions[key]
    for key, one in scale_set.extensions.items():
        known = machine.extensions.get(key)
        if known is None or known.properties != one.properties:
            machine.extensions[key] = Extension(
                one.name,
                machine.location,
                copy.deepcopy(one.properties),
                provisioning="Succeeded",
                provisioning_at=world.clock.now(),
                from_model=True,
            )
    machine.latest_model = True


def model_extensions(scale_set: ScaleSet) -> list[dict[str, Any]]:
    """Write the extensions as they stand in the `extensionProfile` of a scale set's model."""
    found = []
    for one in scale_set.extensions.values():
        properties = {key: value for key, value in one.properties.items() if key not in SECRET}
        found.append({"name": one.name, "properties": properties})
    return found


# --- of machines ----------------------------------------------------------------------------------


@route("PUT", f"{MACHINE}/extensions/{{extension}}")
@route("PUT", f"{INSTANCE}/extensions/{{extension}}")
@route("PATCH", f"{MACHINE}/extensions/{{extension}}")
@route("PATCH", f"{INSTANCE}/extensions/{{extension}}")
def put(world: World, request: Request) -> Reply:
    """Install an extension on a machine, or change it; the machine is busy with it meanwhile."""
    machine = machine_of(world, request)
    world.refuse_busy(machine)
    refuse_idle(machine)
    name = request.params["extension"]
    known = machine.extensions.get(name.lower())
    extension = _read(request, known, name, machine.location)
    machine.extensions[name.lower()] = extension

    def ends(state: str, message: str = "") -> None:
        extension.provisioning, extension.message = state, message
        extension.provisioning_at = world.clock.now()

    return world.operations.begin(
        request,
        "extension",
        [machine],
        status=200 if known is not None else 201,
        body=extension.written(machine),
        with_location=False,
        effects=lambda: ends("Succeeded"),
        undone=lambda failure: ends("Failed", failure.message),
        failure=silent(machine),
    )


@route("GET", f"{MACHINE}/extensions/{{extension}}")
@route("GET", f"{INSTANCE}/extensions/{{extension}}")
def get(world: World, request: Request) -> Reply:
    machine = machine_of(world, request)
    found = _find(machine, request, machine.group.name)
    return Reply(200, found.written(machine, view=_wants_view(request)))


@route("GET", f"{MACHINE}/extensions")
@route("GET", f"{INSTANCE}/extensions")
def get_all(world: World, request: Request) -> Reply:
    machine, view = machine_of(world, request), _wants_view(request)
    return Reply(
        200, {"value": [one.written(machine, view=view) for one in machine.extensions.values()]}
    )


@route("DELETE", f"{MACHINE}/extensions/{{extension}}")
@route("DELETE", f"{INSTANCE}/extensions/{{extension}}")
def delete(world: World, request: Request) -> Reply:
    machine = machine_of(world, request)
    key = request.params["extension"].lower()
    if key not in machine.extensions:
        return Reply(204)
    world.refuse_busy(machine)
    refuse_idle(machine)
    machine.extensions[key].provisioning = "Deleting"
    return world.operations.begin(
        request, "extension", [machine], effects=lambda: machine.extensions.pop(key, None)
    )


# --- of the model of a scale set ------------------------------------------------------------------


@route("PUT", f"{SET}/extensions/{{extension}}")
@route("PATCH", f"{SET}/extensions/{{extension}}")
def put_model(world: World, request: Request) -> Reply:
    """Put an extension into the model of a scale set."""
    scale_set = scale_set_of(world, request)
    world.refuse_busy(scale_set)
    name = request.params["extension"]
    known = scale_set.extensions.get(name.lower())
    extension = _read(request, known, name, scale_set.location)
    changed = known is None or known.properties != extension.properties
    scale_set.extensions[name.lower()] = extension
    return _change_model(
        world, request, scale_set, extension, changed=changed, status=200 if known else 201
    )


@route("GET", f"{SET}/extensions/{{extension}}")
def get_model(world: World, request: Request) -> Reply:
    scale_set = scale_set_of(world, request)
    found = _find(scale_set, request, scale_set.group.name)
    return Reply(200, found.written(scale_set))


@route("GET", f"{SET}/extensions")
def get_all_model(world: World, request: Request) -> Reply:
    scale_set = scale_set_of(world, request)
    return Reply(200, {"value": [one.written(scale_set) for one in scale_set.extensions.values()]})


@route("DELETE", f"{SET}/extensions/{{extension}}")
def delete_model(world: World, request: Request) -> Reply:
    scale_set = scale_set_of(world, request)
    key = request.params["extension"].lower()
    if key not in scale_set.extensions:
        return Reply(204)
    world.refuse_busy(scale_set)
    del scale_set.extensions[key]
    return _change_model(world, request, scale_set, None, changed=True, status=202)


def _change_model(
    world: World,
    request: Request,
    scale_set: ScaleSet,
    extension: Extension | None,
    *,
    changed: bool,
    status: int,
) -> Reply:
    """Begin what follows a change of the model; manual upgrades leave instances behind it."""
    automatic = scale_set.upgrade_policy != MANUAL
    if changed:
        for machine in scale_set.machines.values():
            machine.latest_model = False

    def succeeded() -> None:
        if extension is not None:
            extension.provisioning, extension.provisioning_at = "Succeeded", world.clock.now()
        if automatic:
            for machine in scale_set.machines.values():
                apply_model(world, machine)

    def undone(failure: Failure) -> None:
        if extension is not None:
            extension.provisioning, extension.message = "Failed", failure.message

    return world.operations.begin(
        request,
        "extension",
        [scale_set],
        status=status,
        body=None if extension is None else extension.written(scale_set),
        with_location=extension is None,
        effects=succeeded,
        undone=undone,
    )


# --- of both --------------------------------------------------------------------------------------


def _read(request: Request, known: Extension | None, name: str, location: str) -> Extension:
    body = request.body
    if not isinstance(body, Mapping) or not isinstance(body.get("properties"), Mapping):
        raise ArmError(
            400, "InvalidRequestContent", "The request content was invalid: it has no properties."
        )
    properties = dict(copy.deepcopy(body["properties"]))
    for key in ("provisioningState", "instanceView"):
        properties.pop(key, None)
    if known is not None and request.method == "PATCH":
        properties = known.properties | properties
    elif known is None and request.method == "PATCH":
        raise resource_not_found(request.path.partition("/providers/")[2], request.params["group"])
    for key in REQUIRED:
        if not properties.get(key):
            raise ArmError(
                400,
                "InvalidParameter",
                f"Required parameter 'extension.properties.{key}' is missing (null).",
            )
    return Extension(
        name,
        str(body.get("location") or location),
        {"autoUpgradeMinorVersion": False} | properties,
        tags_of(body),
        provisioning="Creating" if known is None else "Updating",
    )


def _find(owner: Machine | ScaleSet, request: Request, group: str) -> Extension:
    found = owner.extensions.get(request.params["extension"].lower())
    if not isinstance(found, Extension):
        raise resource_not_found(request.path.partition("/providers/")[2], group)
    return found


def _wants_view(request: Request) -> bool:
    return request.query.get("$expand", "").lower() == "instanceview"
