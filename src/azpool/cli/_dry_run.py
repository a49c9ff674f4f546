"""`azpool cp --dry-run`: the plan, as lines for people or one JSON object a thing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._exit import Code
from azpool.cli._tally import GROUPS_KEPT, OTHER, Group, cause_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azpool.cli._remote import Plan, PlannedFile
    from azpool.cli._term import Terminal

__all__ = ["tell_plan"]

FILES_SHOWN = 10
REASONS_SHOWN = 10
NAMES_SHOWN = 3


def tell_plan(
    terminal: Terminal, plan: Plan, target: str, *, json_lines: bool, verbose: bool
) -> int:
    """Write what would be done, on standard output, and answer the exit code.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    if json_lines:
        _tell_programs(terminal, plan)
    else:
        _tell_people(terminal, plan, target, verbose=verbose)
    terminal.flush()
    return Code.SOME_FAILED if plan.counts.get("refuse") else Code.DONE


def _tell_programs(terminal: Terminal, plan: Plan) -> None:
    for planned in plan:
        fact: dict[str, Any] = {
            "event": f"would_{planned.action.replace(' ', '_')}",
            "source": planned.source,
            "target": planned.target,
            "size_bytes": planned.size_bytes,
        }
        if planned.reason:
            fact["reason"] = planned.reason
        terminal.result(json.dumps(fact))
    counts = {action.replace(" ", "_"): count for action, count in plan.counts.items()}
    end = {"event": "plan", "counts": counts, "size_bytes": plan.size_bytes}
    terminal.result(json.dumps({**end, "notes": list(plan.notes)}))


def _tell_people(terminal: Terminal, plan: Plan, target: str, *, verbose: bool) -> None:
    verb = plan.title
    count = plan.counts.get(verb, 0)
    size = f" ({words.size(plan.size_bytes)})" if plan.size_bytes else ""
    head = f"would {verb} {words.plural(count, 'file')}{size} to {target}"
    terminal.result(terminal.paint_out(head, "bold"))
    groups: dict[tuple[str, str], Group] = {}
    shown = 0
    for planned in plan:
        if planned.action in {"skip", "refuse"}:
            _add(groups, planned)
        elif verbose or shown < FILES_SHOWN:
            shown += 1
            terminal.result(_line(terminal, planned))
    folders = plan.counts.get("make folder", 0)
    if count + folders > shown:
        terminal.result(f"  and {words.count(count + folders - shown)} more")
    for action, style in (("skip", "yellow"), ("refuse", "red")):
        mine = [group for (of, _), group in groups.items() if of == action]
        for line in _reasons(action, mine):
            terminal.result(terminal.paint_out(line, style))
    for note in plan.notes:
        terminal.result(f"note: {words.printable(note)}")


def _line(terminal: Terminal, planned: PlannedFile) -> str:
    folder = planned.action == "make folder"
    size = "folder" if folder else words.size(planned.size_bytes)
    source, target = _name(terminal, planned.source), _name(terminal, planned.target)
    return f"{size:>10}  {source} -> {target}"


def _name(terminal: Terminal, name: str) -> str:
    return words.printable(name) if terminal.out_is_terminal else name


def _add(groups: dict[tuple[str, str], Group], planned: PlannedFile) -> None:
    reason = cause_of(planned.reason, planned.source)
    if len(groups) >= GROUPS_KEPT and (planned.action, reason) not in groups:
        reason = OTHER
    group = groups.setdefault((planned.action, reason), Group(reason))
    group.count += 1
    if len(group.names) < NAMES_SHOWN:
        group.names.append(planned.source)


def _reasons(action: str, groups: Sequence[Group]) -> list[str]:
    ordered = sorted(groups, key=lambda group: -group.count)
    lines = []
    for group in ordered[:REASONS_SHOWN]:
        names = ", ".join(words.printable(name) for name in group.names)
        more = group.count - len(group.names)
        names += f" and {words.count(more)} more" if more else ""
        lines.append(
            f"would {action} {words.count(group.count)}: {words.printable(group.reason)} [{names}]"
        )
    if len(ordered) > REASONS_SHOWN:
        more_reasons = words.plural(len(ordered) - REASONS_SHOWN, "more reason")
        lines.append(f"would {action} others, for {more_reasons}")
    return lines
