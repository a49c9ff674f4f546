"""How fleets reach the simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool.fleet import Fleet

if TYPE_CHECKING:
    from azpool.testing.arm import Arm

__all__ = ["crew", "reach"]


def reach(arm: Arm, **more: Any) -> dict[str, Any]:
    """What a fleet needs to reach the simulator."""
    return {"credential": arm.credential, "base_url": arm.url, "ca_file": arm.ca_file, **more}


def crew(arm: Arm, count: int, *, uniform: bool = True, power: str = "running") -> Fleet:
    """A scale set of so many machines, as a fleet."""
    arm.scale_set("crew", count, uniform=uniform, power=power)
    return Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
