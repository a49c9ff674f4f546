"""Machines and scale sets as ComputeRP writes them: models and instance views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool.testing.arm._clock import written
from azpool.testing.arm._disks import storage
from azpool.testing.arm._extensions import model_extensions
from azpool.testing.arm._network import Network
from azpool.testing.arm._world import POWER_WORDS, Machine, ScaleSet

if TYPE_CHECKING:
    from azpool.testing.arm._world import World

__all__ = ["machine_body", "machine_view", "scale_set_body", "scale_set_view"]

IMAGE = {"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server"}


def machine_body(world: World, machine: Machine, *, view: bool = False) -> dict[str, Any]:
    """Write a virtual machine, or an instance of a Uniform scale set."""
    uniform = machine.instance_id is not None
    kind = "virtualMachineScaleSets/virtualMachines" if uniform else "virtualMachines"
    body: dict[str, Any] = {
        "name": machine.name,
        "id": machine.id,
        "type": f"Microsoft.Compute/{kind}",
        "location": machine.location,
        "tags": machine.tags,
    }
    if uniform:
        body["instanceId"] = machine.instance_id
        body["sku"] = {"name": machine.size, "tier": "Standard"}
    if machine.zone is not None:
        body["zones"] = [machine.zone]
    body["properties"] = _properties(world, machine)
    if view:
        body["properties"]["instanceView"] = machine_view(world, machine)
    return body


def _properties(world: World, machine: Machine) -> dict[str, Any]:
    scale_set = machine.scale_set
    properties: dict[str, Any] = {}
    if machine.instance_id is not None and scale_set is not None:
        properties["latestModelApplied"] = machine.latest_model
        properties["modelDefinitionApplied"] = "VirtualMachineScaleSet"
        properties["networkProfileConfiguration"] = Network.of(world).configuration(
            world, scale_set
        )
    elif scale_set is not None:
        properties["virtualMachineScaleSet"] = {"id": scale_set.id}
    return (
        properties
        | {
            "provisioningState": machine.provisioning,
            "hardwareProfile": {"vmSize": machine.size},
            "vmId": machine.vm_id,
            "storageProfile": storage(machine, IMAGE),
            "osProfile": {
                "computerName": machine.computer_name,
                "adminUsername": "azureuser",
                "linuxConfiguration": {
                    "disablePasswordAuthentication": True,
                    "provisionVMAgent": True,
                },
                "secrets": [],
                "allowExtensionOperations": True,
                "requireGuestProvisionSignal": True,
            },
            "networkProfile": Network.of(world).profile(machine),
            "timeCreated": written(machine.created_at),
        }
        | machine.model
    )


def machine_view(world: World, machine: Machine) -> dict[str, Any]:
    """Write the instance view: what a machine does now."""
    view: dict[str, Any] = {}
    if machine.power == "running" and machine.agent:
        view["computerName"] = machine.computer_name
        view["osName"] = "ubuntu"
        view["vmAgent"] = {
            "vmAgentVersion": "2.15.0.1",
            "statuses": [_status("ProvisioningState/succeeded", "Ready", world.clock.now())],
            "extensionHandlers": [],
        }
    if machine.extensions:
        view["extensions"] = [one.view() for one in machine.extensions.values()]
    view["hyperVGeneration"] = "V2"
    view["statuses"] = _statuses(machine)
    return view


def _statuses(machine: Machine) -> list[dict[str, Any]]:
    state = machine.provisioning.lower()
    words = f"Provisioning {state}" if state in ("succeeded", "failed") else state.capitalize()
    code, failure = f"ProvisioningState/{state}", machine.failure
    if failure is not None:
        code = f"{code}/{failure.code}"
    found = [_status(code, words, machine.provisioning_at, failed=state == "failed")]
    if failure is not None:
        found[0]["message"] = failure.message
    if machine.power is not None:
        words = POWER_WORDS.get(machine.power, f"VM {machine.power}")
        power = {"code": f"PowerState/{machine.power}", "level": "Info", "displayStatus": words}
        found.append(power)
    return found


def _status(code: str, words: str, at: float, *, failed: bool = False) -> dict[str, Any]:
    level = "Error" if failed else "Info"
    return {"code": code, "level": level, "displayStatus": words, "time": written(at)}


def scale_set_body(world: World, scale_set: ScaleSet) -> dict[str, Any]:
    """Write a scale set: its model."""
    body: dict[str, Any] = {
        "name": scale_set.name,
        "id": scale_set.id,
        "type": "Microsoft.Compute/virtualMachineScaleSets",
        "location": scale_set.location,
        "tags": scale_set.tags,
        "sku": {"name": scale_set.size, "tier": "Standard", "capacity": scale_set.capacity},
    }
    if scale_set.zones:
        body["zones"] = list(scale_set.zones)
    profile: dict[str, Any] = {
        "osProfile": {"computerNamePrefix": scale_set.name, "adminUsername": "azureuser"},
        "storageProfile": {
            "osDisk": {"osType": "Linux", "createOption": "FromImage", "caching": "ReadWrite"},
            "imageReference": {**IMAGE, "version": "latest"},
        },
        "networkProfile": Network.of(world).configuration(world, scale_set),
    }
    if scale_set.extensions:
        profile["extensionProfile"] = {"extensions": model_extensions(scale_set)}
    properties: dict[str, Any] = {
        "singlePlacementGroup": False,
        "orchestrationMode": scale_set.mode,
        "upgradePolicy": {"mode": scale_set.upgrade_policy},
        "virtualMachineProfile": profile,
        "provisioningState": "Deleting" if scale_set.deleting else scale_set.provisioning,
        "overprovision": False,
        "uniqueId": scale_set.unique_id,
        "timeCreated": written(scale_set.created_at),
    }
    return body | {"properties": properties | scale_set.model}


def scale_set_view(scale_set: ScaleSet) -> dict[str, Any]:
    """Write the instance view of a scale set: how many of its machines are in which state."""
    counts: dict[str, int] = {}
    for machine in scale_set.machines.values():
        code = f"ProvisioningState/{machine.provisioning.lower()}"
        counts[code] = counts.get(code, 0) + 1
    summary = [{"code": code, "count": count} for code, count in counts.items()]
    at = scale_set.provisioning_at
    return {
        "virtualMachine": {"statusesSummary": summary},
        "statuses": [_status("ProvisioningState/succeeded", "Provisioning succeeded", at)],
    }
