"""What ARM's JSON says of machines, as `Instance`s, states and addresses. Pure.

    Answer.body -> instance_of(...), states_of(...), interface_of(...), public_address_of(...)

Field names and casing as in the service's own examples (Azure/azure-rest-api-specs, ComputeRP
2026-04-01 and vmssNetworkInterface 2018-10-01) and in recorded answers. Fields that are not there
read as unknown: the service leaves out what it has nothing to say of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from azpool.fleet.ids import ResourceId, parse_id
from azpool.fleet.instance import Instance, InstanceKind, Power

__all__ = [
    "Json",
    "NetworkInterface",
    "NetworkParts",
    "PublicAddress",
    "ScaleSet",
    "States",
    "instance_of",
    "interface_of",
    "public_address_of",
    "scale_set_of",
    "states_of",
]

Json: TypeAlias = Mapping[str, Any]

# What leads to a load balancer: its pools of machines, and rules that forward one port to one.
POOLS = (
    "loadBalancerBackendAddressPools",
    "loadBalancerInboundNatPools",
    "loadBalancerInboundNatRules",
    "applicationGatewayBackendAddressPools",
)
_POWER = "powerstate/"
_PROVISIONING = "provisioningstate/"


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """The states in an instance view.

    Attributes:
        power: of the machine; UNKNOWN where the view has none.
        provisioning: the view's own word in lower case (`succeeded`, `updating`, `failed`), or "".
        provisioning_code: what stands behind a failed one (`OSProvisioningTimedOut`), or "".
        message: the service's words about it, or "".
    """

    power: Power = Power.UNKNOWN
    provisioning: str = ""
    provisioning_code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkParts:
    """What a network profile is connected to, as resource ids without repetition."""

    subnet_ids: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    pool_ids: tuple[str, ...] = ()
    public_ids: tuple[str, ...] = ()

    @property
    def vnet_ids(self) -> tuple[str, ...]:
        """The virtual networks of the subnets."""
        return _parents(self.subnet_ids)

    @property
    def load_balancer_ids(self) -> tuple[str, ...]:
        """The load balancers (or application gateways) of the backend pools."""
        return _parents(self.pool_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInterface:
    """A network interface.

    Attributes:
        resource_id: of the interface.
        machine: the id of the machine that it belongs to in lower case; "" where it has none.
        primary: whether it is its machine's first.
        private: private addresses, the primary one first.
        parts: what it is connected to; `public_ids` are its public addresses' resources.
    """

    resource_id: str
    machine: str
    primary: bool
    private: tuple[str, ...]
    parts: NetworkParts


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicAddress:
    """A public address.

    Attributes:
        resource_id: of the address.
        address: None while none is given to it: so it is while its machine is deallocated.
        fqdn: its name in the DNS, or None.
        configuration: the id of the interface's configuration that has it, in lower case, or "".
    """

    resource_id: str
    address: str | None
    fqdn: str | None
    configuration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSet:
    """A scale set itself.

    Attributes:
        resource_id: in the service's case.
        name: its name.
        flexible: whether its machines are virtual machines of their own.
        capacity: how many it is to have; None where the service does not say.
        provisioning: ARM's word; `Deleting` while it goes away.
        manual_upgrades: whether its instances must be told to take its latest model.
        parts: what its model connects new instances to.
    """

    resource_id: str
    name: str
    flexible: bool
    capacity: int | None
    provisioning: str
    manual_upgrades: bool
    parts: NetworkParts


def states_of(view: Json | None) -> States:
    """Read the statuses of an instance view; of none, and of an empty one, nothing is known."""
    power, provisioning, code, message = Power.UNKNOWN, "", "", ""
    for status in _objects(view, "statuses"):
        text = str(status.get("code") or "").lower()
        if text.startswith(_POWER):
            power = _power(text.removeprefix(_POWER))
        elif text.startswith(_PROVISIONING):
            # `ProvisioningState/failed/OSProvisioningTimedOut`
            provisioning, _, _ = text.removeprefix(_PROVISIONING).partition("/")
            code = str(status["code"])[len(_PROVISIONING) + len(provisioning) + 1 :]
            message = str(status.get("message") or "")
    return States(power=power, provisioning=provisioning, provisioning_code=code, message=message)


def _power(word: str) -> Power:
    try:
        return Power(word)
    except ValueError:
        return Power.UNKNOWN


def scale_set_of(body: Json) -> ScaleSet:
    """Read the model of a scale set."""
    properties = _object(body, "properties")
    profile = _object(_object(properties, "virtualMachineProfile"), "networkProfile")
    capacity = _object(body, "sku").get("capacity")
    mode = str(_object(properties, "upgradePolicy").get("mode") or "Manual")
    return ScaleSet(
        resource_id=str(body["id"]),
        name=str(body.get("name") or parse_id(str(body["id"])).name),
        flexible=str(properties.get("orchestrationMode") or "").lower() == "flexible",
        capacity=capacity if isinstance(capacity, int) else None,
        provisioning=str(properties.get("provisioningState") or ""),
        manual_upgrades=mode.lower() == "manual",
        parts=_model_parts(profile),
    )


def instance_of(body: Json, view: Json | None = None) -> Instance:
    """Read one machine: of a Uniform scale set, of a Flexible one, or by itself.

    Args:
        body: the machine as a list or a GET gives it.
        view: its instance view, where that came by itself; else the one in `body` counts.
    """
    properties = _object(body, "properties")
    states = states_of(view if view is not None else _object(properties, "instanceView"))
    resource = parse_id(str(body["id"]))
    owner = _owner(resource, properties)
    zones = body.get("zones") or ()
    latest = properties.get("latestModelApplied")
    hardware = _object(properties, "hardwareProfile").get("vmSize")
    storage = _object(properties, "storageProfile")
    return Instance(
        resource_id=str(body["id"]),
        instance_id=str(body.get("instanceId") or resource.name),
        name=str(body.get("name") or resource.name),
        kind=_kind(resource, owner),
        power=states.power,
        # The view's word is that of the machine's last operation, which the model's may trail.
        provisioning=str(properties.get("provisioningState") or states.provisioning.title()),
        zone=str(zones[0]) if zones else None,
        size=str(hardware or _object(body, "sku").get("name") or ""),
        location=str(body.get("location") or ""),
        tags={str(name): str(value) for name, value in _object(body, "tags").items()},
        latest_model=latest if isinstance(latest, bool) else None,
        scale_set=owner,
        windows=_is_windows(properties, storage),
        computer_name=str(_object(properties, "osProfile").get("computerName") or ""),
        nic_ids=_interface_ids(properties),
        disk_ids=_disk_ids(storage),
    )


def _owner(resource: ResourceId, properties: Json) -> str | None:
    if resource.is_scale_set_vm and resource.parent is not None:
        return resource.parent.name
    found = _object(properties, "virtualMachineScaleSet").get("id")
    return parse_id(str(found)).name if found else None


def _kind(resource: ResourceId, owner: str | None) -> InstanceKind:
    if resource.is_scale_set_vm:
        return InstanceKind.UNIFORM
    return InstanceKind.VM if owner is None else InstanceKind.FLEXIBLE


def _is_windows(properties: Json, storage: Json) -> bool:
    system = str(_object(storage, "osDisk").get("osType") or "").lower()
    if system:
        return system == "windows"
    return bool(_object(properties, "osProfile").get("windowsConfiguration"))


def _interface_ids(properties: Json) -> tuple[str, ...]:
    found = _objects(_object(properties, "networkProfile"), "networkInterfaces")
    # Of several one is marked as primary; one alone often is not.
    ordered = sorted(found, key=lambda one: not _object(one, "properties").get("primary"))
    return tuple(str(one["id"]) for one in ordered if one.get("id"))


def _disk_ids(storage: Json) -> tuple[str, ...]:
    disks = [_object(storage, "osDisk"), *_objects(storage, "dataDisks")]
    found = [_object(disk, "managedDisk").get("id") for disk in disks]
    return tuple(str(one) for one in found if one)


def interface_of(body: Json) -> NetworkInterface:
    """Read a network interface: of a virtual machine, or of an instance of a Uniform scale set."""
    properties = _object(body, "properties")
    machine = str(_object(properties, "virtualMachine").get("id") or "")
    if not machine:
        # Interfaces of scale sets' instances stand below their machine, and do not always say so.
        parent = parse_id(str(body["id"])).parent
        machine = str(parent) if parent is not None and parent.is_scale_set_vm else ""
    configurations = sorted(
        (_object(one, "properties") for one in _objects(properties, "ipConfigurations")),
        key=lambda one: not one.get("primary"),
    )
    private = [str(one["privateIPAddress"]) for one in configurations if _private(one)]
    return NetworkInterface(
        resource_id=str(body["id"]),
        machine=machine.lower(),
        # Where a machine has one interface alone, not all answers say that it is the first.
        primary=properties.get("primary") is not False,
        private=tuple(private),
        parts=_parts([properties], configurations),
    )


def _private(configuration: Json) -> bool:
    return bool(configuration.get("privateIPAddress"))


def public_address_of(body: Json) -> PublicAddress:
    """Read a public address."""
    properties = _object(body, "properties")
    address = properties.get("ipAddress")
    fqdn = _object(properties, "dnsSettings").get("fqdn")
    return PublicAddress(
        resource_id=str(body["id"]),
        # Recorded answers have "Not Assigned" where there is none yet.
        address=None if not address or str(address).lower() == "not assigned" else str(address),
        fqdn=str(fqdn) if fqdn else None,
        configuration=str(_object(properties, "ipConfiguration").get("id") or "").lower(),
    )


def _model_parts(profile: Json) -> NetworkParts:
    interfaces = [
        _object(one, "properties") for one in _objects(profile, "networkInterfaceConfigurations")
    ]
    configurations = [
        _object(one, "properties")
        for interface in interfaces
        for one in _objects(interface, "ipConfigurations")
    ]
    return _parts(interfaces, configurations)


def _parts(interfaces: Iterable[Json], configurations: Iterable[Json]) -> NetworkParts:
    subnets: list[Any] = []
    pools: list[Any] = []
    public: list[Any] = []
    for one in configurations:
        subnets.append(_object(one, "subnet").get("id"))
        public.append(_object(one, "publicIPAddress").get("id"))
        for name in POOLS:
            pools += [pool.get("id") for pool in _objects(one, name)]
    groups = [_object(one, "networkSecurityGroup").get("id") for one in interfaces]
    return NetworkParts(
        subnet_ids=_distinct(subnets),
        security_group_ids=_distinct(groups),
        pool_ids=_distinct(pools),
        public_ids=_distinct(public),
    )


def _parents(ids: Iterable[str]) -> tuple[str, ...]:
    return _distinct(str(parse_id(one).parent or one) for one in ids)


def _distinct(ids: Iterable[Any]) -> tuple[str, ...]:
    """Keep the first of those that are of the same resource."""
    found = {str(one).lower(): str(one) for one in reversed(list(ids)) if one}
    return tuple(reversed(found.values()))


# What JSON is made of is a dict; to ask for any mapping made reading a list a fifth slower.
def _object(body: Json | None, name: str) -> Json:
    value = body.get(name) if isinstance(body, dict) else None
    return value if isinstance(value, dict) else {}


def _objects(body: Json | None, name: str) -> list[Json]:
    value = body.get(name) if isinstance(body, dict) else None
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
