"""Many requests in flight on one thread: operations on a store, as steps, over one client.

    steps (generators of `_rest.py`, `_moves.py`) --Exchange--> Flight --Answer--> the same steps

A thread for each request would cost more than the request: each of its system calls gives up the
interpreter and has to get it back (docs/decisions/0015-many-requests-on-one-thread.md). Bodies are
held in memory; what is long goes by `HttpClient.send`. Connections are the client's, opened by
threads of their own, because names, proxies and TLS block. What HTTP means is `_http1.py`'s alone:
of an answer that is not all there yet, it is asked again when more has come.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from azpool.errors import AzpoolError, StorageError
from azpool.storage._connect import is_timeout
from azpool.storage._http1 import RECEIVE_BYTES, Answer, read_answer, request_head
from azpool.storage.store import FilePiece

if TYPE_CHECKING:
    from azpool.storage._connect import Link
    from azpool.storage._http import Exchange, HttpClient
    from azpool.storage.store import Steps

__all__ = ["Ended", "Flight"]

# How soon it is tried again where all of the client's connections are somebody else's.
STARVED_SECONDS = 0.02
MAX_SCAN_SECONDS = 1.0


class Ended(NamedTuple):
    """One operation that has ended: its value, or why it has none."""

    key: Any
    value: Any
    error: Exception | None


class _Trip:
    """One operation that is under way."""

    __slots__ = ("deadline", "exchange", "have", "key", "link", "need", "parts", "reused", "steps")

    exchange: Exchange
    deadline: float

    def __init__(self, key: Any, steps: Steps[Any]) -> None:
        self.key = key
        self.steps = steps
        self.link: Link | None = None
        self.reused = False
        self.parts: list[bytes] = []
        self.have = 0
        self.need = 1  # as many bytes make it worth while to look


class Flight:
    """Operations that are under way together; for one thread, and closed at the end.

    Times out as `ClientOptions.read_timeout_seconds` says: a silence, or a send that gets nowhere.
    Repeats what `HttpClient.send` repeats, and raises what it raises, into the steps.

    Attributes:
        under_way: how many there are.
    """

    def __init__(self, client: HttpClient) -> None:
        client.check_open()
        self.under_way = 0
        self._client = client
        self._patience = client.options.read_timeout_seconds
        self._scan_seconds = min(MAX_SCAN_SECONDS, self._patience / 4)
        self._next_scan = time.monotonic() + self._scan_seconds
        self._trips: dict[int, _Trip] = {}  # by the descriptor of their connection
        self._unsent: dict[int, memoryview] = {}
        self._links: set[Link] = set()  # all that are held, in use or not
        self._free: list[Link] = []
        self._waiting: deque[_Trip] = deque()  # for any connection
        self._waiting_fresh: deque[_Trip] = deque()  # for one that no request was on
        self._ended: list[Ended] = []
        self._ready: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._closed = False
        self._opening = 0
        self._opened: deque[Link | Exception] = deque()
        self._epoll = select.epoll()  # closes itself, should there be no descriptor for the next
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, a connection included."""
        return not (self.under_way or self._opening or self._ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, key: Any, steps: Steps[Any]) -> None:
        """Take an operation to its first request; `wait` tells how it ended."""
        self.under_way += 1
        self._advance(_Trip(key, steps), None, None)

    def wait(self, seconds: float) -> list[Ended]:
        """Sleep, and go on: for who has nothing to do in between."""
        self.sleep(seconds)
        return self.go_on()

    def sleep(self, seconds: float) -> None:
        """Wait until there is something to go on with, for so long at most."""
        if self._ended:
            seconds = 0.0
        if (self._waiting or self._waiting_fresh) and not self._open_more():
            seconds = min(seconds, STARVED_SECONDS)
        if self._trips:
            seconds = min(seconds, self._scan_seconds)
        self._ready = self._epoll.poll(seconds)

    def go_on(self) -> list[Ended]:
        """Go on with what there is to go on with; tell what has ended."""
        trips = self._trips
        ready, self._ready = self._ready, []
        for descriptor, _ in ready:
            trip = trips.get(descriptor)
            if trip is not None:
                if descriptor in self._unsent:
                    self._push(trip, self._unsent[descriptor])
                else:
                    self._receive(trip)
            elif descriptor == self._wake:
                self._take_opened()
            else:
                self._look_at_free(descriptor)
        now = time.monotonic()
        if now >= self._next_scan:
            self._next_scan = now + self._scan_seconds
            for trip in [trip for trip in trips.values() if trip.deadline <= now]:
                self._broken(trip, TimeoutError("timed out"))
        ended, self._ended = self._ended, []
        return ended

    # -- one operation ---------------------------------------------------------------------------

    def _advance(self, trip: _Trip, answer: Answer | None, error: Exception | None) -> None:
        try:
            if error is None:
                trip.exchange = trip.steps.send(answer)
            else:
                trip.exchange = trip.steps.throw(error)
        except StopIteration as done:
            self.under_way -= 1
            self._ended.append(Ended(trip.key, done.value, None))
        except Exception as raised:
            self.under_way -= 1
            self._ended.append(Ended(trip.key, None, raised))
        else:
            if self._free:
                self._send(trip, self._free.pop(), reused=True)
            else:
                self._waiting.append(trip)
                self._open_more()

    def _send(self, trip: _Trip, link: Link, *, reused: bool) -> None:
        exchange = trip.exchange
        try:
            target = self._client.target_of(exchange.url)
            head = request_head(
                exchange.method, link.target_prefix + target, link.fixed, exchange.headers
            )
        except AzpoolError as error:
            self._give_back(link)
            self._advance(trip, None, error)
            return
        trip.link, trip.reused = link, reused
        trip.parts, trip.have, trip.need = [], 0, 1
        trip.deadline = time.monotonic() + self._patience
        self._trips[link.descriptor] = trip
        body = exchange.body
        if isinstance(body, FilePiece):  # nobody sends one here: it would be read at once
            body = bytes(body)
        self._push(trip, head + body if body else head)

    def _push(self, trip: _Trip, data: bytes | memoryview) -> None:
        """Send what goes out at once, and the rest when there is room."""
        link = trip.link
        assert link is not None
        try:
            while True:
                count = link.send_now(data)
                if count == len(data):
                    break
                data = memoryview(data)[count:]
                trip.deadline = time.monotonic() + self._patience
        except OSError as error:
            wanted = link.wanted(error)
            if wanted is None:
                self._refused(trip, error)
            else:
                self._unsent[link.descriptor] = memoryview(data)
                self._epoll.modify(link.descriptor, wanted)
            return
        if self._unsent.pop(link.descriptor, None) is not None:
            self._epoll.modify(link.descriptor, select.EPOLLIN)

    def _receive(self, trip: _Trip) -> None:
        link = trip.link
        assert link is not None
        try:
            data = link.receive_now(RECEIVE_BYTES)
        except OSError as error:
            if link.wanted(error) is None:
                self._broken(trip, error)
            return
        if data:
            trip.parts.append(data)
            trip.have += len(data)
            if trip.have < trip.need:
                trip.deadline = time.monotonic() + self._patience
                return
        try:
            answer, keep = _read(trip, ended=not data)
        except _More as more:
            trip.need = trip.have + more.count
            trip.deadline = time.monotonic() + self._patience
        except Exception as error:
            self._broken(trip, error)
        else:
            self._answered(trip, answer, keep=keep)

    def _refused(self, trip: _Trip, error: OSError) -> None:
        """A server that refuses a request may say so before it has read the body."""
        assert trip.link is not None
        with suppress(OSError):
            while data := trip.link.receive_now(RECEIVE_BYTES):
                trip.parts.append(data)
        answer = None
        with suppress(OSError, StorageError):
            answer, _ = _read(trip, ended=True)
        if answer is not None and answer.status >= 400:
            self._answered(trip, answer, keep=False)
        else:
            self._broken(trip, error)

    def _answered(self, trip: _Trip, answer: Answer, *, keep: bool) -> None:
        link = self._leave(trip)
        if keep:
            self._give_back(link)
        else:
            self._drop(link)
        self._advance(trip, answer, None)

    def _broken(self, trip: _Trip, error: Exception) -> None:
        self._drop(self._leave(trip))
        # The server may close an idle connection while the request is on its way.
        if trip.reused and trip.exchange.repeatable and not trip.have and not is_timeout(error):
            self._waiting_fresh.append(trip)
            self._open_more()
            return
        self._advance(trip, None, self._client.translated(error))

    def _leave(self, trip: _Trip) -> Link:
        link = trip.link
        assert link is not None
        trip.link = None
        del self._trips[link.descriptor]
        return link

    # -- connections -----------------------------------------------------------------------------

    def _join(self, link: Link) -> None:
        self._links.add(link)
        link.hurry()
        self._epoll.register(link.descriptor, select.EPOLLIN)

    def _give_back(self, link: Link) -> None:
        if self._waiting:
            self._send(self._waiting.popleft(), link, reused=True)
        else:
            self._free.append(link)

    def _drop(self, link: Link) -> None:
        if self._unsent:
            self._unsent.pop(link.descriptor, None)
        self._epoll.unregister(link.descriptor)
        self._links.discard(link)
        link.close()
        self._client.release()

    def _look_at_free(self, descriptor: int) -> None:
        """Drop one that nothing is on where the server has closed it, or says what nobody asked."""
        link = next((link for link in self._free if link.descriptor == descriptor), None)
        if link is None:
            return
        try:
            link.receive_now(1)
        except OSError as error:
            if link.wanted(error) is not None:  # TLS alone had something to say
                return
        self._free.remove(link)
        self._drop(link)

    def _open_more(self) -> bool:
        """Get a connection for each that waits; False where the client may have no more."""
        wanted = len(self._waiting) + len(self._waiting_fresh) - self._opening
        for _ in range(wanted):
            if not self._client.reserve():
                return False
            link = self._client.take_idle() if self._waiting else None
            if link is not None:
                self._join(link)
                self._send(self._waiting.popleft(), link, reused=True)
                continue
            self._opening += 1
            thread = threading.Thread(target=self._open, name="azpool-connect", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there is none to be had: late is better than not at all
                self._open()
        return True

    def _open(self) -> None:
        opened: Link | Exception
        try:
            opened = self._client.open()
        except Exception as raised:
            opened = self._client.translated(raised)
        with self._lock:
            if not self._closed:
                self._opened.append(opened)
                os.eventfd_write(self._wake, 1)
                return
        self._leave_to_client(opened)

    def _leave_to_client(self, opened: Link | Exception) -> None:
        if not isinstance(opened, Exception):
            self._client.keep(opened)
        self._client.release()

    def _take_opened(self) -> None:
        os.eventfd_read(self._wake)
        while self._opened:
            opened = self._opened[0]
            if not isinstance(opened, Exception):
                self._join(opened)
            # Not before: should this be interrupted, `close` finds it in one place or the other.
            self._opened.popleft()
            self._opening -= 1
            waiting = self._waiting_fresh or self._waiting
            if isinstance(opened, Exception):
                self._client.release()
                if waiting:
                    self._advance(waiting.popleft(), None, opened)
            elif waiting:
                self._send(waiting.popleft(), opened, reused=False)
            else:
                self._free.append(opened)

    def close(self) -> None:
        """Cut short what is under way, and leave the other connections to the client."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._wake)
        self._epoll.close()
        for opened in self._opened:
            if opened not in self._links:
                self._leave_to_client(opened)
        for trip in [*self._trips.values(), *self._waiting, *self._waiting_fresh]:
            trip.steps.close()
        for link in self._links:
            if link in self._free:
                link.relax(self._patience)
                self._client.keep(link)
            else:  # an answer may still come on it
                link.close()
            self._client.release()


class _More(Exception):
    """The answer is not all there: so many bytes are missing at least."""

    def __init__(self, count: int) -> None:
        self.count = count


class _Came:
    """Stands for the connection where `read_answer` has read all that has come."""

    def __init__(self, *, ended: bool) -> None:
        self._ended = ended

    def recv(self, size: int, /) -> bytes:
        if self._ended:
            return b""
        # A head or a chunk is asked for in a round number, a body by what is missing of it.
        raise _More(size if size < RECEIVE_BYTES else 1)

    def recv_into(self, buffer: memoryview, /) -> int:
        if self._ended:
            return 0
        raise _More(len(buffer))


_AWAITED = _Came(ended=False)
_ENDED = _Came(ended=True)


def _read(trip: _Trip, *, ended: bool) -> tuple[Answer, bool]:
    if len(trip.parts) > 1:
        trip.parts = [b"".join(trip.parts)]
    data = trip.parts[0] if trip.parts else b""
    return read_answer(_ENDED if ended else _AWAITED, trip.exchange.method, None, data)
