"""The options of `azpool fleet`, and what a command is given when they have been read.

Commands that share twenty options name only their own: `reading` and `operation` give a function
the parameters that typer shows, and call it with a `Given`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from azpool.cli import _options as options
from azpool.cli import _values as values
from azpool.cli import _words as words
from azpool.cli._exit import Code, NothingMatched, code_of_failures
from azpool.cli._fleet_target import Target, conditions, parse_target, read_ids
from azpool.cli._term import Terminal
from azpool.errors import UsageError

if TYPE_CHECKING:
    from azpool.cli._fleet_run import FleetRun

__all__ = ["Given", "operation", "reading"]

BIG_SCRIPT_BYTES = 1024 * 1024

_WHICH = "Which machines"
_PACE = "Pace"
_ARM = "Azure Resource Manager"

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TARGET]...",
        help="SUBSCRIPTION/GROUP/SCALE_SET, SUBSCRIPTION, or resource ids; - reads ids from "
        "standard input.",
        show_default=False,
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FIELD=VALUE",
        help="Only those of which it is true: power=off,zone=1. Also name, size, provisioning, "
        "kind, location, latest_model, tag.NAME; | parts values of which any will do.",
        rich_help_panel=_WHICH,
    ),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group", "-g", metavar="NAME", help="Of a subscription, this resource group's.",
        rich_help_panel=_WHICH,
    ),
]  # fmt: skip
TagOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", metavar="NAME=VALUE", help="Of a subscription, those that have this tag.",
        rich_help_panel=_WHICH,
    ),
]  # fmt: skip
TimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--timeout", metavar="TIME", help="For all of it: 90, 15m, 2h. Nothing is sent after it.",
        rich_help_panel=_PACE,
    ),
]  # fmt: skip
MaxFailuresOption = Annotated[
    str | None,
    typer.Option(
        "--max-failures", metavar="N|N%", help="Begin nothing new when so many have failed.",
        rich_help_panel=_PACE,
    ),
]  # fmt: skip
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch", metavar="N", help="So many machines under way at once at most.",
        rich_help_panel=_PACE,
    ),
]  # fmt: skip
NoWaitOption = Annotated[
    bool,
    typer.Option(
        "--no-wait", help="End when the service has accepted it.", rich_help_panel=_PACE
    ),
]  # fmt: skip
SerialOption = Annotated[
    bool, typer.Option("--serial", help="Use no pool: all from here.", rich_help_panel=_PACE)
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Send nothing: say what would be sent, and to whom.")
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param", metavar="NAME=VALUE", help="A parameter of it; may be given several times."
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="Its address in other clouds, or a simulator's. Default: AZPOOL_ARM_URL, else the "
        "public cloud's.",
        rich_help_panel=_ARM,
    ),
]
CaFileOption = Annotated[
    str | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Certificates to trust instead of the system's. Default: AZPOOL_ARM_CA_FILE.",
        rich_help_panel=_ARM,
    ),
]
LoginOption = Annotated[
    bool,
    typer.Option(
        "--login",
        help="Sign in as azure-identity finds: az login, a managed identity, the environment. "
        "There is no other way, so it need not be said.",
        rich_help_panel=_ARM,
    ),
]


@dataclass(slots=True, kw_only=True)
class Given:
    """What a command was given; its options read when they are used."""

    ctx: Any
    names: list[str]
    where: list[str] | None = None
    group: str | None = None
    tag: list[str] | None = None
    timeout: float | None = None
    max_failures: int | str | None = None
    batch: int | None = None
    no_wait: bool = False
    serial: bool = False
    dry_run: bool = False
    yes: bool = False
    base_url: str | None = None
    ca_file: str | None = None
    report: str | None = None
    verbose: bool = False
    quiet: bool = False
    progress: options.ProgressMode = options.ProgressMode.AUTO
    json: bool = False
    debug: bool = False

    @property
    def target(self) -> Target:
        names = list(self.names)
        if "-" in names:
            at = names.index("-")
            names[at : at + 1] = read_ids(sys.stdin.read())
            if not names:
                raise NothingMatched("cannot work on what standard input names: it holds no ids")
        return parse_target(names, group=self.group, tags=self.tag, environ=os.environ)

    def fleet(self) -> Any:
        """Read the machines that are meant; blocks.

        Raises:
            NothingMatched: there are none.
        """
        from azpool.cli._report_file import check_report_path

        check_report_path(self.report)
        if not self.debug:
            # What is wrong is said in one message.
            logging.getLogger("azure").setLevel(logging.CRITICAL)
        wanted = conditions(self.where)
        target = self.target
        found = fleets_of(self.ctx).open(target, self._arm())
        if wanted:
            found = chosen(found, wanted)
        self._shown = target.shown
        if not len(found):
            what = "no machine is as --where says" if wanted else "it has no machines"
            raise NothingMatched(f"cannot work on {target.shown!r}: {what}")
        return found

    _shown: str = ""

    def _arm(self) -> dict[str, Any]:
        given = {
            "base_url": self.base_url or os.environ.get("AZPOOL_ARM_URL"),
            "ca_file": self.ca_file or os.environ.get("AZPOOL_ARM_CA_FILE"),
        }
        return {name: value for name, value in given.items() if value} | self._pool()

    def _pool(self) -> dict[str, Any]:
        return {"min_pool_size": 0, "max_pool_size": 0} if self.serial else {}

    # -- doing -----------------------------------------------------------------------------------

    def run(self, operation: str, found: Any, *, detail: str = "", journal: str = "") -> FleetRun:
        """Answer what runs an operation on a fleet and shows it."""
        from azpool.cli._fleet_run import FleetRun, Show
        from azpool.cli._fleet_state import Work

        show = Show(
            json=self.json, quiet=self.quiet, verbose=self.verbose, progress=self.progress,
            report_path=self.report,
        )  # fmt: skip
        work = Work(operation=operation, target=self._shown, detail=detail)
        return FleetRun(Terminal(), work, found, show, journal=journal)

    def do(
        self,
        name: str,
        *,
        loses: str = "",
        detail: str = "",
        outputs: bool = False,
        **arguments: Any,
    ) -> int:
        """Do one of the fleet's operations and answer the exit code."""
        from azpool.cli._fleet_run import new_journal

        found = self.fleet()
        if self.dry_run:
            return self._tell_plan(found, name, arguments)
        if loses and not self.yes and not self._agreed(name, found, loses):
            Terminal().say("nothing was done")
            return Code.DONE
        journal = new_journal()
        word = {"run_deployed_command": "deployed", "run_script": "run"}.get(name, name)
        run = self.run(word, found, detail=detail, journal=journal)
        how = self._how(journal)
        if name == "run_script":
            how["whole_timeout_seconds"] = how.pop("timeout_seconds", None)
        tell = functools.partial(write_outputs, Terminal()) if outputs and not self.json else None
        method = getattr(found, name)
        return run.run(lambda notice: method(**arguments, **how, progress=notice), tell)

    def run_script(self, script: str, **arguments: Any) -> int:
        """Run a script and answer the exit code."""
        return self.do("run_script", outputs=True, script=script, **arguments)

    def resume(self, path: str) -> int:
        """Go on by a journal and answer the exit code."""
        from azpool.cli._report_file import check_report_path

        check_report_path(self.report)
        self._shown = os.path.basename(path).partition(".")[0]
        run = self.run("resume", (), journal=path)
        more = {**self._pool(), "timeout_seconds": self.timeout}
        fleets = fleets_of(self.ctx)
        tell = None if self.json else functools.partial(write_outputs, Terminal())
        return run.run(lambda notice: fleets.resume(path, progress=notice, **more), tell)

    def _how(self, journal: str) -> dict[str, Any]:
        given: dict[str, Any] = {
            "wait": not self.no_wait,
            "timeout_seconds": self.timeout,
            "max_failures": self.max_failures,
            "batch": self.batch,
            "journal": journal or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _tell_plan(self, found: Any, name: str, arguments: dict[str, Any]) -> int:
        import json

        given = {key: value for key, value in arguments.items() if value is not None}
        given.pop("protected_parameters", None)
        plan = found.plan(name, wait=not self.no_wait, batch=self.batch, **given)
        terminal = Terminal()
        if self.json:
            calls = {kind.value: count for kind, count in plan.calls.items()}
            fact = {
                "event": "plan", "operation": name, "instances": [one.name for one in found],
                "calls": calls, "batches": plan.batches, "sending_seconds": plan.sending_seconds,
                "destroys": plan.destroys,
            }  # fmt: skip
            terminal.result(json.dumps(fact))
        else:
            from azpool.cli._fleet_output import name_ranges

            terminal.result(repr(plan))
            names = name_ranges([one.name for one in found])
            terminal.result(f"  {words.printable(names)}")
        terminal.flush()
        return Code.DONE

    def _agreed(self, name: str, found: Any, loses: str) -> bool:
        from azpool.cli._fleet_output import name_ranges

        terminal = Terminal()
        many = words.plural(len(found), "instance")
        if not (terminal.err_is_terminal and terminal.in_is_terminal):
            raise UsageError(
                f"cannot {name} {many} of {self._shown!r}: {loses} would be lost, and there is no "
                "terminal to ask on; give --yes, or --dry-run to see what it would do"
            )
        names = words.printable(words.shorten(name_ranges([one.name for one in found]), 200))
        terminal.say(f"{name}: {names}")
        return terminal.ask(f"{name.capitalize()} {many} of {self._shown}? Lost: {loses}.")


# -- from typer's parameters to `Given` ---------------------------------------------------------


def _reading_parameters(
    ctx: typer.Context,
    names: NamesArgument = None,
    where: WhereOption = None,
    group: GroupOption = None,
    tag: TagOption = None,
    timeout: TimeoutOption = None,
    serial: SerialOption = False,
    base_url: BaseUrlOption = None,
    ca_file: CaFileOption = None,
    login: LoginOption = False,
    report: options.ReportOption = None,
    quiet: options.QuietOption = False,
    progress: options.ProgressOption = options.ProgressMode.AUTO,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None: ...


def _operation_parameters(
    ctx: typer.Context,
    names: NamesArgument = None,
    dry_run: DryRunOption = False,
    yes: options.YesOption = False,
    where: WhereOption = None,
    group: GroupOption = None,
    tag: TagOption = None,
    timeout: TimeoutOption = None,
    max_failures: MaxFailuresOption = None,
    batch: BatchOption = None,
    no_wait: NoWaitOption = False,
    serial: SerialOption = False,
    base_url: BaseUrlOption = None,
    ca_file: CaFileOption = None,
    login: LoginOption = False,
    report: options.ReportOption = None,
    verbose: options.VerboseOption = False,
    quiet: options.QuietOption = False,
    progress: options.ProgressOption = options.ProgressMode.AUTO,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None: ...


def _given(read: dict[str, Any]) -> Given:
    read.pop("login")
    read["names"] = list(read["names"] or ())
    read["timeout"] = seconds("--timeout", read["timeout"])
    if "batch" in read:
        read["batch"] = values.whole_number("--batch", read["batch"], 20)
        read["max_failures"] = failures_allowed(read["max_failures"])
    return Given(**read)


def _sharing(shared: Callable[..., None], command: Callable[..., int]) -> Callable[..., int]:
    """Make a command of typer's: the shared parameters and its own, but for `given`."""
    # evaluated: this module's names mean nothing in another one
    common = inspect.signature(shared, eval_str=True).parameters
    own = dict(inspect.signature(command, eval_str=True).parameters)
    own.pop("given")
    merged = [*list(common.values())[:2], *own.values(), *list(common.values())[2:]]

    @functools.wraps(command)
    def called(**read: Any) -> int:
        mine = {name: read.pop(name) for name in own}
        given = _given(read)
        if not given.names and command.__name__ in {"wait", "map_", "deployed"}:
            raise UsageError(
                f"cannot do {command.__name__.rstrip('_')!r}: nothing was named; see --help"
            )
        return command(given, **mine)

    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in merged]
    called.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]  # read by typer
    called.__annotations__ = {one.name: one.annotation for one in keyword}
    del called.__wrapped__  # else its signature would be the one
    return called


reading = functools.partial(_sharing, _reading_parameters)
operation = functools.partial(_sharing, _operation_parameters)


# -- values -------------------------------------------------------------------------------------

_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def seconds(option: str, text: str | None) -> float | None:
    """Read a time: `90`, `90s`, `15m`, `2h`.

    Raises:
        UsageError: it is none, or nothing.
    """
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip().lower())
    value = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if value <= 0:
        raise UsageError(f"cannot use {option}={text!r}: it is no time; give {option} 15m")
    return value


def failures_allowed(text: str | None) -> int | str | None:
    """Read a number or a share: `5`, `10%`.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,2}(\.[0-9]+)?%|100%", text):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise UsageError(f"cannot use --max-failures={text!r}: give a number, or a share as 10%")


def from_environment(names: Sequence[str] | None) -> dict[str, str]:
    """Read protected parameters, each from the environment variable of its name.

    Raises:
        UsageError: it is not set, or a value was given where others can see it.
    """
    found = {}
    for name in names or ():
        if "=" in name:
            raise UsageError(
                f"cannot use --protected-param with a value: others see arguments; set the "
                f"environment variable {name.partition('=')[0]} and give its name"
            )
        if name not in os.environ:
            raise UsageError(
                f"cannot use --protected-param {name}: no environment variable {name}; set it"
            )
        found[name] = os.environ[name]
    return found


def read_script(place: str, others: Sequence[str]) -> str:
    """Read a script from a file, or standard input where it is `-`.

    Raises:
        UsageError: it can't be read, or holds no text.
    """
    if place == "-":
        if "-" in others:
            raise UsageError("cannot read ids and the script from standard input: give a file")
        return sys.stdin.read()
    try:
        with open(place, "rb") as file:
            data = file.read(BIG_SCRIPT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the script {place!r}: {error.strerror or error}; the last argument is "
            "its file, -c gives it as text"
        ) from None
    if len(data) > BIG_SCRIPT_BYTES:
        raise UsageError(
            f"cannot run the script {place!r}: more than 1 MiB; have it fetch the rest"
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"cannot run the script {place!r}: it is no text in UTF-8") from None


def load_function(place: str) -> Callable[[Any], Any]:
    """Load `FILE.py:FUNCTION`.

    Raises:
        UsageError: there is none.
    """
    import runpy

    path, _, name = place.rpartition(":")
    if not path or not name:
        raise UsageError(f"cannot call {place!r}: name it FILE.py:FUNCTION, as the last argument")
    if not os.path.isfile(path):
        raise UsageError(f"cannot call {place!r}: no file {path!r}")
    # As `__main__`'s name for itself would be: what it defines travels by value.
    function = runpy.run_path(path, run_name="__azpool_map__").get(name)
    if not callable(function):
        raise UsageError(f"cannot call {place!r}: {path!r} defines no function {name!r}")
    found: Callable[[Any], Any] = function
    return found


# -- showing ------------------------------------------------------------------------------------


def instance_facts(one: Any) -> dict[str, Any]:
    """Answer an instance as an event."""
    names = (
        "resource_id", "instance_id", "name", "kind", "power", "provisioning", "zone", "size",
        "location", "latest_model", "unread",
    )  # fmt: skip
    return {
        "event": "instance",
        **{name: getattr(one, name) for name in names},
        "tags": dict(one.tags),
    }


_POWER_STYLES = {"running": "green", "stopped": "yellow", "deallocated": "dim", "unknown": "red"}


def instance_cells(one: Any) -> tuple[str, ...]:
    """Answer an instance as cells of the table."""
    if one.unread:
        return one.name, "unknown", "-", "-", one.unread
    return one.name, str(one.power), one.zone or "-", one.size or "-", one.provisioning or "-"


def count_powers(found: Any) -> str:
    """Say how many are in each power state: `3 running, 2 deallocated`."""
    counts: dict[str, int] = {}
    for one in found:
        counts[str(one.power)] = counts.get(str(one.power), 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{words.count(count)} {power}" for power, count in ordered)


def write_table(terminal: Terminal, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows in columns."""
    shown = [[words.printable(cell) for cell in row] for row in rows]
    widths = [max(words.cells(row[n]) for row in [headings, *shown]) for n in range(len(headings))]
    if terminal.out_is_terminal:
        terminal.result(terminal.paint_out(_line(headings, widths), "dim"))
    for row in shown:
        line = _line(row, widths)
        style = _POWER_STYLES.get(row[1], "")
        if style and terminal.out_color:
            line = line.replace(f" {row[1]}", f" {terminal.paint_out(row[1], style)}", 1)
        terminal.result(line)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell + " " * (width - words.cells(cell)) for cell, width in zip(cells, widths, strict=True)
    )
    return "  ".join(padded).rstrip()


def write_outputs(terminal: Terminal, report: Any) -> None:
    """Write what scripts or functions answered, equal answers together."""
    from azpool.cli._fleet_output import fold, output_lines

    answers = fold(report)
    for one in answers:
        alone = len(answers) == 1 and len(one.names) == len(report)
        for text, style in output_lines(one, alone=alone, safe=terminal.out_is_terminal):
            terminal.result(terminal.paint_out(text, style) if style else text)


def finish_reading(terminal: Terminal, report: Any, given: Given) -> int:
    """Tell what failed of a report of something that was read, and answer the exit code."""
    from azpool.cli._fleet_state import reason_of
    from azpool.cli._report_file import write_report
    from azpool.report import State

    terminal.flush()
    bad = [one for one in report if one.state not in {State.OK, State.SKIPPED}]
    groups: dict[str, list[str]] = {}
    for one in bad:
        groups.setdefault(reason_of(one), []).append(one.name)
    from azpool.cli._fleet_output import name_ranges

    for reason, names in groups.items():
        said = f"{words.count(len(names))} failed: {words.printable(reason)}"
        terminal.say(f"{said} [{words.printable(name_ranges(names))}]", "red")
    if given.report is not None:
        write_report(given.report, report)
    refused = sum(one.status in {401, 403} for one in bad)
    return code_of_failures(len(report) - len(bad), len(bad), refused=refused)


# -- the seam to azpool.fleet -------------------------------------------------------------------


class AzureFleets:
    """The real one: everything of azpool.fleet that the commands use goes through this class."""

    def open(self, target: Target, arm: dict[str, Any]) -> Any:
        """Read a fleet; blocks."""
        from azpool.fleet import Fleet

        if target.scale_set:
            return Fleet.scale_set(target.subscription, target.group, target.scale_set, **arm)
        if target.ids:
            return Fleet.vms(ids=target.ids, **arm)
        chosen_by = {"group": target.group or None, "tags": dict(target.tags) or None}
        return Fleet.vms(target.subscription, **chosen_by, **arm)  # type: ignore[arg-type]  # by name

    def resume(self, path: str, **how: Any) -> Any:
        """Go on by a journal; blocks."""
        from azpool.fleet import resume

        return resume(path, **how)


def fleets_of(ctx: Any) -> Any:
    """Answer what this command works on: the caller's of `main`, else the real one."""
    return ctx.obj if ctx.obj is not None else AzureFleets()


def chosen(found: Any, wanted: dict[str, Any]) -> Any:
    """Choose among instances by `conditions`."""
    own = {name: wanted[name] for name in ("kind", "location", "latest_model") if name in wanted}
    given = {name: value for name, value in wanted.items() if name not in own}

    def fits(one: Any) -> bool:
        return all(_is(getattr(one, name), value) for name, value in own.items())

    if own:
        given["predicate"] = fits
    return found.where(**given)


def _is(has: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool):
        return has is wanted
    several = (wanted,) if isinstance(wanted, str) else wanted
    return str(has).lower() in {one.lower() for one in several}
