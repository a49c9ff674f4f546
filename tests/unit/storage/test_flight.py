"""Many requests on one thread: what they share, and what happens to one of them is its own.

That one request in a flight does what one that blocks does, test_http.py tests.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scripted_server import Connection, scripted

from azpool.errors import ConnectionFailed
from azpool.storage._flight import Flight
from azpool.storage._http import ClientOptions, Exchange, HttpClient

OPTIONS = ClientOptions(connect_timeout_seconds=20, read_timeout_seconds=20)
QUICK = ClientOptions(connect_timeout_seconds=20, read_timeout_seconds=0.3)


def ask(client, path="/c/b", body=None, *, method="PUT", times=1, repeatable=True):
    """The steps of an operation that asks so often; its value is the last answer's body."""
    sized = {} if body is None else {"Content-Length": str(len(body))}
    answer = None
    for _ in range(times):
        url = client.target + path
        answer = yield Exchange(method, url, sized, body, repeatable)
    return None if answer is None else answer.body


@pytest.fixture
def open_client():
    clients = []

    def make(url, options=OPTIONS):
        client = HttpClient(url, options)
        client.target = url
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def ends(flight, count):
    """Answer how so many operations have ended, by their keys."""
    ended = {}
    while len(ended) < count:
        for key, value, error in flight.wait(10):
            ended[key] = error or value
    return ended


def moving(flight, count):
    """Wait until so many have a connection, and answer them."""
    while len(flight._trips) < count:
        assert not flight.wait(10)
    return list(flight._trips.values())


def all_slots(client):
    """Whether every connection that the client may have is free to be had."""
    count = 0
    while client.reserve():
        count += 1
    for _ in range(count):
        client.release()
    return count == client.options.max_connections


def echo(connection: Connection) -> None:
    """Answer each request with its path."""
    while request := connection.read():
        connection.ok(request.split(b" ", 2)[1])


def test_all_are_under_way_at_once(open_client):
    together = threading.Barrier(20, timeout=20)

    def script(c: Connection) -> None:
        while request := c.read():
            if request.startswith(b"PUT"):
                together.wait()
            c.ok(request.split(b" ", 2)[1])

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            for n in range(20):
                flight.begin(n, ask(client, f"/{n}", times=3))
            assert flight.under_way == 20
            assert ends(flight, 20) == {n: b"/%d" % n for n in range(20)}
            assert flight.idle
        assert server.connections == 20
        assert all_slots(client)
        assert client.send("GET", f"{server.url}/x", {}).body == b"/x"  # on one of those
        assert server.connections == 20


def test_what_ends_without_a_request_or_fails_before_it(open_client):
    def fails():
        raise ValueError("no")
        yield

    client = open_client("http://127.0.0.1:1")
    with Flight(client) as flight:
        flight.begin("nothing", ask(client, times=0))
        flight.begin("failed", fails())
        ended = ends(flight, 2)
    assert ended["nothing"] is None
    assert str(ended["failed"]) == "no"


@pytest.mark.parametrize("size", [0, 10, 60_000, 300_000])
@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_in_pieces_is_put_together(open_client, size, chunked):
    body = bytes(n % 251 for n in range(size))
    coding = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    text = (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n" if chunked else body
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + coding + b"\r\n\r\n" + text

    def script(c: Connection) -> None:
        while c.read():
            cuts = [0, 5, 30, 31, len(raw) // 2, len(raw) - 1, len(raw)]
            for begin, end in pairwise(cuts):
                c.answer(raw[begin:end])
                c.stop.wait(0.01)

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            flight.begin("it", ask(client, method="GET", times=2))
            assert ends(flight, 1) == {"it": body}
        assert server.connections == 1


def test_a_body_that_the_server_takes_slowly_goes_out_whole(open_client):
    size = 8 << 20
    slow = threading.Event()

    def script(c: Connection) -> None:
        if c.number == 1:
            slow.wait(20)  # until the others have been served
        request = c.read()
        c.ok(b"%d" % len(request.partition(b"\r\n\r\n")[2]))

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            flight.begin("slow", ask(client, body=bytes(size)))
            while not server.connections:
                assert not flight.wait(0.01)
            for n in range(5):
                flight.begin(n, ask(client, body=b"1"))
            assert ends(flight, 5) == dict.fromkeys(range(5), b"1")
            slow.set()
            assert ends(flight, 1) == {"slow": b"%d" % size}


def test_silence_ends_the_one_that_met_it(open_client):
    def script(c: Connection) -> None:
        while request := c.read():
            if b"/silent" in request:
                c.stop.wait(20)
            c.ok()

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            flight.begin("silent", ask(client, "/silent"))
            (silent,) = moving(flight, 1)
            flight.begin("well", ask(client, "/well", times=5))
            silent.deadline = flight._next_scan = 0.0  # as if it had been silent for so long
            ended = ends(flight, 2)
        assert ended["well"] == b"ok"
        assert isinstance(ended["silent"], ConnectionFailed)
        assert ended["silent"].code == "ETIMEDOUT"
        assert all_slots(client)


def test_an_answer_that_had_to_wait_for_us_is_no_silence(open_client):
    answered = threading.Event()

    def script(c: Connection) -> None:
        while c.read():
            c.ok()
            answered.set()

    with scripted(script) as server:
        client = open_client(server.url, QUICK)
        with Flight(client) as flight:
            flight.begin("it", ask(client))
            while not answered.is_set():
                flight.wait(0.001) if not flight._trips else time.sleep(0.001)
            time.sleep(0.5)  # as where a disk is slow
            assert ends(flight, 1) == {"it": b"ok"}


def test_a_slow_answer_is_no_silence(open_client):
    may_go_on = threading.Semaphore(0)

    def script(c: Connection) -> None:
        c.read()
        for piece in (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 6\r\n\r\n", *[b"x"] * 6):
            may_go_on.acquire(timeout=20)
            c.answer(piece)

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            flight.begin("it", ask(client))
            (trip,) = moving(flight, 1)
            for _ in range(7):
                have, deadline = trip.have, trip.deadline
                may_go_on.release()
                while trip.have == have:
                    assert not flight.wait(10)
                assert trip.deadline > deadline  # each byte gives it as much time again
            may_go_on.release()
            assert ends(flight, 1) == {"it": b"xxxxxx"}


def test_connections_that_the_server_has_closed_meanwhile_are_replaced(open_client):
    closed = threading.Event()

    def script(c: Connection) -> None:
        c.read()
        c.ok(b"%d" % c.number)
        if c.number <= 3:  # it lets go of those that are idle
            c.sock.shutdown(socket.SHUT_RDWR)
            closed.set()
        else:
            echo(c)

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            for n in range(3):
                flight.begin(n, ask(client))
            ends(flight, 3)
            closed.wait(20)
            for n in range(3):
                flight.begin(n, ask(client, f"/{n}"))
            ended = ends(flight, 3)
        assert all(isinstance(value, bytes) for value in ended.values())
        assert all_slots(client)


def test_what_may_not_be_repeated_is_not(open_client):
    def script(c: Connection) -> None:
        c.read()
        c.ok()
        c.read()
        c.reset()

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            flight.begin("first", ask(client))
            ends(flight, 1)
            flight.begin("second", ask(client, repeatable=False))
            ended = ends(flight, 1)
        assert isinstance(ended["second"], ConnectionFailed)
        assert server.connections == 1


def test_each_that_can_not_connect_says_so(open_client):
    with socket.socket() as closed:  # nothing listens, and nobody else gets this port
        closed.bind(("127.0.0.1", 0))
        client = open_client(f"http://127.0.0.1:{closed.getsockname()[1]}")
        with Flight(client) as flight:
            for n in range(5):
                flight.begin(n, ask(client))
            ended = ends(flight, 5)
            assert flight.idle
    assert {error.code for error in ended.values()} == {"ECONNREFUSED"}
    assert all_slots(client)


def test_connections_are_never_more_than_the_client_may_have(open_client):
    with scripted(echo) as server:
        client = open_client(server.url, ClientOptions(max_connections=2))
        with Flight(client) as flight:
            for n in range(20):
                flight.begin(n, ask(client, f"/{n}"))
            assert len(ends(flight, 20)) == 20
        assert server.connections <= 2
        assert all_slots(client)


def test_a_flight_waits_while_others_have_all_connections(open_client):
    with scripted(echo) as server:
        client = open_client(server.url, ClientOptions(max_connections=1))
        assert client.reserve()
        with Flight(client) as flight:
            flight.begin("it", ask(client, "/it"))
            assert not flight.wait(0.1)
            assert not server.connections
            client.release()
            assert ends(flight, 1) == {"it": b"/it"}


def test_a_flight_that_is_cut_short_leaves_a_client_that_works(open_client):
    begun = threading.Semaphore(0)

    def script(c: Connection) -> None:
        while request := c.read():
            if b"/never" in request:
                begun.release()
                c.stop.wait(20)
            c.ok()

    left = []

    def steps():
        try:
            yield from ask(client, "/never")
        finally:
            left.append("cleared up")

    with scripted(script) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            for n in range(4):
                flight.begin(n, steps())
            flight.begin("well", ask(client, "/well"))
            ends(flight, 1)
            for _ in range(4):
                assert begun.acquire(timeout=20)
        assert left == ["cleared up"] * 4
        assert all_slots(client)
        assert client.send("GET", f"{server.url}/x", {}).body == b"ok"
        flight.close()  # twice is harmless


def test_a_connection_that_opens_too_late_is_the_clients(open_client, monkeypatch):
    may_open, kept = threading.Event(), threading.Event()
    with scripted(echo) as server:
        client = open_client(server.url)
        open_one, keep = client.open, client.keep

        def slowly():
            may_open.wait(20)
            return open_one()

        def keeps(link):
            keep(link)
            kept.set()

        monkeypatch.setattr(client, "open", slowly)
        monkeypatch.setattr(client, "keep", keeps)
        with Flight(client) as flight:
            flight.begin("it", ask(client))
            assert not flight.wait(0.01)
        may_open.set()
        assert kept.wait(20)
        client.take_idle().close()


def test_tls_goes_both_ways_and_comes_back_to_blocking(open_client):
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    size = 1 << 20

    def script(c: Connection) -> None:
        with context.wrap_socket(c.sock, server_side=True) as sock:
            secure = Connection(sock, c.number, c.stop)
            while request := secure.read():
                secure.ok(request.partition(b"\r\n\r\n")[2])

    with scripted(script) as server:
        url = server.url.replace("http:", "https:")
        client = open_client(url, ClientOptions(read_timeout_seconds=20, verify=False))
        body = bytes(n % 251 for n in range(size))
        with closing(client):  # else the server's threads would wait for more
            with Flight(client) as flight:
                for n in range(4):
                    flight.begin(n, ask(client, body=body, times=2))
                assert ends(flight, 4) == dict.fromkeys(range(4), body)
            assert client.send("PUT", f"{url}/x", {"Content-Length": "2"}, b"ab").body == b"ab"
            assert server.connections == 4


def test_what_tls_says_by_itself_ends_no_connection(open_client):
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    shaken = threading.Semaphore(0)

    def script(c: Connection) -> None:
        with context.wrap_socket(c.sock, server_side=True) as sock:
            shaken.release()  # its session tickets are on their way
            echo(Connection(sock, c.number, c.stop))

    with scripted(script) as server:
        url = server.url.replace("http:", "https:")
        client = open_client(url, ClientOptions(read_timeout_seconds=20, verify=False))
        with closing(client), Flight(client) as flight:
            flight.begin("late", ask(client, "/late"))
            (late,) = flight._waiting
            flight._waiting.clear()  # it will find its connection unused
            assert shaken.acquire(timeout=20)
            while not flight._free:
                flight.wait(1)
            for _ in range(20):
                flight.wait(0.01)
            assert len(flight._free) == 1
            flight._advance(late, None, ConnectionFailed("cannot go on: cut; try again"))
            flight.begin("it", ask(client, "/it"))
            assert ends(flight, 2)["it"] == b"/it"
            assert server.connections == 1


def test_where_no_thread_can_be_started_connections_are_opened_here(open_client, monkeypatch):
    start = threading.Thread.start

    def refuse(self):
        if self.name == "azpool-connect":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with scripted(echo) as server:
        client = open_client(server.url)
        with Flight(client) as flight:
            for n in range(3):
                flight.begin(n, ask(client, f"/{n}"))
            assert len(ends(flight, 3)) == 3
            assert flight.idle
        assert all_slots(client)


@pytest.mark.parametrize(
    "where", ["_join", "_send", "_push", "_receive", "_answered", "_give_back", "_drop"]
)
def test_a_flight_that_is_interrupted_anywhere_gives_back_every_place(
    open_client, monkeypatch, where
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with scripted(echo) as server:
        client = open_client(server.url)
        with pytest.raises(KeyboardInterrupt), Flight(client) as flight:
            monkeypatch.setattr(flight, where, interrupt)
            for n in range(4):
                flight.begin(n, ask(client, f"/{n}", times=3))
            while where == "_drop":
                flight.wait(1)
                for trip in flight._trips.values():
                    flight._broken(trip, OSError())
            ends(flight, 4)
        while not all_slots(client):  # a connection that is still being opened has one
            time.sleep(0.01)
        assert client.send("GET", f"{server.url}/x", {}).body == b"/x"
