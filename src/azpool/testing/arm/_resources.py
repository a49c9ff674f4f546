"""Resources as ARM itself lists and reads them, whatever their provider.

    GET .../resources?$filter=...            lists: azure-mgmt-resource's `resources`
    GET .../providers/NAMESPACE/TYPE/NAME    networks, addresses, balancers, disks, autoscaling

Providers with handlers of their own (Microsoft.Compute's machines and scale sets) go before this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._clock import written
from azpool.testing.arm._filters import matching
from azpool.testing.arm._network import Network
from azpool.testing.arm._pages import page
from azpool.testing.arm._routes import GROUP, SUBSCRIPTION, ArmError, Reply, Request, route
from azpool.testing.arm._world import Machine, Resource, ScaleSet, resource_not_found

if TYPE_CHECKING:
    from azpool.testing.arm._world import World

__all__ = ["add_autoscale"]

LIST_SIZE = 1000  # what ARM gives at most in one page of resources
EXPANDED = ("createdTime", "changedTime", "provisioningState")


def add_autoscale(
    world: World, scale_set: ScaleSet, *, minimum: int = 1, maximum: int = 10, name: str = ""
) -> Resource:
    """Let a scale set be scaled by settings of Microsoft.Insights (which never act)."""
    name = name or f"{scale_set.name}-autoscale"
    capacity = {"minimum": str(minimum), "maximum": str(maximum), "default": str(minimum)}
    resource = Resource(
        f"{scale_set.group.id}/providers/microsoft.insights/autoscalesettings/{name}",
        name,
        "Microsoft.Insights/autoscaleSettings",
        scale_set.location,
        {
            "profiles": [{"name": "default", "capacity": capacity, "rules": []}],
            "enabled": True,
            "name": name,
            "targetResourceUri": scale_set.id,
            "notifications": [],
        },
    )
    world.resources[resource.id.lower()] = resource
    return resource


def _written(world: World, resource: Resource) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": resource.name,
        "id": resource.id,
        "etag": f'W/"{resource.etag}"',
        "type": resource.type,
        "location": resource.location,
        "tags": resource.tags,
        "properties": Network.of(world).current(world, resource),
    }
    return {key: value for key, value in body.items() if value is not None}


# --- one resource, or one type of them ------------------------------------------------------------


@route("GET", f"{GROUP}/providers/{{provider}}/{{type}}/{{name}}")
def get(world: World, request: Request) -> Reply:
    params = request.params
    group = world.group(params["subscription"], params["group"])
    what = f"{params['provider']}/{params['type']}/{params['name']}"
    found = world.resources.get(f"{group.id}/providers/{what}".lower())
    if found is None:
        raise resource_not_found(what, group.name)
    return Reply(200, _written(world, found), {"ETag": f'W/"{found.etag}"'})


@route("GET", f"{GROUP}/providers/{{provider}}/{{type}}/{{name}}/{{children}}")
def get_children(world: World, request: Request) -> Reply:
    """List what stands inside a resource: subnets, rules, pools."""
    return Reply(200, {"value": _children(world, request)})


@route("GET", f"{GROUP}/providers/{{provider}}/{{type}}/{{name}}/{{children}}/{{child}}")
def get_child(world: World, request: Request) -> Reply:
    wanted = request.params["child"].lower()
    for one in _children(world, request):
        if str(one.get("name", "")).lower() == wanted:
            return Reply(200, one)
    what = request.path.partition("/providers/")[2]
    raise resource_not_found(what, request.params["group"])


def _children(world: World, request: Request) -> list[dict[str, Any]]:
    body = get(world, request).body
    wanted = request.params["children"].lower()
    for name, value in body["properties"].items():
        if name.lower() == wanted and isinstance(value, list):
            return [one for one in value if isinstance(one, dict)]
    what = request.path.partition("/providers/")[2]
    raise resource_not_found(what, request.params["group"])


@route("GET", f"{GROUP}/providers/{{provider}}/{{type}}")
def get_type(world: World, request: Request) -> Reply:
    params = request.params
    group = world.group(params["subscription"], params["group"])
    prefix = f"{group.id}/providers/{params['provider']}/{params['type']}/".lower()
    found = [one for key, one in world.resources.items() if key.startswith(prefix)]
    return page(request, found, world.page_size, lambda one: _written(world, one))


@route("GET", f"{SUBSCRIPTION}/providers/{{provider}}/{{type}}")
def get_type_everywhere(world: World, request: Request) -> Reply:
    params = request.params
    prefix = f"/subscriptions/{params['subscription']}/".lower()
    kind = f"/providers/{params['provider']}/{params['type']}/".lower()
    found = [one for key, one in world.resources.items() if key.startswith(prefix) and kind in key]
    return page(request, found, world.page_size, lambda one: _written(world, one))


# --- lists of all ---------------------------------------------------------------------------------


@route("GET", f"{SUBSCRIPTION}/resources")
def list_all(world: World, request: Request) -> Reply:
    """List what is in a subscription, filtered."""
    prefix = f"/subscriptions/{request.params['subscription']}/".lower()
    return _list(world, request, lambda key: key.startswith(prefix))


@route("GET", f"{GROUP}/resources")
def list_group(world: World, request: Request) -> Reply:
    """List what is in a resource group, filtered."""
    group = world.group(request.params["subscription"], request.params["group"])
    prefix = f"{group.id}/".lower()
    return _list(world, request, lambda key: key.startswith(prefix))


def _list(world: World, request: Request, here: Callable[[str], bool]) -> Reply:
    text = request.query.get("$filter", "")
    wanted, by_tag = matching(text)
    expanded = [name for name in EXPANDED if name in request.query.get("$expand", "").split(",")]
    found = [one for one in _all(world) if here(one["id"].lower()) and wanted(one)]
    top = request.query.get("$top", "")
    if top and not (top.isdecimal() and int(top) > 0):
        raise ArmError(400, "InvalidTopInQueryString", f"The $top '{top}' is no whole number.")
    size = min(int(top), LIST_SIZE) if top else min(world.page_size, LIST_SIZE)

    def shown(one: Mapping[str, Any]) -> dict[str, Any]:
        body = {key: value for key, value in one.items() if key not in EXPANDED}
        if by_tag:
            # "the tags for each resource are not returned in the results" (azure-mgmt-resource).
            body.pop("tags", None)
        return body | {name: one[name] for name in expanded if name in one}

    return page(request, found, size, shown)


def _all(world: World) -> Iterator[dict[str, Any]]:
    for machine in world.machines.values():
        yield _entry(world, machine, "Microsoft.Compute/virtualMachines", machine.provisioning)
    for scale_set in world.scale_sets.values():
        kind = "Microsoft.Compute/virtualMachineScaleSets"
        yield _entry(world, scale_set, kind, scale_set.provisioning)
    for resource in world.resources.values():
        yield _entry(world, resource, resource.type, "Succeeded")


def _entry(
    world: World, one: Machine | ScaleSet | Resource, kind: str, state: str
) -> dict[str, Any]:
    body: dict[str, Any] = {"id": one.id, "name": one.name, "type": kind, "location": one.location}
    if isinstance(one, Machine) and one.zone is not None:
        body["zones"] = [one.zone]
    if isinstance(one, ScaleSet):
        capacity = len(one.machines)
        body["sku"] = {"name": one.size, "tier": "Standard", "capacity": capacity}
    body["tags"] = dict(one.tags)
    created = getattr(one, "created_at", None) or world.clock.now()
    return body | {
        "createdTime": written(created),
        "changedTime": written(created),
        "provisioningState": state,
    }
