"""A loopback blob service that is small, honest, and has bad luck as a script says."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from scripted_server import Connection, Server, scripted

from azpool.storage._http import ClientOptions
from azpool.storage._recipe import StoreRecipe
from azpool.storage._signing import Anonymous

Fault = Callable[[Connection, "Blobs"], None]


class Blobs:
    """What it holds, and what goes wrong.

    Attributes:
        blobs: name -> bytes.
        blocks: name -> id -> bytes.
        faults: name -> what happens to its next requests instead of an answer, each once.
        faults_of_get: the same, for GET of blobs alone.
        always: name -> what happens to all of its requests.
        at_connect: what happens to the next connections before anything is read.
        asked: method and name of each request that was read.
        lost_answers: names of blobs whose next write is done, and its answer lost.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.faults_of_get: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.at_connect: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.lost_answers: set[str] = set()
        self.metadata: dict[str, str] = {}  # name -> the lines of its headers
        self.lock = threading.Lock()
        self.server: Server

    def recipe(self, *, read_timeout_seconds: float = 20.0) -> StoreRecipe:
        return StoreRecipe(
            account_url=f"{self.server.url}/acct",
            container="box",
            auth=Anonymous(),
            options=ClientOptions(read_timeout_seconds=read_timeout_seconds),
        )

    def script(self, connection: Connection) -> None:
        with self.lock:
            fault = self.at_connect.pop(0) if self.at_connect else None
        if fault is not None:
            fault(connection, self)
            return
        while request := connection.read():
            self.handle(connection, request)

    def handle(self, connection: Connection, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        parts = urlsplit(target)
        name = unquote(parts.path.partition("/box/")[2])
        with self.lock:
            self.asked.append((method, name))
            mine = self.faults.get(name)
            fault = mine.pop(0) if mine else self.always.get(name)
            if method == "GET" and self.faults_of_get.get(name):
                fault = self.faults_of_get[name].pop(0)
        if fault is not None:
            fault(connection, self)
        elif method == "PUT":
            self.put(connection, name, parts.query, body, head.decode())
        elif not name:
            self.list(connection, parts.query)
        elif name in self.blobs:
            self.get(connection, method, self.blobs[name], head.decode())
        else:
            refuse(404, "BlobNotFound")(connection, self)

    def put(
        self, connection: Connection, name: str, query: str, body: bytes, head: str = ""
    ) -> None:
        with self.lock:
            found = re.search("blockid=([^&]*)", query)
            exists = name in self.blobs and "if-none-match: *" in head.lower()
            lost = name in self.lost_answers
            self.lost_answers.discard(name)
        if exists and not found:
            refuse(409, "BlobAlreadyExists")(connection, self)
            return
        with self.lock:
            if found:
                self.blocks.setdefault(name, {})[unquote(found[1])] = body
            elif "comp=blocklist" in query:
                ids = re.findall("<Latest>([^<]*)</Latest>", body.decode())
                held = self.blocks.pop(name)
                self.blobs[name] = b"".join(held[block] for block in ids)
            else:
                self.blobs[name] = body
                lines = re.findall(r"(?i)x-ms-meta-[^\r\n]*\r\n", head + "\r\n")
                self.metadata[name] = "".join(lines)
        if lost:
            connection.reset()
            return
        connection.answer(b'HTTP/1.1 201 Created\r\nContent-Length: 0\r\nETag: "1"\r\n\r\n')

    def list(self, connection: Connection, query: str) -> None:
        found = re.search("prefix=([^&]*)", query)
        prefix = unquote(found[1]) if found else ""
        items = "".join(
            f"<Blob><Name>{name}</Name><Properties><Etag>1</Etag>"
            f"<Content-Length>{len(body)}</Content-Length></Properties></Blob>"
            for name, body in sorted(self.blobs.items())
            if name.startswith(prefix)
        )
        connection.ok(
            f"<EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>".encode()
        )

    def get(self, connection: Connection, method: str, blob: bytes, head: str) -> None:
        name = unquote(urlsplit(head.split(" ")[1]).path.partition("/box/")[2])
        connection.answer(
            self.head_of(blob, head, self.metadata.get(name, "")),
            b"" if method == "HEAD" else self.cut(blob, head),
        )

    def cut(self, blob: bytes, head: str) -> bytes:
        found = re.search(r"x-ms-range: bytes=(\d+)-(\d+)", head)
        return blob[int(found[1]) : int(found[2]) + 1] if found else blob

    def head_of(self, blob: bytes, head: str, metadata: str = "") -> bytes:
        found = re.search(r"x-ms-range: bytes=(\d+)-(\d+)", head)
        body = self.cut(blob, head)
        status, place = "200 OK", ""
        if found:
            first = int(found[1])
            status = "206 Partial Content"
            place = f"Content-Range: bytes {first}-{first + len(body) - 1}/{len(blob)}\r\n"
        md5 = base64.b64encode(hashlib.md5(blob).digest()).decode()
        return (
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{place}"
            f'ETag: "1"\r\n{metadata}x-ms-blob-content-md5: {md5}\r\n\r\n'
        ).encode()


@contextmanager
def blob_server() -> Iterator[Blobs]:
    blobs = Blobs()
    with scripted(blobs.script) as server:
        blobs.server = server
        yield blobs


def refuse(status: int, code: str, extra: str = "") -> Fault:
    def fault(connection: Connection, _: Blobs) -> None:
        connection.answer(
            f"HTTP/1.1 {status} Refused\r\nx-ms-error-code: {code}\r\n"
            f"x-ms-request-id: r-{status}\r\n{extra}Content-Length: 0\r\n\r\n".encode()
        )

    return fault


def reset(connection: Connection, _: Blobs) -> None:
    connection.reset()


def close(connection: Connection, _: Blobs) -> None:
    connection.sock.close()


def read_some_and_reset(connection: Connection, _: Blobs) -> None:
    connection.sock.recv(1000)
    connection.reset()


def half_a_head(connection: Connection, _: Blobs) -> None:
    connection.answer(b"HTTP/1.1 201 Crea")
    connection.sock.close()


def no_http(connection: Connection, _: Blobs) -> None:
    connection.answer(b"220 mail.example ESMTP\r\n\r\n")
    connection.sock.close()


def silent(connection: Connection, _: Blobs) -> None:
    connection.stop.wait(20)
    connection.sock.close()


HEAD_206 = (
    b"HTTP/1.1 206 Partial\r\nContent-Length: %d\r\nContent-Range: bytes 0-%d/%d\r\n"
    b'ETag: "1"\r\n\r\n'
)


def _cut_body(size: int, after: int, end: Callable[[Connection], object]) -> Fault:
    def fault(connection: Connection, _: Blobs) -> None:
        connection.answer(HEAD_206 % (size, size - 1, size), b"z" * after)
        end(connection)

    return fault


def short_body(size: int) -> Fault:
    """Half of the body comes, then the connection ends in order."""
    return _cut_body(size, size // 2, lambda connection: connection.sock.close())


def reset_in_body(size: int) -> Fault:
    return _cut_body(size, size // 2, lambda connection: connection.reset())


def reset_late_in_body(size: int) -> Fault:
    """Half of the body has come and been taken when the connection is reset."""

    def end(connection: Connection) -> None:
        connection.stop.wait(0.2)
        connection.reset()

    return _cut_body(size, size // 2, end)


def silent_in_body(size: int) -> Fault:
    return _cut_body(size, size // 2, lambda connection: connection.stop.wait(20))


def other_bytes(size: int) -> Fault:
    """As long as it should be, and changed: only its MD5 tells."""

    def fault(connection: Connection, blobs: Blobs) -> None:
        md5 = b"x-ms-blob-content-md5: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        head = (HEAD_206 % (size, size - 1, size))[:-2] + md5
        connection.answer(head, b"z" * size)

    return fault


def too_much(size: int) -> Fault:
    """The range is ignored and more comes than was asked for."""

    def fault(connection: Connection, _: Blobs) -> None:
        connection.answer(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size * 2), b"z" * size * 2
        )
        connection.sock.close()

    return fault


def slow(body: bytes, pieces: int = 10) -> Fault:
    """The body comes in small pieces with pauses between them."""

    def fault(connection: Connection, _: Blobs) -> None:
        size = len(body)
        connection.answer(HEAD_206 % (size, size - 1, size))
        step = -(-size // pieces)
        for at in range(0, size, step):
            connection.stop.wait(0.05)
            connection.answer(body[at : at + step])

    return fault
