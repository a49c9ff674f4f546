"""The simulator's server: HTTPS on loopback, one thread a connection, one world behind a lock.

    client -> TLS -> token, api-version, JSON -> limits, faults, permissions -> handler -> answer

What is wrong with a request is answered as ARM answers it; what is wrong with a handler is a 500
with its type and text, kept in `Service.broken`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import ssl
import threading
import time
import traceback
import uuid
import weakref
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from azpool.testing.arm._faults import Faults, Loss
from azpool.testing.arm._limits import charge
from azpool.testing.arm._routes import ArmError, Reply, Request, find

if TYPE_CHECKING:
    from azpool.testing.arm._limits import Limits
    from azpool.testing.arm._world import World

__all__ = ["Seen", "Server", "Service"]

MOST_BYTES = 4 * 1024 * 1024  # of a request's body: learn.microsoft.com, ARM's own limit
IDLE_SECONDS = 120.0


class Seen(NamedTuple):
    """One request that came: when (`time.monotonic`), by whom, and how it was answered.

    `status` is 0 where the connection was cut instead; `retry_after` is what was told.
    """

    at: float
    method: str
    path: str
    query: Mapping[str, str]
    status: int
    principal: str
    retry_after: str | None


class Cut(Exception):
    """Ends a connection without an answer."""


class Service:
    """Answers requests: all but the wire.

    Attributes:
        requests: what came so far, in order of its answers.
        broken: tracebacks of handlers that raised.
        audiences: what tokens may be for; empty takes any.
    """

    def __init__(self, world: World, limits: Limits | None, faults: Faults) -> None:
        self.world, self.limits, self.faults = world, limits, faults
        self.requests: list[Seen] = []
        self.broken: list[str] = []
        self.audiences: set[str] = set()
        self.latency_seconds = 0.0
        self.closing = threading.Event()

    def answer(self, method: str, target: str, headers: Mapping[str, str], data: bytes) -> Reply:
        """Answer one request.

        Raises:
            Cut: nothing is answered.
        """
        self.on_the_way(time.monotonic() + self.latency_seconds / 2)
        request = Request(method=method, path="", headers=headers, target=target)
        status = 0
        retry_after = None
        try:
            try:
                self._read(request, data)
                reply = self._handle(request)
            except ArmError as error:
                reply = error.reply()
            except Cut:
                raise
            except Exception as error:
                self.broken.append(traceback.format_exc())
                message = f"{type(error).__name__}: {error}"
                reply = ArmError(500, "InternalServerError", message).reply()
            status, retry_after = reply.status, reply.headers.get("Retry-After")
        finally:
            seen = Seen(
                time.monotonic(),
                method,
                request.path,
                request.query,
                status,
                request.principal,
                retry_after,
            )
            with self.world.lock:
                self.requests.append(seen)
        return reply

    def on_the_way(self, until: float) -> None:
        """Wait as what travels does, until `until` (CLOCK_MONOTONIC), or the end of the service."""
        if self.latency_seconds and (seconds := until - time.monotonic()) > 0:
            self.closing.wait(seconds)

    def _read(self, request: Request, data: bytes) -> None:
        parts = urlsplit(request.target)
        request.path = unquote(parts.path)
        request.query = {
            name.lower(): value for name, value in parse_qsl(parts.query, keep_blank_values=True)
        }
        request.base = self.world.base
        request.principal = self._principal(request.headers.get("authorization", ""))
        if not request.api_version:
            raise ArmError(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        if not data:
            return
        try:
            request.body = json.loads(data)
        except (ValueError, RecursionError):
            raise ArmError(
                400,
                "InvalidRequestContent",
                "The request content was invalid and could not be deserialized.",
            ) from None

    def _principal(self, header: str) -> str:
        kind, _, token = header.partition(" ")
        if kind.lower() != "bearer" or not token:
            raise _unauthorized(
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
            )
        claims = _claims(token.strip())
        if claims is None:
            raise _unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
        expires = claims.get("exp")
        if not isinstance(expires, (int, float)) or expires <= time.time():
            raise _unauthorized(
                "ExpiredAuthenticationToken", "The access token expiry UTC time is in the past."
            )
        audience = str(claims.get("aud", "")).rstrip("/")
        if self.audiences and audience not in self.audiences:
            raise _unauthorized(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource '{audience}'.",
            )
        return str(claims.get("oid") or claims.get("appid") or "")

    def _handle(self, request: Request) -> Reply:
        found = find(request.method, request.path)
        parts = request.path.strip("/").split("/")
        subscription = parts[1] if len(parts) > 1 and parts[0].lower() == "subscriptions" else ""
        with self.world.lock:
            self.world.settle()
            headers = {}
            if found is not None:
                handler, request.params = found
            if self.limits is not None and subscription:
                charged = charge(self.world, request)
                headers = self.limits.take(request, subscription, time.monotonic(), charged)
            rule = self.faults.of(request)
            if rule is not None and rule.loss is None:
                more = {} if rule.retry_after is None else {"Retry-After": rule.retry_after}
                raise ArmError(rule.status, rule.code, rule.message, headers=more)
            if rule is not None and rule.loss is Loss.UNSENT:
                raise Cut
            self.world.refuse_denied(request)
            if found is None:
                raise _unknown(request)
            try:
                reply = handler(self.world, request)
            except ArmError as error:
                reply = error.reply()
            if rule is not None and rule.loss is Loss.UNANSWERED:
                raise Cut
        reply.headers = headers | reply.headers
        return reply


def _claims(token: str) -> dict[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _unauthorized(code: str, message: str) -> ArmError:
    where = 'authorization_uri="https://login.invalid/"'
    challenge = f'Bearer {where}, error="invalid_token", error_description="{message}"'
    return ArmError(401, code, message, headers={"WWW-Authenticate": challenge})


def _unknown(request: Request) -> ArmError:
    parts = request.path.partition("/providers/")[2].split("/")
    if len(parts) > 1:
        kind = "/".join([parts[0], *parts[1::2]])
        return ArmError(
            404,
            "InvalidResourceType",
            f"The resource type or action '{kind}' ({request.method}) is not modelled here.",
        )
    return ArmError(404, "NotFound", f"{request.method} {request.path} is not modelled here.")


class Server(ThreadingHTTPServer):
    """Listens on loopback until `close`."""

    daemon_threads = False  # closing waits for the answers that are under way
    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(self, service: Service, context: ssl.SSLContext) -> None:
        self.service, self.context = service, context
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        _listening.add(self)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="azpool-arm")
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        sock.settimeout(IDLE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._guard:
            self.connections += 1
            self._open.add(sock)
        return sock, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a client that is slow to greet holds up nobody.
        tls = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            # The wrapped socket has taken the descriptor: `close` must find it while it greets.
            self._open.discard(request)
            self._open.add(tls)
            closing = self.service.closing.is_set()
        try:
            if not closing:
                tls.do_handshake()
                _Handler(tls, client_address, self)
        except (OSError, ValueError):
            pass  # the client went, or `close` cut it
        finally:
            with self._guard:
                self._open.discard(tls)
            tls.close()

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Keep what a connection's thread raised."""
        self.service.broken.append(traceback.format_exc())

    def close(self) -> None:
        """Answer nothing more: connections are cut, threads joined."""
        _listening.discard(self)
        self.service.closing.set()
        self.shutdown()
        self._thread.join()
        with self._guard:
            for sock in self._open:
                # The plain socket's own: that of TLS takes the session from whom it still greets.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self.server_close()


_listening: weakref.WeakSet[Server] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Close a fork's copies of the sockets: else nobody would be told that the server is gone."""
    for server in list(_listening):
        for sock in (server.socket, *server._open):
            sock.close()
    _listening.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    server_version = "azpool-arm"
    sys_version = ""
    wbufsize = -1  # one write for an answer

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def _any(self) -> None:
        if self.server.service.closing.is_set():
            self.close_connection = True
            return
        came_at = time.monotonic()
        headers = {name.lower(): value for name, value in self.headers.items()}
        data = self._data(headers)
        if data is None:
            return
        try:
            reply = self.server.service.answer(self.command, self.path, headers, data)
        except Cut:
            self.close_connection = True
            return
        self._send(reply, headers, came_at)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _any  # noqa: N815

    def _data(self, headers: Mapping[str, str]) -> bytes | None:
        """Read the body; None where the request was answered already."""
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            self._refuse(411, "MissingContentLength", "The Content-Length header is required.")
            return None
        if int(length) > MOST_BYTES:
            self._refuse(
                413,
                "RequestContentTooLarge",
                f"The request content size exceeds the maximum size of {MOST_BYTES} bytes.",
            )
            return None
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            self.close_connection = True
            return None
        return data

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.close_connection = True  # what follows is no request
        self._send(ArmError(status, code, message).reply(), {}, time.monotonic())

    def _send(self, reply: Reply, asked: Mapping[str, str], came_at: float) -> None:
        data = reply.encoded()
        service = self.server.service
        service.on_the_way(came_at + service.latency_seconds)
        identifier = str(uuid.uuid4())
        self.send_response_only(reply.status)
        headers = {
            "Cache-Control": "no-cache",
            "Pragma": "no-cache",
            "Expires": "-1",
            "Date": formatdate(usegmt=True),
            "x-ms-request-id": identifier,
            "x-ms-correlation-request-id": asked.get("x-ms-correlation-request-id", identifier),
            "x-ms-routing-request-id": f"LOOPBACK:{identifier}",
            "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
            "X-Content-Type-Options": "nosniff",
        }
        if data:
            headers["Content-Type"] = "application/json; charset=utf-8"
        if reply.status != 204:
            headers["Content-Length"] = str(len(data))
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in (headers | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and reply.status != 204:
            self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""
