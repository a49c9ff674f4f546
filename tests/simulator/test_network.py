"""Interfaces, addresses and what connects them, as the official clients read them."""

from __future__ import annotations

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

GROUP, SET, VM = "workers", "crew", "lone"
NETWORK = "/providers/Microsoft.Network"


@pytest.fixture
def where(arm):
    return {"resource_group_name": GROUP, "virtual_machine_scale_set_name": SET}


def group_id(arm):
    return arm.ids["virtual machine"].partition("/providers/")[0]


def test_interface_of_a_uniform_instance_reads_as_recorded(arm, where):
    (one,) = arm.network.network_interfaces.list_virtual_machine_scale_set_vm_network_interfaces(
        **where, virtualmachine_index="0"
    )
    assert "api-version=2018-10-01" in arm.last("GET").url
    body = arm.last("GET").body["value"][0]
    identifier = f"{arm.ids['uniform instance']}/networkInterfaces/crewNic"
    assert (one.id, body["name"], body["id"]) == (identifier, "crewNic", identifier)
    properties = body["properties"]
    assert set(body) == {"name", "id", "etag", "properties"}
    assert {
        "provisioningState",
        "resourceGuid",
        "ipConfigurations",
        "dnsSettings",
        "macAddress",
        "enableAcceleratedNetworking",
        "enableIPForwarding",
        "primary",
        "virtualMachine",
        "hostedWorkloads",
        "tapConfigurations",
    } <= set(properties)
    assert properties["virtualMachine"] == {"id": arm.ids["uniform instance"]}
    (configuration,) = properties["ipConfigurations"]
    inner = configuration["properties"]
    assert configuration["id"] == f"{identifier}/ipConfigurations/{configuration['name']}"
    assert inner["privateIPAddress"] == "10.0.0.4"
    assert inner["privateIPAllocationMethod"] == "Dynamic"
    assert inner["privateIPAddressVersion"] == "IPv4"
    assert inner["primary"] is True
    vnet = f"{group_id(arm)}{NETWORK}/virtualNetworks/crewVNET"
    assert inner["subnet"] == {"id": f"{vnet}/subnets/crewSubnet"}
    balancer = f"{group_id(arm)}{NETWORK}/loadBalancers/crewLB"
    assert inner["loadBalancerBackendAddressPools"] == [
        {"id": f"{balancer}/backendAddressPools/crewLBBEPool"}
    ]


def test_lists_of_a_uniform_set_hold_each_instance_once_over_pages(arm, where):
    arm.world.page_size = 2
    interfaces = arm.network.network_interfaces
    found = list(interfaces.list_virtual_machine_scale_set_network_interfaces(**where))
    assert len({one.virtual_machine.id for one in found}) == len(found) == 3
    addresses = arm.network.public_ip_addresses
    public = list(addresses.list_virtual_machine_scale_set_public_ip_addresses(**where))
    assert len({one.ip_address for one in public}) == len(public) == 3
    owners = {one.ip_configuration.id.partition("/ipConfigurations/")[0] for one in public}
    assert owners == {one.id for one in found}
    private = [one.ip_configurations[0].private_ip_address for one in found]
    assert private == ["10.0.0.4", "10.0.0.5", "10.0.0.6"]


def test_one_interface_and_one_address_of_an_instance_are_read_by_name(arm, where):
    interfaces, addresses = arm.network.network_interfaces, arm.network.public_ip_addresses
    (listed,) = addresses.list_virtual_machine_scale_set_vm_public_ip_addresses(
        **where,
        virtualmachine_index="1",
        network_interface_name="crewNic",
        ip_configuration_name="crewIPConfig",
    )
    read = addresses.get_virtual_machine_scale_set_public_ip_address(
        **where,
        virtualmachine_index="1",
        network_interface_name="crewNic",
        ip_configuration_name="crewIPConfig",
        public_ip_address_name=listed.name,
    )
    assert read.id == listed.id
    assert read.ip_address == listed.ip_address
    one = interfaces.get_virtual_machine_scale_set_network_interface(
        **where, virtualmachine_index="1", network_interface_name="crewNic"
    )
    assert one.ip_configurations[0].private_ip_address == "10.0.0.5"
    for index, name in (("1", "otherNic"), ("9", "crewNic")):
        with pytest.raises(ResourceNotFoundError):
            interfaces.get_virtual_machine_scale_set_network_interface(
                **where, virtualmachine_index=index, network_interface_name=name
            )


def test_machine_of_its_own_has_interface_address_network_and_security_group(arm):
    nic = arm.network.network_interfaces.get(GROUP, "loneVMNic")
    assert nic.virtual_machine.id == arm.ids["virtual machine"]
    (configuration,) = nic.ip_configurations
    address = arm.network.public_ip_addresses.get(
        GROUP, configuration.public_ip_address.id.rpartition("/")[2]
    )
    assert address.ip_configuration.id == configuration.id
    assert address.ip_address.startswith("198.51.")
    vnet_name = configuration.subnet.id.split("/")[-3]
    vnet = arm.network.virtual_networks.get(GROUP, vnet_name)
    assert vnet.subnets[0].id == configuration.subnet.id
    subnet = arm.network.subnets.get(GROUP, vnet_name, configuration.subnet.id.split("/")[-1])
    assert subnet.network_security_group.id == nic.network_security_group.id
    assert [one.name for one in arm.network.subnets.list(GROUP, vnet_name)] == [subnet.name]
    group = arm.network.network_security_groups.get(
        GROUP, nic.network_security_group.id.rpartition("/")[2]
    )
    assert group.id == nic.network_security_group.id


def test_dynamic_address_is_lost_while_its_machine_is_deallocated(arm):
    before = arm.network.public_ip_addresses.get(GROUP, "lonePublicIP")
    assert (before.public_ip_allocation_method, before.ip_address is None) == ("Dynamic", False)
    arm.machine("virtual machine").power = "deallocated"
    assert arm.network.public_ip_addresses.get(GROUP, "lonePublicIP").ip_address is None
    nic = arm.network.network_interfaces.get(GROUP, "loneVMNic")
    assert nic.ip_configurations[0].private_ip_address
    # Those of the scale set are static, and stay.
    arm.machine("uniform instance").power = "deallocated"
    (one, *_) = arm.network.public_ip_addresses.list_virtual_machine_scale_set_public_ip_addresses(
        GROUP, SET
    )
    assert one.ip_address


def test_load_balancer_of_a_set_has_its_pool_and_address(arm):
    balancer = arm.network.load_balancers.get(GROUP, "crewLB")
    assert [one.name for one in balancer.backend_address_pools] == ["crewLBBEPool"]
    front = balancer.frontend_ip_configurations[0].public_ip_address.id
    address = arm.network.public_ip_addresses.get(GROUP, front.rpartition("/")[2])
    assert address.ip_address
    assert [one.name for one in arm.network.load_balancers.list_all()] == ["crewLB"]


def test_what_is_not_there_is_told_in_arms_words(arm):
    for call in (
        lambda: arm.network.network_interfaces.get(GROUP, "nobody"),
        lambda: arm.network.load_balancers.get(GROUP, "nobody"),
        lambda: arm.network.subnets.get(GROUP, "crewVNET", "nobody"),
        lambda: arm.network.subnets.get(GROUP, "nobody", "crewSubnet"),
    ):
        with pytest.raises(ResourceNotFoundError) as caught:
            call()
        assert caught.value.error.code == "ResourceNotFound"
        assert "under resource group 'workers' was not found" in caught.value.error.message
    with pytest.raises(ResourceNotFoundError) as caught:
        arm.network.load_balancers.get("nowhere", "crewLB")
    assert caught.value.error.code == "ResourceGroupNotFound"


def test_autoscale_settings_are_found_by_type_and_read_by_id(arm):
    scale_set = arm.machine("uniform instance").scale_set
    made = arm.sim.autoscale(scale_set, minimum=2, maximum=9)
    (listed,) = arm.resources.resources.list_by_resource_group(
        GROUP, filter="resourceType eq 'Microsoft.Insights/autoscaleSettings'"
    )
    assert listed.id == made
    read = arm.resources.resources.get_by_id(listed.id, api_version="2022-10-01").as_dict()
    assert read["properties"]["targetResourceUri"] == scale_set.id
    assert read["properties"]["profiles"][0]["capacity"] == {
        "minimum": "2",
        "maximum": "9",
        "default": "2",
    }


def names(listed):
    return sorted(one.name for one in listed)


def test_resources_are_listed_by_type_name_and_group(arm):
    every = arm.resources.resources.list
    assert names(every(filter="resourceType eq 'microsoft.compute/virtualmachines'")) == ["lone"]
    assert names(every(filter="resourceType eq 'Microsoft.Compute/virtualMachineScaleSets'")) == [
        "crew"
    ]
    balancers = "resourceType eq 'Microsoft.Network/loadBalancers'"
    assert names(every(filter=f"substringof('lone', name) or {balancers}")) == [
        "crewLB",
        "lone",
        "lonePublicIP",
        "loneVMNic",
        "lone_OsDisk_1",
    ]
    networks = "resourceType eq 'Microsoft.Network/virtualNetworks' and substringof('crew', name)"
    assert names(every(filter=networks)) == ["crewVNET"]
    assert names(every(filter="resourceGroup eq 'elsewhere'")) == []
    assert "crewNic" not in names(every())  # those of Uniform instances are no resources


def test_filter_by_tag_goes_alone_and_hides_the_tags(arm):
    listed = arm.resources.resources.list
    (one,) = listed(filter="tagName eq 'ROLE' and tagValue eq 'worker'")
    assert (one.name, one.tags) == ("lone", None)
    assert list(listed(filter="tagName eq 'role' and tagValue eq 'Worker'")) == []
    assert names(listed(filter="startswith(tagName, 'ro')")) == ["lone"]
    assert names(listed(filter="tagName eq 'role'")) == ["lone"]
    (one,) = listed(filter="name eq 'lone'")
    assert one.tags == {"role": "worker"}


@pytest.mark.parametrize(
    "text",
    [
        "tagName eq 'role' and resourceType eq 'Microsoft.Compute/virtualMachines'",
        "tagValue eq 'worker'",
        "tagName eq 'a' or tagName eq 'b'",
        "name like 'lone'",
        "name eq lone",
        "name eq 'lone",
        "substringof('x', location)",
        "nonsense",
        "(name eq 'lone'",
        "name eq 'lone' and",
    ],
)
def test_filter_that_arm_does_not_know_is_refused(arm, text):
    with pytest.raises(HttpResponseError) as caught:
        list(arm.resources.resources.list(filter=text))
    assert caught.value.status_code == 400
    assert caught.value.error.code == "InvalidFilterInQueryString"


def test_expand_adds_what_it_names(arm):
    listed = arm.resources.resources.list
    (one,) = listed(filter="name eq 'lone'", expand="provisioningState")
    assert (one.provisioning_state, one.created_time) == ("Succeeded", None)
    (one,) = listed(filter="name eq 'lone'", expand="createdTime,changedTime")
    assert one.created_time is not None
    assert one.provisioning_state is None


def test_top_and_pages_lose_no_resource(arm):
    every = names(arm.resources.resources.list())
    arm.world.page_size = 3
    assert names(arm.resources.resources.list()) == every
    assert names(arm.resources.resources.list_by_resource_group(GROUP, top=2)) == every
