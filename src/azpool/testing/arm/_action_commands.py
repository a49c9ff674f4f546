"""Run commands v1 ("action"): POST .../runCommand, one at a time on a machine.

The answer is an empty 202 with both addresses; the operation's document holds the result under
`properties.output`, its Location gives it bare (both recorded). There is no exit code: it says
`Enable succeeded` whatever the script came to (Azure/azure-cli#14425), and of each stream the last
4 KiB alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._routes import ArmError, Reply, Request, route
from azpool.testing.arm._run_commands import (
    RunCommands,
    parameters_of,
    silent,
    tail,
)
from azpool.testing.arm._scripts import Script
from azpool.testing.arm._subjects import INSTANCE, MACHINE, machine_of

if TYPE_CHECKING:
    from azpool.testing.arm._world import World

__all__ = ["run"]

KILLED_AFTER_SECONDS = 90 * 60  # learn.microsoft.com, run-command: "the maximum time"
COMMANDS = ("runshellscript", "runpowershellscript")


@route("POST", f"{MACHINE}/runCommand")
@route("POST", f"{INSTANCE}/runCommand")
def run(world: World, request: Request) -> Reply:
    """Run the lines of a script; a machine that runs one refuses the next."""
    machine, settings = machine_of(world, request), RunCommands.of(world)
    body = request.body if isinstance(request.body, dict) else {}
    command = str(body.get("commandId") or "")
    if not command:
        raise ArmError(
            400, "InvalidParameter", "Required parameter 'runCommandInput.commandId' is missing."
        )
    if command.lower() not in COMMANDS:
        raise ArmError(404, "NotFound", f"The entity was not found: command '{command}'.")
    if machine.power not in ("running", "starting"):
        raise ArmError(
            409,
            "OperationNotAllowed",
            "The operation requires the VM to be running (or set to run).",
        )
    now = world.clock.now()
    if now < settings.acting_until.get(machine.id.lower(), now):
        raise ArmError(
            409,
            "Conflict",
            "Run command extension execution is in progress. Please wait for completion before "
            "invoking a run command.",
        )
    lines = body.get("script")
    source = "\n".join(map(str, lines)) if isinstance(lines, list) else ""
    script = Script(*settings.scripts(machine, source, parameters_of(body.get("parameters"))))
    seconds = min(script.seconds, KILLED_AFTER_SECONDS)
    seconds += world.operations.duration("runCommandAction")
    settings.acting_until[machine.id.lower()] = now + seconds
    result = _result(script)
    return world.operations.begin(
        request,
        "runCommandAction",
        [machine],
        occupies=False,
        seconds=seconds,
        output=result,
        result=result,
        failure=silent(machine),
    )


def _result(script: Script) -> Callable[[], dict[str, Any]]:
    message = (
        f"Enable succeeded: \n[stdout]\n{tail(script.stdout)}\n[stderr]\n{tail(script.stderr)}"
    )
    value = {
        "code": "ProvisioningState/succeeded",
        "level": "Info",
        "displayStatus": "Provisioning succeeded",
        "message": message,
    }
    return lambda: {"value": [value]}
