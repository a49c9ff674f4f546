"""The seam `send(method, url, headers, body) -> status, headers, body`, over blocking sockets.

Why sockets and not a library: docs/decisions/0002-http-library.md. One client serves one origin
and any number of threads; each request holds one connection, and idle ones are kept for the next.
Nothing is repeated, except what a connection needs that the server had closed while it was idle.
After a fork the child lets go of its parent's connections and opens its own. Every error is
azpool's, and names the origin but never a path or a query, where a SAS would be.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from azpool.errors import AzpoolError, BadResponse, ConnectionFailed, StorageError, UsageError
from azpool.storage._connect import Link, is_timeout, open_link, parse_origin
from azpool.storage._http1 import Answer, CutOff, Into, read_answer, request_head, send_body

if TYPE_CHECKING:
    from azpool.storage.store import Body

__all__ = ["Answer", "ClientOptions", "Exchange", "HttpClient", "translate"]

# Azure's load balancers drop a silent connection after 4 minutes, many proxies after 1.
IDLE_SECONDS = 50.0
# A connection used within the last second is taken as alive without a system call to ask.
TRUSTED_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How connections are made.

    Attributes:
        connect_timeout_seconds: for the TCP connection, and for each step of a proxy's and of TLS.
        read_timeout_seconds: how long the server may be silent, and 256 KiB may take to be sent;
            not a limit on a whole transfer.
        max_connections: open at once from one process to one account; further requests wait.
        ca_file: PEM file of certificates to trust in place of the system's.
        verify: check the server's certificate; off only for tests with emulators.
    """

    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    max_connections: int = 256
    ca_file: str | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        for name in ("connect_timeout_seconds", "read_timeout_seconds"):
            if not 0 < getattr(self, name) <= 86400:
                raise UsageError(f"cannot use {name}={getattr(self, name)!r}: above 0, up to 86400")
        if self.max_connections < 1:
            raise UsageError(f"cannot use max_connections={self.max_connections!r}: at least 1")


class Exchange(NamedTuple):
    """One request as `HttpClient.send` takes it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Body | None = None
    repeatable: bool = True
    into: Into | None = None


class HttpClient:
    """Blocking HTTP/1.1 to one origin, `scheme://host[:port]`; safe to use from many threads."""

    def __init__(self, origin: str, options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._root = origin.rstrip("/")
        self._root_length = len(self._root)
        self._origin = parse_origin(self._root)
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[Link] = deque()
        # A queue of tokens: a semaphore in C, where threading's is Python.
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._options.max_connections):
            self._slots.put(None)

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        *,
        repeatable: bool = True,
        into: Into | None = None,
    ) -> Answer:
        """Send one request and give its answer, whatever its status.

        `headers` must say Content-Length where there is a body to say it of, `url` must be of this
        origin and be encoded already: it travels as it is. A request that is not `repeatable`
        is not sent again on a fresh connection either. The body of a 200 or 206 goes `into` where
        that is given; what its sink raises ends the connection and the call.

        Raises:
            ConnectionFailed: no connection, or it broke or went silent before the answer ended.
            BadResponse: the answer is not HTTP/1.1, or hides where it ends.
            UsageError: a header or URL that can't be sent, another origin, a closed client.
        """
        self.check_open()
        target = self.target_of(url)
        slots = self._slots
        slots.get()
        try:
            return self._send(method, target, headers, body, into, repeatable)
        except (OSError, BadResponse) as error:
            translated = self.translated(error)
            if translated is error:
                raise
            raise translated from error
        finally:
            slots.put(None)

    def check_open(self) -> None:
        """Refuse to go on where it is closed; in a child of `os.fork`, begin anew."""
        if self._pid != os.getpid():
            self._forget_parent()
        if self._closed:
            raise UsageError("cannot send a request: the client is closed")

    def target_of(self, url: str) -> str:
        """Answer what of a URL follows the origin, which must be this one."""
        target = url[self._root_length :]
        if not url.startswith(self._root) or not target.startswith("/"):
            raise UsageError(f"cannot send a request: its URL is not of {self._root}")
        return target

    def translated(self, error: Exception) -> Exception:
        """Turn what a connection raises into azpool's error; others stay as they are."""
        if isinstance(error, AzpoolError) and not isinstance(error, BadResponse):
            return error  # a deadline of the pool's is a TimeoutError too
        if not isinstance(error, OSError | BadResponse):
            return error
        translated = translate(error, self._root, self._options)
        translated.__cause__ = error
        return translated

    def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body | None,
        into: Into | None,
        repeatable: bool,  # noqa: FBT001 - for every file
    ) -> Answer:
        link = self.take_idle()
        if link is not None:
            try:
                return self._exchange(link, method, target, headers, body, into)
            except OSError as error:
                # The server may close an idle connection while the request is on its way.
                begun = isinstance(error, CutOff) and error.begun
                if not repeatable or begun or is_timeout(error):
                    raise
        return self._exchange(self.open(), method, target, headers, body, into)

    def _exchange(
        self,
        link: Link,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body | None,
        into: Into | None,
    ) -> Answer:
        keep = False
        try:
            head = request_head(method, link.target_prefix + target, link.fixed, headers)
            try:
                send_body(link.sock, head, body)
            except OSError as error:
                # A server that refuses a request may say so before it has read the body.
                early = None if is_timeout(error) else _early_answer(link, method)
                if early is None:
                    raise
                return early
            answer, keep = read_answer(link.sock, method, into)
            return answer
        finally:
            if keep:
                self.keep(link)
            else:
                link.close()

    # -- connections, for who holds several ------------------------------------------------------

    @property
    def options(self) -> ClientOptions:
        return self._options

    def reserve(self) -> bool:
        """Count one more connection as in use, if one more may be; `release` undoes it."""
        try:
            self._slots.get_nowait()
        except Empty:
            return False
        return True

    def release(self) -> None:
        self._slots.put(None)

    def keep(self, link: Link) -> None:
        """Keep a connection, which no request is on, for the next one."""
        if self._closed:
            link.close()
            return
        now = link.idle_since = time.monotonic()
        idle = self._idle
        idle.append(link)
        # The last one kept is the first one taken: after a busy time the others lie here unused.
        try:
            if now - idle[0].idle_since > IDLE_SECONDS:
                eldest = idle.popleft()
                if now - eldest.idle_since > IDLE_SECONDS:
                    eldest.close()
                else:
                    idle.appendleft(eldest)
        except IndexError:
            pass  # another thread was faster

    def take_idle(self) -> Link | None:
        """Take one that was kept, and that the server has not closed as far as can be seen."""
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return None
            age = time.monotonic() - link.idle_since
            if age < TRUSTED_SECONDS or (age < IDLE_SECONDS and not _has_ended(link)):
                return link
            link.close()

    def open(self) -> Link:
        """Make a connection.

        Raises:
            OSError: see `translated`.
        """
        options = self._options
        return open_link(
            self._origin,
            connect_timeout_seconds=options.connect_timeout_seconds,
            read_timeout_seconds=options.read_timeout_seconds,
            ca_file=options.ca_file,
            verify=options.verify,
        )

    def _forget_parent(self) -> None:
        # Closing the descriptors says nothing to the server, whose connection the parent still
        # has; the parent's threads, which may hold slots, are not in this process.
        inherited = list(self._idle)
        self._start()
        for link in inherited:
            link.close()

    def close(self) -> None:
        """Close idle connections, and those in use as their requests end; twice is harmless."""
        self._closed = True
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


def _early_answer(link: Link, method: str) -> Answer | None:
    try:
        answer, _ = read_answer(link.sock, method)
    except (OSError, StorageError):
        return None
    return answer if answer.status >= 400 else None


def _has_ended(link: Link) -> bool:
    """Whether the server closed the connection, or sent what nobody asked for."""
    poll = select.poll()
    poll.register(link.sock.fileno(), select.POLLIN | select.POLLPRI)
    return bool(poll.poll(0))


def translate(error: Exception, origin: str, options: ClientOptions) -> StorageError:
    """Turn what sockets and TLS raise into azpool's errors; the text names the origin alone."""
    if isinstance(error, BadResponse):
        return BadResponse(
            f"cannot read the answer of {origin}: {error}; check the address", status=error.status
        )
    cause, remedy, retryable = _explain(error, options)
    return ConnectionFailed(
        f"cannot reach {origin}: {cause}; {remedy}", code=_code_of(error), retryable=retryable
    )


def _code_of(error: Exception) -> str | None:
    """Name it as the operating system does, so that a time-out is told from a refusal."""
    if is_timeout(error):
        return "ETIMEDOUT"
    if isinstance(error, CutOff):
        return "ECONNRESET"
    number = error.errno if isinstance(error, OSError) else None
    # The numbers of TLS and of the resolver are others.
    plain = not isinstance(error, socket.gaierror) and type(error).__module__ == "builtins"
    return errno.errorcode.get(number) if number and plain else None


def _explain(error: Exception, options: ClientOptions) -> tuple[str, str, bool]:
    if isinstance(error, CutOff):
        return str(error), "try again", True
    if isinstance(error, socket.gaierror):
        # A resolver that is away for a moment looks the same as a name that does not exist.
        return "there is no such host", "check the address and the network", True
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there", "check the address and that the server runs", True
    if is_timeout(error):
        seconds = f"{options.connect_timeout_seconds:g} s to connect, "
        seconds += f"{options.read_timeout_seconds:g} s to answer"
        return f"no answer in time ({seconds})", "try again or allow more time", True
    if isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
        return "the connection was cut", "try again", True
    return _explain_tls(error) or (_os_text(error), "check the network", True)


def _explain_tls(error: Exception) -> tuple[str, str, bool] | None:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        cause = f"its certificate is not trusted ({error.verify_message})"
        return cause, "check the address, the clock and ca_file", False
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "the connection was cut", "try again", True
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or "no reason given"
        return f"TLS failed ({reason})", "check the address", True
    return None


def _os_text(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
