"""Managed disks of machines: made with them, made anew by a reimage, gone with those of sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool.testing.arm._clock import written
from azpool.testing.arm._world import Resource

if TYPE_CHECKING:
    from azpool.testing.arm._world import Machine, World

__all__ = ["attach", "detach", "renew", "storage"]

OS_GIB, DATA_GIB = 30, 64


def _names(machine: Machine) -> list[str]:
    """The system's disk first, as Azure names those of scale sets: by their generation."""
    data = [
        f"{machine.name}_disk{lun + 2}_{machine.data_generation}"
        for lun in range(machine.data_disks)
    ]
    return [f"{machine.name}_OsDisk_{machine.generation}", *data]


def _id(machine: Machine, name: str) -> str:
    return f"{machine.group.id}/providers/Microsoft.Compute/disks/{name}"


def attach(world: World, machine: Machine) -> None:
    """Make the disks of a machine, those that are not there."""
    for number, name in enumerate(_names(machine)):
        identifier = _id(machine, name)
        if identifier.lower() in world.resources:
            continue
        properties: dict[str, Any] = {
            "osType": "Linux",
            "diskSizeGB": DATA_GIB if number else OS_GIB,
            "diskState": "Attached",
            "provisioningState": "Succeeded",
            "timeCreated": written(world.clock.now()),
        }
        if number:
            del properties["osType"]
        world.resources[identifier.lower()] = Resource(
            identifier, name, "Microsoft.Compute/disks", machine.location, properties
        )


def detach(world: World, machine: Machine) -> None:
    """Take the disks of a machine that is gone; those of a machine of its own stay."""
    for name in _names(machine):
        key = _id(machine, name).lower()
        if machine.scale_set is not None:
            world.resources.pop(key, None)
        elif key in world.resources:
            world.resources[key].properties["diskState"] = "Unattached"


def renew(world: World, machine: Machine, *, data: bool) -> None:
    """Give a machine a new disk of its system, and new data disks too where `data` says so."""
    for name in _names(machine)[: None if data else 1]:
        world.resources.pop(_id(machine, name).lower(), None)
    machine.generation += 1
    if data:
        machine.data_generation += 1
    attach(world, machine)


def storage(machine: Machine, image: dict[str, str]) -> dict[str, Any]:
    """Write the `storageProfile` of a machine."""
    system, *data = _names(machine)

    def disk(name: str, size: int) -> dict[str, Any]:
        managed = {"storageAccountType": "Premium_LRS", "id": _id(machine, name)}
        return {"name": name, "caching": "ReadWrite", "managedDisk": managed, "diskSizeGB": size}

    return {
        "imageReference": {**image, "version": "latest"},
        "osDisk": {"osType": "Linux", "createOption": "FromImage"} | disk(system, OS_GIB),
        "dataDisks": [
            {"lun": lun, "createOption": "Empty"} | disk(name, DATA_GIB)
            for lun, name in enumerate(data)
        ],
    }
