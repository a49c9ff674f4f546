"""`Target`: what a call has to know of one instance, and no more.

    Fleet -> Target -> plan -> procedures -> Call

Plain values, so that a plan can be written to a journal and read again by another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from azpool.fleet.instance import InstanceKind

__all__ = ["InstanceKind", "Target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One instance as calls name it.

    Attributes:
        index: its place in the fleet, and in the report.
        resource_id: its id in Azure Resource Manager.
        name: what the service calls it: `web_3`, `web-0f31c2`, `db1`.
        instance_id: what its scale set calls it (`3`); of other machines their name.
        subscription: the id of its subscription.
        group: its resource group.
        scale_set: the name of its scale set; None for a virtual machine by itself.
        kind: which resource it is.
        location: its region (`westeurope`), which resources that are made beside it must name.
    """

    index: int
    resource_id: str
    name: str
    instance_id: str
    subscription: str
    group: str
    scale_set: str | None = None
    kind: InstanceKind = InstanceKind.VM
    location: str = ""

    @property
    def uniform(self) -> bool:
        return self.kind is InstanceKind.UNIFORM

    @property
    def key(self) -> str:
        """Its id as ids compare: the service is free with upper and lower case."""
        return self.resource_id.lower()

    @property
    def set_id(self) -> str | None:
        """The id of its scale set, or None."""
        if self.scale_set is None:
            return None
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.Compute/virtualMachineScaleSets/{self.scale_set}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Answer it as plain values."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        row["kind"] = self.kind.value
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Target:
        """Make it of what `to_dict` answered."""
        return cls(**{**row, "kind": InstanceKind(row["kind"])})
