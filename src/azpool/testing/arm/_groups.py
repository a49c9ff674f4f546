"""Resource groups: read and listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool.testing.arm._pages import page
from azpool.testing.arm._routes import GROUP, SUBSCRIPTION, ArmError, Reply, Request, route

if TYPE_CHECKING:
    from azpool.testing.arm._world import Group, World

__all__ = ["get"]


def _body(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.tags,
        "properties": {"provisioningState": "Succeeded"},
    }


@route("GET", GROUP)
def get(world: World, request: Request) -> Reply:
    return Reply(200, _body(world.group(request.params["subscription"], request.params["group"])))


@route("HEAD", GROUP)
def exists(world: World, request: Request) -> Reply:
    try:
        world.group(request.params["subscription"], request.params["group"])
    except ArmError:
        return Reply(404)
    return Reply(204)


@route("GET", f"{SUBSCRIPTION}/resourceGroups")
def get_all(world: World, request: Request) -> Reply:
    wanted = request.params["subscription"].lower()
    found = [one for (subscription, _), one in world.groups.items() if subscription == wanted]
    return page(request, found, world.page_size, _body)
