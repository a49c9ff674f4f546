"""`Container` and `Endpoint`: what users hold. Both pickle as recipes, without connections.

    Container.upload_many -> _sources.py -> transfer.move -> nodes

One file given by its name is moved by the caller's own process (which may be a node) and raises on
failure; everything else goes over a pool and answers with a `Report`.
"""

# os.path and strings, as in _sources.py.

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from azpool.errors import NotFound, UsageError
from azpool.storage import _master, naming
from azpool.storage._batch import Direction
from azpool.storage._ledger import Ledger
from azpool.storage._listing import Listing, with_retries
from azpool.storage._retry import RetryOptions
from azpool.storage._sources import (
    Planned,
    Selection,
    Sources,
    as_list,
    select_downloads,
    select_uploads,
)
from azpool.storage._stores import open_account, open_store
from azpool.storage.endpoint import Given, check_container_name, resolve
from azpool.storage.journal import Journal
from azpool.storage.options import TransferKeywords, TransferOptions, options_of
from azpool.storage.outcome import FileOutcome, ProgressCallable
from azpool.storage.transfer import Call, describe, move, plan_call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self, Unpack

    from azpool.identity.secret import Secret
    from azpool.pool.session import AnyPool
    from azpool.report import Report
    from azpool.storage._dry_run import Plan
    from azpool.storage._http import ClientOptions
    from azpool.storage._recipe import StoreRecipe
    from azpool.storage.store import BlobInfo, Prefix, Store

__all__ = ["Container", "Endpoint"]

ProgressOption: TypeAlias = ProgressCallable | Literal[True] | None
JournalOption: TypeAlias = "Literal[True] | str | os.PathLike[str] | None"


@dataclass(frozen=True, slots=True)
class Order:
    """What a call named, in plain values: a journal keeps it until the plan is complete."""

    direction_name: str
    sources: list[str]
    many: bool
    dest: str

    @classmethod
    def upload(cls, sources: Sources, dest: str) -> Self:
        texts, many = as_list(sources)
        return cls(Direction.UPLOAD.value, texts, many, dest)

    @classmethod
    def download(cls, sources: Sources, dest: str | os.PathLike[str]) -> Self:
        texts, many = as_list(sources)
        return cls(Direction.DOWNLOAD.value, texts, many, os.fspath(dest))

    @property
    def direction(self) -> Direction:
        return Direction(self.direction_name)


class Endpoint:
    """A storage account's blob service.

    Args:
        url: `https://ACCOUNT.blob.core.windows.net[?SAS]` or an emulator's
            `http://127.0.0.1:PORT/devstoreaccount1`; None takes the account of the arguments or of
            the environment.
        credential: an azure-identity credential (anything with `get_token`).
        key: the account's key.
        sas: a shared access signature.
        connection_string: as the portal shows it.
        anonymous: sign nothing: public containers.
        account: the account's name, where the URL does not tell it.
        endpoint: the service's URL, where `url` is `az://...`.
        options: time-outs, connections and certificates.
        retry: how persistent requests are.

    Without any credential the variables of the Azure CLI count: AZURE_STORAGE_CONNECTION_STRING,
    AZURE_STORAGE_ACCOUNT (or _ACCOUNT_NAME), _KEY (or _ACCOUNT_KEY), _SAS_TOKEN.

    Raises:
        UsageError: no account is named, or nothing says how to sign in.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        credential: Any = None,
        key: str | Secret | None = None,
        sas: str | Secret | None = None,
        connection_string: str | Secret | None = None,
        anonymous: bool = False,
        account: str | None = None,
        endpoint: str | None = None,
        options: ClientOptions | None = None,
        retry: RetryOptions | None = None,
    ) -> None:
        given = Given(
            credential=credential,
            key=key,
            sas=sas,
            connection_string=connection_string,
            anonymous=anonymous,
            account=account,
            endpoint=endpoint,
        )
        recipe, path = resolve(url, given, options=options)
        if path.strip("/"):
            raise UsageError(
                f"cannot open {recipe.url!r} as an account: {path!r} follows the container; "
                "use Container(...)"
            )
        self._recipe = replace(recipe, container="")
        self._retry = retry or RetryOptions()

    @property
    def url(self) -> str:
        """The account's address, without any secret."""
        return self._recipe.url

    def container(self, name: str) -> Container:
        """Answer the container of this name; nothing is sent.

        Raises:
            UsageError: a container can't have this name.
        """
        return Container._of(
            replace(self._recipe, container=check_container_name(name)), self._retry
        )

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the containers, page by page."""
        if _master.is_asked(self._recipe):
            yield from _master.list_containers(self._recipe, prefix)
            return
        account = open_account(self._recipe)
        try:
            yield from account.list_containers(prefix)
        finally:
            account.close()

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self._recipe.key == other._recipe.key

    def __hash__(self) -> int:
        return hash(self._recipe.key)


class Container:
    """A container, or with a path a folder in one: all names are then relative to that.

    Holds no connection until it is used, and pickles without any: send it to nodes by
    `pool_export` or as an argument. Each process opens it once and keeps that open.

    Args:
        url: `https://ACCOUNT.blob.core.windows.net/CONTAINER[/path][?SAS]`, `az://container[/path]`
            or an emulator's `http://127.0.0.1:PORT/devstoreaccount1/container`.
        credential: as for `Endpoint`; so are all others.
        key: the account's key.
        sas: a shared access signature.
        connection_string: as the portal shows it.
        anonymous: sign nothing: public containers.
        account: the account's name, where the URL does not tell it.
        endpoint: the service's URL, where `url` is `az://...`.
        options: time-outs, connections and certificates.
        retry: how persistent requests are.

    Raises:
        UsageError: not a container's URL, no account named, or nothing says how to sign in.
    """

    def __init__(
        self,
        url: str,
        *,
        credential: Any = None,
        key: str | Secret | None = None,
        sas: str | Secret | None = None,
        connection_string: str | Secret | None = None,
        anonymous: bool = False,
        account: str | None = None,
        endpoint: str | None = None,
        options: ClientOptions | None = None,
        retry: RetryOptions | None = None,
    ) -> None:
        given = Given(
            credential=credential,
            key=key,
            sas=sas,
            connection_string=connection_string,
            anonymous=anonymous,
            account=account,
            endpoint=endpoint,
        )
        recipe, path = resolve(url, given, options=options)
        if not recipe.container:
            raise UsageError(
                f"cannot open {recipe.url!r}: it names no container; add its name to the URL"
            )
        self._recipe = recipe
        self._path = path.strip("/")
        self._retry = retry or RetryOptions()

    @classmethod
    def _of(cls, recipe: StoreRecipe, retry: RetryOptions) -> Container:
        container = cls.__new__(cls)
        container._recipe, container._path, container._retry = recipe, "", retry
        return container

    @property
    def name(self) -> str:
        """The container's name."""
        return self._recipe.container

    @property
    def path(self) -> str:
        """The folder in it that all names are relative to, or ""."""
        return self._path

    @property
    def url(self) -> str:
        """The container's address, without any secret."""
        return self._recipe.url

    def __repr__(self) -> str:
        return f"Container({self.url + ('/' + self._path if self._path else '')!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and (self._recipe.key, self._path) == (
            other._recipe.key,
            other._path,
        )

    def __hash__(self) -> int:
        return hash((self._recipe.key, self._path))

    @overload
    def upload(
        self,
        src: Sources,
        dest: str = "",
        *,
        dry_run: Literal[False] = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> FileOutcome | Report[FileOutcome]: ...
    @overload
    def upload(
        self,
        src: Sources,
        dest: str = "",
        *,
        dry_run: Literal[True],
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Plan: ...
    def upload(
        self,
        src: Sources,
        dest: str = "",
        *,
        dry_run: bool = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> FileOutcome | Report[FileOutcome] | Plan:
        """Upload one file in this process and answer with its outcome, or raise.

        A folder, a glob or a list is what `upload_many` does, and answers with its `Report`; so is
        everything with a journal or as a dry run.

        Raises:
            LocalFileError: the file is missing, unreadable, or no file.
            StorageError: it could not be stored; the class says why.
        """
        if dry_run or journal or not _is_one_local_file(src):
            order = Order.upload(src, dest)
            return self._order(order, options, pool, progress, journal, dry_run=dry_run)
        call = self.call(Direction.UPLOAD, options_of(options))
        encode = call.options.encode_names
        selection = select_uploads(src, self._dest(dest), encode=encode)
        return _only(move(call, selection, inline=True))

    @overload
    def upload_many(
        self,
        sources: Sources,
        dest: str = "",
        *,
        dry_run: Literal[False] = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Report[FileOutcome]: ...
    @overload
    def upload_many(
        self,
        sources: Sources,
        dest: str = "",
        *,
        dry_run: Literal[True],
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Plan: ...
    def upload_many(
        self,
        sources: Sources,
        dest: str = "",
        *,
        dry_run: bool = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Report[FileOutcome] | Plan:
        """Upload files, folders and globs on the nodes of a pool; one outcome each.

        Where they land: a file in `dest/` if that ends in a slash, else as `dest`; a folder `d` as
        `dest/d/...`, its contents (`d/`) as `dest/...`; of a list or a glob `dest` is always the
        folder, and the path is kept from the first wildcard on. Hidden files are files; links to
        files are followed, links to folders inside a folder are not (and are reported as skipped).

        Args:
            sources: a path or several; `**` in a glob goes into folders.
            dest: a blob's name or a prefix.
            dry_run: move nothing, and answer with a `Plan` of what would be done.
            journal: keep a journal, in the state folder (True) or in a new file, so that
                `azpool.storage.jobs.resume` can go on after the death of this process.
            pool: whose nodes; the session's own if None (made if there is none).
            progress: called with a `Progress` some 10 times a second in this thread; True shows
                a bar.
            options: see `TransferOptions`; `overwrite` may also be True or False.

        Raises:
            UsageError: two files would become one blob; nothing was moved.
            Conflict: a blob exists, with `overwrite="fail"`; nothing was moved.
        """
        order = Order.upload(sources, dest)
        return self._order(order, options, pool, progress, journal, dry_run=dry_run)

    @overload
    def download(
        self,
        src: Sources,
        dest: str | os.PathLike[str],
        *,
        dry_run: Literal[False] = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> FileOutcome | Report[FileOutcome]: ...
    @overload
    def download(
        self,
        src: Sources,
        dest: str | os.PathLike[str],
        *,
        dry_run: Literal[True],
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Plan: ...
    def download(
        self,
        src: Sources,
        dest: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> FileOutcome | Report[FileOutcome] | Plan:
        """Download one blob in this process and answer with its outcome, or raise.

        A folder, a glob or a list is what `download_many` does, and answers with its `Report`; so
        is a name that is no blob but has some below it, and everything with a journal or as a dry
        run.

        Raises:
            NotFound: no such blob.
            LocalFileError: the target can't be written; no half-written file is left.
            StorageError: it could not be had; the class says why.
        """
        text = os.fspath(src) if isinstance(src, str | os.PathLike) else ""
        if dry_run or journal or not text or text.endswith("/") or naming.has_wildcard(text):
            order = Order.download(src, dest)
            return self._order(order, options, pool, progress, journal, dry_run=dry_run)
        call = self.call(Direction.DOWNLOAD, options_of(options))
        decode = call.options.encode_names
        selection = self._select(text, dest, quick=True, decode=decode)
        first = list(islice(selection.things, 2))
        one = len(first) == 1 and (first[0].error or first[0].source == self._name(text))
        selection.things = chain(first, selection.things)
        if one:
            return _only(move(call, selection, inline=True))
        return self._moved(call, selection, pool, progress)

    @overload
    def download_many(
        self,
        sources: Sources,
        dest: str | os.PathLike[str],
        *,
        dry_run: Literal[False] = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Report[FileOutcome]: ...
    @overload
    def download_many(
        self,
        sources: Sources,
        dest: str | os.PathLike[str],
        *,
        dry_run: Literal[True],
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Plan: ...
    def download_many(
        self,
        sources: Sources,
        dest: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        journal: JournalOption = None,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
        **options: Unpack[TransferKeywords],
    ) -> Report[FileOutcome] | Plan:
        """Download blobs, folders and globs on the nodes of a pool; one outcome each.

        Where they land: a blob in `dest` if that is a folder or ends in a slash, else as `dest`; a
        name that is no blob but has some below it as `dest/name/...`, its contents (`name/`) as
        `dest/...`; "" is the whole container as `dest/CONTAINER/...`, "/" its contents. Of a list
        or a glob `dest` is always the folder. Files appear whole or not at all.

        Args:
            sources: a blob's name, a prefix, a glob, or several.
            dest: a local file or folder.
            dry_run: as for `upload_many`, as are the next three.
            journal: see `dry_run`.
            pool: see `dry_run`.
            progress: see `dry_run`.
            options: see `TransferOptions`; `overwrite` may also be True or False.

        Raises:
            UsageError: two blobs would become one file, or a file and a folder; nothing was moved.
            LocalFileError: `dest` has to be a folder and is not one, or a file exists, with
                `overwrite="fail"`; nothing was moved.
            StorageError: the container can't be listed.
        """
        order = Order.download(sources, dest)
        return self._order(order, options, pool, progress, journal, dry_run=dry_run)

    def delete(
        self,
        names: str | Iterable[str],
        *,
        pool: AnyPool | None = None,
        progress: ProgressOption = None,
    ) -> Report[FileOutcome] | None:
        """Delete one blob, or raise; or many by their names, and answer with a report.

        Raises:
            NotFound: one was named and there is none.
        """
        if isinstance(names, str):
            name = self._name(names)
            with_retries(lambda: self._store().delete(name), self._retry)
            return None
        selection = Selection(things=(Planned(self._name(name), "") for name in names))
        return self._moved(
            self.call(Direction.DELETE, TransferOptions()), selection, pool, progress
        )

    def exists(self, name: str | None = None) -> bool:
        """Tell whether a blob exists; without a name, whether the container does.

        Raises:
            AccessDenied: the credentials may not ask.
        """
        if name is None:
            return with_retries(lambda: _master.container_exists(self._recipe), self._retry)
        store = self._store()
        try:
            with_retries(lambda: store.head(self._name(name)), self._retry)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[BlobInfo | Prefix]:
        """Yield the blobs whose names begin with `prefix`, in order, page by page.

        With `recursive=False` what is below the next slash is folded into one `Prefix`.

        Raises:
            NotFound: no such container.
        """
        root = self._path + "/" if self._path else ""
        for entry in self._store().list(root + prefix, delimiter=None if recursive else "/"):
            yield replace(entry, name=entry.name[len(root) :]) if root else entry

    def create(self) -> None:
        """Make the container.

        Raises:
            Conflict: it exists.
        """
        with_retries(lambda: _master.create_container(self._recipe), self._retry)

    def remove(self) -> None:
        """Delete the container with all that is in it.

        Raises:
            NotFound: there is none.
        """
        with_retries(lambda: _master.delete_container(self._recipe), self._retry)

    def _store(self) -> Store:
        return open_store(self._recipe)

    def _name(self, name: str) -> str:
        """Answer the full name: "" is the path's folder, "/" and "x/" are contents."""
        if not self._path:
            return name
        return f"{self._path}/{name.removeprefix('/')}" if name else self._path

    def _dest(self, dest: str) -> str:
        return self._name(dest) if dest or not self._path else self._path + "/"

    def _select(
        self,
        sources: Sources,
        dest: str | os.PathLike[str],
        *,
        quick: bool = False,
        decode: bool = False,
    ) -> Selection:
        texts, many = as_list(sources)
        names = [self._name(text) for text in texts]
        listing = Listing(self._store(), self._retry, folders=not quick)
        return select_downloads(
            listing, names if many else names[0], os.fspath(dest), self.name, decode=decode
        )

    def at(self, path: str) -> Container:
        """Answer the same container with all names relative to this folder, or to none."""
        other = self._of(self._recipe, self._retry)
        other._path = path.strip("/")
        return other

    def call(
        self, direction: Direction, options: TransferOptions, *, cwd: str | None = None
    ) -> Call:
        """Answer what a transfer of this container is, whatever its files are."""
        return Call(
            direction=direction,
            recipe=self._recipe,
            options=options,
            retry=self._retry,
            cwd=os.getcwd() if cwd is None else cwd,
        )

    def _order(
        self,
        order: Order,
        options: TransferKeywords,
        pool: AnyPool | None,
        progress: ProgressOption,
        journal: JournalOption,
        *,
        dry_run: bool,
    ) -> Report[FileOutcome] | Plan:
        call = self.call(order.direction, options_of(options))
        selection = self.select(order, encoded=call.options.encode_names)
        if dry_run:
            ledger = Ledger()
            plan_call(call, ledger, selection, ask_all=True)
            from azpool.storage._dry_run import Plan

            return Plan(ledger, call.direction.value, selection.notes)
        if not journal:
            return self._moved(call, selection, pool, progress)
        kept = Journal.create(None if journal is True else os.fspath(journal))
        kept.ledger.note(**describe(call, order=asdict(order), path=self._path))
        return self._moved(call, selection, pool, progress, kept)

    def select(self, order: Order, *, encoded: bool = False) -> Selection:
        """Find what an order names; things are looked for as they are asked for."""
        sources: Sources = order.sources if order.many else order.sources[0]
        if order.direction is Direction.UPLOAD:
            return select_uploads(sources, self._dest(order.dest), encode=encoded)
        return self._select(sources, order.dest, decode=encoded)

    def _moved(
        self,
        call: Call,
        selection: Selection,
        pool: AnyPool | None,
        progress: ProgressOption,
        journal: Journal | None = None,
    ) -> Report[FileOutcome]:
        with watched(call.direction.value, progress) as told:
            return move(call, selection, pool=pool, progress=told, journal=journal)


def _is_one_local_file(src: Sources) -> bool:
    """Tell whether this is one file: not a list, a folder or a glob that is no file's name."""
    if not isinstance(src, str | os.PathLike):
        return False
    if os.path.isdir(src):
        return False
    return os.path.lexists(src) or not naming.has_wildcard(os.fspath(src))


def _only(report: Report[FileOutcome]) -> FileOutcome:
    outcome = report[0]
    if outcome.error is not None and not outcome.ok:
        raise outcome.error
    return outcome


@contextmanager
def watched(title: str, progress: ProgressOption) -> Iterator[ProgressCallable | None]:
    """Answer what is told of the progress: the user's own callable, or that of a bar."""
    if progress is not True:
        yield progress
        return
    # By name: what draws is a layer above, and only needed where somebody asks for it.
    with import_module("azpool.cli._progress").progress_bar(title) as callable_:
        yield callable_
