import contextlib
import hashlib
import os
import socket
import threading

import pytest

from azpool.testing.proxy import CuttingProxy


@pytest.fixture
def echo():
    """A server that sends back what it gets, until the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def serve(sock):
        with contextlib.suppress(OSError), sock:
            while data := sock.recv(65536):
                sock.sendall(data)

    def accept():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(sock,)))
            threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()


def talk(port, body):
    """Send all, say that it was all, and read to the end."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), 10) as sock:

        def send():
            with contextlib.suppress(OSError):
                sock.sendall(body)
                sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                got += data
        thread.join()
    return bytes(got)


def test_what_is_not_cut_passes_whole(echo):
    body = os.urandom(5 << 20)
    with CuttingProxy(echo, seed=1, cut_share=0) as proxy:
        assert hashlib.md5(talk(proxy.port, body)).digest() == hashlib.md5(body).digest()
        assert talk(proxy.port, b"") == b""
        assert (proxy.connections, proxy.cuts) == (2, 0)


def test_a_doomed_connection_is_cut_within_its_bytes(echo):
    with CuttingProxy(echo, seed=1, cut_share=1, cut_within_bytes=100) as proxy:
        for _ in range(20):
            assert len(talk(proxy.port, b"x" * 1000)) < 100
        assert proxy.cuts == proxy.connections == 20


def test_the_same_seed_cuts_the_same_connections(echo):
    def pattern(seed):
        with CuttingProxy(echo, seed=seed, cut_within_bytes=1000) as proxy:
            return [len(talk(proxy.port, b"x" * 2000)) == 2000 for _ in range(30)]

    assert pattern(7) == pattern(7)
    assert 5 < sum(pattern(7)) < 25
    assert pattern(7) != pattern(8)


def test_all_can_be_cut_at_once(echo):
    with CuttingProxy(echo, seed=1, cut_share=0) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            proxy.cut_all()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert talk(proxy.port, b"y") == b"y"  # later ones are not concerned
        assert proxy.cuts == 1


def test_nothing_behind_it_looks_like_a_closed_connection(echo):
    with socket.socket() as deaf:  # bound for the whole time, so that nobody else listens there
        deaf.bind(("127.0.0.1", 0))
        with CuttingProxy(deaf.getsockname()[1], seed=1, cut_share=0) as proxy:
            assert talk(proxy.port, b"") == b""
            proxy.close()
            proxy.close()


def test_a_proxy_that_sees_by_itself_that_it_is_closing_can_be_told_so(echo):
    class TellingLate:
        def __init__(self, wake):
            self.wake, self.close = wake, wake.close

        def send(self, data):
            with contextlib.suppress(ConnectionError):
                socket.create_connection(("127.0.0.1", proxy.port), 10).close()
            proxy._thread.join(10)
            return self.wake.send(data)

    with CuttingProxy(echo, seed=1, cut_share=0) as proxy:
        proxy._wake = TellingLate(proxy._wake)
    assert not proxy._thread.is_alive()
