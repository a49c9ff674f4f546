"""What became of each instance: `InstanceOutcome`, and the `FleetReport` of all of them.

An instance is never silently absent: one that vanished meanwhile is `unknown`, in words.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from azpool.errors import FleetError
from azpool.report import Outcome, Report

__all__ = ["FleetReport", "InstanceOutcome", "outcome_error"]

OUTPUTS_SHOWN = 20
LINE_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceOutcome(Outcome):
    """What became of one instance; `index` is its place in the fleet, `name` the machine's.

    Attributes:
        resource_id: its id in Azure Resource Manager.
        instance_id: what its scale set calls it; of other machines their name.
        operation: what was done: `start`, `run_script`, ...
        status: HTTP status of the answer that decided, or None where none came.
        code: the service's own code of an error, or None.
        message: the service's own words, or why nothing is known.
        request_id: the service's `x-ms-request-id` of the answer that decided, or None.
        correlation_id: its `x-ms-correlation-request-id`, or None.
        budget_seconds: how long its calls waited for budget, Retry-After included.
        exit_code: of its script; None where none ran, or where the service doesn't tell.
        stdout: what the script wrote, as far as it is known.
        stderr: what it wrote to standard error.
        truncated: whether `stdout` or `stderr` may be less than what was written.
        value: what the operation answered with, plain; None for most.
    """

    resource_id: str = ""
    instance_id: str = ""
    operation: str = ""
    status: int | None = None
    code: str | None = None
    message: str = ""
    request_id: str | None = None
    correlation_id: str | None = None
    budget_seconds: float = 0.0
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    value: Any = None

    def _names(self) -> set[str]:
        # Not `super()`: a dataclass with slots is another class than the one of this body.
        return Outcome._names(self) | {
            name for name in (self.resource_id, self.instance_id) if name
        }


def outcome_error(outcome: InstanceOutcome, words: str) -> FleetError:
    """Make the error of an outcome: `cannot start 'web_3': <words> (409 Conflict)`."""
    facts = " ".join(str(fact) for fact in (outcome.status, outcome.code) if fact is not None)
    verb = outcome.operation.replace("_", " ") or "change"
    return FleetError(
        f"cannot {verb} {outcome.name!r}: {words}{f' ({facts})' if facts else ''}",
        status=outcome.status,
        code=outcome.code,
        resource_id=outcome.resource_id,
        request_id=outcome.request_id,
        correlation_id=outcome.correlation_id,
    )


class FleetReport(Report[InstanceOutcome]):
    """One outcome for each instance, in the fleet's order.

    `retry()` does the operation again on those that did not end well, `unknown` ones included: look
    at these first where repeating it would harm. Where scripts ran on few instances the table shows
    each one's exit code and last line.

    Args:
        journal: the file that `azpool.fleet.resume` goes on with, or "".
        others: as of `Report`.
    """

    def __init__(
        self,
        outcomes: Iterable[InstanceOutcome] = (),
        *,
        title: str = "",
        seconds: float = 0.0,
        notes: Iterable[str] = (),
        again: Callable[[Sequence[InstanceOutcome]], Report[InstanceOutcome]] | None = None,
        journal: str = "",
    ) -> None:
        super().__init__(outcomes, title=title, seconds=seconds, notes=notes, again=again)
        self.journal = journal

    def by_instance(self) -> dict[str, InstanceOutcome]:
        """Answer the outcomes by the instances' resource ids."""
        return {outcome.resource_id: outcome for outcome in self}

    def _outputs(self) -> list[tuple[str, str, str]]:
        """Name, exit code and last line of each instance that ran a script, where they are few."""
        if len(self) > OUTPUTS_SHOWN:
            return []
        rows = []
        for outcome in self:
            if outcome.exit_code is None and not (outcome.stdout or outcome.stderr):
                continue
            lines = (outcome.stdout.strip() or outcome.stderr.strip()).splitlines()
            line = lines[-1] if lines else ""
            line = line if len(line) <= LINE_SHOWN else line[: LINE_SHOWN - 1] + "…"
            code = "?" if outcome.exit_code is None else str(outcome.exit_code)
            rows.append((outcome.name, code, line))
        return rows

    def __repr__(self) -> str:
        # A terminal obeys control characters of a machine's output.
        lines = [
            f"  {name}  exit {code}  {repr(line)[1:-1]}" for name, code, line in self._outputs()
        ]
        return "\n".join([super().__repr__(), *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(code)}</td>"
            f"<td><code>{html.escape(line)}</code></td></tr>"
            for name, code, line in self._outputs()
        )
        table = super()._repr_html_()
        return f"{table}<table><tbody>{rows}</tbody></table>" if rows else table
