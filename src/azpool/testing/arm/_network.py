"""What connects machines: interfaces, addresses, virtual networks, security groups, balancers.

    world.add_scale_set / add_machine -> Network.join -> resources under Microsoft.Network
    GET .../virtualMachineScaleSets/S[/virtualMachines/I]/networkInterfaces (2018-10-01) -> derived

Interfaces of virtual machines are resources of their own; those of a Uniform scale set's instances
are written from the instance when they are asked for, as only lists below the set show them. Names
are those that the Azure CLI gives (recorded): `<set>VNET`, `<set>LB`, `<vm>VMNic`, `<vm>PublicIP`.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._pages import page
from azpool.testing.arm._routes import COMPUTE, Reply, Request, route
from azpool.testing.arm._world import Machine, Resource, ScaleSet, resource_not_found

if TYPE_CHECKING:
    from azpool.testing.arm._world import Group, World

__all__ = ["Net", "Network"]

SET = f"{COMPUTE}/virtualMachineScaleSets/{{set}}"
INSTANCE = f"{SET}/virtualMachines/{{instance}}"
FIRST_PRIVATE = IPv4Address("10.0.0.4")  # Azure keeps the first four of a subnet
FIRST_PUBLIC = IPv4Address("198.51.100.1")  # TEST-NET-2 and on: nobody's
STATIC, DYNAMIC = "Static", "Dynamic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """What a scale set, or the machines of a group, are connected to.

    Attributes:
        prefix: what the names of its parts begin with.
        group_id: the id of the resource group that they are in.
        public: whether each machine has a public address.
        allocation: of public addresses: a `Dynamic` one is lost while its machine is deallocated.
        balanced: whether there is a load balancer before them.
    """

    prefix: str
    group_id: str
    public: bool
    allocation: str
    balanced: bool

    def id(self, kind: str, suffix: str) -> str:
        return f"{self.group_id}/providers/Microsoft.Network/{kind}/{self.prefix}{suffix}"

    @property
    def vnet(self) -> str:
        return self.id("virtualNetworks", "VNET")

    @property
    def subnet(self) -> str:
        return f"{self.vnet}/subnets/{self.prefix}Subnet"

    @property
    def security_group(self) -> str:
        return self.id("networkSecurityGroups", "NSG")

    @property
    def balancer(self) -> str:
        return self.id("loadBalancers", "LB")

    @property
    def pool(self) -> str:
        return f"{self.balancer}/backendAddressPools/{self.prefix}LBBEPool"


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
        for resource in _parts(net, owner.location, next(self._public_numbers)):
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
        tag = f'W/"{_uuid(identifier)}"'
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
                "resourceGuid": _uuid(identifier, "guid"),
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
            "resourceGuid": _uuid(identifier, "guid"),
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
            "etag": f'W/"{_uuid(identifier)}"',
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


def _uuid(*what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, " ".join(what).lower()))


def _mac(identifier: str) -> str:
    digits = _uuid(identifier, "mac").replace("-", "")[:6].upper()
    return "-".join(["00", "0D", "3A", digits[:2], digits[2:4], digits[4:]])


def _parts(net: Net, location: str, number: int) -> Iterator[Resource]:
    """The virtual network, the security group and the balancer of a `Net`."""

    def part(identifier: str, **properties: Any) -> Resource:
        kind, name = identifier.split("/")[-2:]
        state = {"provisioningState": "Succeeded", "resourceGuid": _uuid(identifier, "guid")}
        return Resource(identifier, name, f"Microsoft.Network/{kind}", location, state | properties)

    group = {"networkSecurityGroup": {"id": net.security_group}}
    subnet = {"addressPrefix": "10.0.0.0/16", "provisioningState": "Succeeded"} | group
    yield part(
        net.vnet,
        addressSpace={"addressPrefixes": ["10.0.0.0/16"]},
        subnets=[_child(net.subnet, subnet)],
        virtualNetworkPeerings=[],
        enableDdosProtection=False,
    )
    yield part(net.security_group, securityRules=[], defaultSecurityRules=[])
    if not net.balanced:
        return
    front = f"{net.balancer}/frontendIPConfigurations/loadBalancerFrontEnd"
    address = net.id("publicIPAddresses", "LBPublicIP")
    yield part(
        address,
        ipAddress=str(FIRST_PUBLIC + number),
        publicIPAddressVersion="IPv4",
        publicIPAllocationMethod=STATIC,
        idleTimeoutInMinutes=4,
        ipTags=[],
        ipConfiguration={"id": front},
    )
    yield part(
        net.balancer,
        frontendIPConfigurations=[_child(front, {"publicIPAddress": {"id": address}})],
        backendAddressPools=[_child(net.pool, {"provisioningState": "Succeeded"})],
        loadBalancingRules=[],
        probes=[],
        inboundNatRules=[],
        outboundRules=[],
        inboundNatPools=[],
    )


def _child(identifier: str, properties: dict[str, Any]) -> dict[str, Any]:
    kind = "/".join(identifier.partition("/providers/")[2].split("/")[::2])
    return {
        "name": identifier.rpartition("/")[2],
        "id": identifier,
        "etag": f'W/"{_uuid(identifier)}"',
        "properties": properties,
        "type": kind,
    }


# --- what is below scale sets: 2018-10-01 of Microsoft.Compute -----------------------------------


def _scale_set(world: World, request: Request) -> ScaleSet:
    params = request.params
    return world.scale_set(params["subscription"], params["group"], params["set"])


def _instance(world: World, request: Request) -> Machine:
    """Find the instance; those of a Flexible set have no interfaces below it."""
    scale_set = _scale_set(world, request)
    if not scale_set.uniform:
        raise resource_not_found(_about(request), scale_set.group.name)
    params = request.params
    machine = world.instance(
        params["subscription"], params["group"], params["set"], params["instance"]
    )
    interface = params.get("nic")
    name = Network.of(world).interface_id(machine).rpartition("/")[2]
    if interface is not None and interface.lower() != name.lower():
        raise resource_not_found(_about(request), scale_set.group.name)
    return machine


def _about(request: Request) -> str:
    return request.path.partition("/providers/")[2]


def _machines(world: World, request: Request) -> list[Machine]:
    scale_set = _scale_set(world, request)
    return list(scale_set.machines.values()) if scale_set.uniform else []


@route("GET", f"{SET}/networkInterfaces")
def set_interfaces(world: World, request: Request) -> Reply:
    """List the interfaces of all instances; none of a Flexible set."""
    network = Network.of(world)
    found = _machines(world, request)
    return page(request, found, world.page_size, lambda one: network.interface(world, one))


@route("GET", f"{SET}/publicipaddresses")
def set_addresses(world: World, request: Request) -> Reply:
    """List the public addresses of all instances; none of a Flexible set."""
    network = Network.of(world)
    written = (network.public_address(world, one) for one in _machines(world, request))
    found = [one for one in written if one is not None]
    return page(request, found, world.page_size, lambda one: one)


@route("GET", f"{INSTANCE}/networkInterfaces")
def instance_interfaces(world: World, request: Request) -> Reply:
    machine = _instance(world, request)
    return Reply(200, {"value": [Network.of(world).interface(world, machine)]})


@route("GET", f"{INSTANCE}/networkInterfaces/{{nic}}")
def instance_interface(world: World, request: Request) -> Reply:
    return Reply(200, Network.of(world).interface(world, _instance(world, request)))


@route("GET", f"{INSTANCE}/networkInterfaces/{{nic}}/ipConfigurations")
def configurations(world: World, request: Request) -> Reply:
    body = Network.of(world).interface(world, _instance(world, request))
    return Reply(200, {"value": body["properties"]["ipConfigurations"]})


@route("GET", f"{INSTANCE}/networkInterfaces/{{nic}}/ipConfigurations/{{configuration}}")
def configuration(world: World, request: Request) -> Reply:
    return Reply(200, _configuration(world, request))


@route(
    "GET",
    f"{INSTANCE}/networkInterfaces/{{nic}}/ipConfigurations/{{configuration}}/publicipaddresses",
)
def instance_addresses(world: World, request: Request) -> Reply:
    _configuration(world, request)
    found = Network.of(world).public_address(world, _instance(world, request))
    return Reply(200, {"value": [] if found is None else [found]})


@route(
    "GET",
    f"{INSTANCE}/networkInterfaces/{{nic}}/ipConfigurations/{{configuration}}/publicipaddresses/"
    "{address}",
)
def instance_address(world: World, request: Request) -> Reply:
    _configuration(world, request)
    machine = _instance(world, request)
    found = Network.of(world).public_address(world, machine)
    if found is None or found["name"].lower() != request.params["address"].lower():
        raise resource_not_found(_about(request), machine.group.name)
    return Reply(200, found)


def _configuration(world: World, request: Request) -> dict[str, Any]:
    machine = _instance(world, request)
    body = Network.of(world).interface(world, machine)
    one: dict[str, Any]
    for one in body["properties"]["ipConfigurations"]:
        if one["name"].lower() == request.params["configuration"].lower():
            return one
    raise resource_not_found(_about(request), machine.group.name)
