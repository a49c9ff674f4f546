"""Connections against a server that misbehaves in every phase."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scripted_server import Connection, scripted

from azpool.errors import BadResponse, ConnectionFailed, StorageError, UsageError
from azpool.storage import _http, _http1
from azpool.storage._connect import parse_origin, proxy_for
from azpool.storage._flight import Flight
from azpool.storage._http import ClientOptions, Exchange, HttpClient, translate

OPTIONS = ClientOptions(connect_timeout_seconds=20, read_timeout_seconds=20)
QUICK = ClientOptions(read_timeout_seconds=0.3)  # where the server is to be silent
SECRET = "sig=TOPSECRET"


def send(client, *exchange, **more):
    return client.send(*exchange, **more)


def fly(client, *exchange, **more):
    """Send it as one of the many that a flight has under way."""

    def steps():
        return (yield Exchange(*exchange, **more))

    with Flight(client) as flight:
        flight.begin("it", steps())
        while not (ended := flight.wait(10)):
            pass
    ((_, answer, error),) = ended
    if error is not None:
        raise error
    return answer


@pytest.fixture(params=[send, fly])
def ask(request):
    """Send one request, blocking or in a flight: it is all the same."""

    def one(server, *, method="GET", body=None, headers=None, options=OPTIONS, client=None):
        made = client or HttpClient(server.url, options)
        sized = {} if body is None else {"Content-Length": str(len(body))}
        url = f"{server.url}/c/b?{SECRET}"
        try:
            return request.param(made, method, url, {**sized, **(headers or {})}, body)
        finally:
            if client is None:
                made.close()

    return one


def test_nothing_listening_is_a_connection_failed_that_says_so():
    with pytest.raises(ConnectionFailed, match="nothing listens there") as failed:
        HttpClient("http://127.0.0.1:1").send("GET", f"http://127.0.0.1:1/?{SECRET}", {})
    assert failed.value.retryable
    assert "TOPSECRET" not in str(failed.value)


def _silent(c):
    c.read()
    c.stop.wait(50)


def _half_head(c):
    c.read()
    c.answer(b"HTTP/1.1 200 OK\r\nContent-Le")


def _short_body(c):
    c.read()
    c.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345")


def _short_large_body(c):
    c.read()
    c.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x" * 50_000)


def _short_chunk(c):
    c.read()
    c.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")


def _reset_in_body(c):
    c.read()
    c.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345")
    c.reset()


def _silent_in_body(c):
    c.read()
    c.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345")
    c.stop.wait(50)


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (lambda c: c.reset(), "the connection was c"),
        (lambda c: c.read() and None, "closed before an answer came"),
        (lambda c: (c.read(), c.reset()), "the connection was cut"),
        (_half_head, "closed before an answer came"),
        (_short_body, "closed after 5 of 100 bytes"),
        (_short_large_body, "closed after 50,000 of 100,000 bytes"),
        (_short_chunk, "closed in the middle"),
        (_reset_in_body, "the connection was cut"),
    ],
)
def test_each_broken_phase_is_a_retryable_connection_failed(ask, script, cause):
    assert_fails(ask, script, cause, OPTIONS)


@pytest.mark.parametrize("script", [_silent, _silent_in_body])
def test_a_server_that_is_silent_is_a_time_out(ask, script):
    assert_fails(ask, script, "no answer in time", QUICK)


def assert_fails(ask, script, cause, options):
    with scripted(script) as server, pytest.raises(ConnectionFailed, match=cause) as failed:
        ask(server, options=options)
    assert failed.value.retryable
    assert "TOPSECRET" not in str(failed.value)
    assert server.url in str(failed.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXX",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_a_bad_response(ask, raw):
    with scripted(lambda c: (c.read(), c.answer(raw))) as server:
        with pytest.raises(BadResponse, match="cannot read the answer of"):
            ask(server)


def test_announcements_are_skipped_and_chunks_joined(ask):
    def script(c: Connection) -> None:
        c.read()
        c.answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n")
        c.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        c.answer(b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: z\r\n\r\n")

    with scripted(script) as server:
        assert ask(server).body == b"abcde"


def test_redirects_are_answers_and_nothing_is_decompressed(ask):
    def script(c: Connection) -> None:
        c.read()
        c.answer(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Encoding: gzip\r\n")
        c.answer(b"Content-Length: 3\r\n\r\nraw")

    with scripted(script) as server:
        answer = ask(server)
    assert (answer.status, answer.body) == (307, b"raw")


def test_a_head_answer_has_a_length_and_no_body(ask):
    with scripted(
        lambda c: (c.read(), c.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"))
    ) as s:
        assert ask(s, method="HEAD").headers["content-length"] == "9"


def test_header_values_of_any_bytes_come_through_and_metadata_keeps_its_case(ask):
    with scripted(
        lambda c: (c.read(), c.ok(extra=b"X-Ms-Meta-Key: \xe9\r\nX-A: 1\r\nx-a: 2\r\n"))
    ) as s:
        headers = ask(s).headers
    assert headers["x-ms-meta-Key"] == "\xe9"
    assert headers["x-a"] == "1, 2"


def _until_closed(c: Connection) -> None:
    while c.read():
        c.ok()


def test_a_connection_is_kept_for_the_next_request(ask):
    with scripted(_until_closed) as server:
        client = HttpClient(server.url, OPTIONS)
        for _ in range(5):
            assert ask(server, client=client).body == b"ok"
        client.close()
    assert server.connections == 1


def test_an_idle_connection_that_the_server_closed_is_replaced(ask):
    with scripted(lambda c: (c.read(), c.ok())) as server:
        client = HttpClient(server.url, OPTIONS)
        for _ in range(3):
            assert ask(server, client=client).body == b"ok"
        client.close()
    assert server.connections == 3


def test_an_old_idle_connection_is_looked_at_before_it_is_used(monkeypatch):
    monkeypatch.setattr(_http, "TRUSTED_SECONDS", -1.0)
    with scripted(lambda c: (c.read(), c.ok())) as server:
        client = HttpClient(server.url, OPTIONS)
        answers = [client.send("PUT", f"{server.url}/x", {}, repeatable=False) for _ in range(1)]
        link = client._idle[0]
        link.sock.settimeout(1)
        while not _http._has_ended(link):
            time.sleep(0.001)
        answers.append(client.send("PUT", f"{server.url}/x", {}, repeatable=False))
        client.close()
    assert [answer.status for answer in answers] == [200, 200]


def test_what_is_not_repeatable_is_not_sent_twice(ask):
    def script(c: Connection) -> None:
        c.read()
        c.ok()
        c.read()  # and close without an answer

    with scripted(script) as server:
        client = HttpClient(server.url, OPTIONS)
        ask(server, client=client)
        with pytest.raises(ConnectionFailed):
            client.send("PUT", f"{server.url}/x", {"Content-Length": "0"}, b"", repeatable=False)
        client.close()
    assert server.connections == 1


def test_a_slow_upload_is_no_timeout_and_arrives_whole(ask):
    size = 4 << 20
    got = []

    def script(c: Connection) -> None:
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        data = b""
        while b"\r\n\r\n" not in data:
            data += c.sock.recv(1000)
        have = len(data.partition(b"\r\n\r\n")[2])
        while have < size:
            c.stop.wait(0.2)  # in all 6 s, above the read timeout
            more = len(c.sock.recv(1 << 17))
            if not more:
                return
            have += more
        got.append(have)
        c.ok()

    with scripted(script) as server:
        options = ClientOptions(read_timeout_seconds=5)
        body = memoryview(bytes(size))
        assert ask(server, method="PUT", body=body, options=options).status == 200
    assert got == [size]


def test_a_refusal_before_the_body_was_read_is_the_answer(ask):
    def script(c: Connection) -> None:
        c.sock.recv(1000)
        c.answer(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        c.sock.shutdown(socket.SHUT_WR)
        c.stop.wait(0.05)
        c.reset()

    with scripted(script) as server:
        options = ClientOptions(read_timeout_seconds=5)
        assert ask(server, method="PUT", body=bytes(32 << 20), options=options).status == 403


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\0b"])
def test_a_header_can_not_write_lines_of_its_own(ask, value):
    with scripted(_until_closed) as server:
        with pytest.raises(UsageError):
            ask(server, headers={"x": value})
        assert not server.seen


@pytest.mark.parametrize("path", ["/a b", "/a\r\nHost: x", "/a\n"])
def test_an_unencoded_url_is_refused(path):
    with scripted(_until_closed) as server:
        client = HttpClient(server.url, OPTIONS)
        with pytest.raises(UsageError):
            client.send("GET", server.url + path, {})
        client.close()


def test_another_origin_is_refused():
    client = HttpClient("http://127.0.0.1:80", OPTIONS)
    for url in ("http://127.0.0.1:8080/x", "http://evil/x", "http://127.0.0.1:80"):
        with pytest.raises(UsageError, match="not of"):
            client.send("GET", url, {})


def test_a_closed_client_says_so():
    client = HttpClient("http://127.0.0.1:80", OPTIONS)
    client.close()
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.send("GET", "http://127.0.0.1:80/", {})


def test_connections_are_never_more_than_allowed(ask):
    most, now, lock = [0], [0], threading.Lock()

    def script(c: Connection) -> None:
        while c.read():
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            c.stop.wait(0.01)
            with lock:
                now[0] -= 1
            c.ok()

    with scripted(script) as server:
        client = HttpClient(server.url, ClientOptions(max_connections=2))
        threads = [
            threading.Thread(target=ask, args=(server,), kwargs={"client": client})
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
    assert most[0] <= 2 and server.connections <= 2


def test_a_forked_child_opens_its_own_connection_and_leaves_the_parents_alone(ask):
    with scripted(_until_closed) as server:
        client = HttpClient(server.url, OPTIONS)
        ask(server, client=client)
        child = os.fork()
        if not child:
            code = 1
            try:
                code = 0 if ask(server, client=client).body == b"ok" else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ask(server, client=client)
        client.close()
    assert server.connections == 2


def test_ctrl_c_interrupts_a_request_at_once():
    asked = threading.Event()

    def script(c):
        c.read()
        asked.set()
        c.stop.wait(50)

    with scripted(script) as server:
        code = (
            "import sys, time; from azpool.storage._http import HttpClient\n"
            f"c = HttpClient({server.url!r}); print('go', flush=True)\n"
            "try: c.send('GET', sys.argv[1] + '/x', {})\n"
            "except KeyboardInterrupt: sys.exit(7)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, server.url], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout.readline()
            assert asked.wait(30)
            stat = Path(f"/proc/{child.pid}/stat")
            while stat.read_text().rpartition(")")[2].split()[0] != "S":  # until it waits
                time.sleep(0.005)
            child.send_signal(signal.SIGINT)
            assert child.wait(30) == 7


def test_every_error_of_the_sockets_becomes_azpools_own():
    classes = {
        found
        for module in (socket, ssl)
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, Exception)
        and found.__name__ != "_GiveupOnSendfile"  # of socket.sendfile, which is not used
    }
    pending = [OSError]
    while pending:  # builtins' own below OSError
        found = pending.pop()
        if found.__module__ == "builtins":
            classes.add(found)
            pending += found.__subclasses__()
    assert len(classes) > 15
    for kind in classes:
        assert issubclass(kind, OSError), f"{kind} would pass by send's except clause"
        error = kind(1, "text")
        if kind is ssl.SSLCertVerificationError:
            error.verify_message = "self-signed"
        made = translate(error, "http://host", OPTIONS)
        assert isinstance(made, StorageError)
        assert str(made).startswith("cannot reach http://host: ")


def test_tls_checks_the_certificate_and_trusts_a_ca_file(ask, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def serve(certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)

        def script(c: Connection) -> None:
            with context.wrap_socket(c.sock, server_side=True) as wrapped:
                inner = Connection(wrapped, c.number, c.stop)
                while inner.read():
                    inner.ok()

        return scripted(script)

    options = ClientOptions(ca_file=str(tmp_path / "ca.pem"), read_timeout_seconds=20)
    cases = [
        (authority.issue_cert("127.0.0.1"), options, None),
        (stranger.issue_cert("127.0.0.1"), options, "not trusted"),
        (authority.issue_cert("example.org"), options, "not trusted"),
        (authority.issue_cert("127.0.0.1"), ClientOptions(), "not trusted"),
        (stranger.issue_cert("example.org"), ClientOptions(verify=False), None),
    ]
    for certificate, chosen, cause in cases:
        with serve(certificate) as server:
            server.url = server.url.replace("http:", "https:")
            if cause is None:
                assert ask(server, options=chosen).body == b"ok"
                continue
            with pytest.raises(ConnectionFailed, match=cause) as failed:
                ask(server, options=chosen)
            assert not failed.value.retryable


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_a_proxy_gets_the_whole_url_and_its_credentials(no_proxies):
    def script(c: Connection) -> None:
        server.seen.append(c.read())
        c.ok()

    with scripted(script) as server:
        no_proxies.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{server.port}")
        client = HttpClient("http://store.example", OPTIONS)
        assert client.send("GET", "http://store.example/c/b", {}).body == b"ok"
        client.close()
    assert server.seen[0].startswith(
        b"GET http://store.example/c/b HTTP/1.1\r\nHost: store.example"
    )
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in server.seen[0]


def test_https_goes_through_a_proxys_tunnel_and_a_refusal_is_told(no_proxies):
    def script(c: Connection) -> None:
        server.seen.append(c.read())
        c.answer(b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n")

    with scripted(script) as server:
        no_proxies.setenv("HTTPS_PROXY", server.url)
        with pytest.raises(ConnectionFailed, match=r"proxy refused the connection \(407\)"):
            HttpClient("https://store.example", OPTIONS).send("GET", "https://store.example/c", {})
    assert server.seen[0].startswith(
        b"CONNECT store.example:443 HTTP/1.1\r\nHost: store.example:443"
    )


def test_loopback_and_no_proxy_go_direct(no_proxies):
    no_proxies.setenv("http_proxy", "http://127.0.0.1:1")
    no_proxies.setenv("no_proxy", "store.example")
    assert proxy_for(parse_origin("http://127.0.0.1:10000")) is None
    assert proxy_for(parse_origin("http://localhost:10000")) is None
    assert proxy_for(parse_origin("http://store.example")) is None
    assert proxy_for(parse_origin("http://other.example")) == "http://127.0.0.1:1"


def test_a_proxy_of_another_kind_is_refused_with_a_reason(no_proxies):
    no_proxies.setenv("all_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(UsageError, match="only http:// proxies"):
        HttpClient("http://store.example", OPTIONS).send("GET", "http://store.example/c", {})


@pytest.mark.parametrize(
    "options",
    [{"read_timeout_seconds": 0}, {"connect_timeout_seconds": -1}, {"max_connections": 0}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UsageError):
        ClientOptions(**options)


def test_lines_that_differ_each_time_are_not_kept_for_ever():
    for number in range(3 * _http1.KEPT_LINES):
        head = f'HTTP/1.1 200 OK\r\nX-Ms-Request-Id: {number}\r\nETag: "a" '.encode()
        assert _http1._parse_head(head)[2] == {"x-ms-request-id": f"{number}", "etag": '"a"'}
    assert len(_http1._kept_lines) <= _http1.KEPT_LINES
