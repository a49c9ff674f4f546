"""Working with a cluster of virtual machines: one call on all of them, each answered for itself.

    Fleet.scale_set(...) | Fleet.vms(...) -> fleet.start(), run_script(...), status(), ips(), ...
    -> FleetReport: one outcome an instance

Needs the extra `azpool[fleet]`: the official clients do the wire. Names are loaded when they are
first used, and nothing of Azure's until a node sends a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.fleet._resuming import resume as resume
    from azpool.fleet.fleet import Fleet as Fleet
    from azpool.fleet.instance import Instance as Instance
    from azpool.fleet.instance import InstanceKind as InstanceKind
    from azpool.fleet.instance import Power as Power
    from azpool.fleet.outcome import FleetReport as FleetReport
    from azpool.fleet.outcome import InstanceOutcome as InstanceOutcome
    from azpool.fleet.plan import Plan as Plan
    from azpool.fleet.progress import FleetInterrupted as FleetInterrupted
    from azpool.fleet.progress import FleetProgress as FleetProgress
    from azpool.fleet.progress import InstanceProgress as InstanceProgress
    from azpool.fleet.progress import Phase as Phase

_HOMES = {
    "Fleet": "fleet",
    "FleetInterrupted": "progress",
    "FleetProgress": "progress",
    "FleetReport": "outcome",
    "Instance": "instance",
    "InstanceKind": "instance",
    "InstanceOutcome": "outcome",
    "InstanceProgress": "progress",
    "Phase": "progress",
    "Plan": "plan",
    "Power": "instance",
    "resume": "_resuming",
}

__all__ = [
    "Fleet",
    "FleetInterrupted",
    "FleetProgress",
    "FleetReport",
    "Instance",
    "InstanceKind",
    "InstanceOutcome",
    "InstanceProgress",
    "Phase",
    "Plan",
    "Power",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"azpool.fleet.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
