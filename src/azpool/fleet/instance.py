"""`Instance`: one machine of a fleet as it was when it was read; and the words for its states.

A value: it pickles, compares and prints; what is done to it goes through its `Fleet`.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from azpool.fleet.ids import ResourceId, parse_id

__all__ = ["Instance", "InstanceKind", "Power"]


class InstanceKind(enum.StrEnum):
    """Which of the service's interfaces a machine answers to."""

    UNIFORM = "uniform"
    """An instance of a Uniform scale set: `virtualMachineScaleSets/NAME/virtualMachines/ID`."""
    FLEXIBLE = "flexible"
    """A virtual machine that a Flexible scale set made: `virtualMachines/NAME`."""
    VM = "vm"
    """A virtual machine by itself."""


class Power(enum.StrEnum):
    """Azure's power states of a machine; a member equals its word: `Power.RUNNING == "running"`.

    `STOPPED` is stopped and still paid for, `DEALLOCATED` stopped and given back. `UNKNOWN` where
    the service says nothing: it does so of machines that it can't reach.
    https://learn.microsoft.com/azure/virtual-machines/states-billing
    """

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DEALLOCATING = "deallocating"
    DEALLOCATED = "deallocated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One machine of a fleet, as it was when the fleet was read.

    Attributes:
        resource_id: ARM's id of it, in the case that the service gave.
        instance_id: what its fleet calls it: `"3"` in a Uniform scale set, its name elsewhere.
        name: its name (`web_3`).
        kind: which interface it answers to.
        power: its power state.
        provisioning: ARM's own word (`Succeeded`, `Updating`, `Failed`, ...); "" where unknown.
        zone: availability zone (`"1"`), or None.
        size: as `Standard_D2s_v5`; "" where unknown.
        location: as `westeurope`.
        tags: of the machine.
        latest_model: whether it has its scale set's latest model; None outside of Uniform ones.
        scale_set: the name of its scale set, or None.
        windows: whether it runs Windows: scripts are then PowerShell.
        computer_name: what it calls itself; "" where unknown.
        nic_ids: resource ids of its network interfaces, the primary one first.
        disk_ids: resource ids of its managed disks, the one with its system first.
        unread: why nothing is known of it: there is no such machine (any more), or it may not be
            read; "" for those that were read.
    """

    resource_id: str
    instance_id: str
    name: str
    kind: InstanceKind
    power: Power = Power.UNKNOWN
    provisioning: str = ""
    zone: str | None = None
    size: str = ""
    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    latest_model: bool | None = None
    scale_set: str | None = None
    windows: bool = False
    computer_name: str = ""
    nic_ids: tuple[str, ...] = ()
    disk_ids: tuple[str, ...] = ()
    unread: str = ""

    @property
    def parsed(self) -> ResourceId:
        """Its resource id in parts."""
        return _parsed(self.resource_id)

    @property
    def key(self) -> str:
        """What tells it from all others: its resource id in lower case."""
        return self.resource_id.lower()

    @property
    def subscription(self) -> str:
        return self.parsed.subscription

    @property
    def group(self) -> str:
        """Its resource group."""
        return self.parsed.group


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> ResourceId:
    return parse_id(text)
