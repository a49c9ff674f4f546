"""Make requests acceptable: shared key, SAS, bearer tokens, or nothing.

Functions of a request and a clock; source: "Authorize with Shared Key" of the Blob service's REST
reference. The string to sign of a shared key is compared with azure-storage-blob's own in
tests/unit/storage/test_signing.py. Keys, SAS and credentials pickle as handles: a node asks the
master for tokens and SAS (azpool.identity), and never has an account's key.
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias

from azpool.errors import UsageError
from azpool.identity.secret import Secret
from azpool.identity.shared import SharedCredential
from azpool.identity.tokens import Ask
from azpool.storage._sas import SasLender, decode_key

__all__ = [
    "API_VERSION",
    "Anonymous",
    "Auth",
    "Bearer",
    "BearerSigner",
    "BorrowedSigner",
    "Request",
    "Sas",
    "SharedKey",
    "Signed",
    "http_date",
    "make_signer",
    "string_to_sign",
]

# Known to the service since 2024 and to Azurite 3.33 and later.
API_VERSION = "2024-11-04"
STORAGE = Ask(("https://storage.azure.com/.default",))

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Request(NamedTuple):
    """One request before it is signed.

    Attributes:
        method: of HTTP.
        path: encoded, from the origin on: `/container/a%20b`.
        query: names (lower case) and values, not encoded.
        headers: all but date, version and authorization.
        repeatable: whether sending it twice without an answer in between gives the same answer.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    repeatable: bool = True


class Signed(NamedTuple):
    """What a signer adds: all headers of the request, and a finished query to append or ""."""

    headers: dict[str, str]
    query: str


class Signer(Protocol):
    """Signs each request; may be called from many threads."""

    def __call__(self, request: Request, now: float) -> Signed: ...


@dataclass(frozen=True, slots=True)
class SharedKey:
    """The account's key, in base64 as the portal shows it; nodes borrow SAS in its place."""

    account: str
    key: Secret

    def __post_init__(self) -> None:
        # However it came: as itself it never leaves this process.
        object.__setattr__(self, "key", Secret(self.key.reveal(), SasLender(self.account)))


@dataclass(frozen=True, slots=True)
class Sas:
    """A shared access signature: a query string, with or without its question mark."""

    token: Secret


@dataclass(frozen=True, slots=True)
class Bearer:
    """A credential that was shared: tokens of Entra ID."""

    credential: SharedCredential


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credentials: containers that are open to the public."""


Auth: TypeAlias = SharedKey | Sas | Bearer | Anonymous


def make_signer(auth: Auth, account_url: str, container: str = "") -> Signer:
    """Build the function that signs each request to a container, or to the account.

    Raises:
        UsageError: the key is no base64, the SAS is none, or a token would go over plain HTTP.
    """
    match auth:
        case SharedKey():
            if not auth.key.is_here:
                return BorrowedSigner(auth.key, account_url, container)
            return _shared_key_signer(auth)
        case Sas():
            return _sas_signer(auth)
        case Bearer():
            _refuse_plain_http(account_url)
            return BearerSigner(auth.credential)
        case Anonymous():
            return lambda request, now: Signed(_with_version(request, now), "")


def _with_version(request: Request, now: float) -> dict[str, str]:
    return {"x-ms-date": http_date(int(now)), "x-ms-version": API_VERSION, **request.headers}


@lru_cache(maxsize=4)
def http_date(seconds: int) -> str:
    """Format a time as HTTP wants it; strftime would speak the user's language."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    )


def _shared_key_signer(auth: SharedKey) -> Signer:
    import hashlib  # not above: nodes hold no key, and are spared OpenSSL's 4 ms
    import hmac

    key = decode_key(auth.key.reveal(), auth.account)
    keyed = hmac.new(key, digestmod=hashlib.sha256)  # copied for each request: half of the cost
    account = auth.account

    def sign(request: Request, now: float) -> Signed:
        headers = _with_version(request, now)
        mac = keyed.copy()
        mac.update(string_to_sign(account, request, headers).encode())
        signature = binascii.b2a_base64(mac.digest(), newline=False).decode()
        headers["Authorization"] = f"SharedKey {account}:{signature}"
        return Signed(headers, "")

    return sign


def string_to_sign(account: str, request: Request, headers: Mapping[str, str]) -> str:
    """Write a request as the service will when it checks the signature."""
    get = headers.get
    length = get("Content-Length", "")
    fixed = (
        f"{request.method}\n{get('Content-Encoding', '')}\n{get('Content-Language', '')}\n"
        f"{'' if length == '0' else length}\n{get('Content-MD5', '')}\n"
        # The empty line is Date's: x-ms-date takes its place.
        f"{get('Content-Type', '')}\n\n{get('If-Modified-Since', '')}\n{get('If-Match', '')}\n"
        f"{get('If-None-Match', '')}\n{get('If-Unmodified-Since', '')}\n{get('Range', '')}\n"
    )
    extra = sorted(
        [
            (name.lower(), value)
            for name, value in headers.items()
            if name[:5] in ("x-ms-", "X-MS-")
        ],
        key=_header_order,
    )
    lines = "".join([f"{name}:{value}\n" for name, value in extra])
    query = "".join([f"\n{name}:{value}" for name, value in sorted(request.query)])
    return f"{fixed}{lines}/{account}{request.path}{query}"


_UNDERSCORE_FIRST = str.maketrans({"-": None, "_": "!"})


def _header_order(header: tuple[str, str]) -> tuple[str, str]:
    # The service compares as words are compared: hyphens don't count, and the underscore (only
    # metadata's names have it) stands before digits and letters.
    name = header[0]
    return name.translate(_UNDERSCORE_FIRST) if "_" in name else name.replace("-", ""), name


def _sas_signer(auth: Sas) -> Signer:
    token = auth.token.reveal().strip().lstrip("?&")
    if "sig=" not in token:
        raise UsageError("cannot use the SAS: it has no signature (sig=); copy it whole")
    if any(character <= " " or character > "~" for character in token):
        raise UsageError("cannot use the SAS: it has a space or a line break; copy it whole")

    def sign(request: Request, now: float) -> Signed:
        return Signed(_with_version(request, now), token)

    return sign


def _refuse_plain_http(account_url: str) -> None:
    loopback = ("http://127.", "http://localhost", "http://[::1]")
    if not account_url.startswith(("https://", *loopback)):
        raise UsageError(
            f"cannot send a token to {account_url}: anyone on the way could read it; use https://"
        )


class BorrowedSigner:
    """Signs with SAS that the master makes of a key, each for a while."""

    def __init__(self, key: Secret, account_url: str, container: str) -> None:
        self._key = key
        self._purpose = (container, "https" if account_url.startswith("https:") else "https,http")

    def __call__(self, request: Request, now: float) -> Signed:
        return Signed(_with_version(request, now), self._key.borrow(*self._purpose).value)

    def refused(self, sas: str) -> bool:
        """Borrow anew in place of this one; False where the same would be used again."""
        if self._key.borrow(*self._purpose).value != sas:
            return True  # another thread has done so
        return self._key.borrow(*self._purpose, refused=True).value != sas


class BearerSigner:
    """Signs with the token that this process holds; who holds it sees to its being fresh."""

    def __init__(self, credential: SharedCredential) -> None:
        self._credential = credential

    def __call__(self, request: Request, now: float) -> Signed:
        headers = _with_version(request, now)
        headers["Authorization"] = f"Bearer {self._credential.hold(STORAGE).value}"
        return Signed(headers, "")

    def challenged(self, claims: str) -> None:
        """Replace the token, which the service has refused; blocks until there is another."""
        self._credential.hold(STORAGE, claims)
