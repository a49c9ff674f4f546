"""`azpool mb` and `azpool rb`: containers made and removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from azpool.cli import _options as options
from azpool.cli._exit import Code, code_of_error
from azpool.cli._help import Command, new_app
from azpool.cli._place import Remote, parse_container
from azpool.cli._remote import storage_of
from azpool.cli._term import Terminal
from azpool.errors import AzpoolError, Conflict, UsageError

if TYPE_CHECKING:
    from azpool.cli._remote import Container

__all__ = ["app"]

app = new_app()

Addresses = Annotated[
    list[str],
    typer.Argument(metavar="ADDRESS...", help="az://CONTAINER or its URL.", show_default=False),
]


@app.command("mb", cls=Command, epilog="azpool mb az://backup")
def mb(
    ctx: typer.Context,
    addresses: Addresses,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Be content with a container that is there.")
    ] = False,
    quiet: options.QuietOption = False,
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
    """Make containers."""
    auth = options.Auth(
        account=account,
        endpoint=endpoint,
        connection_string=connection_string,
        key=key,
        sas=sas,
        anonymous=anonymous,
        login=login,
    )
    storage = storage_of(ctx)

    def make(place: Remote) -> str:
        try:
            storage.container(place.url, auth).create()
        except Conflict as error:
            if not exist_ok or error.code != "ContainerAlreadyExists":
                raise
            return "exists"
        return "made"

    return _each(addresses, make, what="make", quiet=quiet, json_lines=json_)


@app.command("rb", cls=Command, epilog="azpool rb --recursive --yes az://backup")
def rb(
    ctx: typer.Context,
    addresses: Addresses,
    recursive: Annotated[
        bool,
        typer.Option("--recursive", "-r", help="Also with blobs in it; asks on a terminal."),
    ] = False,
    yes: options.YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    quiet: options.QuietOption = False,
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
    """Remove containers.

    One that holds blobs needs --recursive; it is asked for on a terminal, elsewhere --yes must
    say it.
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
    storage = storage_of(ctx)
    terminal = Terminal()

    def remove(place: Remote) -> str:
        container = storage.container(place.url, auth)
        if _holds_blobs(container) and not dry_run:
            if not recursive:
                raise UsageError(
                    f"cannot remove {place.shown!r}: it holds blobs; give --recursive to remove "
                    "them with it"
                )
            if not yes and not _agreed(terminal, place):
                return "kept"
        if dry_run:
            return "would remove"
        container.remove()
        return "removed"

    return _each(addresses, remove, what="remove", quiet=quiet, json_lines=json_)


def _holds_blobs(container: Container) -> bool:
    return next(iter(container.list("", recursive=True)), None) is not None


def _agreed(terminal: Terminal, place: Remote) -> bool:
    if not (terminal.err_is_terminal and terminal.in_is_terminal):
        raise UsageError(
            f"cannot remove {place.shown!r}: it holds blobs and there is no terminal to ask on; "
            "give --yes"
        )
    return terminal.ask(f"Remove {place.shown} and all blobs in it?")


def _each(
    addresses: list[str],
    act: Callable[[Remote], str],
    *,
    what: str,
    quiet: bool,
    json_lines: bool,
) -> int:
    """Do one thing to each address; one that fails doesn't keep the others from it."""
    terminal = Terminal()
    places = [_whole(address, what) for address in addresses]
    errors: list[AzpoolError] = []
    for place in places:
        try:
            result = act(place)
        except AzpoolError as error:
            errors.append(error)
            terminal.error(str(error))
            result = "failed"
        if json_lines:
            fact = {"event": result.replace(" ", "_"), "container": place.container}
            terminal.result(json.dumps(fact))
        elif result != "failed" and not quiet:
            terminal.say(f"{result} {place.shown}")
    terminal.flush()
    if not errors:
        return Code.DONE
    codes = {code_of_error(error) for error in errors}
    return codes.pop() if len(codes) == 1 and len(errors) == len(places) else Code.SOME_FAILED


def _whole(address: str, what: str) -> Remote:
    place = parse_container(address, what)
    if place.prefix:
        raise UsageError(
            f"cannot {what} {place.shown!r}: it names something in a container; give the "
            "container alone"
        )
    return place
