"""`--output-container`: where scripts leave all that they write, and how it is read back.

The machines write it themselves, by the container's SAS: no key and no sign-in may reach them.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from azpool.cli._place import parse_container, shown
from azpool.errors import UsageError
from azpool.identity.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OutputContainer"]

_SAS = "AZURE_STORAGE_SAS_TOKEN"
_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_KEYS = frozenset({"AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"})


class OutputContainer:
    """A container, or a folder in one, and the SAS by which machines write to it.

    Args:
        address: `https://ACCOUNT.blob.core.windows.net/CONTAINER[/path][?SAS]` or
            `az://CONTAINER[/path]`.
        environ: has account and SAS where the address has none.

    Raises:
        UsageError: it is no container's address, or there is no SAS for it.
    """

    def __init__(self, address: str, environ: Mapping[str, str] = os.environ) -> None:
        from azpool.storage._signing import Sas
        from azpool.storage.endpoint import Given, resolve

        parse_container(address, "keep outputs in")
        kept = _without_keys(environ)
        resolve(address, Given(anonymous=True), environ=kept)  # says what else is wrong with it
        try:
            recipe, path = resolve(address, Given(), environ=kept)
            sas = recipe.auth.token if isinstance(recipe.auth, Sas) else None
        except UsageError:
            sas = None
        if sas is None:
            raise UsageError(
                f"cannot keep outputs in {shown(address)!r}: machines write them by a SAS, and "
                "there is none; set AZURE_STORAGE_SAS_TOKEN to one that may create, add, write "
                "and read"
            )
        base = f"{recipe.url}/{quote(path.strip('/'))}".rstrip("/")
        self.url = Secret(f"{base}?{sas.reveal()}")

    def read(self, url: str) -> bytes:
        """Read one blob by its URL; blocks.

        Raises:
            StorageError: it could not be had; the class says why.
        """
        from azpool.storage import Container

        place, question, sas = url.partition("?")
        folder, _, name = place.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="azpool-") as here:
            path = os.path.join(here, "output")
            Container(f"{folder}{question}{sas}").download(name, path)
            with open(path, "rb") as file:
                return file.read()

    def arguments(self) -> dict[str, Any]:
        """Answer what `Fleet.run_script` takes for it."""
        return {"output_container": self.url.reveal(), "read_output": self.read}


def _without_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """Answer the environment where its SAS counts: a key beside it would be taken before it."""
    kept = {name: value for name, value in environ.items() if name not in _KEYS}
    if kept.get(_SAS) and kept.get(_CONNECTION):
        parts = kept[_CONNECTION].split(";")
        named = [one for one in parts if not one.strip().lower().startswith("accountkey=")]
        kept[_CONNECTION] = ";".join([*named, f"SharedAccessSignature={kept[_SAS]}"])
    return kept
