"""One table: what each operation is called by the official client, and what is known of it.

    Fleet.start() -> plan("start") -> OPERATIONS["start"] -> procedures

Methods are named by client, group and method, as `Call.method` has them. Where a method is None the
service has none of that sort.
"""

from __future__ import annotations

from dataclasses import dataclass

from azpool.errors import UsageError
from azpool.fleet.calls import Kind

__all__ = ["OPERATIONS", "Operation", "operation_of"]

VM = "compute.virtual_machines."
SET = "compute.virtual_machine_scale_sets."
SET_VM = "compute.virtual_machine_scale_set_vms."
IDS = "vm_instance_i_ds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is known of one operation.

    Attributes:
        name: as it is asked for.
        verb: as it is told of.
        vm: the method for one virtual machine.
        one: the method for one instance of a Uniform set.
        many: the method for some instances of a Uniform set, in one call.
        many_body: the argument of `many` that holds `instanceIds`.
        kind: the budget that its call counts in.
        wanted: the power state in which it leaves a machine; "" where that is for nobody to say,
            "gone" where nothing is left.
        telling: whether a machine in that state shows that the operation was done: one that runs
            needs no start, but may never have been restarted.
        destroys: whether it takes away what can't be had back.
        idempotent: whether doing it twice is the same as once, so that it may be sent again once
            it is known that nothing of the first is under way.
        to_model: whether it brings instances to their set's model: it may be sent twice, and what
            a view says afterwards is its doing.
    """

    name: str
    verb: str = ""
    vm: str | None = None
    one: str | None = None
    many: str | None = None
    many_body: str = IDS
    kind: Kind = Kind.WRITE
    wanted: str = ""
    telling: bool = False
    destroys: bool = False
    idempotent: bool = False
    to_model: bool = False

    @property
    def procedure(self) -> str:
        """Which procedure does it."""
        return self.name if self.name in COMPOSITE else "power"


COMPOSITE = frozenset({"resize", "run_script", "run_deployed_command", "add_extension"})

_TABLE = (
    Operation(
        name="start", verb="start", wanted="running", telling=True, idempotent=True,
        vm=VM + "begin_start", one=SET_VM + "begin_start", many=SET + "begin_start",
    ),
    Operation(
        name="stop", verb="stop", wanted="deallocated", telling=True, idempotent=True,
        vm=VM + "begin_deallocate", one=SET_VM + "begin_deallocate", many=SET + "begin_deallocate",
    ),
    Operation(  # stop(deallocate=False): it is paid for as before
        name="power_off", verb="stop", wanted="stopped", telling=True, idempotent=True,
        vm=VM + "begin_power_off", one=SET_VM + "begin_power_off", many=SET + "begin_power_off",
    ),
    Operation(
        name="restart", verb="restart", wanted="running",
        vm=VM + "begin_restart", one=SET_VM + "begin_restart", many=SET + "begin_restart",
    ),
    Operation(
        name="redeploy", verb="redeploy", wanted="running",
        vm=VM + "begin_redeploy", one=SET_VM + "begin_redeploy", many=SET + "begin_redeploy",
    ),
    Operation(
        name="reimage", verb="reimage", destroys=True, many_body="vm_scale_set_reimage_input",
        vm=VM + "begin_reimage", one=SET_VM + "begin_reimage", many=SET + "begin_reimage",
    ),
    Operation(  # reimage(data_disks=True): only scale sets that are Uniform have it
        name="reimage_all", verb="reimage", destroys=True,
        one=SET_VM + "begin_reimage_all", many=SET + "begin_reimage_all",
    ),
    Operation(
        name="delete", verb="delete", kind=Kind.DELETE, wanted="gone", telling=True, destroys=True,
        idempotent=True,
        vm=VM + "begin_delete", one=SET_VM + "begin_delete", many=SET + "begin_delete_instances",
    ),
    # An instance of a Uniform set has the size of its set.
    Operation(name="resize", verb="resize", vm=VM + "begin_update"),
    Operation(name="run_script", verb="run the script on"),
    Operation(
        name="run_deployed_command", verb="run the command on",
        vm=VM + "begin_run_command", one=SET_VM + "begin_run_command",
    ),
    Operation(name="add_extension", verb="add the extension to"),
    Operation(
        name="update_instances", verb="update", to_model=True, idempotent=True,
        many=SET + "begin_update_instances",
    ),
)  # fmt: skip

# What else the official client does to one machine; arguments are its own.
_BOTH = ("attach_detach_data_disks", "perform_maintenance", "simulate_eviction")
_VM_ALONE = (
    "assess_patches", "capture", "convert_to_managed_disks", "generalize", "install_patches",
    "migrate_to_vm_scale_set", "reapply",
)  # fmt: skip
_INSTANCE_ALONE = ("approve_rolling_upgrade",)
_IMMEDIATE = frozenset({"generalize", "simulate_eviction"})  # no long-running operation


def _plain(name: str) -> Operation:
    method = name if name in _IMMEDIATE else "begin_" + name
    return Operation(
        name=name,
        verb=name.replace("_", " "),
        vm=None if name in _INSTANCE_ALONE else VM + method,
        one=None if name in _VM_ALONE else SET_VM + method,
        destroys=name in {"capture", "generalize", "simulate_eviction"},
    )


OPERATIONS = {
    operation.name: operation
    for operation in (*_TABLE, *map(_plain, (*_BOTH, *_VM_ALONE, *_INSTANCE_ALONE)))
}


def operation_of(name: str) -> Operation:
    """Answer what is known of an operation; the client's own names (`begin_reapply`) do as well.

    Raises:
        UsageError: there is none of that name.
    """
    found = OPERATIONS.get(str(name).removeprefix("begin_"))
    if found is None:
        raise UsageError(
            f"cannot plan the operation {name!r}: there is none; choose one of "
            + ", ".join(OPERATIONS)
        )
    return found
