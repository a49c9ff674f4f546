"""What the methods of `Fleet` come to: plans that are run, lists that are told, functions mapped.

Fleet.start() -> do(link, instances, "start", ...) -> make_plan -> run.run -> FleetReport
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from azpool.errors import FleetError, UsageError
from azpool.fleet import _lookups, _sources, run
from azpool.fleet._bodies import body_bytes
from azpool.fleet._journals import new_journal
from azpool.fleet.outcome import FleetReport, InstanceOutcome
from azpool.fleet.plan import Plan, make_plan
from azpool.fleet.scripts import BLOBS, MOST_BODY_BYTES, blob_url, script_call
from azpool.fleet.target import Target
from azpool.report import Report, State

if TYPE_CHECKING:
    from azpool.fleet._link import Link
    from azpool.fleet._options import OperationOptions
    from azpool.fleet.instance import Instance

__all__ = ["do", "ips", "mapped", "plan", "status", "target_of", "with_outputs"]

READERS = 8
EMPTY = "no instance was selected: nothing was sent"


def target_of(index: int, one: Instance) -> Target:
    """Say of an instance what calls have to know."""
    return Target(
        index=index,
        resource_id=one.resource_id,
        name=one.name,
        instance_id=one.instance_id,
        subscription=one.subscription,
        group=one.group,
        scale_set=one.scale_set,
        kind=one.kind,
        location=one.location,
    )


def plan(
    instances: Sequence[Instance],
    operation: str,
    arguments: Mapping[str, Any],
    options: OperationOptions,
    secrets: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan an operation; see `plan.make_plan`.

    Raises:
        UsageError: as of `make_plan`; or a script is too long for the service.
    """
    made = make_plan(
        operation,
        [target_of(index, one) for index, one in enumerate(instances)],
        arguments=arguments,
        secrets=secrets,
        wait=options.wait,
        batch=options.batch,
    )
    if made.operation == "run_script":
        _refuse_too_long(made)
    return made


def _refuse_too_long(made: Plan) -> None:
    """Refuse a script that Azure Resource Manager would refuse, by the body that would be sent."""
    # They differ in their machines' regions alone.
    step = max(made.steps, key=lambda one: len(one.targets[0].location))
    body = script_call(step, step.targets[0]).arguments["run_command"]
    size = len(body_bytes(body))
    if size > MOST_BODY_BYTES:
        raise UsageError(
            f"cannot run a script of {len(step.arguments['script']):,} characters: with its"
            f" parameters its request has {size:,} bytes, and Azure Resource Manager takes"
            f" {MOST_BODY_BYTES:,}; let the script download what is long"
        )


def do(
    link: Link,
    instances: Sequence[Instance],
    operation: str,
    arguments: Mapping[str, Any],
    options: OperationOptions,
    secrets: Mapping[str, Any] | None = None,
) -> FleetReport:
    """Plan an operation and run it."""
    if not instances:
        return FleetReport(title=operation, notes=[EMPTY])
    made = plan(instances, operation, arguments, options, secrets)
    journal = new_journal() if options.journal is True else options.journal or None
    link = link.using(**options.pool_changes)
    with link.nodes(sum(made.calls.values())) as nodes:
        return run.run(
            made,
            performer=link.performer,
            pool=nodes,
            timeout_seconds=options.timeout_seconds,
            max_failures=options.max_failures,
            progress=options.progress,
            journal=journal,
            client=link.recipe.to_dict(),
            budget=link.budget,
        )


def with_outputs(report: FleetReport, container: str, read: Callable[[str], bytes]) -> FleetReport:
    """Put the whole outputs of scripts in the place of what the service kept of them.

    What can't be read keeps its end, as the service gave it, and the report says so.
    """

    def whole(outcome: InstanceOutcome) -> tuple[InstanceOutcome, str]:
        blobs = outcome.value if isinstance(outcome.value, dict) else {}
        if outcome.exit_code is None or not all(name in blobs for name in BLOBS):
            return outcome, ""
        try:
            stdout, stderr = (
                read(blob_url(container, blobs[name])).decode("utf-8", "replace") for name in BLOBS
            )
        except Exception as error:
            return outcome, f"the output of {outcome.name} was not read: {type(error).__name__}"
        return replace(outcome, stdout=stdout, stderr=stderr, truncated=False), ""

    with ThreadPoolExecutor(READERS, "azpool-outputs") as threads:
        found = list(threads.map(whole, report))
    return FleetReport(
        [outcome for outcome, _ in found],
        title=report.title,
        seconds=report.seconds,
        notes=[*report.notes, *(note for _, note in found if note)],
        again=report._again,
        journal=report.journal,
    )


def status(link: Link, instances: Sequence[Instance]) -> FleetReport:
    """Read the states of instances."""
    began = time.monotonic()
    read = _sources.read_again(link, instances)
    seconds = time.monotonic() - began
    outcomes = [
        _outcome(index, one, "status", seconds, one.unread)
        if one.unread
        else _outcome(index, one, "status", seconds, value=_state(one))
        for index, one in enumerate(read)
    ]
    counts = Counter(one.power.value for one in read if not one.unread)
    powers = ", ".join(f"{count:,} {power}" for power, count in counts.most_common())
    return _report(
        "status", outcomes, seconds, [powers] if powers else [EMPTY] if not instances else [],
        functools.partial(_again, status, link, instances),
    )  # fmt: skip


def _state(one: Instance) -> dict[str, Any]:
    return {
        "power": one.power.value,
        "provisioning": one.provisioning,
        "zone": one.zone,
        "size": one.size,
        "latest_model": one.latest_model,
    }


def ips(link: Link, instances: Sequence[Instance]) -> FleetReport:
    """Read the addresses of instances."""
    began = time.monotonic()
    found = _lookups.addresses(link, instances)
    seconds = time.monotonic() - began
    outcomes = []
    for index, (one, addresses) in enumerate(zip(instances, found, strict=True)):
        if one.unread:
            outcomes.append(_outcome(index, one, "ips", seconds, one.unread))
        elif addresses.refused is not None:
            outcomes.append(_refused(index, one, "ips", seconds, addresses))
        else:
            value = {
                "private": list(addresses.private),
                "public": list(addresses.public),
                "fqdns": list(addresses.fqdns),
            }
            outcomes.append(_outcome(index, one, "ips", seconds, value=value))
    notes = [] if instances else [EMPTY]
    again = functools.partial(_again, ips, link, instances)
    return _report("ips", outcomes, seconds, notes, again)


def _refused(
    index: int, one: Instance, operation: str, seconds: float, addresses: _lookups.Addresses
) -> InstanceOutcome:
    answer = addresses.refused
    assert answer is not None
    throttled = answer.status == 429
    return InstanceOutcome(
        index=index,
        name=one.name,
        state=State.THROTTLED if throttled else State.FAILED,
        error=_error(one, operation, answer.message or "no answer", answer.status, answer.code),
        seconds=seconds,
        resource_id=one.resource_id,
        instance_id=one.instance_id,
        operation=operation,
        status=answer.status,
        code=answer.code,
        message=answer.message,
        request_id=answer.request_id,
        correlation_id=answer.correlation_id,
    )


def _outcome(
    index: int, one: Instance, operation: str, seconds: float, unread: str = "", value: Any = None
) -> InstanceOutcome:
    return InstanceOutcome(
        index=index,
        name=one.name,
        state=State.UNKNOWN if unread else State.OK,
        error=_error(one, operation, unread) if unread else None,
        seconds=seconds,
        resource_id=one.resource_id,
        instance_id=one.instance_id,
        operation=operation,
        message=unread,
        value=value,
    )


def _error(
    one: Instance, operation: str, words: str, status: int | None = None, code: str | None = None
) -> FleetError:
    return FleetError(
        f"cannot tell the {operation} of {one.name!r}: {words}",
        status=status,
        code=code,
        resource_id=one.resource_id,
    )


def mapped(
    link: Link,
    instances: Sequence[Instance],
    f: Callable[[Instance], Any],
    timeout_seconds: float | None,
) -> FleetReport:
    """Call a function with every instance on the nodes."""
    began = time.monotonic()
    outcomes: list[InstanceOutcome] = []
    # What a user does with a machine is a call's worth, and blocks its node.
    with link.pool(len(instances) * MAP_CALLS) as pool:
        values = pool.map(
            functools.partial(_timed, f),
            instances,
            return_exceptions=True,
            deadline_seconds=timeout_seconds,
        )
        for index, (one, value) in enumerate(zip(instances, values, strict=True)):
            error = value if isinstance(value, BaseException) else None
            took, result = (0.0, None) if isinstance(value, BaseException) else value
            outcomes.append(
                InstanceOutcome(
                    index=index,
                    name=one.name,
                    state=State.OK if error is None else State.FAILED,
                    error=error,
                    message="" if error is None else str(error),
                    seconds=took,
                    resource_id=one.resource_id,
                    instance_id=one.instance_id,
                    operation="map",
                    value=result,
                )
            )
    notes = [] if instances else [EMPTY]
    again = functools.partial(
        _again, lambda link, some: mapped(link, some, f, timeout_seconds), link, instances
    )
    return _report("map", outcomes, time.monotonic() - began, notes, again)


MAP_CALLS = 8


def _timed(f: Callable[[Instance], Any], one: Instance) -> tuple[float, Any]:
    began = time.monotonic()
    value = f(one)
    return time.monotonic() - began, value


def _again(
    what: Callable[[Link, Sequence[Instance]], FleetReport],
    link: Link,
    instances: Sequence[Instance],
    outcomes: Sequence[InstanceOutcome],
) -> Report[InstanceOutcome]:
    return what(link, [instances[outcome.index] for outcome in outcomes])


def _report(
    title: str,
    outcomes: Iterable[InstanceOutcome],
    seconds: float,
    notes: Iterable[str],
    again: Callable[[Sequence[InstanceOutcome]], Report[InstanceOutcome]],
) -> FleetReport:
    return FleetReport(outcomes, title=title, seconds=seconds, notes=notes, again=again)
