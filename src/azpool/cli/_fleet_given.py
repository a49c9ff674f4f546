"""What a command of `azpool fleet` was given: its machines, its pool and sign-in, and doing it.

    typer -> _fleet_options (declared) -> Given -> _fleet_remote (the fleet) -> _fleet_run (shown)

Options that name things outside, ids on standard input or the environment, are read when used.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._exit import Code, NothingMatched
from azpool.cli._fleet_remote import chosen, fleets_of
from azpool.cli._fleet_tables import write_outputs
from azpool.cli._fleet_target import Target, conditions, parse_target, read_ids
from azpool.cli._options import ProgressMode
from azpool.cli._term import Terminal
from azpool.errors import LocalFileError, UsageError

if TYPE_CHECKING:
    from azpool.cli._fleet_run import FleetRun

__all__ = ["Given"]


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
    progress: ProgressMode = ProgressMode.AUTO
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
        from azpool.fleet._journals import new_journal

        found = self.fleet()
        if self.dry_run:
            return self._tell_plan(found, name, arguments)
        if loses and not self.yes and not self._agreed(name, found, loses):
            Terminal().say("nothing was done")
            return Code.DONE
        journal = ""
        with contextlib.suppress(LocalFileError):  # then it can't be resumed, but it can be done
            journal = new_journal()
        word = {"run_deployed_command": "deployed", "run_script": "run"}.get(name, name)
        run = self.run(word, found, detail=detail, journal=journal)
        run.whole_later = arguments.get("output_container") is not None
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
        for unplanned in ("protected_parameters", "output_container", "read_output"):
            given.pop(unplanned, None)
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
