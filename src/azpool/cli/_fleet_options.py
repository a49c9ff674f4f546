"""The options of `azpool fleet`, and what a command is given when they have been read.

Commands that share twenty options name only their own: `reading` and `operation` give a function
the parameters that typer shows, and call it with a `Given`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import typer

from azpool.cli import _options as options
from azpool.cli import _values as values
from azpool.cli._fleet_given import Given
from azpool.cli._fleet_values import failures_allowed, seconds
from azpool.errors import UsageError

__all__ = [
    "ParamOption",
    "ReportOption",
    "SerialOption",
    "TimeoutOption",
    "VerboseOption",
    "operation",
    "reading",
]

# One panel of help each.
_which = functools.partial(typer.Option, rich_help_panel="Which machines")
_pace = functools.partial(typer.Option, rich_help_panel="Pace")
_arm = functools.partial(typer.Option, rich_help_panel="Azure Resource Manager")

_TARGET = """SUBSCRIPTION/GROUP/SCALE_SET, SUBSCRIPTION, or resource ids; - reads ids from standard
input."""


def _names_and(last: str) -> Any:
    metavar = f"[TARGET]... {last}".rstrip()
    named = typer.Argument(metavar=metavar, help=_TARGET, show_default=False)
    return Annotated[list[str] | None, named]


_Text: TypeAlias = str | None
_Texts: TypeAlias = list[str] | None

_WHERE = """Only those of which it is true: power=off,zone=1. Also name, size, provisioning, kind,
location, latest_model, tag.NAME; | parts values of which any will do."""
_TIMEOUT = "For all of it: 90, 15m, 2h. Nothing is sent after it."
_BASE_URL = """Its address in other clouds, or a simulator's. Default: AZPOOL_ARM_URL, else the
public cloud's."""
_CA_FILE = "Certificates to trust instead of the system's. Default: AZPOOL_ARM_CA_FILE."
_LOGIN = """Sign in as azure-identity finds: az login, a managed identity, the environment. There is
no other way, so it need not be said."""

TimeoutOption = Annotated[_Text, _pace("--timeout", metavar="TIME", help=_TIMEOUT)]
SerialOption = Annotated[bool, _pace("--serial", help="Use no pool: all from here.")]
ParamOption = Annotated[
    _Texts,
    typer.Option(
        "--param", metavar="NAME=VALUE", help="A parameter of it; may be given several times."
    ),
]
ReportOption = Annotated[
    _Text,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write what became of each machine: as JSON or CSV, by the ending.",
        rich_help_panel="Output",
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Name each machine as it ends.", rich_help_panel="Output"),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Send nothing: say what would be sent, and to whom.")
]


def _shared(
    ctx: typer.Context,
    names: Annotated[
        _Texts, typer.Argument(metavar="[TARGET]...", help=_TARGET, show_default=False)
    ] = None,
    dry_run: DryRunOption = False,
    yes: options.YesOption = False,
    where: Annotated[_Texts, _which("--where", metavar="FIELD=VALUE", help=_WHERE)] = None,
    group: Annotated[
        _Text,
        _which("--group", "-g", metavar="NAME", help="Of a subscription, this resource group's."),
    ] = None,
    tag: Annotated[
        _Texts,
        _which("--tag", metavar="NAME=VALUE", help="Of a subscription, those that have this tag."),
    ] = None,
    timeout: TimeoutOption = None,
    max_failures: Annotated[
        _Text,
        _pace("--max-failures", metavar="N|N%", help="Begin nothing new when so many have failed."),
    ] = None,
    batch: Annotated[
        _Text, _pace("--batch", metavar="N", help="So many machines under way at once at most.")
    ] = None,
    no_wait: Annotated[
        bool, _pace("--no-wait", help="End when the service has accepted it.")
    ] = False,
    serial: SerialOption = False,
    base_url: Annotated[_Text, _arm("--base-url", metavar="URL", help=_BASE_URL)] = None,
    ca_file: Annotated[_Text, _arm("--ca-file", metavar="FILE", help=_CA_FILE)] = None,
    login: Annotated[bool, _arm("--login", help=_LOGIN)] = False,
    report: ReportOption = None,
    verbose: VerboseOption = False,
    quiet: options.QuietOption = False,
    progress: options.ProgressOption = options.ProgressMode.AUTO,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None: ...


# What a command that only reads has no use for.
_OF_OPERATIONS = frozenset({"dry_run", "yes", "max_failures", "batch", "no_wait", "verbose"})


# -- from typer's parameters to `Given` ---------------------------------------------------------


def _given(read: dict[str, Any]) -> Given:
    read.pop("login")  # there is no other way
    read["names"] = list(read["names"] or ())
    read["timeout"] = seconds("--timeout", read.get("timeout"))
    if "batch" in read:
        read["batch"] = values.whole_number("--batch", read["batch"], 20)
        read["max_failures"] = failures_allowed(read["max_failures"])
    return Given(**read)


def _sharing(
    command: Callable[..., int], *, last: str, without: frozenset[str]
) -> Callable[..., int]:
    """Make a command of typer's: the shared parameters and its own, but for `given`."""
    # evaluated: this module's names mean nothing in another one
    shared = inspect.signature(_shared, eval_str=True).parameters
    common = [one for name, one in shared.items() if name not in without]
    own = dict(inspect.signature(command, eval_str=True).parameters)
    own.pop("given")
    merged = [*common[:2], *own.values(), *common[2:]]
    if last:
        merged[1] = merged[1].replace(annotation=_names_and(last))

    @functools.wraps(command)
    def called(**read: Any) -> int:
        mine = {name: read.pop(name) for name in own}
        given = _given(read)
        if not given.names and last and not last.startswith("["):
            raise UsageError(
                f"cannot do {command.__name__.rstrip('_')!r}: nothing was named; see --help"
            )
        return command(given, **mine)

    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in merged]
    called.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]  # read by typer
    called.__annotations__ = {one.name: one.annotation for one in keyword}
    del called.__wrapped__  # else its signature would be the one
    return called


def reading(
    command: Callable[..., int], *, last: str = "", without: frozenset[str] = frozenset()
) -> Callable[..., int]:
    """Make a command that changes nothing.

    Args:
        command: takes a `Given`, and its own parameters by name.
        last: what its last argument is, in brackets where it may be missing; "": one more target.
        without: shared parameters that mean nothing to it.
    """
    return _sharing(command, last=last, without=_OF_OPERATIONS | without)


def operation(command: Callable[..., int], *, last: str = "") -> Callable[..., int]:
    """Make a command that changes machines; see `reading`."""
    return _sharing(command, last=last, without=frozenset())
