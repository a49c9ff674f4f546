"""`azpool fleet`: one operation on all machines of a cluster, each answered for itself."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from azpool.cli import _fleet_options as how
from azpool.cli import _fleet_tables as tables
from azpool.cli import _fleet_values as read
from azpool.cli import _options as options
from azpool.cli import _values as values
from azpool.cli import _words as words
from azpool.cli._exit import Code
from azpool.cli._fleet_given import Given
from azpool.cli._help import Command, SubGroup, new_app
from azpool.cli._term import Terminal

__all__ = ["app"]

EPILOG = """
azpool fleet status SUBSCRIPTION/workers/crew
azpool fleet start SUBSCRIPTION/workers/crew --where power=off,zone=1
azpool fleet run SUBSCRIPTION/workers/crew -c uptime
azpool fleet stop SUBSCRIPTION --group workers --tag role=worker --dry-run
azpool fleet resume

# AZURE_SUBSCRIPTION_ID spares the subscription: azpool fleet status workers/crew
"""

app = new_app(cls=SubGroup)


@app.callback(epilog=EPILOG, invoke_without_command=True)
def fleet(ctx: typer.Context) -> None:
    """Work with a cluster of virtual machines: one call on all, each answered for itself.

    Machines are named by SUBSCRIPTION/GROUP/SCALE_SET, by SUBSCRIPTION with --group and --tag, or
    by their resource ids; - reads ids from standard input. One that fails does not stop the others.
    """
    if ctx.invoked_subcommand is None:
        Terminal().result(ctx.get_help())


def _declared(sharing: Callable[..., Any], example: str, **more: Any) -> Callable[..., Any]:
    """Make a function a command: its name is the example's first word."""
    name = example.partition(" ")[0]
    register = app.command(name, cls=Command, epilog=f"azpool fleet {example}")
    return lambda function: register(sharing(function, **more))


_reads = functools.partial(_declared, how.reading)
_changes = functools.partial(_declared, how.operation)
_AT_ONCE = frozenset({"timeout", "progress"})  # what one list answers


# -- what only reads ----------------------------------------------------------------------------


@_reads("status workers/crew --where zone=1", without=_AT_ONCE | {"report"})
def status(given: Given) -> int:
    """Show the machines: power, provisioning, zone, size."""
    found = given.fleet()
    terminal = Terminal()
    if given.json:
        for one in found:
            terminal.result(json.dumps(tables.instance_facts(one)))
    else:
        rows = [tables.instance_cells(one) for one in found]
        tables.write_table(terminal, ("instance", "power", "zone", "size", "provisioning"), rows)
        terminal.flush()  # before what is said of it, where both go to one file
        if not given.quiet:
            terminal.say(
                f"{words.plural(len(found), 'instance')}: {tables.count_powers(found)}", "dim"
            )
    terminal.flush()
    return Code.SOME_FAILED if any(one.unread for one in found) else Code.DONE


@_reads("ips workers/crew --json", without=_AT_ONCE)
def ips(given: Given) -> int:
    """Show the addresses of the machines, private and public."""
    report = given.fleet().ips()
    terminal = Terminal()
    rows = []
    for outcome in report:
        value = outcome.value or {}
        if given.json:
            terminal.result(json.dumps({"event": "instance", **outcome.to_dict()}))
        row = [", ".join(value.get(kind, ())) or "-" for kind in ("private", "public", "fqdns")]
        rows.append((outcome.name, *row))
    if not given.json:
        tables.write_table(terminal, ("instance", "private", "public", "names"), rows)
    return tables.finish_reading(terminal, report, given.report)


@_reads(
    "map workers/crew checks.py:is_healthy",
    last="FILE.py:FUNCTION",
    without=frozenset({"progress"}),
)
def map_(given: Given) -> int:
    """Call a Python function, FILE.py:FUNCTION, with every instance, on the nodes of the pool.

    The last argument names it. What it answers is shown, equal answers together.
    """
    *given.names, place = given.names
    function = read.load_function(place)
    report = given.fleet().map(function, timeout_seconds=given.timeout)
    terminal = Terminal()
    if given.json:
        for outcome in report:
            row = outcome.to_dict()
            terminal.result(json.dumps({"event": "instance", **row}, default=repr))
    else:
        tables.write_outputs(terminal, report)
    return tables.finish_reading(terminal, report, given.report)


@_reads("wait workers/crew power=running", last="CONDITION")
def wait(given: Given) -> int:
    """Wait until all machines are as the last argument says: power=running.

    One list of all is read every five seconds.
    """
    from azpool.cli._fleet_target import conditions
    from azpool.cli._fleet_wait import wait_for

    *given.names, condition = given.names
    wanted = conditions([condition], "wait ")
    found = given.fleet()
    run = given.run("wait", found, detail=condition)
    return run.run(lambda notice: wait_for(found, wanted, given.timeout, notice))


# -- what changes machines ----------------------------------------------------------------------


@_changes("start workers/crew --where power=off")
def start(given: Given) -> int:
    """Start the machines."""
    return given.do("start")


@_changes("stop workers/crew --no-deallocate")
def stop(
    given: Given,
    no_deallocate: Annotated[
        bool,
        typer.Option("--no-deallocate", help="Keep them where they are: stopped, and paid for."),
    ] = False,
) -> int:
    """Stop the machines and give them back, so that they are not paid for."""
    return given.do("stop", deallocate=not no_deallocate)


@_changes("restart workers/crew --batch 20")
def restart(given: Given) -> int:
    """Restart the machines."""
    return given.do("restart")


@_changes("redeploy workers/crew --yes")
def redeploy(given: Given) -> int:
    """Move the machines to other hosts; what is on temporary disks is lost, so it asks."""
    return given.do("redeploy", loses="what is on their temporary disks")


@_changes("reimage workers/crew --yes")
def reimage(
    given: Given,
    data_disks: Annotated[
        bool, typer.Option("--data-disks", help="The data disks too (Uniform scale sets).")
    ] = False,
) -> int:
    """Give the machines their image again; what is on system disks is lost, so it asks."""
    disks = "all their disks" if data_disks else "their system disks"
    return given.do("reimage", loses=f"what is on {disks}", data_disks=data_disks)


@_changes("resize workers/crew --size Standard_D4s_v5")
def resize(
    given: Given,
    size: Annotated[
        str, typer.Option("--size", metavar="SIZE", help="As Standard_D4s_v5.", show_default=False)
    ],
    deallocate: Annotated[
        bool, typer.Option("--deallocate", help="Stop them first and start them again.")
    ] = False,
) -> int:
    """Give virtual machines another size; running ones are restarted."""
    return given.do("resize", detail=size, size=size, deallocate=deallocate)


@_changes("delete workers/crew --where zone=3")
def delete(given: Given) -> int:
    """Delete the machines. This can't be undone, so it asks."""
    return given.do("delete", loses="the machines themselves")


@_changes("run workers/crew set-up.sh --param kind=gpu", last="[SCRIPT]")
def run(
    given: Given,
    command: Annotated[
        str | None,
        typer.Option("--command", "-c", metavar="TEXT", help="The script itself: -c uptime."),
    ] = None,
    param: how.ParamOption = None,
    protected_param: Annotated[
        list[str] | None,
        typer.Option(
            "--protected-param",
            metavar="NAME",
            help="A parameter that no log may hold: its value is that of the environment variable "
            "NAME. May be given several times.",
        ),
    ] = None,
    script_timeout: Annotated[
        str | None,
        typer.Option("--script-timeout", metavar="TIME", help="For the script on each machine."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Who it runs as. Default: root.")
    ] = None,
    output_container: Annotated[
        str | None,
        typer.Option(
            "--output-container",
            metavar="URL",
            help="Keep all that it writes in this container, and show all of it; else it is the "
            "last 4 KB. The machines write by the SAS of AZURE_STORAGE_SAS_TOKEN.",
        ),
    ] = None,
) -> int:
    """Run a script on the machines and show what it wrote, equal outputs together.

    The last argument is the script's file, or - for standard input; -c gives it as text.
    """
    from azpool.cli._fleet_container import OutputContainer

    script = command
    if script is None:
        *given.names, place = given.names
        script = read.read_script(place, given.names)
    limit = read.seconds("--script-timeout", script_timeout)
    kept = OutputContainer(output_container).arguments() if output_container is not None else {}
    return given.run_script(
        script,
        parameters=values.pairs("--param", param) or None,
        protected_parameters=read.from_environment(protected_param) or None,
        timeout_seconds=None if limit is None else int(limit),
        run_as=user,
        **kept,
    )


@_changes("deployed workers/crew ifconfig", last="COMMAND")
def deployed(given: Given, param: how.ParamOption = None) -> int:
    """Run a command that the service keeps, named by the last argument: ifconfig, IPConfig."""
    *given.names, command_id = given.names
    return given.do(
        "run_deployed_command",
        outputs=True,
        detail=command_id,
        command_id=command_id,
        parameters=values.pairs("--param", param) or None,
    )


@app.command("resume", cls=Command, epilog="azpool fleet resume 3f2a")
def resume(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="As the last line said. Default: the newest.", show_default=False
        ),
    ] = None,
    timeout: how.TimeoutOption = None,
    serial: how.SerialOption = False,
    report: how.ReportOption = None,
    verbose: how.VerboseOption = False,
    quiet: options.QuietOption = False,
    progress: options.ProgressOption = options.ProgressMode.AUTO,
    json_: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> int:
    """Go on with an operation that was cut short.

    What is under way is asked for, what was never sent is sent. What may have been sent is judged
    by the machine's state, and never sent again.
    """
    from azpool.fleet._journals import find_journal

    path = find_journal(name)
    given = Given(
        ctx=ctx, names=[], timeout=read.seconds("--timeout", timeout), serial=serial, report=report,
        verbose=verbose, quiet=quiet, progress=progress, json=json_, debug=debug,
    )  # fmt: skip
    return given.resume(path)
