"""`azpool jobs`: the transfers that were cut short or had failures, and how to go on with them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from azpool.cli import _how as how
from azpool.cli import _options as options
from azpool.cli import _words as words
from azpool.cli._exit import Code, NothingMatched, code_of_error
from azpool.cli._help import Command, SubGroup, new_app
from azpool.cli._jobs_table import details, job_facts, job_words, table
from azpool.cli._remote import storage_of
from azpool.cli._report_file import check_report_path
from azpool.cli._run import Run, choose_view
from azpool.cli._state import Job, TransferState
from azpool.cli._tally import Tally
from azpool.cli._term import Terminal
from azpool.errors import AzpoolError, UsageError

if TYPE_CHECKING:
    from azpool.cli._remote import JobInfo, Jobs
    from azpool.report import Report
    from azpool.storage.outcome import ProgressCallable

__all__ = ["app"]

EPILOG = """
azpool jobs                    # what is there
azpool jobs show 3f2a          # a beginning of the id will do
azpool jobs resume             # go on with the newest
azpool jobs resume --check 3f2a
azpool jobs rm --done

# Credentials are in no journal: resume signs in again, by the environment or by options.
"""

FEW_FILES = 4  # below, the engine may do without a pool

app = new_app(cls=SubGroup)

IdArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]",
        help="The job, or a beginning of its id. Default: the newest.",
        show_default=False,
    ),
]


@app.callback(epilog=EPILOG, invoke_without_command=True)
def jobs(ctx: typer.Context) -> None:
    """List, show, resume and remove transfers that are not done.

    A transfer is a job from its first moment until all of it is done. What was cut short, by
    Ctrl-C, a crash or the end of the machine, and what had failures stays, and can be resumed.
    """
    if ctx.invoked_subcommand is None:
        _list(storage_of(ctx).jobs(), json_lines=False)


@app.command("list", cls=Command, epilog="azpool jobs list --json | jq .id")
def list_(
    ctx: typer.Context,
    json_: options.JsonOption = False,
    debug: options.DebugOption = False,  # noqa: ARG001 - read from the arguments by `main`
) -> None:
    """List the jobs that are not done, the newest last."""
    _list(storage_of(ctx).jobs(), json_lines=json_)


def _list(store: Jobs, *, json_lines: bool) -> None:
    terminal = Terminal()
    found = store.all()
    if json_lines:
        for info in found:
            terminal.result(json.dumps(job_facts(info)))
    elif found:
        for line in table(found, terminal):
            terminal.result(line)
    else:
        terminal.say("no jobs: all transfers are done")
    terminal.flush()


@app.command("show", cls=Command, epilog="azpool jobs show 3f2a")
def show(
    ctx: typer.Context,
    job_id: IdArgument = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Name each file that failed.", rich_help_panel="Output"
        ),
    ] = False,
    json_: options.JsonOption = False,
    debug: options.DebugOption = False,  # noqa: ARG001 - read from the arguments by `main`
) -> None:
    """Show one job: what it does, how far it is, and its failures by reason."""
    store = storage_of(ctx).jobs()
    terminal = Terminal()
    info = _found(store, job_id)
    report = None if info.problem else store.report(info.id)
    tally = Tally()
    if report is not None:
        for outcome in report.failed:
            tally.add(outcome.name, outcome.error)
    if json_:
        reasons = [
            {"count": group.count, "reason": group.reason, "names": group.names}
            for group in tally.groups()
        ]
        terminal.result(json.dumps({**job_facts(info), "reasons": reasons}))
    else:
        for line in details(info, tally, terminal):
            terminal.result(line)
    if verbose and report is not None:
        for outcome in report.failed:
            if json_:
                terminal.result(json.dumps({"event": "file", **outcome.to_dict()}))
            else:
                said = words.printable(str(outcome.error))
                terminal.result(f"  {said}")
    terminal.flush()


@app.command("resume", cls=Command, epilog="azpool jobs resume --check 3f2a")
def resume(
    ctx: typer.Context,
    job_id: IdArgument = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="First look whether what is done is still there; move what is not."
        ),
    ] = False,
    nodes: how.NodesOption = None,
    report: options.ReportOption = None,
    verbose: options.VerboseOption = False,
    quiet: options.QuietOption = False,
    progress: options.ProgressOption = options.ProgressMode.AUTO,
    json_: options.JsonOption = False,
    debug: options.DebugOption = False,  # noqa: ARG001 - read from the arguments by `main`
    account: options.AccountOption = None,
    endpoint: options.EndpointOption = None,
    login: options.LoginOption = False,
    anonymous: options.AnonymousOption = False,
    connection_string: options.ConnectionStringOption = None,
    key: options.KeyOption = None,
    sas: options.SasOption = None,
) -> int:
    """Go on with a job until all of it is done.

    What is done is not moved again, down to the parts of big files; what failed is tried again.
    Options like --overwrite are those that the job began with; credentials come from the
    environment or the options, as for azpool cp.
    """
    auth = options.Auth(
        account=account,
        endpoint=endpoint,
        connection_string=connection_string,
        key=key,
        sas=sas,
        anonymous=anonymous,
        login=login,
    )
    size = how.pool_size(nodes)
    check_report_path(report)
    storage = storage_of(ctx)
    store = storage.jobs()
    terminal = Terminal()
    info = _found(store, job_id, states=("interrupted", "failed"))
    _, target = job_words(info)
    state = TransferState(
        job=Job(verb=info.direction or "resume", target=target, nodes=size or 0),
        began=time.monotonic(),
        journal=info.id,
    )
    view = choose_view(terminal, state, json=json_, quiet=quiet, progress=progress, verbose=verbose)
    left = info.files_total - info.files_done + info.files_failed
    pool = storage.pool(size, wanted=left > FEW_FILES)

    def work(notice: ProgressCallable) -> Report[Any]:
        return store.resume(info.id, auth, check=check, pool=pool, progress=notice)

    def so_far() -> Report[Any]:
        return store.report(info.id)

    run = Run(terminal, view, state, lambda _: True, report_path=report, so_far=so_far)
    return run.run(work)


@app.command("rm", cls=Command, epilog="azpool jobs rm 3f2a 91bc\nazpool jobs rm --all --yes")
def rm(
    ctx: typer.Context,
    job_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Jobs, or beginnings of ids.", show_default=False),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All that no process works on; asks on a terminal.")
    ] = False,
    done: Annotated[
        bool,
        typer.Option("--done", help="Those that came to their end, and had failures."),
    ] = False,
    yes: options.YesOption = False,
    quiet: options.QuietOption = False,
    json_: options.JsonOption = False,
    debug: options.DebugOption = False,  # noqa: ARG001 - read from the arguments by `main`
) -> int:
    """Forget jobs: their journals go, and unfinished downloads with them; what is done stays."""
    if bool(job_ids) + all_ + done != 1:
        raise UsageError(
            "cannot remove jobs: give their ids, or --done, or --all; see azpool jobs list"
        )
    store = storage_of(ctx).jobs()
    terminal = Terminal()
    if job_ids:
        chosen = list(dict.fromkeys(store.find(job_id).id for job_id in job_ids))
    else:
        states = {"failed"} if done else {"failed", "interrupted", "unreadable"}
        chosen = [info.id for info in store.all() if info.state.value in states]
    if all_ and chosen and not yes and not _agreed(terminal, len(chosen)):
        terminal.say("nothing was removed")
        return Code.DONE
    return _remove(terminal, store, chosen, quiet=quiet, json_lines=json_)


def _remove(
    terminal: Terminal, store: Jobs, chosen: list[str], *, quiet: bool, json_lines: bool
) -> int:
    """Remove each; one that fails doesn't keep the others from it."""
    errors: list[AzpoolError] = []
    for job_id in chosen:
        event = "removed"
        try:
            store.remove(job_id)
        except AzpoolError as error:
            errors.append(error)
            event = "failed"
            terminal.error(str(error))
        if json_lines:
            terminal.result(json.dumps({"event": event, "job": job_id}))
        elif event == "removed" and not quiet:
            terminal.say(f"removed {job_id}")
    if not chosen and not quiet and not json_lines:
        terminal.say("nothing to remove")
    terminal.flush()
    if not errors:
        return Code.DONE
    return code_of_error(errors[0]) if len(errors) == len(chosen) == 1 else Code.SOME_FAILED


def _agreed(terminal: Terminal, count: int) -> bool:
    if not (terminal.err_is_terminal and terminal.in_is_terminal):
        raise UsageError(
            f"cannot remove {words.plural(count, 'job')}: there is no terminal to ask on; "
            "give --yes"
        )
    return terminal.ask(f"Remove {words.plural(count, 'job')}?")


def _found(store: Jobs, job_id: str | None, states: tuple[str, ...] = ()) -> JobInfo:
    """Answer the job that is meant; without an id the newest in one of these states, or in any."""
    if job_id is not None:
        return store.find(job_id)
    for info in reversed(store.all()):
        if not states or info.state.value in states:
            return info
    raise NothingMatched("cannot find a job: none is there; all transfers are done, or running")
