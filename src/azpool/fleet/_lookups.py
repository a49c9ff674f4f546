"""What machines are connected to: addresses, interfaces, networks, balancers, disks, autoscaling.

    Fleet.ips() -> addresses(link, instances) -> one `Addresses` an instance

One list where ARM has one (a Uniform scale set's interfaces, its addresses, a resource group's),
single reads elsewhere. Answers are plain JSON as the service gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azpool.fleet import listing
from azpool.fleet.calls import Answer, Call, Procedure
from azpool.fleet.ids import ResourceId, parse_id
from azpool.fleet.instance import Instance, InstanceKind
from azpool.fleet.listing import Pages, read_call
from azpool.fleet.reading import (
    Json,
    NetworkInterface,
    NetworkParts,
    PublicAddress,
    interface_of,
    public_address_of,
)

if TYPE_CHECKING:
    from azpool.fleet._link import Link

__all__ = ["Addresses", "Networks", "addresses", "autoscaler", "networks", "resources"]

# Read with the version that its own resource provider documents as stable.
AUTOSCALE_VERSION = "2022-10-01"
AUTOSCALE_TYPE = "Microsoft.Insights/autoscaleSettings"

# The official client's method for one resource of a type, and what it calls its name.
_GETTERS = {
    "microsoft.network/virtualnetworks": (
        "network.virtual_networks.get", "virtual_network_name"),
    "microsoft.network/networksecuritygroups": (
        "network.network_security_groups.get", "network_security_group_name"),
    "microsoft.network/loadbalancers": (
        "network.load_balancers.get", "load_balancer_name"),
    "microsoft.network/applicationgateways": (
        "network.application_gateways.get", "application_gateway_name"),
    "microsoft.network/networkinterfaces": (
        "network.network_interfaces.get", "network_interface_name"),
    "microsoft.network/publicipaddresses": (
        "network.public_ip_addresses.get", "public_ip_address_name"),
    "microsoft.compute/disks": ("compute.disks.get", "disk_name"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where one machine can be reached.

    Attributes:
        private: addresses in its networks, the primary one first.
        public: addresses in the Internet; none while it is deallocated and they are dynamic.
        fqdns: names of them in the DNS.
        refused: the answer that says why they are not known, or None.
    """

    private: tuple[str, ...] = ()
    public: tuple[str, ...] = ()
    fqdns: tuple[str, ...] = ()
    refused: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The interfaces and public addresses of machines, as they were read.

    Attributes:
        interfaces: by their machine's id in lower case, the primary one first.
        public: by their own id in lower case.
        bodies: the JSON of each resource, by its id in lower case, in the order it was read.
        refused: why a machine's are not known, by its id in lower case.
    """

    interfaces: Mapping[str, Sequence[NetworkInterface]]
    public: Mapping[str, PublicAddress]
    bodies: Mapping[str, Json]
    refused: Mapping[str, Answer]

    def parts(self) -> NetworkParts:
        """Answer what all of them are connected to, once each."""
        subnets: dict[str, str] = {}
        groups: dict[str, str] = {}
        pools: dict[str, str] = {}
        public: dict[str, str] = {}
        for found in self.interfaces.values():
            for one in found:
                for seen, ids in (
                    (subnets, one.parts.subnet_ids),
                    (groups, one.parts.security_group_ids),
                    (pools, one.parts.pool_ids),
                    (public, one.parts.public_ids),
                ):
                    for each in ids:
                        seen.setdefault(each.lower(), each)
        return NetworkParts(
            subnet_ids=tuple(subnets.values()),
            security_group_ids=tuple(groups.values()),
            pool_ids=tuple(pools.values()),
            public_ids=tuple(public.values()),
        )


def addresses(link: Link, instances: Sequence[Instance]) -> list[Addresses]:
    """Answer each instance's addresses, in their order."""
    found = networks(link, instances)
    answers = []
    for instance in instances:
        if instance.key in found.refused:
            answers.append(Addresses(refused=found.refused[instance.key]))
            continue
        interfaces = found.interfaces.get(instance.key, ())
        private = [each for one in interfaces for each in one.private]
        public = [
            found.public[each.lower()]
            for one in interfaces
            for each in one.parts.public_ids
            if each.lower() in found.public
        ]
        answers.append(
            Addresses(
                private=tuple(private),
                public=tuple(one.address for one in public if one.address),
                fqdns=tuple(one.fqdn for one in public if one.fqdn),
            )
        )
    return answers


def networks(link: Link, instances: Sequence[Instance]) -> Networks:
    """Read the interfaces of machines, and then the public addresses that these have."""
    interfaces: dict[str, list[NetworkInterface]] = {}
    bodies: dict[str, Json] = {}
    refused: dict[str, Answer] = {}
    uniform, plain = _split(instances)
    owners = [*uniform]
    groups = _groups(one for instance in plain for one in instance.nic_ids)
    wanted = {one.key for instance in plain for one in map(parse_id, instance.nic_ids)}
    lists = [_set_interfaces(owner) for owner in owners]
    lists += [_group_interfaces(*group) for group in groups]
    read = link.gather([listing.pages(call) for call in lists])
    for owner, found in zip(owners, read, strict=False):
        if found.refused is not None:
            refused |= {one.key: found.refused for one in uniform[owner]}
    for group, found in zip(groups, read[len(owners) :], strict=True):
        if found.refused is not None:
            refused |= {
                one.key: found.refused
                for one in plain
                if any(_key(pair) == _key(group) for pair in _groups(one.nic_ids))
            }
    members = {one.key for one in instances}
    for item in (item for found in read for item in found.items):
        one = interface_of(item)
        key = one.resource_id.lower()
        if one.machine in members or key in wanted:
            interfaces.setdefault(one.machine, []).append(one)
            bodies[key] = item
    for several in interfaces.values():
        several.sort(key=lambda one: not one.primary)
    public = _public(link, owners, interfaces, bodies)
    return Networks(interfaces=interfaces, public=public, bodies=bodies, refused=refused)


def _public(
    link: Link,
    owners: Sequence[ResourceId],
    interfaces: Mapping[str, Sequence[NetworkInterface]],
    bodies: dict[str, Json],
) -> dict[str, PublicAddress]:
    wanted = [
        each for found in interfaces.values() for one in found for each in one.parts.public_ids
    ]
    if not wanted:
        return {}
    own = [one for one in wanted if parse_id(one).parent is None]
    calls = [_set_addresses(owner) for owner in owners if len(own) < len(wanted)]
    calls += [_group_addresses(*group) for group in _groups(own)]
    known = {one.lower() for one in wanted}
    found = {}
    for each in link.gather([listing.pages(call) for call in calls]):
        # Who may read interfaces but no public addresses has the private ones all the same.
        for item in each.items:
            one = public_address_of(item)
            if one.resource_id.lower() in known:
                found[one.resource_id.lower()] = one
                bodies[one.resource_id.lower()] = item
    return found


def _split(
    instances: Sequence[Instance],
) -> tuple[dict[ResourceId, list[Instance]], list[Instance]]:
    uniform: dict[ResourceId, list[Instance]] = {}
    plain = []
    for one in instances:
        owner = listing.owner_of(one)
        if one.kind is InstanceKind.UNIFORM and owner is not None:
            uniform.setdefault(owner, []).append(one)
        else:
            plain.append(one)
    return uniform, plain


def _groups(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Answer subscription and resource group of each, once."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for one in map(parse_id, ids):
        pair = (one.subscription, one.group)
        found.setdefault(_key(pair), pair)
    return [*found.values()]


def _key(pair: tuple[str, str]) -> tuple[str, str]:
    return pair[0].lower(), pair[1].lower()


def _set_interfaces(owner: ResourceId) -> Call:
    return read_call(
        owner.subscription,
        "network.network_interfaces.list_virtual_machine_scale_set_network_interfaces",
        resource_group_name=owner.group,
        virtual_machine_scale_set_name=owner.name,
    )


def _set_addresses(owner: ResourceId) -> Call:
    return read_call(
        owner.subscription,
        "network.public_ip_addresses.list_virtual_machine_scale_set_public_ip_addresses",
        resource_group_name=owner.group,
        virtual_machine_scale_set_name=owner.name,
    )


def _group_interfaces(subscription: str, group: str) -> Call:
    return read_call(subscription, "network.network_interfaces.list", resource_group_name=group)


def _group_addresses(subscription: str, group: str) -> Call:
    return read_call(subscription, "network.public_ip_addresses.list", resource_group_name=group)


def resources(link: Link, ids: Iterable[str]) -> list[dict[str, Any]]:
    """Read resources by their ids and answer their JSON, in order.

    Raises:
        FleetError: one can't be read.
    """
    distinct = {one.key: one for one in map(parse_id, ids)}
    answers = link.gather([listing.resource(_getter(one)) for one in distinct.values()])
    for one, answer in zip(distinct.values(), answers, strict=True):
        if not answer.ok:
            raise listing.failure(f"cannot read {one.name!r}", answer, str(one))
    return [dict(answer.body or {}) for answer in answers]


def _getter(one: ResourceId) -> Call:
    method, name = _GETTERS[one.type.lower()]
    return read_call(one.subscription, method, **{"resource_group_name": one.group, name: one.name})


def autoscaler(link: Link, owner: ResourceId) -> dict[str, Any] | None:
    """Find the autoscale settings of a scale set; None where it has none.

    Raises:
        FleetError: they can't be read.
    """
    (found,) = link.gather([_autoscaler(owner)])
    return found


def _autoscaler(owner: ResourceId) -> Procedure[dict[str, Any] | None]:
    call = read_call(
        owner.subscription,
        "resources.resources.list_by_resource_group",
        resource_group_name=owner.group,
        filter=f"resourceType eq '{AUTOSCALE_TYPE}'",
    )
    listed: Pages = yield from listing.pages(call)
    for item in listed.checked(f"the autoscale settings of {owner.group!r}", str(owner)):
        # The list has their names alone: what they are for stands in each.
        answer = yield read_call(
            owner.subscription,
            "resources.resources.get_by_id",
            resource_id=str(item["id"]),
            api_version=AUTOSCALE_VERSION,
        )
        assert answer is not None
        if not answer.ok:
            raise listing.failure(f"cannot read {item['id']!r}", answer, str(item["id"]))
        target = (answer.body or {}).get("properties", {}).get("targetResourceUri", "")
        if str(target).lower() == owner.key:
            return dict(answer.body)
    return None
