"""Frames: what is put in comes out, however the stream is cut and whatever runs out."""

from __future__ import annotations

import os
import pickle
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.pool import wire
from azpool.pool.wire import Frame, FrameReader, Kind, Message, Outbox

BIG = wire.SHARE_BYTES


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def stream_of(messages: list[Message]) -> bytes:
    return b"".join(bytes(part) for message in messages for part in message.parts)


class CutStream:
    """A socket that gives its bytes in pieces of chosen sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes
        self._position = 0
        self._turn = 0

    def recv(self, limit: int) -> bytes:
        size = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        piece = self._data[self._position : self._position + min(size, limit)]
        self._position += len(piece)
        return piece

    def recv_into(self, view: memoryview) -> int:
        piece = self.recv(len(view))
        view[: len(piece)] = piece
        return len(piece)


def read_all(sock: Any, reader: FrameReader) -> list[Frame]:
    frames: list[Frame] = []
    while (read := reader.read(sock)) is not None:
        frames += read
    return frames


values = st.recursive(
    st.one_of(st.integers(), st.text(), st.none()), lambda inner: st.lists(inner, max_size=4)
)
arrays = st.integers(0, 300).map(lambda size: np.arange(size, dtype="u1"))
large = st.just(None).map(lambda _: np.arange(wire.READ_BYTES, dtype="f8"))
bodies = st.one_of(values, arrays, st.lists(arrays, max_size=5), large)


def dumped(value: Any) -> tuple[bytes, list[memoryview]]:
    buffers: list[pickle.PickleBuffer] = []
    payload = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return payload, [buffer.raw() for buffer in buffers]


@given(
    frames=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 1 << 60), bodies), max_size=6),
    sizes=st.lists(st.integers(1, 400_000) | st.integers(1, 40), min_size=1, max_size=8),
)
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[int, int, Any]], sizes: list[int]
) -> None:
    messages = [wire.encode(kind, seq, *dumped(value), flags=kind) for kind, seq, value in frames]
    assert [message.size for message in messages] == [
        sum(memoryview(part).nbytes for part in message.parts) for message in messages
    ]
    if sum(message.size for message in messages) > 10_000:
        sizes = [1000 * size for size in sizes]
    read = read_all(CutStream(stream_of(messages), sizes), FrameReader())
    assert [(f.kind, f.flags, f.seq) for f in read] == [(k, k, seq) for k, seq, _ in frames]
    for frame, (_, _, value) in zip(read, frames, strict=True):
        np.testing.assert_equal(wire.decode(frame), value)


@given(sizes=st.lists(st.sampled_from([0, 1, 63, 64, 65, 1000, BIG, BIG + 1]), max_size=6))
def test_buffers_lie_at_multiples_of_64_and_are_writable(sizes: list[int]) -> None:
    made = [np.full(size, number, dtype="u1") for number, size in enumerate(sizes)]
    message = wire.encode(Kind.EXPORT, 1, *dumped(made), share=True)
    assert len(message.fds) == (max([0, *sizes]) >= BIG)
    (frame,) = read_all(CutStream(stream_of([message]), [1 << 20]), FrameReaderWith(message.fds))
    start = np.frombuffer(frame.body, dtype="u1").ctypes.data
    loaded = wire.decode(frame)
    for array, original in zip(loaded, made, strict=True):
        np.testing.assert_equal(array, original)
        if array.nbytes >= BIG:
            assert array.ctypes.data % wire.ALIGN == 0
        elif array.nbytes:
            assert (array.ctypes.data - start) % wire.ALIGN == 0
        array[:] = 7


@given(sizes=st.lists(st.sampled_from([0, 1, 64, 1000, BIG]), max_size=4))
def test_a_frame_for_this_process_is_what_a_reader_would_get(sizes: list[int]) -> None:
    made = [np.full(size, number, dtype="u1") for number, size in enumerate(sizes)]
    message = wire.encode(Kind.EXPORT, 1, *dumped(made), flags=2, share=True)
    copy, own = wire.frame_of(message), wire.frame_of(message, own=True)
    (read,) = read_all(CutStream(stream_of([message]), [1 << 20]), FrameReaderWith(message.fds))
    assert (copy[:3], copy.buffers, bytes(copy.body)) == (read[:3], read.buffers, bytes(read.body))
    assert own.fds == message.fds and not set(copy.fds) & set(own.fds)
    for frame in (copy, own):
        for array, original in zip(wire.decode(frame), made, strict=True):
            np.testing.assert_equal(array, original)
            array[:] = 7


class FrameReaderWith(FrameReader):
    """A reader that has the descriptors already."""

    def __init__(self, fds: tuple[int, ...]) -> None:
        super().__init__()
        self._fds.extend(fds)


def test_what_one_reader_writes_no_other_one_sees(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    message = wire.encode(Kind.EXPORT, 1, *dumped(np.zeros(BIG, dtype="u1")), share=True)
    reader = FrameReader(with_fds=True)
    seen = []
    for _ in range(2):
        wire.send_now(pair[0], message)
        (frame,) = reader.read(pair[1]) or ()
        seen.append(wire.decode(frame))
    wire.release(message)
    seen[0][:] = 1
    assert not seen[1].any()


def test_a_large_frame_of_many_buffers_crosses_a_blocking_socket(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    made = [np.full(5000, n, dtype="u2") for n in range(1500)]  # more parts than one call takes
    message = wire.encode(Kind.RUN, 1, *dumped(made))
    assert len(message.parts) > wire.IOV_MAX
    sending = threading.Thread(target=wire.send_now, args=(pair[0], message))
    sending.start()
    reader = FrameReader()
    frames: list[Frame] = []
    while not frames:
        frames += reader.read(pair[1]) or ()
    sending.join()
    np.testing.assert_equal(wire.decode(frames[0]), made)


def test_the_end_of_a_stream_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    reader = FrameReader()
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        reader.read(pair[1])
    pair[0].sendall(stream_of([wire.encode(1, 2, b"whole")]) + b"half of a header")
    pair[0].close()
    frames = reader.read(pair[1])
    assert frames is not None
    assert [bytes(frame.body) for frame in frames] == [b"whole"]
    assert reader.read(pair[1]) is None


# -- descriptors ---------------------------------------------------------------------------------


def file_of(text: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, text)
    return fd


def text_of(fds: tuple[int, ...]) -> list[bytes]:
    texts = [os.pread(fd, 100, 0) for fd in fds]
    for fd in fds:
        os.close(fd)
    return texts


def test_descriptors_stay_with_their_frames(pair: tuple[socket.socket, socket.socket]) -> None:
    outbox = Outbox(pair[0])
    for texts in ([b"a"], [], [b"b", b"c"], [b"d"]):
        fds = tuple(file_of(text) for text in texts)
        outbox.send(wire.encode(1, 0, b"".join(texts), fds=fds), own=True)
    reader = FrameReader(with_fds=True)
    frames: list[Frame] = []
    while len(frames) < 4:
        frames += reader.read(pair[1]) or ()
    assert [text_of(frame.fds) for frame in frames] == [[b"a"], [], [b"b", b"c"], [b"d"]]


def test_descriptors_of_a_large_frame_arrive(pair: tuple[socket.socket, socket.socket]) -> None:
    body = bytes(3 * wire.READ_BYTES)
    pair[0].setblocking(False)
    outbox = Outbox(pair[0])
    outbox.put(wire.encode(1, 0, body, fds=(file_of(b"x"),)), own=True)
    outbox.put(wire.encode(1, 1, b"next", fds=(file_of(b"y"),)), own=True)
    reader = FrameReader(with_fds=True)
    frames: list[Frame] = []
    while len(frames) < 2:
        outbox.flush()
        frames += reader.read(pair[1]) or ()
    assert [text_of(frame.fds) for frame in frames] == [[b"x"], [b"y"]]
    assert [len(frame.body) for frame in frames] == [len(body), 4]


def test_descriptors_that_find_no_room_are_an_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    fds = tuple(file_of(b"x") for _ in range(3))
    wire.send_now(pair[0], wire.encode(1, 0, b"body", fds=fds))
    for fd in fds:
        os.close(fd)
    reader = FrameReader(with_fds=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(OSError, match="descriptors were lost on arrival") as caught:
            reader.read(pair[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == 24
    reader.close()


def test_a_frame_whose_descriptors_never_came_is_an_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[0].sendall(stream_of([Message(wire.encode(1, 0, b"", fds=(0,)).parts, (), 0)]))
    with pytest.raises(OSError, match="descriptors were lost on arrival"):
        FrameReader(with_fds=True).read(pair[1])


def test_a_reader_closes_what_nobody_took(pair: tuple[socket.socket, socket.socket]) -> None:
    fd = file_of(b"x")
    # Half of a frame: its descriptor is there, the rest never comes.
    pair[0].sendmsg([stream_of([wire.encode(1, 0, b"body", fds=(fd,))])[: 30 - 4]], rights(fd))
    os.close(fd)
    reader = FrameReader(with_fds=True)
    assert reader.read(pair[1]) == []
    reader.close()


def rights(fd: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))]


# -- what waits ----------------------------------------------------------------------------------


def drained(sock: socket.socket, reader: FrameReader, flush: Callable[[], bool]) -> list[Frame]:
    """Read until all that waits was written and read."""
    sock.setblocking(False)
    frames: list[Frame] = []
    while True:
        done = flush()
        try:
            frames += reader.read(sock) or ()
        except BlockingIOError:
            if done:
                return frames


def fill(outbox: Outbox) -> int:
    """Send until the socket takes no more; returns how many frames that were."""
    count = 1
    while outbox.send(wire.encode(1, count, bytes(10_000))):
        count += 1
    return count


def test_what_a_full_socket_does_not_take_waits_in_order(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[0].setblocking(False)
    outbox = Outbox(pair[0])
    count = fill(outbox)
    for seq in range(count + 1, count + 300):
        assert not outbox.send(wire.encode(1, seq, bytes(seq)))
    frames = drained(pair[1], FrameReader(), outbox.flush)
    assert [frame.seq for frame in frames] == list(range(1, count + 300))
    assert outbox.sent_bytes == sum(wire.HEADER_BYTES + len(frame.body) for frame in frames)


def test_descriptors_may_be_closed_while_their_frame_waits(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[0].setblocking(False)
    outbox = Outbox(pair[0])
    count = fill(outbox)
    kept = wire.encode(1, 0, b"kept", fds=(file_of(b"kept"),))
    outbox.send(kept)
    outbox.send(kept)
    wire.release(kept)
    outbox.send(wire.encode(1, 0, b"own", fds=(file_of(b"own"),)), own=True)
    frames = drained(pair[1], FrameReader(with_fds=True), outbox.flush)[count:]
    assert [text_of(frame.fds) for frame in frames] == [[b"kept"], [b"kept"], [b"own"]]


def test_closing_an_outbox_closes_the_descriptors_that_wait(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[0].setblocking(False)
    outbox = Outbox(pair[0])
    fill(outbox)
    message = wire.encode(1, 0, b"", fds=(file_of(b"x"),))
    outbox.send(message)
    outbox.send(wire.encode(1, 0, b"", fds=(file_of(b"x"),)), own=True)
    outbox.close()
    wire.release(message)  # what else is left is found by the look at what a test leaves behind
    assert outbox.flush()


def test_a_reader_that_is_gone_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with pytest.raises(ConnectionError):
        Outbox(pair[0]).send(wire.encode(1, 0, b"x"))


@given(
    sizes=st.lists(st.integers(1, 9), max_size=8),
    data=st.data(),
)
def test_advance_drops_exactly_what_was_sent(sizes: list[int], data: st.DataObject) -> None:
    whole = bytes(range(sum(sizes)))
    parts, position = [], 0
    for size in sizes:
        parts.append(memoryview(whole[position : position + size]))
        position += size
    sent = data.draw(st.integers(0, len(whole)))
    assert b"".join(wire.advance(parts, sent)) == whole[sent:]
