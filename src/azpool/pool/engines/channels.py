"""Nodes that are processes of this machine: their channels, whoever started them.

Each node has four descriptors of its own: a socketpair for frames, a page of shared memory that
says what it is doing, an eventfd whose tokens allow it to begin queued chunks, and a pipe for raw
output. Nothing is shared between nodes, so a killed node damages nothing but its own channel.
Signals go through pidfds alone, so they never hit a stranger.
"""

from __future__ import annotations

import _socket as socket  # see `wire`
import contextlib
import math
import mmap
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from azpool.pool import capture, wire
from azpool.pool.engines.base import Death, Listener, NodeKey
from azpool.pool.loop import WRITE
from azpool.pool.node import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpool.pool.loop import Loop
    from azpool.pool.wire import Message

STDERR_KEPT = 4096  # characters of raw output that an error may quote


def request_of_this_moment() -> tuple[dict[str, Any], list[int]]:
    """Return what nodes take over from the master, and the directory's descriptor if it opens."""
    fds: list[int] = []
    with contextlib.suppress(OSError):  # else nodes start where their parent did
        fds.append(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    request = {
        "has_directory": bool(fds),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "levels": capture.levels(),
    }
    return request, fds


def why_unborn(error: OSError) -> str:
    """Put into words why a node could not be started."""
    return f"{error.strerror} ({error.errno})"


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process; a debugger's hold is another state."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:  # it is gone, or there are no descriptors to look with
        return False


class Channel:
    """The master's end of one node."""

    def __init__(self, key: NodeKey) -> None:
        self.key = key
        self.pid = 0
        self.pidfd = -1
        self.kill_wanted = False
        self.verdict = ""  # why the master ends it
        self.tail = ""
        self.received_bytes = 0
        self.listening = True
        self.wants_write = False
        self.grants = 0  # tokens to be written
        self.theirs: tuple[int, ...] = ()
        with contextlib.ExitStack() as undo:
            self.sock, theirs = socket.socketpair()
            undo.callback(self.sock.close)
            undo.callback(theirs.close)
            status = os.memfd_create("azpool-status", os.MFD_CLOEXEC)
            undo.callback(os.close, status)
            os.ftruncate(status, Status.BYTES)
            self._page = mmap.mmap(status, Status.BYTES)
            self.words = memoryview(self._page).cast("Q")
            self.tokens = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
            undo.callback(os.close, self.tokens)
            self.output, output = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self.output)
            undo.callback(os.close, output)
            os.set_blocking(self.output, False)
            tokens = os.dup(self.tokens)
            undo.pop_all()
        self.theirs = (theirs.detach(), status, tokens, output)
        self.sock.setblocking(False)  # noqa: FBT003 - the standard library's own
        self.outbox = wire.Outbox(self.sock)
        self.reader = wire.FrameReader()
        self.flush_now: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Free the descriptors."""
        self.outbox.close()
        self.sock.close()
        self.words.release()
        self._page.close()
        for fd in (self.tokens, self.output, self.pidfd, *self.theirs):
            if fd >= 0:
                os.close(fd)
        self.theirs = ()


class Channels:
    """What both starters of processes share: see `engines.base.Engine` for the contract."""

    def __init__(self, loop: Loop, listener: Listener) -> None:
        self._loop = loop
        self._listener = listener
        self._channels: dict[NodeKey, Channel] = {}
        self._moments: dict[int, tuple[dict[str, Any], list[int]]] = {}  # of generations

    def _moment_of(self, generation: int) -> tuple[dict[str, Any], list[int]]:
        """Return what the nodes of a generation take over, with a descriptor of the caller's own.

        It is of the moment when its first ones were started, so that those that follow are alike.
        """
        kept = self._moments.get(generation)
        if kept is None:
            kept = self._moments[generation] = request_of_this_moment()
        request, fds = kept
        try:
            return dict(request), [os.dup(fd) for fd in fds]
        except OSError:  # as where it can't be opened
            return {**request, "has_directory": False}, []

    def _forget_moments(self, before: float = math.inf) -> None:
        for generation in [number for number in self._moments if number < before]:
            for fd in self._moments.pop(generation)[1]:
                os.close(fd)

    def _open(self, keys: list[NodeKey]) -> list[Channel]:
        """Make the channels of nodes to come; one that can't be made is told as unborn."""
        channels: list[Channel] = []
        for key in keys:
            try:
                channel = Channel(key)
            except OSError as error:
                self._loop.call(self._listener.on_unborn, key, why_unborn(error))
                continue
            self._channels[key] = channel
            channel.flush_now = partial(self._flush, channel)
            channels.append(channel)
            self._loop.register(channel.sock.fileno(), self._reader(channel), light=True)
            self._loop.register(channel.output, self._output_reader(channel))
        return channels

    def _remove(self, channel: Channel) -> bool:
        """Free a channel; False where it was freed before."""
        if self._channels.pop(channel.key, None) is None:
            return False
        if channel.listening:
            self._loop.unregister(channel.sock.fileno())
        self._close_output(channel)
        channel.close()
        # A generation that is over asks for no more nodes; one that goes on has others.
        self._forget_moments(min((key.generation for key in self._channels), default=-math.inf))
        return True

    def _ended(self, channel: Channel, code: int) -> None:
        """A node is dead: deliver what it had sent, then the news."""
        with contextlib.suppress(OSError, MemoryError):
            while channel.listening and self._read(channel):
                pass
        with contextlib.suppress(OSError):
            while channel.output >= 0 and self._read_output(channel):
                pass
        death = Death(
            exit_code=code,
            pid=channel.pid,
            stderr=channel.tail.strip(),
            chunk=channel.words[Status.CHUNK],
            item=channel.words[Status.ITEM],
            had_state=bool(channel.words[Status.STATE]),
            verdict=channel.verdict,
        )
        self._remove(channel)
        self._listener.on_death(channel.key, death)

    # -- reading -------------------------------------------------------------------------------

    def _reader(self, channel: Channel) -> Callable[[int], None]:
        def on_ready(mask: int) -> None:
            if channel.key not in self._channels or not channel.listening:
                return
            try:
                if mask & WRITE:
                    self._flush(channel)
                if mask & ~WRITE and not self._read(channel):
                    self._stop_listening(channel)
            except BlockingIOError:
                pass
            except ConnectionError:
                self._stop_listening(channel)
            except (OSError, MemoryError) as error:  # no memory for what the node sends
                self._stop_listening(channel)
                self._give_up(channel, "what it sent could not be read", error)

        return on_ready

    def _read(self, channel: Channel) -> bool:
        frames = channel.reader.read(channel.sock)
        if frames is None:
            return False
        for frame in frames:
            channel.received_bytes += wire.HEADER_BYTES + len(frame.body)
            self._listener.on_frame(channel.key, frame)
        return True

    def _stop_listening(self, channel: Channel) -> None:
        # The end of the stream; what the node died of is told elsewhere.
        if channel.listening and channel.key in self._channels:
            channel.listening = False
            self._loop.unregister(channel.sock.fileno())

    def _output_reader(self, channel: Channel) -> Callable[[int], None]:
        def on_ready(_mask: int) -> None:
            with contextlib.suppress(BlockingIOError):
                if channel.key in self._channels and not self._read_output(channel):
                    self._close_output(channel)

        return on_ready

    def _close_output(self, channel: Channel) -> None:
        if channel.output >= 0:
            self._loop.unregister(channel.output)
            os.close(channel.output)
            channel.output = -1

    def _read_output(self, channel: Channel) -> bool:
        data = os.read(channel.output, 65536)
        if not data:
            return False
        text = data.decode("utf-8", "replace")
        channel.tail = (channel.tail + text)[-STDERR_KEPT:]
        self._listener.on_output(channel.key, text)
        return True

    # -- writing and signals -------------------------------------------------------------------

    def send(self, key: NodeKey, message: Message, *, own: bool = False) -> None:
        channel = self._channels.get(key)
        if channel is None:
            if own:
                wire.release(message)
            return
        try:
            channel.outbox.put(message, own=own)
        except OSError as error:
            self._give_up(channel, "it could not be sent to", error)
        self._loop.at_end(channel.flush_now)

    def _flush(self, channel: Channel) -> None:
        if channel.key not in self._channels:
            return
        if channel.grants:
            os.eventfd_write(channel.tokens, channel.grants)
            channel.grants = 0
        try:
            done = channel.outbox.flush()
        except ConnectionError:  # the node is gone; its death is on its way
            channel.outbox.close()
            done = True
        except OSError as error:
            self._give_up(channel, "it could not be sent to", error)
            done = True
        if channel.listening and done is channel.wants_write:
            channel.wants_write = not done
            self._loop.want_write(channel.sock.fileno(), wanted=not done)

    def _give_up(self, channel: Channel, what: str, error: BaseException) -> None:
        """Memory or descriptors have run out: a node that lacks a frame is of no use."""
        channel.outbox.close()
        self.kill(channel.key, f"{what}: {str(error) or type(error).__name__}")

    def grant(self, key: NodeKey) -> None:
        channel = self._channels.get(key)
        if channel is not None:
            channel.grants += 1  # written before the frames that they are for

    def revoke(self, key: NodeKey) -> bool:
        channel = self._channels.get(key)
        if channel is None:
            return False
        if channel.grants:
            channel.grants -= 1
            return True
        try:
            os.eventfd_read(channel.tokens)
        except BlockingIOError:
            return False
        return True

    def interrupt(self, key: NodeKey, chunk: int) -> None:
        channel = self._channels.get(key)
        if channel is None:
            return
        channel.words[Status.INTERRUPT] = chunk  # for one that has not begun it
        if channel.pidfd >= 0:  # else it is sent when its birth is told
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(channel.pidfd, signal.SIGINT)

    def began(self, key: NodeKey) -> tuple[int, int, float]:
        channel = self._channels.get(key)
        if channel is None:
            return 0, 0, 0.0
        words = channel.words
        return words[Status.CHUNK], words[Status.ITEM], words[Status.BEGAN] / 1e9

    def kill(self, key: NodeKey, verdict: str = "") -> None:
        channel = self._channels.get(key)
        if channel is None:
            return
        channel.kill_wanted = True
        channel.verdict = channel.verdict or verdict
        if channel.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(channel.pidfd, signal.SIGKILL)

    def is_stopped(self, key: NodeKey) -> bool:
        channel = self._channels.get(key)
        return channel is not None and channel.pid > 0 and is_stopped(channel.pid)

    def traffic(self, key: NodeKey) -> tuple[int, int]:
        channel = self._channels.get(key)
        return (0, 0) if channel is None else (channel.outbox.sent_bytes, channel.received_bytes)

    def close(self) -> None:
        for channel in list(self._channels.values()):
            self.kill(channel.key)
            self._remove(channel)
        self._forget_moments()

    def forget(self) -> None:
        for channel in self._channels.values():
            channel.outbox.close()
            channel.sock.close()
            for fd in (channel.tokens, channel.output, channel.pidfd, *channel.theirs):
                if fd >= 0:
                    os.close(fd)
        self._channels = {}
        self._forget_moments()
