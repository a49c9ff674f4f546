"""Open one connection to an origin: addresses, the environment's proxies, TLS.

`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` count, as for curl; loopback addresses never
go through a proxy. Everything that fails here is raised as it is: `_http.py` translates.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from azpool.errors import UsageError
from azpool.storage._http1 import SEND_BYTES, Socket, read_answer, request_head

if TYPE_CHECKING:
    import ssl

__all__ = ["Link", "Origin", "is_timeout", "open_link", "parse_origin", "proxy_for"]

_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


class Origin(NamedTuple):
    """Where requests go: scheme, host as the resolver takes it, port, and both as a header."""

    scheme: str
    host: str
    port: int
    netloc: str


class Link:
    """One open connection, with what every request on it begins with.

    Its calls block; between `hurry` and `relax` those that end in `_now` are made, which don't.
    """

    __slots__ = ("_flags", "descriptor", "fixed", "idle_since", "sock", "target_prefix")

    def __init__(self, sock: Socket, fixed: str, target_prefix: str = "") -> None:
        self.sock = sock
        self.fixed = fixed
        self.target_prefix = target_prefix
        self.idle_since = 0.0
        self.descriptor = sock.fileno()
        # Of TLS, calls have no flags: the whole socket is told.
        self._flags = socket.MSG_DONTWAIT if type(sock) is socket.socket else 0

    def hurry(self) -> None:
        if not self._flags:
            self.sock.settimeout(0.0)

    def relax(self, read_timeout_seconds: float) -> None:
        if not self._flags:
            self.sock.settimeout(read_timeout_seconds)

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what there is room for; see `wanted` for the error of a full one."""
        return self.sock.send(data, self._flags)

    def receive_now(self, size: int) -> bytes:
        """Receive what is there, b"" at the end; see `wanted` for the error of an empty one."""
        return self.sock.recv(size, self._flags)

    @staticmethod
    def wanted(error: OSError) -> int | None:
        """Answer what to wait for with `epoll` before the call is made again; None: it failed."""
        if isinstance(error, BlockingIOError):
            return select.EPOLLOUT
        # By name: plain connections are spared the import of TLS.
        return _WANTED.get(type(error).__name__)

    def close(self) -> None:
        self.sock.close()


_WANTED = {"SSLWantReadError": select.EPOLLIN, "SSLWantWriteError": select.EPOLLOUT}


@lru_cache(maxsize=64)
def parse_origin(url: str) -> Origin:
    """Take scheme, host and port out of `scheme://host[:port]`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"cannot use {url!r} as an address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise UsageError("cannot use the address: it must be http://HOST[:PORT] or https://HOST")
    return Origin(
        parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.netloc
    )


def proxy_for(origin: Origin) -> str | None:
    """Give the proxy's URL that the environment names for this origin, or None."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXY_VARIABLES):
        return None
    if origin.host == "localhost" or origin.host.startswith("127.") or origin.host == "::1":
        return None
    import urllib.request  # 30 ms, paid only where a proxy is named

    if urllib.request.proxy_bypass(f"{origin.host}:{origin.port}"):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(origin.scheme) or proxies.get("all") or None


@lru_cache(maxsize=8)
def tls_context(ca_file: str | None, verify: bool) -> ssl.SSLContext:  # noqa: FBT001 - a cache key
    """Build the TLS settings once a process: loading the system's certificates takes 15 ms."""
    import ssl

    if ca_file is None and verify and not _system_has_certificates(ssl.get_default_verify_paths()):
        ca_file = _certifi()
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _system_has_certificates(paths: ssl.DefaultVerifyPaths) -> bool:
    # Both are None where the files that OpenSSL was built to look for are not there.
    return bool(paths.cafile or paths.capath)


def _certifi() -> str | None:
    # Some builds of Python look for the certificates where the system has none.
    try:
        import certifi  # type: ignore[import-not-found,unused-ignore]  # not a dependency
    except ImportError:
        return None
    return str(certifi.where())


def open_link(
    origin: Origin,
    *,
    connect_timeout_seconds: float,
    read_timeout_seconds: float,
    ca_file: str | None,
    verify: bool,
) -> Link:
    """Connect, through a proxy where the environment names one, and agree on TLS.

    Raises:
        OSError: and its subclasses in `socket` and `ssl`.
    """
    context = tls_context(ca_file, verify) if origin.scheme == "https" else None
    proxy = proxy_for(origin)
    fixed = f"Host: {origin.netloc}\r\nUser-Agent: azpool\r\n"
    prefix = ""
    address = (origin.host, origin.port)
    credentials = ""
    if proxy is not None:
        address, credentials = _parse_proxy(proxy)
    link: socket.socket = socket.create_connection(address, connect_timeout_seconds)
    try:
        # The handshakes count as connecting: each of their reads has this timeout.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The kernel would take megabytes at once, and on a slow line send them while we wait for
        # the answer already: the read timeout would cut uploads that are merely slow.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SEND_BYTES)
        if proxy is not None and context is not None:
            _open_tunnel(link, origin, credentials)
        elif proxy is not None:
            prefix, fixed = f"http://{origin.netloc}", fixed + credentials
        if context is not None:
            link = context.wrap_socket(link, server_hostname=origin.host)
        if context is None:
            _limit_silence(link, read_timeout_seconds)
        else:
            link.settimeout(read_timeout_seconds)
    except BaseException:
        link.close()
        raise
    return Link(link, fixed, prefix)


def _limit_silence(link: socket.socket, seconds: float) -> None:
    """Let the kernel keep the time: Python would ask it before each call whether it may begin.

    What takes longer ends with EAGAIN, of which `is_timeout` knows. Not for TLS, which would try
    again for ever, and asks the kernel only where nothing has come yet.
    """
    link.settimeout(None)
    whole = int(seconds)
    limit = struct.pack("ll", whole, max(1, int((seconds - whole) * 1e6)))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def is_timeout(error: BaseException) -> bool:
    """Tell whether an error of a connection is that of a server which was silent for too long."""
    return isinstance(error, TimeoutError | BlockingIOError)


def _parse_proxy(url: str) -> tuple[tuple[str, int], str]:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(
            f"cannot use the {parts.scheme} proxy that the environment names: only http:// proxies "
            "are spoken; change https_proxy or add the host to no_proxy"
        )
    credentials = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
    return (parts.hostname, parts.port or 80), credentials


def _open_tunnel(link: socket.socket, origin: Origin, credentials: str) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    link.sendall(request_head("CONNECT", target, f"Host: {target}\r\n{credentials}", {}))
    answer, _ = read_answer(link, "CONNECT")
    if answer.status != 200:
        raise ConnectionError(f"the proxy refused the connection ({answer.status})")
