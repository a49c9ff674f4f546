"""Managed run commands (v2) of virtual machines and of scale sets' instances.

    PUT .../runCommands/NAME -> 201 + Azure-AsyncOperation -> GET ?$expand=instanceView -> DELETE

The operation's success says that the script was run, not that it did well (recorded: exit code 127
under `Succeeded`), unless `treatFailureAsDeploymentFailure` is set. What the instance view says is
that of Azure/run-command-handler-linux, the agent's own source: `exitCode` 0 while it runs, 4 KiB
of each stream at most, and a script that was killed at its time-out as `Failed` with -1.
Run commands run beside each other and don't keep the machine from other operations.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpool.testing.arm._blobs import Output
from azpool.testing.arm._clock import written
from azpool.testing.arm._operations import Failure
from azpool.testing.arm._pages import page
from azpool.testing.arm._routes import (
    ArmError,
    Reply,
    Request,
    part,
    route,
    tags_of,
    whole,
)
from azpool.testing.arm._scripts import Script, Scripts, tiny_shell
from azpool.testing.arm._subjects import INSTANCE, MACHINE, machine_of

if TYPE_CHECKING:
    from azpool.testing.arm._world import Machine, World

__all__ = ["OUTPUT_BYTES", "RunCommand", "RunCommands", "tail"]


OUTPUT_BYTES = 4096  # maxTailLen of the agent
MOST = 25  # on one machine
KILLED = -1  # what the agent makes of a script that a signal ended
BLOB_REFUSED = -101  # ExitCode_BlobCreateOrReplaceFailed of the agent

# What is never given back (ComputeRP: "protected" settings are written only).
SECRET = ("protectedParameters", "runAsPassword")
# What makes a script run again when it is another than before.
DECIDES = ("source", "parameters", "runAsUser", "timeoutInSeconds", *SECRET)


@dataclass(slots=True)
class RunCommands:
    """How a world's run commands go.

    Attributes:
        scripts: what scripts do.
        most: how many a machine may have.
        start_share: which share of an operation's own time passes before its script starts
            (recorded: 17 s of 26 s).
        killed_state: what the instance view calls a script that was killed at its time-out:
            `Failed` on Linux; the API knows `TimedOut` too.
        repeat_same: whether a PUT with nothing new in it runs its script again.
        outputs: streams that are or were on their way into blobs.
        acting_until: when a machine's run command v1 ends, by the machine's id in lower case.
    """

    scripts: Scripts = tiny_shell
    most: int = MOST
    start_share: float = 0.65
    killed_state: str = "Failed"
    repeat_same: bool = False
    outputs: list[Output] = field(default_factory=list)
    acting_until: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of(world: World) -> RunCommands:
        found = world.extra.get("run_commands")
        if not isinstance(found, RunCommands):
            found = world.extra["run_commands"] = RunCommands()
        return found

    def close(self) -> None:
        """Wait until what is on its way into blobs is there, or given up."""
        while self.outputs:
            self.outputs.pop().join()


@dataclass(slots=True, eq=False)
class RunCommand:
    """One run command of one machine.

    Attributes:
        properties: as they were sent, secrets included.
        script: what its script comes to; `ends_at` is when, cut at the time-out.
        killed_as: the state of a script that passes its time-out; None of one that ends before.
        cause: why nothing is known of the script; None where something is.
    """

    name: str
    location: str
    tags: dict[str, str]
    properties: dict[str, Any]
    script: Script
    starts_at: float
    ends_at: float
    killed_as: str | None
    outputs: tuple[Output, ...] = ()
    provisioning: str = "Creating"
    cause: str | None = None

    @property
    def refused(self) -> bool:
        """Whether it did not run because a blob for its output could not be made."""
        return any(output.refused for output in self.outputs)

    @property
    def failed(self) -> bool:
        return (
            self.cause is not None
            or self.refused
            or bool(self.killed_as)
            or self.script.exit_code != 0
        )

    def written(self, machine: Machine, *, view_at: float | None) -> dict[str, Any]:
        kind = "virtualMachines/runCommands"
        if machine.instance_id is not None:
            kind = f"virtualMachineScaleSets/{kind}"
        given = {key: value for key, value in self.properties.items() if key not in SECRET}
        properties: dict[str, Any] = {
            "source": {},
            **given,
            "timeoutInSeconds": given.get("timeoutInSeconds", 0),
            "provisioningState": self.provisioning,
            "asyncExecution": bool(given.get("asyncExecution", False)),
        }
        properties.pop("instanceView", None)
        if view_at is not None:
            properties["instanceView"] = self.view(view_at)
        body: dict[str, Any] = {
            "name": self.name,
            "id": f"{machine.id}/runCommands/{self.name}",
            "type": f"Microsoft.Compute/{kind}",
            "location": self.location,
        }
        if self.tags:
            body["tags"] = self.tags
        return body | {"properties": properties}

    def view(self, now: float) -> dict[str, Any]:
        """Write the instance view: what the machine's agent has reported by now."""
        if self.cause is not None:
            return _view("Unknown", self.cause)
        if now < self.starts_at:
            return _view("Pending", "")
        started = {"startTime": _seconds(self.starts_at)}
        if now < self.ends_at or not all(output.ended for output in self.outputs):
            return _view("Running", "Execution in progress") | started
        ended = started | {"endTime": _seconds(self.ends_at)}
        if self.refused:
            why = "Error creating AppendBlob using SAS token or Managed identity."
            return _view("Failed", f"Execution failed: {why}", BLOB_REFUSED) | ended
        out, err = tail(self.script.stdout), tail(self.script.stderr)
        if self.killed_as is not None:
            return _view(self.killed_as, _terminated(KILLED), KILLED, out, err) | ended
        if self.script.exit_code:
            code = self.script.exit_code
            return _view("Failed", _terminated(code), code, out, err) | ended
        return _view("Succeeded", "Execution completed", 0, out, err) | ended


def _view(
    state: str, message: str, code: int = 0, output: str = "", error: str = ""
) -> dict[str, Any]:
    return {
        "exitCode": code,
        "executionState": state,
        "executionMessage": message,
        "output": output,
        "error": error,
    }


def _terminated(code: int) -> str:
    cause = f"failed to execute command: command terminated with exit status={code}"
    return f"Execution failed: {cause}"


def _seconds(at: float) -> str:
    return written(int(at))


def tail(text: str) -> str:
    """Keep the last 4 KiB, as the agent does; a character that the cut falls in is lost."""
    data = text.encode()
    return text if len(data) <= OUTPUT_BYTES else data[-OUTPUT_BYTES:].decode(errors="ignore")


def parameters_of(*lists: Any) -> dict[str, str]:
    """Read parameters by name, and those without one by their position."""
    found: dict[str, str] = {}
    position = 0
    for one in (one for each in lists if isinstance(each, list) for one in each):
        if not isinstance(one, Mapping):
            continue
        name, value = str(one.get("name") or ""), str(one.get("value") or "")
        if not name:
            position += 1
        found[name or str(position)] = value
    return found


def refuse_idle(machine: Machine) -> None:
    """Refuse what needs a running machine."""
    if machine.power not in ("running", "starting"):
        raise ArmError(
            409,
            "OperationNotAllowed",
            "Cannot modify extensions in the VM when the VM is not running.",
        )


@route("PUT", f"{MACHINE}/runCommands/{{command}}")
@route("PUT", f"{INSTANCE}/runCommands/{{command}}")
def put(world: World, request: Request) -> Reply:
    """Make a run command, or another one of the same name, and run its script."""
    machine, body = machine_of(world, request), _object(request)
    if not body.get("location"):
        raise ArmError(
            400, "LocationRequired", "The location property is required for this definition."
        )
    properties = part(body, "properties")
    if not _source(properties):
        raise ArmError(
            400,
            "InvalidParameter",
            "Required parameter 'runCommand.properties.source' is missing (null).",
        )
    return _run(world, request, machine, body, properties)


@route("PATCH", f"{MACHINE}/runCommands/{{command}}")
@route("PATCH", f"{INSTANCE}/runCommands/{{command}}")
def patch(world: World, request: Request) -> Reply:
    """Change a run command: what is not sent stays as it is."""
    machine, body = machine_of(world, request), _object(request)
    known = _find(machine, request)
    properties = known.properties | part(body, "properties")
    body = {"location": known.location, "tags": known.tags, **body}
    return _run(world, request, machine, body, properties)


@route("GET", f"{MACHINE}/runCommands/{{command}}")
@route("GET", f"{INSTANCE}/runCommands/{{command}}")
def get(world: World, request: Request) -> Reply:
    machine = machine_of(world, request)
    command = _find(machine, request)
    return Reply(200, command.written(machine, view_at=_view_at(world, request)))


@route("GET", f"{MACHINE}/runCommands")
@route("GET", f"{INSTANCE}/runCommands")
def get_all(world: World, request: Request) -> Reply:
    machine, at = machine_of(world, request), _view_at(world, request)
    commands = list(machine.run_commands.values())
    return page(request, commands, world.page_size, lambda one: one.written(machine, view_at=at))


@route("DELETE", f"{MACHINE}/runCommands/{{command}}")
@route("DELETE", f"{INSTANCE}/runCommands/{{command}}")
def delete(world: World, request: Request) -> Reply:
    """Remove a run command; a script that still runs ends."""
    machine = machine_of(world, request)
    key = request.params["command"].lower()
    command = machine.run_commands.get(key)
    if command is None:
        return Reply(204)
    command.provisioning = "Deleting"

    def gone() -> None:
        if machine.run_commands.get(key) is command:
            del machine.run_commands[key]

    return world.operations.begin(
        request, "deleteRunCommand", [machine], occupies=False, effects=gone
    )


def _run(
    world: World, request: Request, machine: Machine, body: dict[str, Any], new: dict[str, Any]
) -> Reply:
    refuse_idle(machine)
    settings, name = RunCommands.of(world), request.params["command"]
    known: RunCommand | None = machine.run_commands.get(name.lower())
    if known is None and len(machine.run_commands) >= settings.most:
        raise _too_many(settings.most, len(machine.run_commands))
    own = world.operations.duration("runCommand")
    now = world.clock.now()
    if known is not None and not settings.repeat_same and _same(known.properties, new):
        command, extra = known, max(known.ends_at - now, 0.0)
        command.provisioning = "Updating"
    else:
        command = _begin(world, machine, name, body, new)
        command.provisioning = "Creating" if known is None else "Updating"
        extra = command.ends_at - command.starts_at
        machine.run_commands[name.lower()] = command
    waits = not new.get("asyncExecution")
    strict = waits and bool(new.get("treatFailureAsDeploymentFailure"))

    def succeeded() -> None:
        command.provisioning = "Failed" if strict and command.failed else "Succeeded"

    def undone(failure: Failure) -> None:
        command.provisioning = "Failed"
        command.cause = failure.message

    return world.operations.begin(
        request,
        "runCommand",
        [machine],
        occupies=False,
        status=201 if known is None else 200,
        body=command.written(machine, view_at=None),
        with_location=False,
        seconds=own + extra if waits else own,
        ready=(lambda: all(output.ended for output in command.outputs)) if waits else None,
        effects=succeeded,
        undone=undone,
        failure=silent(machine),
        ends_as=(lambda: _as_failure(command)) if strict else None,
    )


def _begin(
    world: World, machine: Machine, name: str, body: dict[str, Any], properties: dict[str, Any]
) -> RunCommand:
    settings, now = RunCommands.of(world), world.clock.now()
    parameters = parameters_of(properties.get("parameters"), properties.get("protectedParameters"))
    script = Script(*settings.scripts(machine, _source(properties), parameters))
    starts_at = now + world.operations.duration("runCommand") * settings.start_share
    most = whole(properties.get("timeoutInSeconds"), "timeoutInSeconds")
    killed = 0 < most < script.seconds
    streams = ("outputBlobUri", script.stdout), ("errorBlobUri", script.stderr)
    outputs = [Output(str(properties[key]), text) for key, text in streams if properties.get(key)]
    settings.outputs += outputs
    return RunCommand(
        name=name,
        location=str(body["location"]),
        tags=tags_of(body),
        properties=copy.deepcopy(properties),
        script=script,
        starts_at=starts_at,
        ends_at=starts_at + (most if killed else script.seconds),
        killed_as=settings.killed_state if killed else None,
        outputs=tuple(outputs),
    )


def silent(machine: Machine) -> Failure | None:
    """Say how an operation on a machine ends whose agent is silent."""
    if machine.agent:
        return None
    return Failure(
        "VMAgentStatusCommunicationError",
        f"VM '{machine.name}' has not reported status for VM agent or extensions. Verify that the "
        "OS is up and healthy, the VM has a running VM agent, and that it can establish outbound "
        "connections to Azure storage.",
    )


def _as_failure(command: RunCommand) -> Failure | None:
    if not command.failed:
        return None
    return Failure(
        "VMExtensionProvisioningError",
        f"VM has reported a failure when processing run command '{command.name}'. Error message: "
        f'"{command.view(command.ends_at)["executionMessage"]}".',
    )


def _too_many(most: int, current: int) -> ArmError:
    # The words were reported (MicrosoftDocs/azure-docs#117976); the status and code were not.
    link = "https://aka.ms/RunCommandManaged"
    return ArmError(
        409,
        "OperationNotAllowed",
        f"The maximum number of managed Run commands (max={most}, current={current}) has been "
        "exceeded. Use fewer Run commands and retry the request. To list Run commands, refer: "
        f"{link}#list-all-deployed-runcommand-resources-on-a-vm-1 and then delete a Run command: "
        f"{link}#delete-runcommand-resource-from-the-vm-1 ",
    )


def _same(known: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return all(known.get(key) == new.get(key) for key in DECIDES)


def _source(properties: Mapping[str, Any]) -> str:
    source = properties.get("source")
    if not isinstance(source, Mapping):
        return ""
    keys = ("script", "scriptUri", "commandId", "galleryScriptReferenceId")
    return next((str(source[key]) for key in keys if source.get(key)), "")


def _find(machine: Machine, request: Request) -> RunCommand:
    name = request.params["command"]
    found = machine.run_commands.get(name.lower())
    if isinstance(found, RunCommand):
        return found
    what = machine.id.partition("/providers/")[2]
    raise ArmError(
        404,
        "ResourceNotFound",
        f"The Resource '{what}/runCommands/{name}' under resource group '{machine.group.name}' "
        "was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )


def _view_at(world: World, request: Request) -> float | None:
    wanted = request.query.get("$expand", "").lower() == "instanceview"
    return world.clock.now() if wanted else None


def _object(request: Request) -> dict[str, Any]:
    if not isinstance(request.body, dict):
        raise ArmError(
            400, "InvalidRequestContent", "The request content was invalid: it is no JSON object."
        )
    return request.body
