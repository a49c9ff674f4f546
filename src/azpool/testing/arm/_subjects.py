"""What a request's path names: a machine, an instance, a scale set, or all in a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from azpool.testing.arm._routes import COMPUTE, Request

if TYPE_CHECKING:
    from azpool.testing.arm._world import Machine, ScaleSet, World

__all__ = ["INSTANCE", "MACHINE", "SET", "SETS", "listed", "machine_of", "scale_set_of"]

T = TypeVar("T")

MACHINE = f"{COMPUTE}/virtualMachines/{{name}}"
SETS = f"{COMPUTE}/virtualMachineScaleSets"
SET = f"{SETS}/{{set}}"
INSTANCE = f"{SET}/virtualMachines/{{instance}}"


def machine_of(world: World, request: Request) -> Machine:
    """Find a machine, of its own or in a scale set.

    Raises:
        ArmError: it is not there, or it is being deleted and the request would change it.
    """
    params = request.params
    place = params["subscription"], params["group"]
    if "instance" in params:
        machine = world.instance(*place, params["set"], params["instance"])
    else:
        machine = world.machine(*place, params["name"])
    if request.method not in ("GET", "DELETE"):
        world.refuse_deleting(machine, request)
    return machine


def scale_set_of(world: World, request: Request) -> ScaleSet:
    """Find a scale set.

    Raises:
        ArmError: it is not there.
    """
    params = request.params
    return world.scale_set(params["subscription"], params["group"], params["set"])


def listed(world: World, request: Request, things: Mapping[str, T]) -> list[T]:
    """Find what is in the group that a list is of, or else in its subscription; by their ids.

    Raises:
        ArmError: there is no such group.
    """
    params = request.params
    prefix = f"/subscriptions/{params['subscription']}/".lower()
    if "group" in params:
        prefix = f"{world.group(params['subscription'], params['group']).id}/".lower()
    return [one for key, one in things.items() if key.startswith(prefix)]
