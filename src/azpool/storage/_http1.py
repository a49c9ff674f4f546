"""HTTP/1.1 as blob services speak it: one request written, one answer read, on a socket.

Every answer must say how long it is, and no byte less is taken: a body cut short is an error.
Nothing is decompressed and no redirect is followed; `_http.py` owns the connections.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from azpool.errors import BadResponse, IntegrityError, LocalFileError, UsageError
from azpool.storage.store import FilePiece

if TYPE_CHECKING:
    from azpool.storage.store import Body, Sink

__all__ = ["Answer", "CutOff", "Socket", "read_answer", "request_head", "send_body"]

MAX_HEAD_BYTES = 64 * 1024  # an answer of Azure's has under 2 KiB, and 8 KiB of metadata at most
MAX_CHUNKED_BYTES = 256 * 1024 * 1024  # a listing's page of 5,000 long names has some 10 MiB
RECEIVE_BYTES = 64 * 1024
SEND_BYTES = 256 * 1024  # the read timeout applies to each of these, not to the whole body
SENDFILE_BYTES = 4 * 1024 * 1024
# One buffer a thread. Downloads of 64 MiB took 1.4 CPU s a GiB with 256 KiB, and 0.9 with this:
# the socket has more at once, and the file system takes larger pieces for less.
PASS_BYTES = 1024 * 1024
JOIN_BYTES = 32 * 1024  # below this, a copy is cheaper than a second system call

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n\x00]*)?")
_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\x00]*)")
_META = "x-ms-meta-"
_CODING = "transfer-encoding"
# Most lines of an answer are those of the answer before, so what they say is kept: reading a head
# takes under half of what one search over all of it does.
KEPT_LINES = 500
KEPT_LINE_CHARACTERS = 200
_kept_lines: dict[str, tuple[str, str]] = {}


class Incoming(Protocol):
    """Where an answer comes from."""

    def recv(self, size: int, /) -> bytes: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...


class Socket(Protocol):
    """What is used of `socket.socket` and `ssl.SSLSocket`."""

    def sendall(self, data: bytes | bytearray | memoryview, flags: int = 0, /) -> None: ...
    def send(self, data: bytes | bytearray | memoryview, flags: int = 0, /) -> int: ...
    def recv(self, size: int, flags: int = 0, /) -> bytes: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Answer(NamedTuple):
    """An answer: header names in lower case, but for metadata's, which keep theirs.

    `body_bytes` is how long the body was, also where it went elsewhere and `body` is empty.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    body_bytes: int = 0


class Into(NamedTuple):
    """Where the body of a success goes, and how much there is room for."""

    sink: Sink
    limit_bytes: int


class CutOff(ConnectionError):
    """The other side closed the connection; `begun` says whether any of the answer had come."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


def request_head(method: str, target: str, fixed: str, headers: Mapping[str, str]) -> bytes:
    """Build a request's head.

    `fixed` holds finished lines. A line break would let a value write lines of its own, so it is
    refused.
    """
    if " " in target or (not target.isprintable() and _CONTROL.search(target)):
        raise UsageError("cannot send the request: its URL has a space or a control character")
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise UsageError("cannot send the request: a header has a line break; remove it")
    try:
        return f"{method} {target} HTTP/1.1\r\n{fixed}{lines}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise UsageError(
            "cannot send the request: a header or the URL has characters outside Latin-1"
        ) from None


def send_body(link: Socket, head: bytes, body: Body | None) -> None:
    """Send head and body; the socket's timeout applies to every `SEND_BYTES` of it."""
    if not body:
        link.sendall(head)
    elif isinstance(body, FilePiece):
        _send_file(link, head, body)
    elif (body.nbytes if isinstance(body, memoryview) else len(body)) <= JOIN_BYTES:
        link.sendall(head + body)
    else:
        link.sendall(head)
        with memoryview(body).cast("B") as view:
            for start in range(0, len(view), SEND_BYTES):
                link.sendall(view[start : start + SEND_BYTES])


def _send_file(link: Socket, head: bytes, piece: FilePiece) -> None:
    """Let the kernel send it, or, where it has to be encrypted, read and send it by and by."""
    if type(link) is not socket.socket:
        link.sendall(head)
        with memoryview(_buffer())[:SEND_BYTES] as view:
            for at in range(0, piece.length, len(view)):
                link.sendall(_read_piece(piece, view, at))
        return
    link.sendall(head, socket.MSG_MORE)
    out, offset, end = link.fileno(), piece.offset, piece.offset + piece.length
    while offset < end:
        try:
            count = os.sendfile(out, piece.descriptor, offset, min(end - offset, SENDFILE_BYTES))
        except OSError as error:
            if error.errno == errno.EIO:
                raise _unreadable(piece, os.strerror(errno.EIO)) from error
            raise
        if not count:
            raise _shrank(piece)
        offset += count


def _read_piece(piece: FilePiece, view: memoryview, at: int) -> memoryview:
    wanted = min(len(view), piece.length - at)
    have = 0
    while have < wanted:
        try:
            count = os.preadv(piece.descriptor, [view[have:wanted]], piece.offset + at + have)
        except OSError as error:
            raise _unreadable(piece, os.strerror(error.errno or errno.EIO)) from error
        if not count:
            raise _shrank(piece)
        have += count
    return view[:wanted]


def _unreadable(piece: FilePiece, cause: str) -> LocalFileError:
    return LocalFileError(
        f"cannot upload {piece.shown!r}: {cause}; upload it again", path=piece.shown
    )


def _shrank(piece: FilePiece) -> IntegrityError:
    return IntegrityError(
        f"cannot upload {piece.shown!r}: it shrank while it was read; "
        "upload it again when it is still",
        path=piece.shown,
        retryable=False,
    )


_local = threading.local()


def _buffer() -> bytearray:
    """Give this thread's own buffer, the same each time."""
    try:
        buffer: bytearray = _local.buffer
    except AttributeError:
        buffer = _local.buffer = bytearray(PASS_BYTES)
    return buffer


def read_answer(
    link: Incoming, method: str, into: Into | None = None, data: bytes = b""
) -> tuple[Answer, bool]:
    """Read one answer; the flag says whether the connection can carry another request.

    The body of a 200 or 206 goes `into` where that is given. `data` is what has come of it before.

    Raises:
        CutOff: the connection ended before the answer did.
        BadResponse: what came is not HTTP/1.1, or does not say where it ends.
        IntegrityError: the body is longer than `into` has room for; nothing was passed on.
    """
    while True:
        head, data = _read_head(link, data)
        status, keep, headers = _parse_head(head)
        if status >= 200:  # 1xx only announces the answer
            break
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers, b"", 0), keep and not data
    have = str(len(data))
    if into is None and headers.get("content-length") == have and _CODING not in headers:
        return Answer(status, headers, data, len(data)), keep  # a small one comes with its head
    try:
        return _read_body(link, status, headers, method, data, into, keep=keep)
    except CutOff:
        raise
    except ConnectionError as error:
        # Not to be taken for the end of an idle connection: the answer has begun.
        raise CutOff("the connection was cut in the middle of the answer", begun=True) from error


def _read_body(
    link: Incoming,
    status: int,
    headers: dict[str, str],
    method: str,
    data: bytes,
    into: Into | None,
    *,
    keep: bool,
) -> tuple[Answer, bool]:
    if _CODING in headers:
        if headers[_CODING].lower() != "chunked":
            raise BadResponse("the answer has an unknown transfer encoding", status=status)
        body, rest = _Chunked(link, data).read()
        if into is not None and status in (200, 206):
            _check_room(into, len(body), status)
            into.sink.write(body)
            return Answer(status, headers, b"", len(body)), keep and not rest
        return Answer(status, headers, body, len(body)), keep and not rest
    length = headers.get("content-length")
    if length is None:
        body = _read_unsized(link, status, method, data)
        return Answer(status, headers, body, len(body)), False
    if not (length.isascii() and length.isdigit()):
        raise BadResponse("the answer's Content-Length is no number", status=status)
    size = int(length)
    if into is not None and status in (200, 206):
        _check_room(into, size, status)
        if data:
            into.sink.write(data[:size])
        if len(data) < size:
            _pass_on(link, len(data), size, into.sink)
        return Answer(status, headers, b"", size), keep and len(data) <= size
    if len(data) >= size:
        return Answer(status, headers, data[:size], size), keep and len(data) == size
    return Answer(status, headers, _read_sized(link, data, size), size), keep


def _check_room(into: Into, size: int, status: int) -> None:
    if size > into.limit_bytes:
        raise IntegrityError(
            f"the answer has {size:,} bytes, {into.limit_bytes:,} were asked for", status=status
        )


def _pass_on(link: Incoming, have: int, size: int, sink: Sink) -> None:
    with memoryview(_buffer()) as view:
        while have < size:
            count = link.recv_into(view[: size - have])
            if not count:
                raise _cut(have, size)
            sink.write(view[:count])
            have += count


def _read_head(link: Incoming, data: bytes) -> tuple[bytes, bytes]:
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > MAX_HEAD_BYTES:
            raise BadResponse("the answer's headers have no end")
        if len(data) >= 7 and not data.startswith(b"HTTP/1."):
            raise BadResponse("the answer is not HTTP/1.1")
        more = link.recv(RECEIVE_BYTES)
        if not more:
            raise CutOff("the connection was closed before an answer came", begun=bool(data))
        data += more
    return data[:end], data[end + 4 :]


def _parse_head(head: bytes) -> tuple[int, bool, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    first = _STATUS_LINE.fullmatch(lines[0])
    if first is None:
        raise BadResponse("the answer is not HTTP/1.1")
    status, known = int(first[2]), _kept_lines.get
    pairs = [known(line) or _parse_line(line) for line in lines[1:]]
    headers = dict(pairs)
    if len(headers) != len(pairs):
        headers = _join_headers(pairs, status)
    keep = first[1] == "1" and headers.get("connection", "").lower() != "close"
    return status, keep, headers


def _parse_line(line: str) -> tuple[str, str]:
    """Read a header: its name in lower case, but for metadata's, and its value."""
    found = _HEADER.fullmatch(line)
    if found is None:
        raise BadResponse("the answer is not HTTP/1.1")
    key, value = found[1].lower(), found[2].rstrip(" \t")
    if key.startswith(_META):
        key = _META + found[1][len(_META) :]
    if len(line) <= KEPT_LINE_CHARACTERS:
        if len(_kept_lines) >= KEPT_LINES:  # those that differ each time have filled it
            _kept_lines.clear()
        _kept_lines[line] = key, value
    return key, value


def _join_headers(pairs: list[tuple[str, str]], status: int) -> dict[str, str]:
    """Join what is there twice, but for two lengths."""
    headers: dict[str, str] = {}
    for key, text in pairs:
        value = text
        if key in headers:
            if key == "content-length" and headers[key] != value:
                raise BadResponse("the answer has two lengths", status=status)
            if key != "content-length":
                value = f"{headers[key]}, {value}"
        headers[key] = value
    return headers


def _read_sized(link: Incoming, data: bytes, size: int) -> bytes:
    if size <= JOIN_BYTES:
        parts, left = [data], size - len(data)
        while left:
            more = link.recv(left)
            if not more:
                raise _cut(size - left, size)
            parts.append(more)
            left -= len(more)
        return b"".join(parts)
    buffer = bytearray(size)
    buffer[: len(data)] = data
    have = len(data)
    with memoryview(buffer) as view:
        while have < size:
            count = link.recv_into(view[have:])
            if not count:
                raise _cut(have, size)
            have += count
    return bytes(buffer)


def _cut(have: int, size: int) -> CutOff:
    return CutOff(f"the connection was closed after {have:,} of {size:,} bytes", begun=True)


def _read_unsized(link: Incoming, status: int, method: str, data: bytes) -> bytes:
    # Only an error's text may end with the connection: of content it could not be said whether
    # it is all there.
    if status < 400:
        if method in ("GET", "POST"):
            raise BadResponse("the answer does not say how long it is", status=status)
        return b""
    while len(data) < MAX_HEAD_BYTES and (more := link.recv(RECEIVE_BYTES)):
        data += more
    return data


class _Chunked:
    """Reads a chunked body; what is left over after it must be nothing."""

    def __init__(self, link: Incoming, data: bytes) -> None:
        self._link = link
        self._data = bytearray(data)

    def read(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        total = 0
        while size := self._size():
            total += size
            if total > MAX_CHUNKED_BYTES:
                raise BadResponse("the answer is too long")
            while len(self._data) < size + 2:
                self._more()
            if self._data[size : size + 2] != b"\r\n":
                raise BadResponse("the answer's chunks are malformed")
            parts.append(bytes(self._data[:size]))
            del self._data[: size + 2]
        while self._line():  # trailers are not used
            pass
        return b"".join(parts), bool(self._data)

    def _size(self) -> int:
        text = self._line().partition(b";")[0].strip()
        if not text or len(text) > 8 or text.strip(b"0123456789abcdefABCDEF"):
            raise BadResponse("the answer's chunks are malformed")
        return int(text, 16)

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n")) < 0:
            if len(self._data) > MAX_HEAD_BYTES:
                raise BadResponse("the answer's chunks are malformed")
            self._more()
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        return line

    def _more(self) -> None:
        more = self._link.recv(RECEIVE_BYTES)
        if not more:
            raise CutOff("the connection was closed in the middle of the answer", begun=True)
        self._data += more
