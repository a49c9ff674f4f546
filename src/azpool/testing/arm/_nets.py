"""What a scale set, or the machines of a group, are connected to: its names and its parts.

Names are those that the Azure CLI gives (recorded): `<set>VNET`, `<set>LB`, `<set>NSG`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from azpool.testing.arm._world import Resource

__all__ = ["DYNAMIC", "FIRST_PUBLIC", "STATIC", "Net", "guid", "parts_of"]

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


def parts_of(net: Net, location: str, number: int) -> Iterator[Resource]:
    """The virtual network, the security group and the balancer of a `Net`."""

    def part(identifier: str, **properties: Any) -> Resource:
        kind, name = identifier.split("/")[-2:]
        state = {"provisioningState": "Succeeded", "resourceGuid": guid(identifier, "guid")}
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
        "etag": f'W/"{guid(identifier)}"',
        "properties": properties,
        "type": kind,
    }


def guid(*what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, " ".join(what).lower()))
