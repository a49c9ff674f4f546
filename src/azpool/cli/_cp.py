"""`azpool cp`: files up to a container or down from one."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from azpool.cli import _how as how
from azpool.cli import _options as options
from azpool.cli import _words as words
from azpool.cli._exit import NothingMatched
from azpool.cli._help import Command, new_app
from azpool.cli._place import Remote, is_remote, looks_like_address, parse_container, shown
from azpool.cli._remote import storage_of
from azpool.cli._report_file import check_report_path
from azpool.cli._run import Run, choose_view
from azpool.cli._state import Job, TransferState
from azpool.cli._term import Terminal
from azpool.errors import UsageError

if TYPE_CHECKING:
    from azpool.cli._remote import Storage
    from azpool.report import Report
    from azpool.storage.outcome import ProgressCallable

__all__ = ["app"]

EPILOG = """
azpool cp results az://backup            # the folder: backup holds results/...
azpool cp results/ az://backup/run-7     # its contents: run-7/...
azpool cp a.nc b.nc az://backup/in/
azpool cp az://backup/run-7/ results     # down: the contents
azpool cp 'az://backup/**/*.csv' tables
azpool cp --dry-run --overwrite if-different results/ az://backup/run-7
azpool cp --json results/ https://ACCOUNT.blob.core.windows.net/backup | jq .event

# Addresses: az://CONTAINER/PATH (the account of the environment),
# https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH, and an emulator's
# http://127.0.0.1:PORT/devstoreaccount1/CONTAINER/PATH
"""

app = new_app()

FEW_SOURCES = 4
# Up to here a transfer is done again as quickly as it is resumed: a journal would only be clutter.
HANDFUL_FILES = 20
HANDFUL_BYTES = 64 * 1024 * 1024


class CopyCommand(Command):
    """Takes `--overwrite` without a mode too, as it was: before another option, or at the end."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        return super().parse_args(ctx, _with_modes(args))


def _with_modes(args: list[str]) -> list[str]:
    found = list(args)
    for at, argument in enumerate(args):
        if argument == "--":
            break
        if argument != "--overwrite":
            continue
        if at + 1 == len(args) or args[at + 1].startswith("-"):
            found[at] = "--overwrite=always"
        else:  # here, where it is not yet said that a source is missing
            how.overwrite_mode(args[at + 1], no_overwrite=False)
    return found


@app.command("cp", cls=CopyCommand, epilog=EPILOG)
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
    overwrite: how.OverwriteOption = None,
    no_overwrite: how.NoOverwriteOption = False,
    dry_run: how.DryRunOption = False,
    verify: how.VerifyOption = None,
    max_failures: how.MaxFailuresOption = None,
    preserve_times: how.PreserveTimesOption = False,
    encode_names: how.EncodeNamesOption = False,
    no_journal: Annotated[
        bool,
        typer.Option(
            "--no-journal", help="Keep no journal: azpool jobs resume can't go on with this."
        ),
    ] = False,
    nodes: how.NodesOption = None,
    max_concurrency: how.MaxConcurrencyOption = None,
    cap_rate: how.CapRateOption = None,
    cap_requests: how.CapRequestsOption = None,
    content_type: how.ContentTypeOption = None,
    cache_control: how.CacheControlOption = None,
    content_encoding: how.ContentEncodingOption = None,
    content_language: how.ContentLanguageOption = None,
    content_disposition: how.ContentDispositionOption = None,
    metadata: how.MetadataOption = None,
    tag: how.TagOption = None,
    tier: how.TierOption = None,
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
    """Copy files to or from Azure Blob storage.

    All files move in parallel, by the nodes of a pool. A file that fails does not stop the others:
    the failures are listed by reason at the end, and azpool jobs resume goes on with what is left,
    whatever ended the transfer. Downloads appear under their name only when they are complete.
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
    trip = plan_trip(sources, dest)
    size = how.pool_size(nodes)
    given = how.keywords(
        trip.verb,
        {
            "verify": verify,
            "max_failures": max_failures,
            "preserve_times": preserve_times,
            "encode_names": encode_names,
            "max_concurrency": max_concurrency,
            "max_bytes_per_second": cap_rate,
            "max_requests_per_second": cap_requests,
            "content_type": content_type,
            "cache_control": cache_control,
            "content_encoding": content_encoding,
            "content_language": content_language,
            "content_disposition": content_disposition,
            "metadata": metadata,
            "tags": tag,
            "tier": tier,
        },
    )
    given["overwrite"] = how.overwrite_mode(overwrite, no_overwrite=no_overwrite)
    check_report_path(report)
    terminal = Terminal()
    storage = storage_of(ctx)
    # First, so that it starts while this process imports and plans.
    pool = None if dry_run else storage.pool(size, wanted=wants_pool(trip))
    container = storage.container(trip.container_url, auth)
    move = container.upload_many if trip.verb == "upload" else container.download_many
    # One source by itself may be renamed; of several, the destination is a folder.
    what = trip.sources[0] if len(trip.sources) == 1 else list(trip.sources)
    if dry_run:
        plan = _something(move(what, trip.dest, dry_run=True, **given), trip)
        from azpool.cli._dry_run import tell_plan

        return tell_plan(terminal, plan, shown(dest), json_lines=json_, verbose=verbose)
    state = TransferState(
        job=Job(verb=trip.verb, target=shown(dest), nodes=size or 0), began=time.monotonic()
    )
    view = choose_view(terminal, state, json=json_, quiet=quiet, progress=progress, verbose=verbose)
    journal = not no_journal and wants_journal(trip) and _can_journal(storage, terminal)

    def work(notice: ProgressCallable) -> Report[Any]:
        return _something(
            move(what, trip.dest, pool=pool, progress=notice, journal=journal or None, **given),
            trip,
        )

    def keep(_: Report[Any] | None) -> bool:
        if is_handful(state):
            storage.jobs().remove(state.journal)
            return False
        return True

    def so_far() -> Report[Any] | None:
        began = state.journal and state.total is not None and not state.planning
        return storage.jobs().report(state.journal) if began else None

    return Run(terminal, view, state, keep, report_path=report, so_far=so_far).run(work)


Some = TypeVar("Some", bound=Sized)


def _something(found: Some, trip: Trip) -> Some:
    if not len(found):
        names = words.shorten(", ".join(trip.shown), 120)
        raise NothingMatched(
            f"cannot {trip.verb} {names!r}: nothing there to {trip.verb}; check the name"
        )
    return found


def _can_journal(storage: Storage, terminal: Terminal) -> bool:
    """Tell whether a journal can be kept: a home that can't be written must not stop a copy."""
    fault = storage.journal_fault()
    if fault:
        terminal.say(f"this transfer could not be resumed: {fault}", "yellow")
    return not fault


def wants_pool(trip: Trip) -> bool:
    """Tell whether there is surely enough to move for a pool, before anything is looked up."""
    if len(trip.sources) > FEW_SOURCES:
        return True
    if trip.verb == "upload":
        return any(os.path.isdir(source) or _is_pattern(source) for source in trip.sources)
    return any(not source.strip("/") or source.endswith("/") or _is_pattern(source)
               for source in trip.sources)  # fmt: skip


def _is_pattern(source: str) -> bool:
    from azpool.storage.naming import has_wildcard

    return has_wildcard(source)


def wants_journal(trip: Trip) -> bool:
    """Tell whether the transfer may be worth a journal: a few small files by name are not."""
    if trip.verb != "upload" or len(trip.sources) > HANDFUL_FILES:
        return True
    size_bytes = 0
    for source in trip.sources:
        try:
            status = os.stat(source)
        except OSError:
            # A pattern, or nothing: what names nothing fails by itself.
            if _is_pattern(source):
                return True
            continue
        if stat.S_ISDIR(status.st_mode):
            return True
        size_bytes += status.st_size
    return size_bytes > HANDFUL_BYTES


def is_handful(state: TransferState) -> bool:
    """Tell whether the whole is done again as quickly as it is resumed."""
    total = state.total
    if total is None or state.planning:
        return True
    return total.files <= HANDFUL_FILES and total.size_bytes <= HANDFUL_BYTES


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
