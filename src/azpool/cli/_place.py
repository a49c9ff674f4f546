"""Which arguments are addresses and which are local paths. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import quote

from azpool.errors import UsageError

__all__ = ["Remote", "is_remote", "parse", "shown"]

_SCHEMES = ("az://", "https://", "http://")


def is_remote(text: str) -> bool:
    """Whether an argument is an address; everything else is a local path."""
    return text.startswith(_SCHEMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """An address, taken apart.

    Attributes:
        url: of the container (of the account where `container` is ""), with the SAS that it had.
        container: its name, or "".
        path: what follows the container: "" for `az://c`, "/" for `az://c/`.
        shown: the address without its SAS, as it may be printed.
    """

    url: str
    container: str
    path: str
    shown: str

    def __repr__(self) -> str:
        return f"Remote({self.shown!r})"

    @property
    def prefix(self) -> str:
        """The path as the beginning of blobs' names: "" for the container itself."""
        return "" if self.path == "/" else self.path


def parse(text: str) -> Remote:
    """Take an address apart.

    Raises:
        UsageError: it is none of a storage account.
    """
    from azpool.storage.endpoint import parse_place

    if not is_remote(text):
        raise UsageError(
            f"cannot open {text!r}: not an address; use az://CONTAINER/... or "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER/..."
        )
    place = parse_place(text)
    if place.account_url is None:
        url = f"az://{place.container}"
    else:
        url = f"{place.account_url}/{quote(place.container, safe='$')}".rstrip("/")
        url += f"?{place.sas}" if place.sas else ""
    return Remote(url=url, container=place.container, path=place.path, shown=shown(text))


def parse_container(text: str, what: str) -> Remote:
    """Take an address apart that must name a container.

    Raises:
        UsageError: it is none, or names no container.
    """
    remote = parse(text)
    if not remote.container:
        raise UsageError(f"cannot {what} {remote.shown!r}: no container in it; add its name")
    return remote


def shown(text: str) -> str:
    """Answer an argument as it may be printed: an address without its SAS."""
    if text.startswith("az://") or not is_remote(text):
        return text
    return text.partition("?")[0]


def looks_like_address(path: str) -> bool:
    """Whether a local path was probably meant as an address: `s3://x`, `a.blob.core.net/x`."""
    if os.path.lexists(path):
        return False
    return "://" in path or ".blob.core." in path
