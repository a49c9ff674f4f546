"""The frozen recipe of a container: what travels to the nodes in place of a client."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from azpool.storage._http import ClientOptions
from azpool.storage._signing import Auth

__all__ = ["StoreRecipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecipe:
    """All that a process needs to open an account, or one container of it; holds no connection.

    Attributes:
        account_url: `https://ACCOUNT.blob.core.windows.net` or
            `http://127.0.0.1:PORT/devstoreaccount1`, without a slash at the end.
        container: its name, or "" for the account.
        auth: how requests are signed; its secrets show in no repr and pickle as handles.
        options: time-outs, connections, certificates.
    """

    account_url: str
    container: str = ""
    auth: Auth
    options: ClientOptions

    @property
    def key(self) -> tuple[object, ...]:
        """Recipes with equal keys share one open store in a process."""
        return (self.account_url, self.container, self.auth, self.options)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        host = urlsplit(self.account_url).hostname or ""
        return host == "localhost" or host.startswith("127.") or host == "::1"

    @property
    def url(self) -> str:
        """The container's address, without any secret."""
        return f"{self.account_url}/{self.container}".rstrip("/")
