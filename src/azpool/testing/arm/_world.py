"""What there is in the simulated cloud: groups, virtual machines, scale sets and their instances.

Everything is kept under ids in lower case, as ARM compares them, and is read and changed under
`World.lock`. Time is the clock's; `World.settle` brings about what has become due by now, and every
request settles before it is answered, so nothing needs a thread of its own.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._operations import Operations
from azpool.testing.arm._routes import ArmError

if TYPE_CHECKING:
    from azpool.testing.arm._clock import Clock
    from azpool.testing.arm._operations import (  # noqa: TC004 -- it imports this
        Failure,
        Operation,
    )
    from azpool.testing.arm._routes import Request

__all__ = ["Group", "Machine", "Resource", "ScaleSet", "World"]

POWER_WORDS = {
    "starting": "VM starting",
    "running": "VM running",
    "stopping": "VM stopping",
    "stopped": "VM stopped",
    "deallocating": "VM deallocating",
    "deallocated": "VM deallocated",
}
MANUAL, AUTOMATIC = "Manual", "Automatic"


@dataclass(slots=True)
class Group:
    """A resource group."""

    subscription: str
    name: str
    location: str
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.name}"


@dataclass(slots=True, eq=False)
class Resource:
    """Anything that is kept as the JSON that it is read as: networks, addresses, settings.

    `world.resources` holds it under its id in lower case; `type` is as `Microsoft.Network/...`.
    """

    id: str
    name: str
    type: str
    location: str | None
    properties: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True, eq=False)
class Machine:
    """A virtual machine, or one instance of a Uniform scale set (`instance_id` is set then).

    Attributes:
        group: where it is.
        name: of an instance `<scale set>_<instance id>`.
        scale_set: the set that it belongs to; None for a machine of its own.
        instance_id: its number in a Uniform scale set, as text; None elsewhere.
        power: `running`, `deallocated`, ...: what follows `PowerState/`; None before it has one.
        provisioning: `Succeeded`, `Updating`, `Failed`, ...
        busy: the operation that is under way on it; None for none.
        failure: why its last operation failed, while it is `Failed`.
        latest_model: whether its set's model has been applied to it.
        model: more of its `properties`, as they are read.
        run_commands: managed run commands by name in lower case; `_run_commands.py` owns them.
        extensions: likewise; `_extensions.py` owns them.
        agent: whether its guest agent answers: without it nothing runs on it.
    """

    group: Group
    name: str
    location: str
    scale_set: ScaleSet | None = None
    instance_id: str | None = None
    zone: str | None = None
    size: str = "Standard_D2s_v5"
    tags: dict[str, str] = field(default_factory=dict)
    power: str | None = "running"
    power_at: float = 0.0
    provisioning: str = "Succeeded"
    provisioning_at: float = 0.0
    busy: Operation | None = None
    failure: Failure | None = None
    latest_model: bool = True
    model: dict[str, Any] = field(default_factory=dict)
    run_commands: dict[str, Any] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)
    agent: bool = True
    vm_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: float = 0.0
    generation: int = 1  # of its disk: one more with each reimage
    data_disks: int = 0
    data_generation: int = 1  # one more with each reimage of all disks
    deleted: bool = False

    @property
    def id(self) -> str:
        if self.instance_id is not None and self.scale_set is not None:
            return f"{self.scale_set.id}/virtualMachines/{self.instance_id}"
        return f"{self.group.id}/providers/Microsoft.Compute/virtualMachines/{self.name}"

    @property
    def computer_name(self) -> str:
        """What it calls itself: of an instance its set's name and its number in six digits."""
        if self.instance_id is not None and self.scale_set is not None:
            return f"{self.scale_set.name}{int(self.instance_id):06d}"
        return self.name

    @property
    def key(self) -> str:
        """What faults and tests name it by: its instance id, or its name."""
        return self.instance_id or self.name


@dataclass(slots=True, eq=False)
class ScaleSet:
    """A scale set. `machines` are its instances by instance id (Uniform) or name (Flexible)."""

    group: Group
    name: str
    location: str
    mode: str = "Uniform"
    zones: tuple[str, ...] = ()
    size: str = "Standard_D2s_v5"
    upgrade_policy: str = MANUAL
    tags: dict[str, str] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    provisioning: str = "Succeeded"
    provisioning_at: float = 0.0
    busy: Operation | None = None
    deleting: bool = False
    extensions: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    unique_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: float = 0.0
    numbers: Iterator[int] = field(default_factory=itertools.count)
    data_disks: int = 0  # of each instance
    wanted: int | None = None  # the capacity that it is on its way to

    @property
    def capacity(self) -> int:
        return len(self.machines) if self.wanted is None else self.wanted

    @property
    def uniform(self) -> bool:
        return self.mode == "Uniform"

    @property
    def id(self) -> str:
        return f"{self.group.id}/providers/Microsoft.Compute/virtualMachineScaleSets/{self.name}"


class World:
    """All that is simulated, and the lock around it.

    Attributes:
        resources: what has no class of its own, by id in lower case.
        extra: state of a topic's module, by the module's own key.
    """

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.base = ""  # the server's own address, once it listens
        self.groups: dict[tuple[str, str], Group] = {}
        self.machines: dict[str, Machine] = {}  # those at .../virtualMachines/NAME
        self.scale_sets: dict[str, ScaleSet] = {}
        self.resources: dict[str, Resource] = {}
        self.extra: dict[str, Any] = {}
        self.operations = Operations(self)
        self.page_size = 100
        self.joined: list[Callable[[Machine], None]] = []  # told of each machine that is made
        self.left: list[Callable[[Machine], None]] = []  # and of each that is gone
        self.denied: list[tuple[str, str]] = []  # (principal or "", id prefix in lower case)
        self.locked: list[str] = []  # id prefixes in lower case

    def settle(self) -> None:
        """Bring about what is due by now."""
        self.operations.settle(self.clock.now())

    @staticmethod
    def real_time() -> float:
        """Real seconds, as `time.monotonic` gives them: one and the same in all processes."""
        return time.monotonic()

    # --- what is there, or the service's own words that it is not ---------------------------------

    def group(self, subscription: str, name: str) -> Group:
        found = self.groups.get((subscription.lower(), name.lower()))
        if found is None:
            raise ArmError(
                404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found."
            )
        return found

    def machine(self, subscription: str, group: str, name: str) -> Machine:
        """Find a virtual machine by its name, also one of a Flexible scale set."""
        found = self.groups.get((subscription.lower(), group.lower()))
        key = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
        machine = self.machines.get(f"{key}/virtualMachines/{name}".lower())
        if found is None or machine is None:
            self.group(subscription, group)
            raise resource_not_found(f"Microsoft.Compute/virtualMachines/{name}", group)
        return machine

    def scale_set(self, subscription: str, group: str, name: str) -> ScaleSet:
        key = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
        found = self.scale_sets.get(f"{key}/virtualMachineScaleSets/{name}".lower())
        if found is None:
            self.group(subscription, group)
            raise resource_not_found(f"Microsoft.Compute/virtualMachineScaleSets/{name}", group)
        return found

    def instance(self, subscription: str, group: str, name: str, instance: str) -> Machine:
        """Find one instance of a scale set by its instance id."""
        scale_set = self.scale_set(subscription, group, name)
        machine = scale_set.machines.get(instance.lower())
        if machine is None:
            raise ArmError(
                404,
                "InstanceNotFound" if scale_set.uniform else "ResourceNotFound",
                f"The entity was not found in this Azure location: instance '{instance}' of "
                f"virtual machine scale set '{scale_set.name}'.",
            )
        return machine

    def refuse_denied(self, request: Request) -> None:
        """Refuse what its principal may not do, and what a lock keeps from being changed."""
        path = request.path.lower()
        for principal, prefix in self.denied:
            if principal in ("", request.principal) and _below(path, prefix):
                raise ArmError(
                    403,
                    "AuthorizationFailed",
                    f"The client '{request.principal}' with object id '{request.principal}' does "
                    f"not have authorization to perform action '{_action(request)}' over scope "
                    f"'{request.path}' or the scope is invalid. If access was recently granted, "
                    "please refresh your credentials.",
                )
        if request.method in ("GET", "HEAD"):
            return
        for prefix in self.locked:
            if _below(path, prefix):
                raise ArmError(
                    409,
                    "ScopeLocked",
                    f"The scope '{request.path}' cannot perform write operation because following "
                    f"scope(s) are locked: '{prefix}'. Please remove the lock and try again.",
                )

    @staticmethod
    def refuse_busy(subject: Machine | ScaleSet) -> None:
        """Refuse what would meet an operation that is under way."""
        if subject.busy is not None:
            raise ArmError(
                409,
                "Conflict",
                "The request failed due to conflict with a concurrent request. To resolve it, "
                "please refer to https://aka.ms/activitylog to get more details on the "
                "conflicting requests.",
            )

    @staticmethod
    def refuse_deleting(subject: Machine | ScaleSet, request: Request) -> None:
        """Refuse what would change something that is being deleted; in the service's own words."""
        if isinstance(subject, Machine):
            owner = subject.scale_set
            marked = subject.provisioning == "Deleting" or (owner is not None and owner.deleting)
            what, it = "VM", "the VM"
            more = (
                "You can only retry the Delete operation (or wait for an ongoing one to complete)."
            )
        else:
            marked, what, it = subject.deleting, "Virtual Machine Scale Set", "it"
            more = "For more information on your operations, please refer to https://aka.ms/activitylog."
        if marked:
            action = request.path.rpartition("/")[2] if request.method == "POST" else "Update"
            raise ArmError(
                409,
                "OperationNotAllowed",
                f"Operation '{action}' is not allowed on {what} '{subject.name}' since {it} is "
                f"marked for deletion. {more}",
            )

    # --- what is made ---------------------------------------------------------------------------

    def add_group(self, subscription: str, name: str, location: str = "eastus") -> Group:
        """Make a resource group, or find it."""
        key = subscription.lower(), name.lower()
        return self.groups.setdefault(key, Group(subscription, name, location))

    def add_machine(self, machine: Machine) -> Machine:
        now = self.clock.now()
        machine.created_at = machine.power_at = machine.provisioning_at = now
        if machine.scale_set is not None:
            machine.scale_set.machines[machine.key.lower()] = machine
        if machine.instance_id is None:
            self.machines[machine.id.lower()] = machine
        for joined in self.joined:
            joined(machine)
        return machine

    def add_scale_set(self, scale_set: ScaleSet, instances: int, *, power: str) -> ScaleSet:
        scale_set.created_at = scale_set.provisioning_at = self.clock.now()
        self.scale_sets[scale_set.id.lower()] = scale_set
        for _ in range(instances):
            self.add_instance(scale_set, power=power)
        return scale_set

    def add_instance(self, scale_set: ScaleSet, *, power: str = "running") -> Machine:
        """Let a scale set grow by one: numbered in a Uniform one, named in a Flexible one."""
        number = next(scale_set.numbers)
        instance_id = str(number) if scale_set.uniform else None
        zones = scale_set.zones
        return self.add_machine(
            Machine(
                scale_set.group,
                f"{scale_set.name}_{instance_id or suffix(scale_set, number)}",
                scale_set.location,
                scale_set,
                instance_id,
                zone=zones[number % len(zones)] if zones else None,
                size=scale_set.size,
                power=power,
                tags=dict(scale_set.tags),
                data_disks=scale_set.data_disks,
            )
        )

    def remove_machine(self, machine: Machine) -> None:
        """Let a machine be gone."""
        machine.deleted = True
        for left in self.left:
            left(machine)
        if machine.scale_set is not None:
            machine.scale_set.machines.pop(machine.key.lower(), None)
        self.machines.pop(machine.id.lower(), None)

    def remove_scale_set(self, scale_set: ScaleSet) -> None:
        for machine in list(scale_set.machines.values()):
            self.remove_machine(machine)
        self.scale_sets.pop(scale_set.id.lower(), None)

    # --- what changes ---------------------------------------------------------------------------

    def set_power(self, machine: Machine, power: str) -> None:
        if machine.power != power:
            machine.power, machine.power_at = power, self.clock.now()

    def set_provisioning(self, subject: Machine | ScaleSet, state: str) -> None:
        subject.provisioning, subject.provisioning_at = state, self.clock.now()
        if isinstance(subject, Machine):
            subject.failure = None


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix.rstrip('/')}/")


def _action(request: Request) -> str:
    parts = request.path.partition("/providers/")[2].split("/")
    verbs = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
    # `Microsoft.Compute/virtualMachines/start/action` of a POST, `.../read` of a GET.
    return "/".join([parts[0], *parts[1::2], verbs.get(request.method, "action")])


def suffix(scale_set: ScaleSet, number: int) -> str:
    """Name the instance of a Flexible set as Azure does: eight hexadecimal digits, any of them."""
    return uuid.uuid5(uuid.UUID(scale_set.unique_id), str(number)).hex[:8]


def resource_not_found(what: str, group: str) -> ArmError:
    return ArmError(
        404,
        "ResourceNotFound",
        f"The Resource '{what}' under resource group '{group}' was not found. For more details "
        "please go to https://aka.ms/ARMResourceNotFoundFix",
    )
