"""Bodies that pass through: files sent by the kernel, answers that go into a sink."""

from __future__ import annotations

import os
import ssl
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scripted_server import Connection, scripted

from azpool.errors import ConnectionFailed, IntegrityError, LocalFileError
from azpool.storage import _http
from azpool.storage._http import ClientOptions, HttpClient
from azpool.storage._http1 import PASS_BYTES, Into
from azpool.storage.store import FilePiece

PATIENT = ClientOptions(read_timeout_seconds=20)
SIZE = 3 * 1024 * 1024 + 7
BODY = os.urandom(SIZE)


@pytest.fixture(params=["http", "https"])
def serving(request, tmp_path):
    """Give a context manager of a scripted server, and options that trust it."""
    if request.param == "http":
        return scripted, PATIENT
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def over_tls(script):
        def wrapped(c: Connection) -> None:
            with context.wrap_socket(c.sock, server_side=True) as sock:
                script(Connection(sock, c.number, c.stop))

        made = scripted(wrapped)

        class Secured:
            def __enter__(self):
                server = made.__enter__()
                server.url = server.url.replace("http:", "https:")
                return server

            def __exit__(self, *exception):
                return made.__exit__(*exception)

        return Secured()

    return over_tls, ClientOptions(read_timeout_seconds=20, ca_file=str(tmp_path / "ca.pem"))


class Keeper:
    """A sink that keeps what it gets; `fail_after` bytes it raises."""

    def __init__(self, fail_after=None):
        self.got = bytearray()
        self.fail_after = fail_after

    def write(self, data):
        self.got += data
        if self.fail_after is not None and len(self.got) > self.fail_after:
            raise LocalFileError("cannot write 'x': no space left on the disk", code="ENOSPC")


def put(client, server, piece):
    headers = {"Content-Length": str(len(piece))}
    return client.send("PUT", f"{server.url}/c/b", headers, piece)


@pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (5, 1000), (1 << 20, 2 << 20)])
def test_a_piece_of_a_file_arrives_whole(serving, tmp_path, offset, length):
    serve, options = serving
    got = []

    def script(c: Connection) -> None:
        while request := c.read():
            got.append(request.partition(b"\r\n\r\n")[2])
            c.ok()

    (tmp_path / "f").write_bytes(BODY)
    with serve(script) as server, open(tmp_path / "f", "rb") as file:
        client = HttpClient(server.url, options)
        piece = FilePiece(file.fileno(), offset, length, "f")
        for _ in range(2):
            assert put(client, server, piece).status == 200
        client.close()
        assert server.connections == 1
        assert bytes(piece) == BODY[offset : offset + length]
    assert got == [BODY[offset : offset + length]] * 2


def test_a_piece_is_sent_again_whole_where_the_idle_connection_had_ended(tmp_path):
    got = []

    def script(c: Connection) -> None:
        if c.number == 1:
            c.read()
            c.ok()
            c.reset()
            return
        got.append(c.read().partition(b"\r\n\r\n")[2])
        c.ok()

    (tmp_path / "f").write_bytes(BODY)
    with scripted(script) as server, open(tmp_path / "f", "rb") as file:
        client = HttpClient(server.url, PATIENT)
        client.send("GET", f"{server.url}/c/b", {})
        assert put(client, server, FilePiece(file.fileno(), 0, SIZE, "f")).status == 200
        client.close()
    assert got == [BODY]


def test_a_piece_that_ends_early_is_no_request(serving, tmp_path):
    serve, options = serving
    (tmp_path / "f").write_bytes(b"x" * 300_000)
    with serve(lambda c: c.read()) as server, open(tmp_path / "f", "rb") as file:
        client = HttpClient(server.url, options)
        with pytest.raises(IntegrityError, match="'f': it shrank while it was read") as failed:
            put(client, server, FilePiece(file.fileno(), 0, 300_001, "f"))
        assert not failed.value.retryable
        assert not client._idle
        client.close()


def test_a_body_goes_into_the_sink(serving):
    serve, options = serving

    def script(c: Connection) -> None:
        while c.read():
            c.ok(BODY)

    with serve(script) as server:
        client = HttpClient(server.url, options)
        for _ in range(2):
            sink = Keeper()
            answer = client.send("GET", f"{server.url}/c/b", {}, into=Into(sink, SIZE))
            assert (answer.body, answer.body_bytes) == (b"", SIZE)
            assert bytes(sink.got) == BODY
        client.close()
        assert server.connections == 1


def test_a_chunked_body_goes_into_the_sink():
    def script(c: Connection) -> None:
        c.read()
        c.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    with scripted(script) as server:
        client = HttpClient(server.url, PATIENT)
        sink = Keeper()
        assert client.send("GET", f"{server.url}/c", {}, into=Into(sink, 3)).body_bytes == 3
        client.close()
    assert sink.got == b"abc"


def test_an_errors_body_does_not_go_into_the_sink():
    def script(c: Connection) -> None:
        c.read()
        c.answer(b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nabc")

    with scripted(script) as server:
        client = HttpClient(server.url, PATIENT)
        sink = Keeper()
        answer = client.send("GET", f"{server.url}/c", {}, into=Into(sink, 100))
        client.close()
    assert (answer.status, answer.body, bytes(sink.got)) == (404, b"abc", b"")


@pytest.mark.parametrize(
    "coding",
    [
        b"Content-Length: 4\r\n\r\nabcd",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    ],
)
def test_more_than_there_is_room_for_is_not_begun(coding):
    def script(c: Connection) -> None:
        c.read()
        c.answer(b"HTTP/1.1 200 OK\r\n" + coding)

    with scripted(script) as server:
        client = HttpClient(server.url, PATIENT)
        sink = Keeper()
        with pytest.raises(IntegrityError, match="has 4 bytes, 3 were asked for"):
            client.send("GET", f"{server.url}/c", {}, into=Into(sink, 3))
        client.close()
    assert sink.got == b""


def test_what_a_sink_raises_ends_the_call_and_the_connection():
    def script(c: Connection) -> None:
        while c.read():
            c.ok(BODY)

    with scripted(script) as server:
        client = HttpClient(server.url, PATIENT)
        with pytest.raises(LocalFileError) as failed:
            into = Into(Keeper(fail_after=PASS_BYTES), SIZE)
            client.send("GET", f"{server.url}/c", {}, into=into)
        assert failed.value.code == "ENOSPC"
        assert not client._idle  # half an answer is still in it
        client.close()


def test_a_kept_connection_that_breaks_in_the_body_is_not_repeated_into_the_sink():
    def script(c: Connection) -> None:
        c.read()
        c.ok()
        c.read()
        c.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE, BODY[:1000])
        c.stop.wait(0.2)
        c.reset()

    with scripted(script) as server:
        client = HttpClient(server.url, PATIENT)
        client.send("GET", f"{server.url}/c", {})
        sink = Keeper()
        with pytest.raises(ConnectionFailed, match="cut in the middle") as failed:
            client.send("GET", f"{server.url}/c", {}, into=Into(sink, SIZE))
        client.close()
        assert server.connections == 1
    assert failed.value.retryable
    assert bytes(sink.got) == BODY[:1000]


def test_silence_over_tls_is_a_time_out_too(tmp_path):
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def script(c: Connection) -> None:
        with context.wrap_socket(c.sock, server_side=True) as sock:
            Connection(sock, c.number, c.stop).read()
            c.stop.wait(20)

    with scripted(script) as server:
        url = server.url.replace("http:", "https:")
        client = HttpClient(url, ClientOptions(read_timeout_seconds=0.3, verify=False))
        with pytest.raises(ConnectionFailed, match="no answer in time") as failed:
            client.send("GET", f"{url}/c", {})
        client.close()
    assert failed.value.code == "ETIMEDOUT"


def test_a_server_that_takes_nothing_is_a_time_out(tmp_path):
    (tmp_path / "f").write_bytes(bytes(32 << 20))  # more than both kernels' buffers hold
    with scripted(lambda c: c.stop.wait(20)) as server, open(tmp_path / "f", "rb") as file:
        client = HttpClient(server.url, ClientOptions(read_timeout_seconds=0.3))
        for body in (FilePiece(file.fileno(), 0, 32 << 20, "f"), bytes(32 << 20)):
            with pytest.raises(ConnectionFailed, match="no answer in time") as failed:
                put(client, server, body)
            assert failed.value.code == "ETIMEDOUT"
        client.close()


def test_connections_that_a_busy_time_has_left_are_given_back():
    def script(c: Connection) -> None:
        while c.read():
            c.ok()

    with scripted(script) as server:
        client = HttpClient(server.url, PATIENT)
        client._idle.extend(client.open() for _ in range(5))
        for link in client._idle:
            link.idle_since = time.monotonic() - _http.IDLE_SECONDS - 1
        kept = client.open()
        for left in (5, 4, 3, 2, 1, 1):  # one a request, and never the one just used
            client.keep(kept)
            assert len(client._idle) == left
            assert client._idle.pop() is kept or left == 1
        kept.close()
        client.close()
