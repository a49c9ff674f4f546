"""Scripts, commands and extensions on machines, as procedures. Pure.

A script goes by a managed run command (v2): a PUT under a name of its own, the end of its
operation, which says nothing of the script, a GET of the instance view, which has exit code and
output, and a DELETE, for a machine keeps 25 at most. A DELETE ends a script that still runs: it is
sent once the view tells of an end, or where the whole operation is stopped. Where the service has
no such commands it goes by v1, which tells no exit code. Either way the service keeps the last
4 KiB of each stream, and ARM takes no request over 4 MiB.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from azpool.fleet import batched
from azpool.fleet.calls import Answer, Call, Kind, Pause, Procedure, Stopped
from azpool.fleet.listing import why
from azpool.fleet.operations import operation_of
from azpool.fleet.polling import Ending, follow, is_lost, poll_url
from azpool.fleet.procedures import (
    Outcomes,
    change,
    failed,
    outcome_of,
    target_arguments,
    with_error,
)
from azpool.identity.secret import Secret
from azpool.report import State

if TYPE_CHECKING:
    from azpool.fleet.outcome import InstanceOutcome
    from azpool.fleet.plan import Step
    from azpool.fleet.target import Target

__all__ = [
    "BLOBS",
    "MOST_BODY_BYTES",
    "NOT_REMOVED",
    "add_extension",
    "blob_url",
    "resumed_script",
    "run_deployed_command",
    "run_script",
    "script_call",
]

BLOBS = ("stdout_blob", "stderr_blob")
OUTPUT_BYTES = 4096  # learn.microsoft.com/azure/virtual-machines/run-command-overview
# "Azure Resource Manager API request size: 4,194,304 bytes"
# learn.microsoft.com/azure/azure-resource-manager/management/azure-subscription-service-limits
MOST_BODY_BYTES = 4 * 1024 * 1024
NO_MANAGED = frozenset(
    {"NoRegisteredProviderFound", "InvalidResourceType", "FeatureNotSupported", "NotSupported"}
)
V2 = "compute.virtual_machine_run_commands"
SET_V2 = "compute.virtual_machine_scale_set_vm_run_commands"
NO_SECRETS = (
    "cannot run a script with protected parameters: there are no managed run commands here, and "
    "the older ones keep nothing secret; give the script its secrets in another way"
)
UNREAD = "it was sent, and what became of the script could not be read"
GONE_COMMAND = "its run command is not on the machine any more, and with it what the script came to"
STOPPED = {"timeout": "timeout_seconds had passed", "interrupted": "it was interrupted"}
NOT_REMOVED = "was not removed"
CUT_OFF = "the script's run command was removed, which ends the script"


# What the instance view says of a script (ExecutionState of ComputeRP) that has ended, and of one
# that has not; "" and "unknown" tell nothing.
ENDED = frozenset({"succeeded", "failed", "timedout", "canceled"})
GOING_ON = frozenset({"pending", "running"})
LOOKS = 30  # at a script that goes on, when its operation has ended or its time is over
ARRIVALS = 3  # looks for a command whose PUT was not answered: it may be on its way
VAIN = 5  # looks without an answer, each tried a few times, before nobody can tell
POLL_SECONDS = 4  # at the least between two looks
ACTED = 202  # what the POST of v1 is answered with (ComputeRP); the PUT of v2 with 200 or 201


def run_script(step: Step, *, wait: bool) -> Procedure[Outcomes]:
    """Run a script on one machine."""
    target = step.targets[0]
    put = script_call(step, target)
    answer = yield put
    assert answer is not None
    if not answer.ok and not is_lost(answer):
        if answer.code in NO_MANAGED:
            if step.secrets.get("protected_parameters"):
                told = outcome_of(target, step.operation, State.FAILED, answer, message=NO_SECRETS)
                return [told]
            return (yield from _by_v1(step, wait=wait))
        return [failed(target, step.operation, answer)]
    if not wait and answer.ok:
        return [outcome_of(target, step.operation, State.OK, answer, value={"name": step.name})]
    return [(yield from _to_its_end(step, target, put, answer))]


def resumed_script(step: Step, accepted: Answer | None) -> Procedure[Outcomes]:
    """Find out what became of a script that an ended process may have sent; sends none.

    It is waited for, read and removed, whatever the operation was to wait for: nobody else knows
    the name of its command.

    Args:
        step: what was to be done.
        accepted: the answer that the call had, where one was put down.
    """
    target = step.targets[0]
    look = _look(target, step.name)
    if accepted is not None and accepted.status == ACTED:
        return [(yield from _v1_end(step, target, look, accepted))]
    sent = accepted or Answer(status=None)
    if not step.name:  # a command that the service keeps
        return [_unknown(step, target, sent, UNREAD)]
    return [(yield from _to_its_end(step, target, look, sent))]


def _to_its_end(
    step: Step, target: Target, put: Call, answer: Answer
) -> Procedure[InstanceOutcome]:
    """See a run command to its end, and remove it where nothing is lost by that."""
    try:
        outcome, over = yield from _watched(step, target, put, answer)
    except Stopped as stopped:
        outcome = yield from _cut_off(step, target, answer, stopped.reason)
        over = True
    if over:
        remove = _command_call(target, step.name, "begin_delete", kind=Kind.DELETE, repeatable=True)
        try:
            removed = yield remove
        except Stopped:
            removed = yield remove  # it had not been sent
        assert removed is not None
        if not removed.ok and removed.status != 404:
            return _with_words(outcome, f"{_may_stay(step)}: {why(removed)}")
    return outcome


def _with_words(outcome: InstanceOutcome, words: str) -> InstanceOutcome:
    made = replace(outcome, message="; ".join(filter(None, (outcome.message, words))), error=None)
    return made if made.ok else with_error(made)


def _may_stay(step: Step) -> str:
    return f"its command {step.name!r} {NOT_REMOVED} (a machine keeps 25 at most)"


def script_call(step: Step, target: Target) -> Call:
    """Make the call that puts a script's run command on a machine."""
    given = step.arguments
    hidden: Mapping[str, Any] = step.secrets.get("protected_parameters") or {}
    properties: dict[str, Any] = {
        "source": {"script": given["script"]},
        "asyncExecution": False,
        "parameters": _named(given.get("parameters") or {}),
        "protectedParameters": _named(hidden),
    }
    if given.get("timeout_seconds") is not None:
        properties["timeoutInSeconds"] = int(given["timeout_seconds"])
    if given.get("run_as"):
        properties["runAsUser"] = given["run_as"]
    container = step.secrets.get("output_container")
    if container is not None:
        for field, blob in zip(("outputBlobUri", "errorBlobUri"), _blobs(step.name), strict=True):
            properties[field] = Secret(blob_url(container.reveal(), blob))
    body = {"location": target.location, "properties": properties}
    call = _command_call(target, step.name, "begin_create_or_update", kind=Kind.WRITE)
    return replace(call, arguments={**call.arguments, "run_command": body})


def _blobs(name: str) -> tuple[str, str]:
    """Name the blobs of a command's two streams."""
    return f"{name}.stdout", f"{name}.stderr"


def blob_url(container: str, blob: str) -> str:
    """Name a blob in a container by the container's URL, with the SAS that this has."""
    base, question, sas = container.partition("?")
    return f"{base.rstrip('/')}/{blob}{question}{sas}"


def _named(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _command_call(
    target: Target, name: str, method: str, *, kind: Kind, repeatable: bool = False
) -> Call:
    group = SET_V2 if target.uniform else V2
    return Call(
        subscription=target.subscription,
        method=f"{group}.{method}",
        arguments={**target_arguments(target), "run_command_name": name},
        kind=kind,
        policy=(target.resource_id, f"run command {kind.value}"),
        repeatable=repeatable,
        about=(target.index,),
        note={Kind.READ: "reads the output", Kind.DELETE: "removes the command"}.get(kind, "runs"),
    )


def _look(target: Target, name: str) -> Call:
    """Make the call that reads a command with its instance view."""
    method = "get" if target.uniform else "get_by_virtual_machine"
    get = _command_call(target, name, method, kind=Kind.READ, repeatable=True)
    return replace(get, arguments={**get.arguments, "expand": "instanceView"})


def _watched(
    step: Step, target: Target, put: Call, answer: Answer
) -> Procedure[tuple[InstanceOutcome, bool]]:
    """Look at a command until its script has ended; tell of it, and whether it may be removed."""
    get = _look(target, step.name)
    ending = None
    # What a journal keeps of an answer has no body, and may name no place to ask.
    if answer.ok and (poll_url(answer) is not None or answer.body is not None):
        ending = yield from follow(put, answer, reread=get)
    vain = 0
    for looks in itertools.count(1):
        read = yield get
        assert read is not None
        if read.ok:
            vain, last = 0, looks > _most_looks(step, ending)
            told = _judged(step, target, ending, read, last=last)
            if told is not None:
                return told
        elif read.status == 404:
            if answer.ok or looks >= ARRIVALS:
                words = GONE_COMMAND if answer.ok else ""
                # One that has not arrived still may: it is removed all the same.
                return _unknown(step, target, read if answer.ok else answer, words), True
        elif read.code in NO_MANAGED:
            return _unknown(step, target, read, UNREAD), False
        else:
            vain += 1
            passing = read.status is None or read.status >= 500 or read.status in {408, 429}
            if not passing or vain >= VAIN:
                return _unknown(step, target, read, f"{UNREAD}; {_stays(step)}"), False
        yield Pause(seconds=0.0)
    raise AssertionError("unreachable")


def _most_looks(step: Step, ending: Ending | None) -> float:
    """Answer how often to look at a script that goes on: as long as the service lets it run."""
    if ending is not None and not ending.lost:
        return LOOKS
    limit = step.arguments.get("timeout_seconds")
    return float("inf") if limit is None else LOOKS + int(limit) / POLL_SECONDS


def _judged(
    step: Step, target: Target, ending: Ending | None, read: Answer, *, last: bool
) -> tuple[InstanceOutcome, bool] | None:
    """Tell of a script by its view and its operation's end; None while it may go on."""
    view = _view(read.body)
    state = _state(view)
    if state in ENDED:
        return _outcome(step, target, read, view), True
    if ending is not None and not ending.lost and state != "running":
        if not ending.ok:
            told = ending.trouble
            outcome = outcome_of(
                target, step.operation, State.FAILED, ending.answer,
                message=told.message, code=told.code,
            )  # fmt: skip
            return outcome, True
        if state not in GOING_ON:
            return _outcome(step, target, read, view), True
    if not last:
        return None
    words = f"the script is {state or 'in no known state'}; {_stays(step)}"
    return _outcome(step, target, read, view, words), False


def _stays(step: Step) -> str:
    return f"its command {step.name!r} stays on the machine: read it there, and delete it"


def _unknown(step: Step, target: Target, answer: Answer, words: str) -> InstanceOutcome:
    return outcome_of(target, step.operation, State.UNKNOWN, answer, message=words)


def _cut_off(step: Step, target: Target, answer: Answer, reason: str) -> Procedure[InstanceOutcome]:
    """Tell of a script that is stopped: its command is removed next, which ends it."""
    read = None
    with contextlib.suppress(Stopped):
        # Once: there is little time, and the command has to be removed.
        read = yield replace(_look(target, step.name), repeatable=False)
    why = STOPPED.get(reason, reason)
    if read is None or not read.ok:
        return _unknown(step, target, answer, f"{why}: {CUT_OFF}, and its output was not read")
    view = _view(read.body)
    words = "" if _state(view) in ENDED else f"{why}: {CUT_OFF}; this is its output so far"
    return _outcome(step, target, read, view, words)


def _state(view: Mapping[str, Any]) -> str:
    return str(view.get("executionState") or "").lower()


def _view(body: Any) -> Mapping[str, Any]:
    properties = body.get("properties") if isinstance(body, Mapping) else None
    view = properties.get("instanceView") if isinstance(properties, Mapping) else None
    return view if isinstance(view, Mapping) else {}


def _outcome(
    step: Step, target: Target, read: Answer, view: Mapping[str, Any], words: str = ""
) -> InstanceOutcome:
    """Tell of a script by its instance view: the operation's own success says nothing of it."""
    state = _state(view)
    stdout, stderr = str(view.get("output") or ""), str(view.get("error") or "")
    code = view.get("exitCode")
    more: dict[str, Any] = {
        "stdout": stdout,
        "stderr": stderr,
        "truncated": any(len(one.encode()) >= OUTPUT_BYTES for one in (stdout, stderr)),
    }
    if "output_container" in step.secrets:
        more["value"] = dict(zip(BLOBS, _blobs(step.name), strict=True))
    if state in ENDED:
        more["exit_code"] = code if isinstance(code, int) else None
        if state == "succeeded" and not code:
            return outcome_of(target, step.operation, State.OK, read, **more)
        words = f"the script ended with exit code {code}"
        if state != "failed" or code in {None, 0, -1}:
            words = str(view.get("executionMessage") or f"the script's state is {state}")
        return outcome_of(target, step.operation, State.FAILED, read, message=words, **more)
    words = words or f"the script is {state or 'in no known state'}"
    return outcome_of(target, step.operation, State.UNKNOWN, read, message=words, **more)


# --- v1 ----------------------------------------------------------------------------------------


def _by_v1(step: Step, *, wait: bool) -> Procedure[Outcomes]:
    plain = step.arguments.get("parameters") or {}
    given = {
        "command_id": "RunShellScript",
        "script": str(step.arguments["script"]).splitlines(),
        "parameters": plain,
    }
    return (yield from _v1(step, given, wait=wait))


def run_deployed_command(step: Step, *, wait: bool) -> Procedure[Outcomes]:
    """Run a command that the service keeps on one machine (v1: it tells no exit code)."""
    return (yield from _v1(step, step.arguments, wait=wait))


def _v1(step: Step, given: Mapping[str, Any], *, wait: bool) -> Procedure[Outcomes]:
    target = step.targets[0]
    known = operation_of("run_deployed_command")
    body: dict[str, Any] = {"commandId": given["command_id"]}
    if given.get("script"):
        body["script"] = given["script"]
    if given.get("parameters"):
        body["parameters"] = _named(given["parameters"])
    call = Call(
        subscription=target.subscription,
        method=str(known.one if target.uniform else known.vm),
        arguments={**target_arguments(target), "parameters": body},
        kind=Kind.WRITE,
        policy=(target.resource_id, "run command v1"),
        about=(target.index,),
        note="runs",
    )
    answer = yield call
    assert answer is not None
    if is_lost(answer):
        return [outcome_of(target, step.operation, State.UNKNOWN, answer, message=UNREAD)]
    if not answer.ok:
        return [failed(target, step.operation, answer)]
    if not wait:
        return [outcome_of(target, step.operation, State.OK, answer)]
    return [(yield from _v1_end(step, target, call, answer))]


def _v1_end(step: Step, target: Target, call: Call, answer: Answer) -> Procedure[InstanceOutcome]:
    """Wait for v1's operation: its result is all that there is of the output."""
    ending = yield from follow(call, answer)
    if ending.lost:
        return _unknown(step, target, ending.answer, UNREAD)
    if not ending.ok:
        told = ending.trouble
        return outcome_of(
            target, step.operation, State.FAILED, ending.answer,
            message=told.message, code=told.code,
        )  # fmt: skip
    stdout, stderr = _streams(ending.answer.body)
    return outcome_of(
        target, step.operation, State.OK, ending.answer,
        stdout=stdout, stderr=stderr, truncated=True,
    )  # fmt: skip


def _streams(body: Any) -> tuple[str, str]:
    """Read both streams out of v1's one message."""
    properties = body.get("properties") if isinstance(body, Mapping) else None
    found = properties.get("output") if isinstance(properties, Mapping) else body
    value = found.get("value") if isinstance(found, Mapping) else None
    texts = {"": ""}
    for one in value if isinstance(value, list) else ():
        message, code = str(one.get("message") or ""), str(one.get("code") or "").lower()
        if "stdout" in code or "stderr" in code:  # Windows has one for each
            texts["stderr" if "stderr" in code else "stdout"] = message
            continue
        _, _, rest = message.partition("[stdout]\n")
        texts["stdout"], _, texts["stderr"] = rest.partition("\n[stderr]\n")
    return texts.get("stdout", ""), texts.get("stderr", "")


# --- extensions --------------------------------------------------------------------------------


def add_extension(step: Step, *, wait: bool) -> Procedure[Outcomes]:
    """Put an extension on machines: through the set's model where it is Uniform."""
    first = step.targets[0]
    if not first.uniform:
        call = _extension_call(
            step, first, "compute.virtual_machine_extensions.begin_create_or_update",
            {**target_arguments(first), "vm_extension_name": step.arguments["name"]},
            first.location,
        )  # fmt: skip
        return [(yield from change(call, first, operation_of(step.operation), wait=wait))]
    call = _extension_call(
        step, first, "compute.virtual_machine_scale_set_extensions.begin_create_or_update",
        {
            "resource_group_name": first.group,
            "vm_scale_set_name": first.scale_set,
            "vmss_extension_name": step.arguments["name"],
        },
        "",
    )  # fmt: skip
    known = operation_of(step.operation)
    # The model first, whatever is waited for: instances take what it has.
    outcome = yield from change(call, first, known, wait=True)
    if not outcome.ok:
        return [_same(outcome, target) for target in step.targets]
    # Then the instances, each for itself: one that is locked or busy keeps no other from it.
    updating = replace(step, operation="update_instances", arguments={}, secrets={})
    outcomes = yield from batched.many(updating, operation_of("update_instances"), wait=wait)
    return [_told_as(one, step.operation) for one in outcomes]


def _told_as(outcome: InstanceOutcome, operation: str) -> InstanceOutcome:
    made = replace(outcome, operation=operation, error=None)
    return made if made.ok else with_error(made)


def _same(outcome: InstanceOutcome, target: Target) -> InstanceOutcome:
    made = replace(
        outcome,
        index=target.index,
        name=target.name,
        resource_id=target.resource_id,
        instance_id=target.instance_id,
        error=None,
    )
    return made if made.ok else with_error(made)


def _extension_call(
    step: Step, target: Target, method: str, arguments: dict[str, Any], location: str
) -> Call:
    given = step.arguments
    properties: dict[str, Any] = {
        "publisher": given["publisher"],
        "type": given["type"],
        "typeHandlerVersion": given["version"],
        "autoUpgradeMinorVersion": bool(given.get("auto_upgrade_minor", True)),
    }
    if given.get("settings"):
        properties["settings"] = given["settings"]
    if step.secrets.get("protected_settings"):
        properties["protectedSettings"] = step.secrets["protected_settings"]
    body: dict[str, Any] = {"properties": properties}
    if location:
        body["location"] = location
    else:
        body["name"] = given["name"]
    return Call(
        subscription=target.subscription,
        method=method,
        arguments={**arguments, "extension_parameters": body},
        kind=Kind.WRITE,
        policy=(target.resource_id, "extension"),
        about=tuple(one.index for one in step.targets),
        note="adds the extension",
    )
