"""A token endpoint on loopback, as managed identities have one in Azure; it counts who asks.

    with TokenEndpoint(life_seconds=3) as endpoint:
        os.environ.update(endpoint.environ)
        credential = ManagedIdentityCredential()    # azure-identity's own
        ...
        assert len(endpoint.requests) == 1

It speaks as the metadata service of a virtual machine and as App Service do. Its tokens are JSON
web tokens that nobody has signed: what reads their claims takes them, no service of Azure does.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from azpool.errors import UsageError

__all__ = ["TokenEndpoint", "TokenRequest", "unsigned_token"]

TENANT = "00000000-0000-0000-0000-00000000beef"
CLIENT = "00000000-0000-0000-0000-00000000c0de"
HEADER = "loopback"  # what App Service's callers show; no secret


class TokenRequest(NamedTuple):
    """One request that came: when (seconds since the epoch), for what, and how it was answered."""

    at: float
    resource: str
    status: int


class TokenEndpoint:
    """Gives tokens to whoever asks, between `__enter__` and `__exit__`.

    Attributes:
        requests: what came so far, in order.
        life_seconds: how long tokens live; may be changed at any time, as may the next one.
        delay_seconds: how long an answer takes.
        port: the loopback port; the same again after `stop` and `start`.
    """

    def __init__(self, *, life_seconds: float = 3600, delay_seconds: float = 0) -> None:
        self.life_seconds = life_seconds
        self.delay_seconds = delay_seconds
        self.requests: list[TokenRequest] = []
        self.port = 0
        self._refusal: tuple[int, float | None] | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What makes a managed identity of azure-identity ask here, as on a virtual machine."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.url}

    @property
    def app_service_environ(self) -> dict[str, str]:
        """The same as in App Service."""
        return {"IDENTITY_ENDPOINT": f"{self.url}/msi/token", "IDENTITY_HEADER": HEADER}

    def refuse(self, status: int, *, retry_after_seconds: float | None = None) -> None:
        """Answer with an error from now on."""
        self._refusal = status, retry_after_seconds

    def hurry(self) -> None:
        """Answer at once from now on, those too who wait already."""
        with self._changed:
            self.delay_seconds = 0
            self._changed.notify_all()

    def allow(self) -> None:
        """Give tokens again."""
        self._refusal = None

    def start(self) -> Self:
        """Listen; on the port that it had, if it had one."""
        if self._server is not None:
            return self
        server = _Server(("127.0.0.1", self.port), _Handler)
        server.endpoint = self
        self._server, self.port = server, server.server_address[1]
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), name="azpool-token-endpoint"
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Listen no more: who asks is refused the connection. Harmless when it doesn't run."""
        with self._changed:
            server, self._server = self._server, None
            self._changed.notify_all()
        if server is None or self._thread is None:
            return
        server.shutdown()
        server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<TokenEndpoint {self.url if self._server else 'stopped'}>"

    def _answer(self, resource: str) -> tuple[int, dict[str, str], dict[str, Any]]:
        refusal = self._refusal
        with self._changed:
            self._changed.wait_for(
                lambda: not self.delay_seconds or self._server is None, self.delay_seconds
            )
        with self._lock:
            now = time.time()
            self.requests.append(TokenRequest(now, resource, refusal[0] if refusal else 200))
            number = len(self.requests)
        if refusal is not None:
            status, wait = refusal
            headers = {} if wait is None else {"Retry-After": f"{wait:g}"}
            return status, headers, {"error": "refused", "error_description": "told to refuse"}
        expires_on = int(now + self.life_seconds)
        claims = {"aud": resource, "iat": int(now), "exp": expires_on, "jti": str(number)}
        claims |= {"tid": TENANT, "appid": CLIENT, "oid": CLIENT}
        body: dict[str, Any] = {
            "access_token": unsigned_token(**claims),
            "expires_in": str(expires_on - int(now)),
            "expires_on": str(expires_on),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": CLIENT,
        }
        return 200, {}, body


def unsigned_token(**claims: Any) -> str:
    """Write a JSON web token that nobody has signed.

    Raises:
        UsageError: a claim is nothing that JSON has.
    """

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    try:
        return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.{part('unsigned')}"
    except TypeError as error:
        raise UsageError(f"cannot write a token: {error}; claims are JSON") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the answers that are under way
    endpoint: TokenEndpoint


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        status, headers, body = self.server.endpoint._answer(query.get("resource", [""])[0])
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815 - the base class's way to name methods

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""
