"""`azpool ls`: containers, folders, blobs; written as they come, however many there are."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from azpool.cli import _options as options
from azpool.cli import _words as words
from azpool.cli._exit import NothingMatched
from azpool.cli._help import Command, new_app
from azpool.cli._place import Remote, parse
from azpool.cli._remote import storage_of
from azpool.cli._term import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from azpool.cli._remote import Container, Listed

__all__ = ["app"]

EPILOG = """
azpool ls                          # the containers of the account
azpool ls -l az://backup/run-7/
azpool ls -r az://backup | wc -l
azpool ls -r --json az://backup | jq .size_bytes
"""

app = new_app()


@app.command("ls", cls=Command, epilog=EPILOG)
def ls(
    ctx: typer.Context,
    addresses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ADDRESS]...",
            help="A container, a folder, a blob or a pattern (quote it). None: the account's "
            "containers.",
            show_default=False,
        ),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Size and time of last change beside each name.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="All blobs below, not the folders.")
    ] = False,
    json_: options.JsonOption = False,
    debug: options.DebugOption = False,  # noqa: ARG001 - read from the arguments by `main`
    account: options.AccountOption = None,
    endpoint: options.EndpointOption = None,
    login: options.LoginOption = False,
    anonymous: options.AnonymousOption = False,
    connection_string: options.ConnectionStringOption = None,
    key: options.KeyOption = None,
    sas: options.SasOption = None,
) -> None:
    """List containers, or what is in one.

    Names are relative to the folder that is listed; folders end in a slash.
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
    writer = _Writer(Terminal(), long=long, json_lines=json_)
    places = [parse(address) for address in addresses or ["az://"]]
    missing: list[str] = []
    for place in places:
        if not place.container:
            url = None if place.url == "az://" else place.url
            for name in storage.endpoint(url, auth).list_containers():
                writer.container(name)
            continue
        if len(places) > 1:
            writer.heading(place)
        found = 0
        for shown_name, item in find(
            storage.container(place.url, auth), place, recursive=recursive
        ):
            found += 1
            writer.item(shown_name, item)
        if not found and place.prefix:
            missing.append(place.shown)
    writer.end()
    if missing:
        raise NothingMatched(
            f"cannot list {missing[0]!r}: nothing there; see azpool ls {_parent(missing[0])}"
        )


def _parent(shown: str) -> str:
    parent = shown.rstrip("/").rpartition("/")[0]
    return f"{parent}/" if "://" in parent else shown


def find(container: Container, place: Remote, *, recursive: bool) -> Iterator[tuple[str, Listed]]:
    """Answer what an address names, each with the name to show.

    A folder (with a slash at its end or not) gives what is in it, a blob itself, a pattern what
    it matches. What merely begins with the same letters is not meant.
    """
    from azpool.storage.naming import has_wildcard

    prefix = place.prefix
    if has_wildcard(prefix):
        yield from _matching(container, prefix)
        return
    if prefix and not prefix.endswith("/"):
        exact, folder = _named(container, prefix)
        if exact is not None:
            yield prefix.rpartition("/")[2], exact
        if not folder:
            return
        prefix += "/"
    for item in container.list(prefix, recursive=recursive):
        name = item.name.removeprefix(prefix)
        if name:
            yield name, item


def _named(container: Container, name: str) -> tuple[Listed | None, bool]:
    """Answer the blob of exactly this name, and whether there is such a folder.

    The listing is sorted: `a` is first; `a-b` and others come before `a/`.
    """
    exact: Listed | None = None
    for item in container.list(name, recursive=False):
        if item.name == name:
            exact = item
        elif item.name == f"{name}/":
            return exact, True
        elif item.name > f"{name}/":
            break
    return exact, False


def _matching(container: Container, pattern: str) -> Iterator[tuple[str, Listed]]:
    from azpool.storage.naming import compile_glob, literal_prefix

    expression = compile_glob(pattern)
    for item in container.list(literal_prefix(pattern), recursive=True):
        if expression.fullmatch(item.name):
            yield item.name, item


class _Writer:
    """Writes what is listed, one line each, as it comes."""

    def __init__(self, terminal: Terminal, *, long: bool, json_lines: bool) -> None:
        self._terminal = terminal
        self._long = long
        self._json = json_lines
        # A name may hold what steers a terminal; a program that reads the pipe wants it as it is.
        self._clean = terminal.out_is_terminal
        self._blobs = 0
        self._size_bytes = 0
        self._headings = 0

    def container(self, name: str) -> None:
        if self._json:
            self._terminal.result(json.dumps({"kind": "container", "name": name}))
        else:
            self._terminal.result(self._terminal.paint_out(name, "bold blue"))

    def heading(self, place: Remote) -> None:
        """Name the address that is listed next, where there are several."""
        if self._json:
            return
        blank = "\n" if self._headings else ""
        self._headings += 1
        self._terminal.result(f"{blank}{place.shown}:")

    def item(self, shown: str, item: Listed) -> None:
        size_bytes = getattr(item, "size_bytes", None)
        if size_bytes is not None:
            self._blobs += 1
            self._size_bytes += size_bytes
        if self._json:
            self._terminal.result(json.dumps(_as_json(item)))
            return
        name = words.printable(shown) if self._clean else shown
        if size_bytes is None:
            name = self._terminal.paint_out(name, "bold blue")
        if not self._long:
            self._terminal.result(name)
            return
        changed: datetime | None = getattr(item, "last_modified", None)
        when = f"{changed:%Y-%m-%d %H:%M:%S}" if changed else ""
        size = "" if size_bytes is None else words.size(size_bytes)
        self._terminal.result(f"{size:>9}  {when:<19}  {name}")

    def end(self) -> None:
        """Hand all of it over, and tell a person what it came to."""
        self._terminal.flush()
        if self._long and self._blobs and self._terminal.out_is_terminal and not self._json:
            total = f"{words.plural(self._blobs, 'blob')}, {words.size(self._size_bytes)}"
            self._terminal.say(total, "dim")


def _as_json(item: Listed) -> dict[str, Any]:
    """Answer a blob or folder as plain values; names are those in the container."""
    size_bytes = getattr(item, "size_bytes", None)
    if size_bytes is None:
        return {"kind": "folder", "name": item.name}
    blob: Any = item
    return {
        "kind": "blob",
        "name": blob.name,
        "size_bytes": size_bytes,
        "last_modified": blob.last_modified.isoformat() if blob.last_modified else None,
        "etag": blob.etag,
        "md5": base64.b64encode(blob.md5).decode() if blob.md5 else None,
        "content_type": blob.content_type,
        "metadata": dict(blob.metadata),
    }
