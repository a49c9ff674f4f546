"""`azpool cp`: files up to a container or down from one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from azpool.cli import _options as options
from azpool.cli import _words as words
from azpool.cli._exit import NothingMatched
from azpool.cli._help import Command, new_app
from azpool.cli._place import Remote, is_remote, looks_like_address, parse_container, shown
from azpool.cli._remote import storage_of
from azpool.cli._run import Run, choose_view
from azpool.cli._state import Job, TransferState
from azpool.cli._term import Terminal
from azpool.errors import UsageError

if TYPE_CHECKING:
    from azpool.report import Report
    from azpool.storage.outcome import ProgressCallable

__all__ = ["app"]

EPILOG = """
azpool cp results az://backup            # the folder: backup holds results/...
azpool cp results/ az://backup/run-7     # its contents: run-7/...
azpool cp a.nc b.nc az://backup/in/
azpool cp az://backup/run-7/ results     # down: the contents
azpool cp 'az://backup/**/*.csv' tables
azpool cp --json results/ https://ACCOUNT.blob.core.windows.net/backup | jq .event

# Addresses: az://CONTAINER/PATH (the account of the environment),
# https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH, and an emulator's
# http://127.0.0.1:PORT/devstoreaccount1/CONTAINER/PATH
"""

app = new_app()


@app.command("cp", cls=Command, epilog=EPILOG)
def cp(
    ctx: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="Files, folders or patterns (quote them; ** goes into folders), local or in one "
            "container. A folder with a slash at its end means its contents.",
            show_default=False,
        ),
    ],
    dest: Annotated[
        str,
        typer.Argument(
            metavar="DEST",
            help="Where to: an address for local sources, a local path for addresses. Of several "
            "sources, a folder or a pattern it is always the folder.",
            show_default=False,
        ),
    ],
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite/--no-overwrite",
            help="Replace what is there (the default), or skip it: how to go on after Ctrl-C.",
        ),
    ] = True,
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes",
            "-n",
            metavar="N",
            help="Size of the pool. Default: 10, and none for a handful of small files.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Name each file as it ends.", rich_help_panel="Output"
        ),
    ] = False,
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
    """Copy files to or from Azure Blob storage.

    All files move in parallel, by the nodes of a pool. A file that fails does not stop the others:
    the failures are listed by reason at the end. Downloads appear under their name only when
    they are complete.
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
    size = None if nodes is None else _pool_size(nodes)
    trip = plan_trip(sources, dest)
    terminal = Terminal()
    state = TransferState(
        job=Job(verb=trip.verb, target=shown(dest), nodes=size or 0), began=time.monotonic()
    )
    view = choose_view(terminal, state, json=json_, quiet=quiet, progress=progress, verbose=verbose)
    storage = storage_of(ctx)
    container = storage.container(trip.container_url, auth)
    move = container.upload_many if trip.verb == "upload" else container.download_many
    # One source by itself may be renamed; of several, the destination is a folder.
    what = trip.sources[0] if len(trip.sources) == 1 else list(trip.sources)

    def work(notice: ProgressCallable) -> Report[Any]:
        pool = None if size is None else storage.pool(size)
        report = move(what, trip.dest, overwrite=overwrite, pool=pool, progress=notice)
        if not len(report):
            names = words.shorten(", ".join(trip.shown), 120)
            raise NothingMatched(
                f"cannot {trip.verb} {names!r}: nothing there to {trip.verb}; check the name"
            )
        return report

    return Run(terminal, view, state).run(work)


def _pool_size(text: str) -> int:
    # Not typer's conversion: its words differ from version to version.
    try:
        size = int(text)
    except ValueError:
        raise UsageError(
            f"cannot make a pool of {text!r} nodes: not a whole number; give --nodes 10"
        ) from None
    if size < 1:
        raise UsageError(f"cannot make a pool of {size} nodes: it has at least 1; give --nodes 10")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """What goes where. `sources` are local paths or paths in the container; so is `dest`."""

    verb: str
    container_url: str
    sources: tuple[str, ...]
    dest: str
    shown: tuple[str, ...]


def plan_trip(sources: list[str], dest: str) -> Trip:
    """Tell the direction, and take the addresses apart. Nothing is looked up.

    Raises:
        UsageError: not exactly one side is remote, or the sources are in several containers.
    """
    remote = [source for source in sources if is_remote(source)]
    if is_remote(dest):
        if remote:
            raise UsageError(
                f"cannot copy {shown(remote[0])!r} to {shown(dest)!r}: both are addresses; "
                "copy it to a local folder first"
            )
        place = parse_container(dest, "copy to")
        return Trip(
            verb="upload",
            container_url=place.url,
            sources=tuple(sources),
            dest=place.prefix,
            shown=tuple(sources),
        )
    if not remote:
        odd = next((path for path in [*sources, dest] if looks_like_address(path)), None)
        why = f"{odd!r} is not an address that azpool knows" if odd else "both are local paths"
        raise UsageError(
            f"cannot copy {sources[0]!r} to {dest!r}: {why}; one side is az://CONTAINER/... or "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER/..."
        )
    return _plan_download(sources, remote, dest)


def _plan_download(sources: list[str], remote: list[str], dest: str) -> Trip:
    local = next((source for source in sources if not is_remote(source)), None)
    if local is not None:
        raise UsageError(
            f"cannot copy {local!r} to {dest!r}: both are local, and {shown(remote[0])!r} is not; "
            "copy them with two commands"
        )
    places: list[Remote] = [parse_container(source, "copy") for source in remote]
    if len({place.url for place in places}) > 1:
        names = " and ".join(sorted({place.shown for place in places})[:2])
        raise UsageError(
            f"cannot copy {names}: they are in different containers; run a command for each"
        )
    return Trip(
        verb="download",
        container_url=places[0].url,
        sources=tuple(place.path for place in places),
        dest=dest,
        shown=tuple(place.shown for place in places),
    )
