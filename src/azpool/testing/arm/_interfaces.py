"""Interfaces and addresses below scale sets: 2018-10-01 of Microsoft.Compute.

    GET .../virtualMachineScaleSets/S[/virtualMachines/I]/networkInterfaces -> written when asked

Those of a Flexible set's machines are resources of their own: below the set there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool.testing.arm._network import Network
from azpool.testing.arm._pages import page
from azpool.testing.arm._routes import Reply, Request, route
from azpool.testing.arm._subjects import INSTANCE, SET, scale_set_of
from azpool.testing.arm._world import resource_not_found

if TYPE_CHECKING:
    from azpool.testing.arm._world import Machine, World

__all__ = ["set_interfaces"]


def _instance(world: World, request: Request) -> Machine:
    """Find the instance; those of a Flexible set have no interfaces below it."""
    scale_set = scale_set_of(world, request)
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
    scale_set = scale_set_of(world, request)
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
