"""Frames and pickling: what travels on the channel between the master and one node.

A frame is a 24-byte header and a body. A body is one pickle (protocol 5) or, where objects gave
out-of-band buffers, a table of lengths, the pickle and the buffers. Buffers of `SHARE_BYTES` or
more may lie in a memfd that travels beside the frame and that each reader maps privately: they
cross once, however many nodes read them. Nothing here knows what a frame means; nothing here
blocks but a reader on a blocking socket.
"""

from __future__ import annotations

# What `socket` wraps: its enums take 4 ms of a start to make, and no node needs them.
import _socket as socket
import array
import mmap
import os
import pickle
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = struct.Struct("<BBHIQQ")  # kind, flags, fds, buffers, sequence number, body bytes
HEADER_BYTES = HEADER.size
READ_BYTES = 64 * 1024  # more, and malloc maps and unmaps the pages of each read (from 128 KiB on)
SHARE_BYTES = 1 << 20  # below this a copy through the socket is cheaper than mapping pages
BIG_READS = 64  # of a large body in a row: some 6 MB, so that others wait for 5 ms at most
MAX_FDS = 250  # Linux passes 253 in one message (SCM_MAX_FD)
IN_MEMFD = 1 << 63
ALIGN = 64  # numpy's widest vector loads
IOV_MAX = 1024

ATOMIC = frozenset({int, float, str, bytes, bool, complex, type(None)})
"""Types whose values always pickle and load, and are never changed afterwards."""


class _OutOfBand:
    """Large bytes that pickle as an out-of-band buffer, and load as bytes."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return bytes, (pickle.PickleBuffer(self._value),)


def out_of_band(value: Any) -> Any:
    """Return what is to be pickled for a value: large bytes are spared the copy into the pickle."""
    return _OutOfBand(value) if type(value) is bytes and len(value) >= SHARE_BYTES else value


class Kind:
    """What a frame is; the first block goes to nodes, the second comes back.

    Plain numbers: they are compared several times a frame, and an enum's take four times as long.
    """

    FUNCTION = 1
    RUN = 2
    EXPORT = 3
    UNEXPORT = 4
    REPLY = 5
    BYE = 6
    FORGET = 7
    SETUP = 8

    HELLO = 20
    RESULT = 21
    SKIPPED = 22
    ASK = 23
    OUTPUT = 24
    EMIT = 25
    EXPORTED = 26
    LOGGED = 27
    WARNED = 28

    FORK = 40
    BORN = 41
    EXITED = 42
    UNBORN = 43
    PRELOAD = 44
    PRELOADED = 45
    KILL = 46


class Flag:
    """Bits of a frame's `flags`."""

    LAST = 1  # RESULT: the chunk is done
    PLAIN = 4  # RESULT: all values are of atomic types, in one pickle
    QUEUED = 2  # RUN: sent behind another chunk; it begins only with a token, so it can be revoked


class Frame(NamedTuple):
    """One frame as it was read; `body` is still pickled."""

    kind: int
    flags: int
    seq: int
    body: bytes | memoryview
    buffers: int
    fds: tuple[int, ...]


class Message(NamedTuple):
    """One frame ready to be sent, any number of times: bytes-like parts and descriptors."""

    parts: tuple[bytes | memoryview, ...]
    fds: tuple[int, ...]
    size: int


def encode(
    kind: int,
    seq: int,
    payload: bytes,
    buffers: Sequence[memoryview] = (),
    *,
    flags: int = 0,
    fds: tuple[int, ...] = (),
    share: bool = False,
    prefix: bytes = b"",
) -> Message:
    """Build the frame for one pickle, some bytes before it, and its out-of-band buffers.

    `share=True` puts large buffers into a new memfd, which is the last of the message's `fds`;
    whoever holds the message closes it with `release`.
    """
    length = len(prefix) + len(payload)
    if not buffers:
        head = HEADER.pack(kind, flags, len(fds), 0, seq, length) + prefix
        if length > READ_BYTES:  # what is large is not copied to be put together
            return Message((head, payload), fds, HEADER_BYTES + length)
        return Message((head + payload,), fds, HEADER_BYTES + length)
    inline: list[memoryview] = []
    shared: list[memoryview] = []
    table = [length]
    for buffer in buffers:
        if share and buffer.nbytes >= SHARE_BYTES:
            shared.append(buffer)
            table.append(buffer.nbytes | IN_MEMFD)
        else:
            inline.append(buffer)
            table.append(buffer.nbytes)
    if shared:
        fds = (*fds, _memfd(shared))
    head = struct.pack(f"<{len(table)}Q", *table) + prefix
    parts: list[bytes | memoryview] = [head, payload]
    position = len(head) + len(payload)
    for buffer in inline:
        pad = -position % ALIGN
        parts += [bytes(pad), buffer.cast("B") if buffer.nbytes else buffer.tobytes()]
        position += pad + buffer.nbytes
    parts[0] = HEADER.pack(kind, flags, len(fds), len(buffers), seq, position) + head
    return Message(tuple(parts), fds, HEADER_BYTES + position)


def release(message: Message) -> None:
    """Close the descriptors that a message holds."""
    release_fds(message.fds)


def release_fds(fds: tuple[int, ...]) -> None:
    """Close descriptors; one that an `Outbox` has yet to send is closed when it is sent."""
    for fd in fds:
        others = _held.get(fd, 0)
        if others > 1:
            _held[fd] = others - 1
        elif others:
            del _held[fd]
        elif fd >= 0:  # else it was lost on arrival
            os.close(fd)


# How many outboxes hold a message's descriptor besides the message. Each belongs to one I/O thread.
_held: dict[int, int] = {}


def _memfd(buffers: Sequence[memoryview]) -> int:
    """Copy buffers into a new memfd, each at a multiple of ALIGN."""
    size = 0
    for buffer in buffers:
        size += -size % ALIGN + buffer.nbytes
    fd = os.memfd_create("azpool-buffers", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, size)  # a full /dev/shm is an error here, not a SIGBUS later
        position = 0
        for buffer in buffers:
            position += -position % ALIGN
            view = buffer.cast("B")
            done = 0
            while done < len(view):
                done += os.pwrite(fd, view[done : done + (1 << 30)], position + done)
            position += len(view)
    except BaseException:
        os.close(fd)
        raise
    return fd


def frame_of(message: Message, *, own: bool = False) -> Frame:
    """Return the frame that a reader would get, for one in this process; nothing is shared with it.

    Its descriptors are the message's where they are handed over, else copies of them.
    """
    data = message.parts[0] if len(message.parts) == 1 else b"".join(message.parts)
    kind, flags, _, buffers, seq, _ = HEADER.unpack_from(data)
    body: bytes | memoryview = bytes(memoryview(data)[HEADER_BYTES:])
    if buffers:
        body = memoryview(bytearray(body))
    fds = message.fds if own else tuple(os.dup(fd) for fd in message.fds)
    return Frame(kind, flags, seq, body, buffers, fds)


def buffers_of(frame: Frame) -> tuple[bytes | memoryview, list[memoryview]]:
    """Split a frame's body into its pickle and its out-of-band buffers, which are writable."""
    if not frame.buffers:
        return frame.body, []
    body = memoryview(frame.body)
    table = struct.unpack_from(f"<{frame.buffers + 1}Q", body)
    start = 8 * len(table)
    payload = body[start : start + table[0]]
    position = start + table[0]
    shared: memoryview | None = None
    shared_position = 0
    buffers = []
    for length in table[1:]:
        if length & IN_MEMFD:
            if shared is None:
                shared = _map(frame.fds[-1])
            size = length ^ IN_MEMFD
            shared_position += -shared_position % ALIGN
            buffers.append(shared[shared_position : shared_position + size])
            shared_position += size
        else:
            position += -position % ALIGN
            buffers.append(body[position : position + length])
            position += length
    return payload, buffers


def _map(fd: int) -> memoryview:
    # Private and writable: each reader has copy-on-write pages of its own.
    return memoryview(
        mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    )


def decode(frame: Frame) -> Any:
    """Load a frame's object; its descriptors are closed."""
    try:
        payload, buffers = buffers_of(frame)
    finally:
        release_fds(frame.fds)
    return pickle.loads(payload, buffers=buffers)


class FrameReader:
    """Cuts what arrives on a stream socket into frames; never loses or reorders a byte.

    Small frames are cut from one read; the rest of a large body is read straight into its place.
    `may_lose_fds=True` is for frames of one descriptor at most: one that is lost on arrival is -1.
    """

    def __init__(self, *, with_fds: bool = False, may_lose_fds: bool = False) -> None:
        self._with_fds = with_fds
        self._may_lose_fds = may_lose_fds
        self._fds: deque[int] = deque()
        self._tail = b""
        self._head: tuple[int, int, int, int, int, int] | None = None
        self._big: memoryview | None = None
        self._filled = 0

    def read(self, sock: socket.socket) -> list[Frame] | None:
        """Read and return the frames that are now complete; None at the end of the stream.

        Raises:
            BlockingIOError: a non-blocking socket has nothing.
            OSError: the channel is broken, or descriptors were lost (EMFILE).
        """
        if self._big is not None:
            return self._read_big(sock)
        data = self._receive(sock)
        if not data:
            return None
        return self._cut(self._tail + data if self._tail else data)

    def _receive(self, sock: socket.socket) -> bytes:
        if not self._with_fds:
            return sock.recv(READ_BYTES)
        data, ancillary, flags, _ = sock.recvmsg(READ_BYTES, socket.CMSG_SPACE(4 * MAX_FDS))
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
                self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC:
            if not self._may_lose_fds:
                raise OSError(24, "descriptors were lost on arrival: too many open files")
            self._fds.append(-1)
        return data

    def _cut(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        position, end = 0, len(data)
        while end - position >= HEADER_BYTES:
            kind, flags, nfds, buffers, seq, size = head = HEADER.unpack_from(data, position)
            start = position + HEADER_BYTES
            if end - start < size:
                if size > READ_BYTES:
                    self._begin_big(head, data[start:])
                    return frames
                break
            body: bytes | memoryview = data[start : start + size]
            if buffers:  # objects are loaded around them, and may be written to
                body = memoryview(bytearray(body))
            frames.append(Frame(kind, flags, seq, body, buffers, self._take_fds(nfds)))
            position = start + size
        self._tail = data[position:] if position else data
        return frames

    def _begin_big(self, head: tuple[int, int, int, int, int, int], begun: bytes) -> None:
        self._head = head
        # Fresh pages of the kernel's: nothing is written twice.
        self._big = memoryview(mmap.mmap(-1, head[5], flags=mmap.MAP_PRIVATE))
        self._big[: len(begun)] = begun
        self._filled = len(begun)
        self._tail = b""

    def _read_big(self, sock: socket.socket) -> list[Frame] | None:
        assert self._big is not None
        assert self._head is not None
        for _ in range(BIG_READS):
            try:
                count = sock.recv_into(self._big[self._filled :])
            except BlockingIOError:
                return []
            if not count:
                return None
            self._filled += count
            if self._filled == len(self._big):
                break
        else:
            return []
        kind, flags, nfds, buffers, seq, _ = self._head
        frame = Frame(kind, flags, seq, self._big, buffers, self._take_fds(nfds))
        self._big = self._head = None
        return [frame]

    def _take_fds(self, count: int) -> tuple[int, ...]:
        if not count:
            return ()
        if len(self._fds) < count:
            raise OSError(24, "descriptors were lost on arrival: too many open files")
        return tuple(self._fds.popleft() for _ in range(count))

    def close(self) -> None:
        """Close descriptors that arrived and were not taken."""
        while self._fds:
            release_fds((self._fds.popleft(),))


def send_now(sock: socket.socket, message: Message) -> None:
    """Send a whole message on a blocking socket."""
    parts = [memoryview(part) for part in message.parts if len(part)]
    fds = message.fds
    while parts:
        if fds:
            sent = sock.sendmsg(parts[:IOV_MAX], [_rights(fds)])
            fds = ()
        elif len(parts) == 1:
            sock.sendall(parts[0])
            return
        else:
            sent = sock.sendmsg(parts[:IOV_MAX])
        parts = advance(parts, sent)


def advance(parts: list[memoryview], sent: int) -> list[memoryview]:
    """Drop the first `sent` bytes of a list of buffers."""
    index = 0
    while index < len(parts) and sent >= len(parts[index]):
        sent -= len(parts[index])
        index += 1
    rest = parts[index:]
    if sent:
        rest[0] = rest[0][sent:]
    return rest


def _rights(fds: tuple[int, ...]) -> tuple[int, int, array.array[int]]:
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))


class Outbox:
    """What still has to be written to one non-blocking socket, in order.

    Frames that wait together leave together, in one system call where they carry no descriptors.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting: deque[tuple[list[bytes | memoryview], tuple[int, ...]]] = deque()
        self.sent_bytes = 0

    def put(self, message: Message, *, own: bool = False) -> None:
        """Queue a message. `own=True` hands its descriptors over, else it is released as well."""
        fds = message.fds
        if fds:
            for fd in () if own else fds:  # no copies, which a process at its limit can't make
                _held[fd] = _held.get(fd, 0) + 1
            self._waiting.append((list(message.parts), fds))
        elif self._waiting and not self._waiting[-1][1]:
            self._waiting[-1][0].extend(message.parts)
        else:
            self._waiting.append((list(message.parts), ()))

    def send(self, message: Message, *, own: bool = False) -> bool:
        """Queue a message and write what the socket takes; True when all is written.

        Raises:
            OSError: the other end is gone.
        """
        self.put(message, own=own)
        return self.flush()

    def flush(self) -> bool:
        """Write what the socket takes now; True when nothing waits.

        Raises:
            OSError: the other end is gone.
        """
        while self._waiting:
            parts, fds = self._waiting[0]
            try:
                if fds:
                    sent = self._sock.sendmsg(parts[:IOV_MAX], [_rights(fds)])
                elif len(parts) == 1:
                    sent = self._sock.send(parts[0])
                else:
                    sent = self._sock.sendmsg(parts[:IOV_MAX])
            except BlockingIOError:
                return False
            release_fds(fds)
            self.sent_bytes += sent
            rest = advance([memoryview(part) for part in parts if len(part)], sent)
            if rest:
                self._waiting[0] = (list(rest), ())
            else:
                self._waiting.popleft()
        return True

    def close(self) -> None:
        """Forget what waits; its descriptors are closed."""
        while self._waiting:
            release_fds(self._waiting.popleft()[1])
