"""Where a container is and how to sign in: URLs, connection strings, environment -> one recipe.

Everything that names a place ends here as a frozen `StoreRecipe`, which pickles and holds no
connection; `_stores.py` opens it once in each process. Given arguments beat a SAS in the URL,
which beats the environment, which counts only if it is not about another account. No key, SAS or
token is ever part of a message.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from azpool.errors import UsageError
from azpool.identity.secret import Secret
from azpool.identity.shared import share
from azpool.storage import _master
from azpool.storage._http import ClientOptions
from azpool.storage._recipe import StoreRecipe
from azpool.storage._signing import Anonymous, Auth, Bearer, Sas, SharedKey

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "Given",
    "check_container_name",
    "parse_connection_string",
    "parse_place",
    "resolve",
]

# Published with the emulator; it opens nothing else.
EMULATOR_ACCOUNT = "devstoreaccount1"
EMULATOR_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
EMULATOR_URL = f"http://127.0.0.1:10000/{EMULATOR_ACCOUNT}"

_CONTAINER = re.compile(r"(?=.{3,63}\Z)[a-z0-9](?:-?[a-z0-9])+|\$root|\$web|\$logs")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a URL says by itself; `path` is "/" for `az://c/`, "" for `az://c`."""

    account_url: str | None
    account: str | None
    container: str
    path: str
    sas: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """How the caller wants to sign in, as given; nothing means: look into the environment."""

    credential: Any = None
    key: str | Secret | None = field(default=None, repr=False)
    sas: str | Secret | None = field(default=None, repr=False)
    connection_string: str | Secret | None = field(default=None, repr=False)
    anonymous: bool = False
    account: str | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        ways = {
            "credential": self.credential is not None,
            "key": self.key is not None,
            "sas": self.sas is not None,
            "connection_string": self.connection_string is not None,
            "anonymous": self.anonymous,
        }
        chosen = [name for name, given in ways.items() if given]
        if len(chosen) > 1:
            raise UsageError(
                f"cannot sign in with {' and '.join(chosen)} at once; give one of them"
            )


def resolve(
    url: str | None,
    given: Given,
    *,
    environ: Mapping[str, str] | None = None,
    options: ClientOptions | None = None,
) -> tuple[StoreRecipe, str]:
    """Make the recipe of what `url` names, and the path that it names inside the container.

    `url=None` is the account of the arguments or the environment.

    Raises:
        UsageError: the URL is not one, names no account, or nothing says how to sign in.
    """
    environ = os.environ if environ is None else environ
    place = (
        parse_place(url)
        if url is not None
        else Place(account_url=None, account=None, container="", path="")
    )
    if place.sas is not None and (given.key or given.sas or given.connection_string):
        raise UsageError(
            f"cannot open {_bare(url)!r}: its URL holds a SAS and another credential "
            "is given; give one of them"
        )
    sources = [_from_given(given), _Facts(sas=place.sas), _from_environment(environ)]
    known = _merge(place, given, sources)
    auth = _choose_auth(given, known, _bare(url))
    recipe = StoreRecipe(
        account_url=known.account_url,
        container=place.container,
        auth=auth,
        options=options or ClientOptions(),
    )
    _refuse_clear_text_tokens(recipe)
    return recipe, place.path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What one source (arguments, URL, environment) knows of account and credentials."""

    account_url: str | None = None
    account: str | None = None
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    account_url: str
    account: str | None
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)


def _from_given(given: Given) -> _Facts:
    if given.connection_string is not None:
        return parse_connection_string(_plain(given.connection_string))
    return _Facts(
        account_url=given.endpoint.rstrip("/") if given.endpoint else None,
        account=given.account,
        key=_plain(given.key) if given.key is not None else None,
        sas=_plain(given.sas) if given.sas is not None else None,
    )


def _from_environment(environ: Mapping[str, str]) -> _Facts:
    """Read the variables that the Azure CLI and adlfs read."""
    if text := environ.get("AZURE_STORAGE_CONNECTION_STRING"):
        return parse_connection_string(text, name="AZURE_STORAGE_CONNECTION_STRING")
    return _Facts(
        account=environ.get("AZURE_STORAGE_ACCOUNT") or environ.get("AZURE_STORAGE_ACCOUNT_NAME"),
        key=environ.get("AZURE_STORAGE_KEY") or environ.get("AZURE_STORAGE_ACCOUNT_KEY"),
        sas=environ.get("AZURE_STORAGE_SAS_TOKEN"),
    )


def _merge(place: Place, given: Given, sources: list[_Facts]) -> _Known:
    """Take each fact from the first source that has it; the environment's only if it may apply."""
    explicit, in_url, environment = sources
    account_url = place.account_url or explicit.account_url
    account = place.account or explicit.account
    if account is None and account_url is not None:
        account = _account_of(account_url)
    if account_url is None and account is not None and environment.account != account:
        account_url = f"https://{_checked_account(account)}.blob.core.windows.net"
    signed = bool(explicit.key or explicit.sas or in_url.sas)
    signed = signed or given.credential is not None or given.anonymous
    usable = _may_apply(environment, account_url, account)
    if usable and account_url is None:
        account_url, account = environment.account_url, account or environment.account
    if account_url is None and account is not None:
        account_url = f"https://{_checked_account(account)}.blob.core.windows.net"
    if account_url is None:
        raise UsageError(
            "cannot find the storage account: neither the URL nor the environment names one; "
            "use https://ACCOUNT.blob.core.windows.net/..., pass account=, or set "
            "AZURE_STORAGE_ACCOUNT"
        )
    borrowed = environment if usable and not signed else _Facts()
    return _Known(
        account_url=account_url,
        account=account or _account_of(account_url),
        key=explicit.key or borrowed.key,
        sas=explicit.sas or in_url.sas or (None if explicit.key else borrowed.sas),
    )


def _may_apply(environment: _Facts, account_url: str | None, account: str | None) -> bool:
    """Tell whether the environment is about this account: a SAS must not go to a stranger."""
    if environment.account is not None and account is not None:
        return environment.account == account
    if environment.account_url is not None and account_url is not None:
        return urlsplit(environment.account_url).netloc == urlsplit(account_url).netloc
    return True


def _choose_auth(given: Given, known: _Known, shown: str) -> Auth:
    if given.anonymous:
        return Anonymous()
    if given.credential is not None:
        return Bearer(share(given.credential))
    if known.key:
        if not known.account:
            raise UsageError(
                f"cannot sign requests to {shown!r}: the account's name is not in the URL; "
                "pass account="
            )
        _master.offer()
        return SharedKey(known.account, Secret(_checked_key(known.key)))
    if known.sas:
        return Sas(Secret(known.sas.removeprefix("?")))
    raise UsageError(
        f"cannot open {shown!r}: nothing says how to sign in; pass key=, sas=, credential=, "
        "connection_string= or anonymous=True, or set AZURE_STORAGE_KEY, "
        "AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING"
    )


def _refuse_clear_text_tokens(recipe: StoreRecipe) -> None:
    parts = urlsplit(recipe.account_url)
    if isinstance(recipe.auth, Bearer) and parts.scheme == "http" and not recipe.is_local:
        raise UsageError(
            f"cannot send a token to {recipe.account_url!r}: http would show it to everybody on "
            "the way; use https"
        )


def parse_place(url: str) -> Place:
    """Take a URL apart: account, container and path; nothing is looked up.

    `az://container/path` is read literally (a name may hold `%`, `?` and `#`); an https or http
    URL is percent-decoded, and its query is a SAS.

    Raises:
        UsageError: not a URL of a storage account, or the container's name can't be one.
    """
    if not isinstance(url, str):
        raise UsageError(f"cannot open {url!r}: not a URL; use https://... or az://container")
    if url.startswith("az://"):
        container, slash, path = url[len("az://") :].partition("/")
        return Place(
            account_url=None,
            account=None,
            container=_checked_container(container, url),
            path=path or slash,
        )
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise UsageError(
            f"cannot open {_bare(url)!r}: not a URL of blob storage; use "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER or az://CONTAINER"
        )
    if parts.username or parts.password:
        raise UsageError(
            f"cannot open {parts.hostname!r}: a URL must not hold a password; pass key="
        )
    base = f"{parts.scheme}://{parts.netloc}"
    rest = parts.path.removeprefix("/")
    if _is_path_style(parts.hostname):
        account, _, rest = rest.partition("/")
        if not account:
            raise UsageError(
                f"cannot open {base!r}: the account is missing; use {base}/{EMULATOR_ACCOUNT}"
            )
        base = f"{base}/{account}"
    container, slash, path = rest.partition("/")
    return Place(
        account_url=base,
        account=_account_of(base),
        container=_checked_container(unquote(container), url),
        path=unquote(path) or slash,
        sas=_sas_of(parts.query, url),
    )


def _sas_of(query: str, url: str) -> str | None:
    if not query:
        return None
    if "sig=" not in query:
        raise UsageError(
            f"cannot open {_bare(url)!r}: what follows '?' is not a SAS; write '?' in a name as %3F"
        )
    return query


def _bare(url: str | None) -> str:
    """Cut the query: it may be a SAS."""
    return "the storage account" if url is None else str(url).partition("?")[0]


def _is_path_style(host: str) -> bool:
    """Tell whether the account is the first segment of the path, as with the emulator."""
    if host == "localhost" or "." not in host:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _account_of(account_url: str) -> str | None:
    parts = urlsplit(account_url)
    host = parts.hostname or ""
    if _is_path_style(host):
        return parts.path.strip("/") or None
    # A domain of the user's own does not tell the account's name.
    return host.partition(".")[0].removesuffix("-secondary") if ".blob." in host else None


def _checked_account(account: str) -> str:
    if not _ACCOUNT.fullmatch(account):
        raise UsageError(
            f"cannot use the account name {account!r}: 3 to 24 small letters and digits; "
            "check account= or AZURE_STORAGE_ACCOUNT"
        )
    return account


def _checked_container(name: str, url: str) -> str:
    if name and not _CONTAINER.fullmatch(name):
        raise UsageError(
            f"cannot open {_bare(url)!r}: {name!r} is no container's name; use 3 to 63 small "
            "letters, digits and single hyphens"
        )
    return name


def check_container_name(name: str) -> str:
    """Answer the name if a container can have it.

    Raises:
        UsageError: it can't.
    """
    if not name:
        raise UsageError("cannot open a container without a name; give one")
    return _checked_container(name, name)


def _checked_key(key: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        # `from None`: the cause would show parts of the key.
        raise UsageError(
            "cannot use the account key: it is not base64; copy it again from the portal"
        ) from None
    return key


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def parse_connection_string(text: str, *, name: str = "the connection string") -> _Facts:
    """Read `AccountName=...;AccountKey=...;BlobEndpoint=...` and its shorter forms.

    Raises:
        UsageError: it is not one, or it names no account; its text is not part of the message.
    """
    pairs: dict[str, str] = {}
    for item in filter(None, (piece.strip() for piece in text.split(";"))):
        label, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"cannot read {name}: a part of it has no '='; copy it again")
        pairs[label.lower()] = value
    if pairs.get("usedevelopmentstorage", "").lower() == "true":
        return _Facts(account_url=EMULATOR_URL, account=EMULATOR_ACCOUNT, key=EMULATOR_KEY)
    account = pairs.get("accountname")
    url = pairs.get("blobendpoint", "").rstrip("/") or None
    if url is None and account is not None:
        scheme = pairs.get("defaultendpointsprotocol", "https")
        suffix = pairs.get("endpointsuffix", "core.windows.net")
        url = f"{scheme}://{account}.blob.{suffix}"
    if url is None:
        raise UsageError(
            f"cannot read {name}: it has no AccountName and no BlobEndpoint; copy it again"
        )
    return _Facts(
        account_url=url,
        account=account or _account_of(url),
        key=pairs.get("accountkey"),
        sas=pairs.get("sharedaccesssignature"),
    )
