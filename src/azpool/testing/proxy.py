"""A loopback TCP proxy that cuts connections, by a seed: bad luck that can be had again.

    client -> CuttingProxy.port -> 127.0.0.1:target_port

It knows nothing of what it carries. One thread; whoever uses it closes it.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CuttingProxy"]

PIECE_BYTES = 64 * 1024
HELD_BYTES = 1024 * 1024  # of one direction, before its sender has to wait


class _Side:
    """One of the two sockets of a connection."""

    __slots__ = ("ended", "other", "pair", "sock", "waiting")
    other: _Side

    def __init__(self, sock: socket.socket, pair: _Pair) -> None:
        self.sock = sock
        self.pair = pair
        self.waiting = bytearray()  # what is to be sent on this socket
        self.ended = False  # nothing more comes from it


class _Pair:
    """One connection: both sides, and how many bytes it has left to live."""

    def __init__(
        self, client: socket.socket, server: socket.socket, left: int | None, *, reset: bool
    ) -> None:
        self.client = _Side(client, self)
        self.server = _Side(server, self)
        self.client.other, self.server.other = self.server, self.client
        self.left = left
        self.reset = reset
        self.closed = False


class CuttingProxy:
    """Pass connections on to a port of this machine, and cut some of them.

    Each connection is cut with probability `cut_share`, after 1 to `cut_within_bytes` bytes of both
    directions together; half of those by a reset, half by a plain end. Which ones, where and how is
    drawn from `random.Random(seed)`, in the order in which connections are accepted.

    Attributes:
        port: where clients connect to, on 127.0.0.1.
        connections: how many were accepted.
        cuts: how many were cut.

    Args:
        target_port: where they are passed on to, on 127.0.0.1; nothing listening there looks to
            the client like a connection that is closed at once.
        seed: of the decisions.
        cut_share: 0 to cut none by itself, 1 to cut all.
        cut_within_bytes: the longest that a doomed connection lives.
    """

    def __init__(
        self,
        target_port: int,
        *,
        seed: int,
        cut_share: float = 0.5,
        cut_within_bytes: int = 256 * 1024,
    ) -> None:
        self.target_port = target_port
        self.connections = 0
        self.cuts = 0
        self._random = random.Random(seed)
        self._cut_share = cut_share
        self._cut_within_bytes = cut_within_bytes
        self._pairs: set[_Pair] = set()
        self._closing = False
        self._cut_now = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)  # noqa: FBT003 -- socket's own signature
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="cutting-proxy", daemon=True)
        self._thread.start()

    def cut_all(self) -> None:
        """Reset every connection that is open; returns before that has happened."""
        self._cut_now = True
        self._wake.send(b"x")

    def close(self) -> None:
        """Cut everything and stop; twice is harmless."""
        if not self._closing:
            self._closing = True
            self._wake.send(b"x")
            self._thread.join()
            self._wake.close()
            self._woken.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, events in self._selector.select():
                    self._serve(key, events)
                if self._cut_now:
                    self._cut_now = False
                    for pair in list(self._pairs):
                        self._cut(pair, reset=True)
        finally:
            for pair in list(self._pairs):
                self._drop(pair)
            self._selector.close()
            self._listener.close()

    def _serve(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._listener:
            self._accept()
            return
        if key.fileobj is self._woken:
            self._woken.recv(4096)
            return
        side: _Side = key.data
        try:
            if events & selectors.EVENT_WRITE and not side.pair.closed:
                self._flush(side)
            if events & selectors.EVENT_READ and not side.pair.closed:
                self._read(side)
        except OSError:
            self._drop(side.pair)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.connections += 1
        doomed = self._random.random() < self._cut_share
        left = self._random.randint(1, self._cut_within_bytes)
        reset = self._random.random() < 0.5
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), 10)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server, left if doomed else None, reset=reset)
        self._pairs.add(pair)
        for side in (pair.client, pair.server):
            side.sock.setblocking(False)  # noqa: FBT003 -- socket's own signature
            side.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(side.sock, selectors.EVENT_READ, side)

    def _read(self, side: _Side) -> None:
        pair = side.pair
        data = side.sock.recv(PIECE_BYTES)
        if not data:
            side.ended = True
            if not side.other.waiting:
                self._pass_end_on(side)
        elif pair.left is not None and len(data) >= pair.left:
            side.other.waiting += data[: pair.left - 1]
            with contextlib.suppress(OSError):
                self._flush(side.other)
            self._cut(pair, reset=pair.reset)
            return
        else:
            if pair.left is not None:
                pair.left -= len(data)
            side.other.waiting += data
            self._flush(side.other)
        self._watch(side)
        self._watch(side.other)

    def _flush(self, side: _Side) -> None:
        if side.waiting:
            try:
                sent = side.sock.send(side.waiting)
            except BlockingIOError:
                sent = 0
            del side.waiting[:sent]
        if not side.waiting and side.other.ended:
            self._pass_end_on(side.other)
        self._watch(side)
        self._watch(side.other)

    def _pass_end_on(self, ended: _Side) -> None:
        with contextlib.suppress(OSError):
            ended.other.sock.shutdown(socket.SHUT_WR)
        if ended.other.ended:
            self._drop(ended.pair)

    def _watch(self, side: _Side) -> None:
        if side.pair.closed:
            return
        events = 0
        if not side.ended and len(side.other.waiting) < HELD_BYTES:
            events |= selectors.EVENT_READ
        if side.waiting:
            events |= selectors.EVENT_WRITE
        known = side.sock in self._selector.get_map()
        if events and known:
            self._selector.modify(side.sock, events, side)
        elif events:
            self._selector.register(side.sock, events, side)
        elif known:
            self._selector.unregister(side.sock)

    def _cut(self, pair: _Pair, *, reset: bool) -> None:
        self.cuts += 1
        if reset:
            for side in (pair.client, pair.server):
                with contextlib.suppress(OSError):
                    side.sock.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
        self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        if pair.closed:
            return
        pair.closed = True
        self._pairs.discard(pair)
        for side in (pair.client, pair.server):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(side.sock)
            side.sock.close()
