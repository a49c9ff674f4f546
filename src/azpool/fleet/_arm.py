"""The adapter: calls go through Azure's official clients, and come back as plain answers.

    master: ClientRecipe -> node: perform(recipe, calls) -> official client -> pipeline -> Answer

Nothing is decided here. The clients run on a pipeline of azpool's own: no retries, no redirects, no
registering of providers, no polling; its outermost policy takes each response as it came, before
the client makes models of it. Clients and connections are kept on the node, for all jobs. No token,
SAS or other secret gets into an answer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from azpool.errors import UsageError
from azpool.fleet._bodies import answer_of, argument, scrubbed, scrubbed_body
from azpool.fleet.calls import Answer, Call

__all__ = ["NODE_MODULES", "PUBLIC_CLOUD", "ClientRecipe", "close_clients", "perform"]

PUBLIC_CLOUD = "https://management.azure.com"
# Their tokens are for themselves; what is at any other address takes the public cloud's.
CLOUDS = frozenset({
    PUBLIC_CLOUD,
    "https://management.usgovcloudapi.net",
    "https://management.chinacloudapi.cn",
})  # fmt: skip

# What a node imports for its first call, 0.3 s: once for all, where the pool is made here.
NODE_MODULES = (
    "azpool.fleet._arm",
    "azure.core.pipeline.transport._requests_basic",
    "azure.mgmt.core.policies",
    "azure.mgmt.compute.operations",
    "azure.mgmt.network.operations",
)

THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecipe:
    """How a node makes its clients; pickles without a secret.

    Attributes:
        credential: what `azpool.identity.share` gives.
        base_url: Azure Resource Manager's address: of another cloud, or of a simulator.
        scopes: what tokens are for; () is what the cloud at `base_url` takes.
        ca_file: certificates to trust instead of the system's, or None.
        connect_timeout_seconds: until a connection stands.
        read_timeout_seconds: of silence, before an answer is given up.
        threads: how many calls of one bundle are on their way at once at most.

    Raises:
        UsageError: a value makes no sense.
    """

    credential: Any = field(repr=False)
    base_url: str = PUBLIC_CLOUD
    scopes: tuple[str, ...] = ()
    ca_file: str | None = None
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    threads: int = THREADS

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
            raise UsageError(
                f"cannot use {scrubbed(self.base_url)!r} as Azure Resource Manager's address: it "
                "must be https://HOST[:PORT], for a token goes there"
            )
        if self.ca_file is not None and not os.path.isfile(self.ca_file):
            raise UsageError(f"cannot use the certificates in {self.ca_file!r}: no such file")
        if self.threads < 1 or min(self.connect_timeout_seconds, self.read_timeout_seconds) <= 0:
            raise UsageError("cannot use these limits: threads and timeouts are more than 0")

    @property
    def token_scopes(self) -> tuple[str, ...]:
        """What tokens are asked for."""
        cloud = self.base_url.rstrip("/")
        return self.scopes or (f"{cloud if cloud in CLOUDS else PUBLIC_CLOUD}/.default",)

    def to_dict(self) -> dict[str, Any]:
        """Answer all but the credential, as plain values, for a journal."""
        return {
            "base_url": self.base_url,
            "scopes": list(self.scopes),
            "ca_file": self.ca_file,
            "connect_timeout_seconds": self.connect_timeout_seconds,
            "read_timeout_seconds": self.read_timeout_seconds,
            "threads": self.threads,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], credential: Any) -> ClientRecipe:
        """Make it of what `to_dict` answered, and a credential."""
        return cls(**{**row, "scopes": tuple(row["scopes"]), "credential": credential})


def perform(recipe: ClientRecipe, calls: Sequence[Call]) -> list[Answer]:
    """Send calls at once and answer each, in their order; blocks, and never raises for one of them.

    Nothing is sent twice, but for what a challenge for other claims asks (401: it was not done).
    """
    clients = _clients_of(recipe)
    if len(calls) <= 1 or recipe.threads == 1:
        return [clients.answer(call) for call in calls]
    # Threads of its own: starting eight takes less than a call, and none is left on the node.
    with ThreadPoolExecutor(min(recipe.threads, len(calls)), "azpool-arm") as threads:
        return list(threads.map(clients.answer, calls))


_all: dict[ClientRecipe, _Clients] = {}
_lock = threading.Lock()


def _clients_of(recipe: ClientRecipe) -> _Clients:
    with _lock:
        found = _all.get(recipe)
        if found is None:
            found = _all[recipe] = _Clients(recipe)
        return found


def close_clients() -> None:
    """Close the connections that this process keeps. For those who performed calls in the master.

    The clients are made anew when they are needed again.
    """
    with _lock:
        gone = [*_all.values()]
        _all.clear()
    for clients in gone:
        clients.close()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _all.clear()  # their connections are the parent's


os.register_at_fork(after_in_child=_forget)


class _Captured(Exception):
    """Ends a client's method once the answer is there; no model is made of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("answered")
        self.answer = answer


class _Sending(threading.local):
    """Whether this thread's request may have left: set before its first byte is written."""

    begun = False


_sending = _Sending()


class _Clients:
    """The clients of one recipe, by name and subscription, over one set of connections."""

    def __init__(self, recipe: ClientRecipe) -> None:
        self._recipe = recipe
        self._made: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()
        self._transport: Any = None

    def answer(self, call: Call) -> Answer:
        """Send one call; see `perform`."""
        _sending.begun = False
        started = time.perf_counter()
        revealed: list[str] = []
        try:
            arguments = {name: argument(value, revealed) for name, value in call.arguments.items()}
            self._invoke(call, arguments)
        except _Captured as captured:
            found = captured.answer
        except Exception as error:
            found = _unanswered(error)
        else:
            # A method that sends nothing: nothing is known to have been done.
            found = Answer(status=None, code="NothingSent", message=call.method, sent=False)
        return Answer(
            status=found.status,
            headers=found.headers,
            body=scrubbed_body(found, revealed),
            code=found.code,
            message=scrubbed(found.message, revealed),
            sent=found.sent,
            seconds=time.perf_counter() - started,
        )

    def _invoke(self, call: Call, arguments: Mapping[str, Any]) -> None:
        if call.method == "get":
            self._get(call)
            return
        client, _, path = call.method.partition(".")
        method: Any = self._client(client, call.subscription)
        for name in path.split("."):
            method = None if name.startswith("_") else getattr(method, name, None)
        if not callable(method):
            raise UsageError(f"the official clients have no method {call.method}")
        polling = {"polling": False} if path.rpartition(".")[2].startswith("begin_") else {}
        found = method(**arguments, **polling)
        if hasattr(found, "by_page"):  # a list sends nothing until its first page is asked for
            next(iter(found.by_page()))

    def _get(self, call: Call) -> None:
        from azure.core.rest import HttpRequest

        url = call.url or ""
        if not _is_below(url, self._recipe.base_url):
            raise UsageError(
                f"{scrubbed(url)[:200]!r} is no address of {self._recipe.base_url}: no token is "
                "sent there"
            )
        headers = {"Accept": "application/json"}
        self._client("get", "").send_request(HttpRequest("GET", url, headers=headers))

    def _client(self, name: str, subscription: str) -> Any:
        with self._lock:
            key = name, subscription.lower()
            if key not in self._made:
                self._made[key] = self._make(name, subscription)
            return self._made[key]

    def _make(self, name: str, subscription: str) -> Any:
        recipe = self._recipe
        if self._transport is None:
            self._transport = _transport(recipe)
        common: dict[str, Any] = {"policies": _policies(recipe), "transport": self._transport}
        if name == "get":
            from azure.mgmt.core import ARMPipelineClient

            return ARMPipelineClient(recipe.base_url, **common)
        make = _client_class(name)
        scopes = list(recipe.token_scopes)
        common |= {"base_url": recipe.base_url, "credential_scopes": scopes}
        return make(recipe.credential, subscription, **common)

    def close(self) -> None:
        with self._lock:
            self._made.clear()
            if self._transport is not None:
                self._transport.close()
                self._transport.session.close()
            self._transport = None


def _client_class(name: str) -> Any:
    try:
        if name == "compute":
            from azure.mgmt.compute import ComputeManagementClient

            return ComputeManagementClient
        if name == "network":
            from azure.mgmt.network import NetworkManagementClient

            return NetworkManagementClient
        if name == "resources":
            from azure.mgmt.resource.resources import ResourceManagementClient

            return ResourceManagementClient
    except ImportError as error:
        raise UsageError(
            f"{error.name or 'the official client'} is not installed; pip install 'azpool[fleet]'"
        ) from error
    raise UsageError(f"there is no client {name!r}: name compute, network or resources")


def _policies(recipe: ClientRecipe) -> list[Any]:
    """The pipeline: what is not in it is not done."""
    from azure.core.pipeline import policies
    from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

    from azpool._version import __version__

    return [
        _capture(),
        policies.RequestIdPolicy(),
        policies.HeadersPolicy(),
        policies.UserAgentPolicy(base_user_agent=f"azpool/{__version__}"),
        ARMChallengeAuthenticationPolicy(recipe.credential, *recipe.token_scopes),
    ]


@functools.cache
def _capture() -> Any:
    """Make the outermost policy: it ends the method with the answer."""
    from azure.core.pipeline.policies import HTTPPolicy

    class Capture(HTTPPolicy):  # type: ignore[type-arg]  # of any request
        def send(self, request: Any) -> Any:
            response = self.next.send(request).http_response
            raise _Captured(answer_of(response))

    return Capture()


def _transport(recipe: ClientRecipe) -> Any:
    """Make azure-core's own transport, over a session that tells when a request leaves."""
    import requests
    from azure.core.pipeline.transport import RequestsTransport

    session = requests.Session()
    # The environment is read once, here: its proxies, its certificates, and no ~/.netrc, whose
    # passwords would take the token's place.
    session.trust_env = False
    session.proxies.update(requests.utils.get_environ_proxies(recipe.base_url))
    session.mount("https://", _adapter_class()(pool_connections=4, pool_maxsize=recipe.threads))
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return RequestsTransport(
        session=session,
        session_owner=False,
        use_env_settings=False,
        connection_timeout=recipe.connect_timeout_seconds,
        read_timeout=recipe.read_timeout_seconds,
        connection_verify=recipe.ca_file or bundle or True,
    )


@functools.cache
def _adapter_class() -> Any:
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPSConnection

    class Connection(HTTPSConnection):
        def request(self, *args: Any, **kwargs: Any) -> None:
            # By now there is a connection and TLS stands: a certificate that is refused, a name
            # that nobody knows and a port where nobody listens came before.
            _sending.begun = True
            super().request(*args, **kwargs)

    class ConnectionPool(HTTPSConnectionPool):
        ConnectionCls = Connection

    schemes = {"http": HTTPConnectionPool, "https": ConnectionPool}

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = schemes

        def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(*args, **kwargs)
            manager.pool_classes_by_scheme = schemes
            return manager

        def close(self) -> None:
            # urllib3 closes what its pools hold when they are collected as garbage: some day.
            for manager in (self.poolmanager, *self.proxy_manager.values()):
                for key in manager.pools.keys():  # noqa: SIM118 - it can't be iterated over
                    pool = manager.pools.get(key)
                    if pool is not None:
                        pool.close()
            super().close()

    return Adapter


def _unanswered(error: Exception) -> Answer:
    """Say why no answer came, and whether the request may have arrived all the same."""
    return Answer(
        status=None,
        code=type(error).__name__,
        message=str(error) or type(error).__name__,
        sent=_sending.begun,
    )


def _is_below(url: str, base: str) -> bool:
    """Tell whether an address is the service's own: a token goes nowhere else.

    Regions have addresses of their own below the cloud's: `westeurope.management.azure.com`.
    """
    with contextlib.suppress(ValueError):
        asked, own = urlsplit(url), urlsplit(base)
        host, known = (asked.hostname or ""), (own.hostname or "")
        near = host == known or host.endswith("." + known)
        return near and asked.scheme == "https" and (asked.port or 443) == (own.port or 443)
    return False
