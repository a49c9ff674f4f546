"""`azpool rm`: blobs, and all blobs below a folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from azpool.cli import _options as options
from azpool.cli import _words as words
from azpool.cli._exit import Code, NothingMatched
from azpool.cli._help import Command, new_app
from azpool.cli._ls import find
from azpool.cli._place import Remote, parse_container
from azpool.cli._remote import storage_of
from azpool.cli._run import Run, choose_view
from azpool.cli._state import Job, TransferState
from azpool.cli._term import Terminal
from azpool.errors import UsageError

if TYPE_CHECKING:
    from azpool.cli._remote import Container
    from azpool.report import Report
    from azpool.storage.outcome import ProgressCallable

__all__ = ["app"]

EPILOG = """
azpool rm az://backup/run-7/a.csv
azpool rm --recursive az://backup/run-7/       # asks first
azpool rm -r --dry-run 'az://backup/**/*.tmp'  # only says what it would delete
"""

app = new_app()


@app.command("rm", cls=Command, epilog=EPILOG)
def rm(
    ctx: typer.Context,
    addresses: Annotated[
        list[str],
        typer.Argument(
            metavar="ADDRESS...",
            help="Blobs; with --recursive also folders and patterns (quote them).",
            show_default=False,
        ),
    ],
    recursive: Annotated[
        bool,
        typer.Option("--recursive", "-r", help="All blobs in a folder or of a pattern."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    yes: options.YesOption = False,
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
    """Delete blobs.

    A folder or a pattern needs --recursive, and is asked for on a terminal; elsewhere --yes
    must say it.
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
    places = [parse_container(address, "delete from") for address in addresses]
    if len({place.url for place in places}) > 1:
        raise UsageError(
            f"cannot delete {places[0].shown!r} and others: they are in different containers; "
            "run a command for each"
        )
    for place in places:
        _check(place, recursive=recursive)
    terminal = Terminal()
    container = storage_of(ctx).container(places[0].url, auth)
    names = _names(container, places) if recursive else [place.prefix for place in places]
    if dry_run:
        return _say_what(terminal, names, json_lines=json_)
    if recursive and not yes and not _agreed(terminal, names, places):
        terminal.say("nothing was deleted")
        return Code.DONE
    state = TransferState(
        job=Job(verb="delete", target=places[0].shown, thing="blob"), began=time.monotonic()
    )
    view = choose_view(terminal, state, json=json_, quiet=quiet, progress=progress)

    def work(notice: ProgressCallable) -> Report[Any]:
        report = container.delete(names, progress=notice)
        assert report is not None  # None is the answer to a single name, not to a list
        return report

    return Run(terminal, view, state).run(work)


def _check(place: Remote, *, recursive: bool) -> None:
    from azpool.storage.naming import has_wildcard

    if recursive:
        return
    if not place.prefix:
        raise UsageError(
            f"cannot delete {place.shown!r}: it is a container; give --recursive to empty it, or "
            f"azpool rb {place.shown} to remove it"
        )
    if place.prefix.endswith("/") or has_wildcard(place.prefix):
        what = "a folder" if place.prefix.endswith("/") else "a pattern"
        raise UsageError(
            f"cannot delete {place.shown!r}: it is {what}; give --recursive to delete all in it"
        )


def _names(container: Container, places: list[Remote]) -> list[str]:
    names: dict[str, None] = {}
    for place in places:
        found = [item.name for _, item in find(container, place, recursive=True)]
        if not found:
            raise NothingMatched(
                f"cannot delete {place.shown!r}: nothing there; nothing was deleted"
            )
        names |= dict.fromkeys(found)
    return list(names)


def _say_what(terminal: Terminal, names: list[str], *, json_lines: bool) -> int:
    import json

    for name in names:
        if json_lines:
            terminal.result(json.dumps({"event": "would_delete", "name": name}))
        else:
            shown = words.printable(name) if terminal.out_is_terminal else name
            terminal.result(f"would delete {shown}")
    terminal.flush()
    return Code.DONE


def _agreed(terminal: Terminal, names: list[str], places: list[Remote]) -> bool:
    where = places[0].shown if len(places) == 1 else f"{len(places)} places"
    if not (terminal.err_is_terminal and terminal.in_is_terminal):
        raise UsageError(
            f"cannot delete {words.plural(len(names), 'blob')} of {where!r}: there is no terminal "
            "to ask on; give --yes, or --dry-run to see them"
        )
    return terminal.ask(f"Delete {words.plural(len(names), 'blob')} of {where}?")
