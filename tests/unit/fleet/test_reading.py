"""What ARM's JSON says of machines; bodies are shaped as recorded answers of the service are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from azpool.fleet.instance import InstanceKind, Power
from azpool.fleet.reading import (
    instance_of,
    interface_of,
    public_address_of,
    scale_set_of,
    states_of,
)

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
GROUP = f"/subscriptions/{SUB}/resourceGroups/rg"
SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/web"
NET = f"{GROUP}/providers/Microsoft.Network"
SUBNET = f"{NET}/virtualNetworks/net/subnets/default"


def view(*codes: str, message: str = "") -> dict[str, Any]:
    statuses: list[dict[str, Any]] = [{"code": code, "level": "Info"} for code in codes]
    if message:
        statuses[0]["message"] = message
    return {"statuses": statuses}


def uniform_vm() -> dict[str, Any]:
    return {
        "name": "web_3",
        "id": f"{SET}/virtualMachines/3",
        "type": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines",
        "location": "westus",
        "tags": {"role": "worker"},
        "instanceId": "3",
        "sku": {"name": "Standard_DS1_v2", "tier": "Standard"},
        "zones": ["2"],
        "properties": {
            "latestModelApplied": False,
            "vmId": "0c5e47be-9f10-432d-a4a8-2d6bf15e6ae1",
            "hardwareProfile": {},
            "storageProfile": {
                "osDisk": {"osType": "Linux", "managedDisk": {"id": f"{GROUP}/x/disks/os"}},
                "dataDisks": [{"lun": 0, "managedDisk": {"id": f"{GROUP}/x/disks/data"}}],
            },
            "osProfile": {"computerName": "web000003"},
            "networkProfile": {
                "networkInterfaces": [
                    {"id": f"{SET}/virtualMachines/3/networkInterfaces/second"},
                    {
                        "id": f"{SET}/virtualMachines/3/networkInterfaces/first",
                        "properties": {"primary": True},
                    },
                ]
            },
            "provisioningState": "Succeeded",
            "instanceView": view("ProvisioningState/succeeded", "PowerState/running"),
        },
    }


def test_an_instance_of_a_uniform_scale_set_is_read_whole():
    found = instance_of(uniform_vm())
    assert found.kind is InstanceKind.UNIFORM
    assert (found.instance_id, found.name, found.scale_set) == ("3", "web_3", "web")
    assert (found.power, found.provisioning) == (Power.RUNNING, "Succeeded")
    assert (found.zone, found.size, found.location) == ("2", "Standard_DS1_v2", "westus")
    assert found.tags == {"role": "worker"}
    assert found.latest_model is False
    assert found.computer_name == "web000003"
    assert not found.windows
    assert [one.rpartition("/")[2] for one in found.nic_ids] == ["first", "second"]
    assert [one.rpartition("/")[2] for one in found.disk_ids] == ["os", "data"]
    assert (found.subscription, found.group) == (SUB, "rg")
    assert pickle.loads(pickle.dumps(found)) == found
    assert hash(found) == hash(instance_of(uniform_vm()))


def test_a_machine_of_a_flexible_scale_set_is_told_from_one_by_itself():
    body = {
        "name": "web_5a2b",
        "id": f"{GROUP}/providers/Microsoft.Compute/virtualMachines/web_5a2b",
        "location": "westus",
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "virtualMachineScaleSet": {"id": SET.upper()},
            "provisioningState": "Updating",
        },
    }
    found = instance_of(body, view("PowerState/starting"))
    assert found.kind is InstanceKind.FLEXIBLE
    assert found.scale_set == "WEB"
    assert found.instance_id == found.name == "web_5a2b"
    assert (found.power, found.provisioning) == (Power.STARTING, "Updating")
    assert found.latest_model is None
    del body["properties"]["virtualMachineScaleSet"]
    assert instance_of(body).kind is InstanceKind.VM
    assert instance_of(body).scale_set is None
    assert instance_of(body).power is Power.UNKNOWN


def test_windows_is_known_by_the_disk_or_by_the_profile():
    body = uniform_vm()
    body["properties"]["storageProfile"] = {"osDisk": {"osType": "Windows"}}
    assert instance_of(body).windows
    body["properties"]["storageProfile"] = {}
    body["properties"]["osProfile"] = {"windowsConfiguration": {"provisionVMAgent": True}}
    assert instance_of(body).windows


def test_a_body_with_little_in_it_reads_as_unknown():
    found = instance_of({"id": f"{SET}/virtualMachines/0"})
    assert (found.instance_id, found.name, found.size) == ("0", "0", "")
    assert found.power is Power.UNKNOWN
    assert found.zone is None
    assert found.tags == {}
    odd = {"id": f"{SET}/virtualMachines/0", "tags": None, "zones": [], "properties": None}
    assert instance_of(odd) == found


@pytest.mark.parametrize("power", [one for one in Power if one is not Power.UNKNOWN])
def test_every_power_state_is_known_in_any_case(power: Power):
    assert states_of(view(f"PowerState/{power}")).power is power
    assert states_of(view(f"POWERSTATE/{power.upper()}")).power is power


def test_a_state_that_is_not_known_reads_as_unknown():
    assert states_of(view("PowerState/hibernated-or-newer")).power is Power.UNKNOWN
    assert states_of(None).power is Power.UNKNOWN
    assert states_of({}).power is Power.UNKNOWN
    assert states_of({"statuses": [{}, None]}).power is Power.UNKNOWN


def test_a_failed_provisioning_tells_its_code_and_words():
    states = states_of(
        view("ProvisioningState/failed/OSProvisioningTimedOut", message="Did not finish in time")
    )
    assert states.provisioning == "failed"
    assert states.provisioning_code == "OSProvisioningTimedOut"
    assert states.message == "Did not finish in time"


def uniform_nic() -> dict[str, Any]:
    """Shaped as in Azure CLI's recording test_vmss_nics, with a public address."""
    nic = f"{SET}/virtualMachines/3/networkInterfaces/nic"
    return {
        "name": "nic",
        "id": nic,
        "properties": {
            "primary": True,
            "networkSecurityGroup": {"id": f"{NET}/networkSecurityGroups/nsg"},
            "virtualMachine": {"id": f"{SET}/virtualMachines/3"},
            "ipConfigurations": [
                {
                    "id": f"{nic}/ipConfigurations/second",
                    "properties": {"privateIPAddress": "10.0.0.9", "subnet": {"id": SUBNET}},
                },
                {
                    "id": f"{nic}/ipConfigurations/first",
                    "properties": {
                        "primary": True,
                        "privateIPAddress": "10.0.0.7",
                        "subnet": {"id": SUBNET.upper()},
                        "publicIPAddress": {"id": f"{nic}/ipConfigurations/first/p/pub"},
                        "loadBalancerBackendAddressPools": [
                            {"id": f"{NET}/loadBalancers/lb/backendAddressPools/pool"}
                        ],
                        "loadBalancerInboundNatRules": [
                            {"id": f"{NET}/loadBalancers/lb/inboundNatRules/nat.3"}
                        ],
                    },
                },
            ],
        },
    }


def test_an_interface_tells_addresses_and_what_it_is_connected_to():
    found = interface_of(uniform_nic())
    assert found.machine == f"{SET}/virtualMachines/3".lower()
    assert found.private == ("10.0.0.7", "10.0.0.9")
    assert found.primary
    assert [one.lower() for one in found.parts.vnet_ids] == [f"{NET}/virtualNetworks/net".lower()]
    assert found.parts.load_balancer_ids == (f"{NET}/loadBalancers/lb",)
    assert found.parts.security_group_ids == (f"{NET}/networkSecurityGroups/nsg",)
    assert len(found.parts.subnet_ids) == 1
    assert len(found.parts.public_ids) == 1


def test_an_interface_of_a_scale_set_stands_below_its_machine():
    body = uniform_nic()
    del body["properties"]["virtualMachine"]
    assert interface_of(body).machine == f"{SET}/virtualMachines/3".lower()
    plain = {"id": f"{NET}/networkInterfaces/spare", "properties": {}}
    assert interface_of(plain).machine == ""
    assert interface_of(plain).private == ()


def test_a_public_address_that_is_not_given_yet_is_none():
    configuration = f"{SET}/virtualMachines/3/networkInterfaces/nic/ipConfigurations/first"
    body: dict[str, Any] = {
        "id": f"{NET}/publicIPAddresses/pub",
        "properties": {
            "ipAddress": "20.1.2.3",
            "ipConfiguration": {"id": configuration},
            "dnsSettings": {"fqdn": "web.westus.cloudapp.azure.com"},
        },
    }
    found = public_address_of(body)
    assert (found.address, found.fqdn) == ("20.1.2.3", "web.westus.cloudapp.azure.com")
    assert found.configuration == configuration.lower()
    body["properties"]["ipAddress"] = "Not Assigned"
    assert public_address_of(body).address is None
    assert public_address_of({"id": f"{NET}/publicIPAddresses/pub"}).address is None


def test_a_scale_set_tells_its_kind_and_where_new_instances_will_be():
    configuration = {"properties": {"subnet": {"id": SUBNET}}}
    interface = {"properties": {"primary": True, "ipConfigurations": [configuration]}}
    body: dict[str, Any] = {
        "id": SET,
        "name": "web",
        "sku": {"name": "Standard_DS1_v2", "capacity": 500},
        "properties": {
            "orchestrationMode": "Uniform",
            "upgradePolicy": {"mode": "Automatic"},
            "provisioningState": "Succeeded",
            "virtualMachineProfile": {
                "networkProfile": {"networkInterfaceConfigurations": [interface]}
            },
        },
    }
    found = scale_set_of(body)
    assert (found.flexible, found.capacity, found.manual_upgrades) == (False, 500, False)
    assert found.parts.vnet_ids == (f"{NET}/virtualNetworks/net",)
    body["properties"] = {"orchestrationMode": "Flexible", "provisioningState": "Deleting"}
    found = scale_set_of(body)
    assert (found.flexible, found.provisioning) == (True, "Deleting")
    assert found.manual_upgrades
