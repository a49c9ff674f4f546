"""What connects machines: who has which interface and addresses, and how they are written.

    world.add_scale_set / add_machine -> Network.join -> resources under Microsoft.Network

Interfaces of virtual machines are resources of their own, by the names that the Azure CLI gives
(recorded): `<vm>VMNic`, `<vm>PublicIP`. Those of a Uniform scale set's instances are written from
the instance when they are asked for (`_interfaces.py`), as only lists below the set show them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._nets import DYNAMIC, FIRST_PUBLIC, STATIC, Net, guid, parts_of
from azpool.testing.arm._world import Machine, Resource, ScaleSet

if TYPE_CHECKING:
    from azpool.testing.arm._world import Group, World

__all__ = ["Network"]

FIRST_PRIVATE = IPv4Address("10.0.0.4")  # Azure keeps the first four of a subnet


@dataclass(slots=True)
class Network:
    """All of a world's connections.

    Attributes:
        nets: by id of the scale set, or of the group for machines of their own, in lower case.
        private: address of each machine, by its id in lower case; likewise `public`.
        owners: whose interface or address a resource is, by the resource's id in lower case.
    """

    nets: dict[str, Net] = field(default_factory=dict)
    private: dict[str, str] = field(default_factory=dict)
    public: dict[str, str] = field(default_factory=dict)
    owners: dict[str, Machine] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _public_numbers: Iterator[int] = field(default_factory=itertools.count)

    @staticmethod
    def of(world: World) -> Network:
        found = world.extra.get("network")
        if not isinstance(found, Network):
            found = world.extra["network"] = Network()
        return found

    def net(self, world: World, owner: ScaleSet | Group) -> Net:
        """Find what a scale set or a group is connected to; made without public addresses."""
        return self.nets.get(owner.id.lower()) or self.connect(world, owner)

    def connect(
        self,
        world: World,
        owner: ScaleSet | Group,
        *,
        public: bool = False,
        allocation: str = STATIC,
        balanced: bool | None = None,
    ) -> Net:
        """Make the network of a scale set, or of the machines of a group; again changes nothing."""
        if (known := self.nets.get(owner.id.lower())) is not None:
            return known
        in_set = isinstance(owner, ScaleSet)
        net = Net(
            prefix=owner.name,
            group_id=owner.group.id if isinstance(owner, ScaleSet) else owner.id,
            public=public,
            allocation=allocation,
            balanced=in_set if balanced is None else balanced,
        )
        self.nets[owner.id.lower()] = net
        for resource in parts_of(net, owner.location, next(self._public_numbers)):
            world.resources[resource.id.lower()] = resource
        return net

    def join(self, world: World, machine: Machine) -> None:
        """Give a new machine its interface and addresses."""
        net = self.net(world, machine.scale_set or machine.group)
        key = machine.id.lower()
        self.private[key] = str(FIRST_PRIVATE + next(self._numbers))
        if net.public:
            self.public[key] = str(FIRST_PUBLIC + 256 + next(self._public_numbers))
        if machine.instance_id is None:
            self._add(world, machine, self.interface_id(machine))
            if net.public:
                self._add(world, machine, self.public_id(net, machine))

    def leave(self, world: World, machine: Machine) -> None:
        """Take the interface and the addresses of a machine that is gone.

        Those of a machine of its own stay, as `deleteOption: Detach` has it.
        """
        key = machine.id.lower()
        self.private.pop(key, None)
        self.public.pop(key, None)
        if machine.instance_id is None and machine.scale_set is not None:
            net = self.net(world, machine.scale_set)
            for identifier in (self.interface_id(machine), self.public_id(net, machine)):
                world.resources.pop(identifier.lower(), None)
                self.owners.pop(identifier.lower(), None)

    def interface_id(self, machine: Machine) -> str:
        if machine.instance_id is not None and machine.scale_set is not None:
            return f"{machine.id}/networkInterfaces/{machine.scale_set.name}Nic"
        return f"{_home(machine)}/networkInterfaces/{machine.name}VMNic"

    def public_id(self, net: Net, machine: Machine) -> str:
        if machine.instance_id is not None:
            name = _configuration_name(net, machine)
            where = f"{self.interface_id(machine)}/ipConfigurations/{name}"
            return f"{where}/publicIPAddresses/{net.prefix}PublicIP"
        return f"{_home(machine)}/publicIPAddresses/{machine.name}PublicIP"

    def profile(self, machine: Machine) -> dict[str, Any]:
        """Write the `networkProfile` of a machine."""
        return {"networkInterfaces": [{"id": self.interface_id(machine)}]}

    def configuration(self, world: World, scale_set: ScaleSet) -> dict[str, Any]:
        """Write the `networkProfile` of a scale set's model."""
        net = self.net(world, scale_set)
        inner: dict[str, Any] = {
            "subnet": {"id": net.subnet},
            "privateIPAddressVersion": "IPv4",
        }
        if net.public:
            public = {"idleTimeoutInMinutes": 10, "ipTags": []}
            name = f"{net.prefix}PublicIP"
            inner["publicIPAddressConfiguration"] = {"name": name, "properties": public}
        if net.balanced:
            inner["loadBalancerBackendAddressPools"] = [{"id": net.pool}]
        properties = {
            "primary": True,
            "networkSecurityGroup": {"id": net.security_group},
            "dnsSettings": {"dnsServers": []},
            "enableIPForwarding": False,
            "ipConfigurations": [{"name": f"{net.prefix}IPConfig", "properties": inner}],
        }
        return {
            "networkInterfaceConfigurations": [
                {"name": f"{net.prefix}Nic", "properties": properties}
            ]
        }

    def interface(self, world: World, machine: Machine) -> dict[str, Any]:
        """Write the interface of a scale set's instance, or of a machine, as lists show it."""
        net = self.net(world, machine.scale_set or machine.group)
        identifier = self.interface_id(machine)
        name = identifier.rpartition("/")[2]
        tag = f'W/"{guid(identifier)}"'
        configuration = _configuration_name(net, machine)
        inner: dict[str, Any] = {
            "provisioningState": "Succeeded",
            "privateIPAddress": self.private.get(machine.id.lower()),
            "privateIPAllocationMethod": DYNAMIC,
            "subnet": {"id": net.subnet},
            "primary": True,
            "privateIPAddressVersion": "IPv4",
        }
        if net.public:
            inner["publicIPAddress"] = {"id": self.public_id(net, machine)}
        if net.balanced:
            inner["loadBalancerBackendAddressPools"] = [{"id": net.pool}]
        return {
            "name": name,
            "id": identifier,
            "etag": tag,
            "properties": {
                "provisioningState": "Succeeded",
                "resourceGuid": guid(identifier, "guid"),
                "ipConfigurations": [
                    {
                        "name": configuration,
                        "id": f"{identifier}/ipConfigurations/{configuration}",
                        "etag": tag,
                        "properties": inner,
                    }
                ],
                "dnsSettings": {"dnsServers": [], "appliedDnsServers": []},
                "macAddress": _mac(identifier),
                "enableAcceleratedNetworking": False,
                "enableIPForwarding": False,
                "networkSecurityGroup": {"id": net.security_group},
                "primary": True,
                "virtualMachine": {"id": machine.id},
                "hostedWorkloads": [],
                "tapConfigurations": [],
            },
        }

    def public_address(self, world: World, machine: Machine) -> dict[str, Any] | None:
        """Write the public address of a machine; None where it has none."""
        net = self.net(world, machine.scale_set or machine.group)
        if not net.public:
            return None
        identifier, interface = self.public_id(net, machine), self.interface_id(machine)
        properties: dict[str, Any] = {
            "provisioningState": "Succeeded",
            "resourceGuid": guid(identifier, "guid"),
            "publicIPAddressVersion": "IPv4",
            "publicIPAllocationMethod": net.allocation,
            "idleTimeoutInMinutes": 4,
            "ipTags": [],
            "ipConfiguration": {
                "id": f"{interface}/ipConfigurations/{_configuration_name(net, machine)}"
            },
        }
        given = self.public.get(machine.id.lower())
        if given and not (net.allocation == DYNAMIC and machine.power == "deallocated"):
            properties["ipAddress"] = given
        return {
            "name": identifier.rpartition("/")[2],
            "id": identifier,
            "etag": f'W/"{guid(identifier)}"',
            "properties": properties,
        }

    def current(self, world: World, resource: Resource) -> dict[str, Any]:
        """Give the properties of a resource as they are now."""
        machine = self.owners.get(resource.id.lower())
        if machine is None or resource.properties:
            return resource.properties
        if resource.type.endswith("/networkInterfaces"):
            body = self.interface(world, machine)
        else:
            body = self.public_address(world, machine) or {}
        properties: dict[str, Any] = body.get("properties", {})
        return properties

    def _add(self, world: World, machine: Machine, identifier: str) -> None:
        kind, name = identifier.split("/")[-2:]
        resource = Resource(identifier, name, f"Microsoft.Network/{kind}", machine.location)
        world.resources[identifier.lower()] = resource
        self.owners[identifier.lower()] = machine


def _home(machine: Machine) -> str:
    return f"{machine.group.id}/providers/Microsoft.Network"


def _configuration_name(net: Net, machine: Machine) -> str:
    return f"{net.prefix}IPConfig" if machine.instance_id is not None else f"ipconfig{machine.name}"


def _mac(identifier: str) -> str:
    digits = guid(identifier, "mac").replace("-", "")[:6].upper()
    return "-".join(["00", "0D", "3A", digits[:2], digits[2:4], digits[4:]])
