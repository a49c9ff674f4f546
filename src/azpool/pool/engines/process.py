"""The process engine: nodes are processes that a zygote forks.

Each node has four descriptors of its own: a socketpair for frames, a page of shared memory that
says what it is doing, an eventfd whose tokens allow it to begin chunks, and a pipe for raw output.
Nothing is shared between nodes, so a killed node damages nothing but its own channel. Births and
deaths are the zygote's to tell; signals go through pidfds alone, so they never hit a stranger.
"""

from __future__ import annotations

import contextlib
import marshal
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from azpool.pool import wire
from azpool.pool.engines.base import Death, Listener, NodeKey, Preloaded
from azpool.pool.loop import WRITE
from azpool.pool.node import Status
from azpool.pool.wire import Frame, Kind, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpool.pool.loop import Loop

NODES_PER_REQUEST = 40  # 4 descriptors each; Linux passes 253 in one message
STDERR_KEPT = 4096  # characters of raw output that an error may quote
CLOSE_SECONDS = 1.0

# The zygote gets sys.path first, since it finds azpool by it; all the rest comes as frames.
_BOOTSTRAP = """\
import marshal, os, sys
fd = int(sys.argv[1])
with open(os.dup(fd), "rb", buffering=0) as stream:
    size = int.from_bytes(stream.read(8), "little")
    data = b""
    while len(data) < size:
        data += stream.read(size - len(data))
sys.path[:], master = marshal.loads(data)
from azpool.pool.engines._zygote import main
main(fd, master)
"""


class _Zygote:
    """The master's end of one zygote."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair()
        self.stderr = os.memfd_create("azpool-zygote-stderr", os.MFD_CLOEXEC)
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-P", "-c", _BOOTSTRAP, str(theirs.fileno())]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self.stderr,
                stderr=self.stderr,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(self.stderr)
            raise
        finally:
            theirs.close()
        hello = marshal.dumps((list(sys.path), os.getpid()))
        ours.sendall(len(hello).to_bytes(8, "little") + hello)
        ours.setblocking(False)  # noqa: FBT003 - the standard library's own
        self.sock = ours
        self.outbox = wire.Outbox(ours)
        self.reader = wire.FrameReader(with_fds=True)
        self.children = 0
        self.retired = False
        self.sources: dict[str, int] = {}  # files of preloaded modules, with their times of change
        if preload:
            self.preload(list(preload))

    def preload(self, modules: list[str]) -> None:
        """Ask for imports; the answer is a PRELOADED frame."""
        payload = pickle.dumps((modules, list(sys.path)), protocol=5)
        self.outbox.send(wire.encode(Kind.PRELOAD, 0, payload))

    def last_words(self) -> str:
        """What the zygote wrote to its standard error, from the end."""
        size = os.fstat(self.stderr).st_size
        text = os.pread(self.stderr, STDERR_KEPT, max(0, size - STDERR_KEPT))
        return text.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the process; what it had forked ends with it."""
        self.sock.close()
        self.outbox.close()
        self.reader.close()
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.stderr)


class _Channel:
    """The master's end of one node."""

    def __init__(self, key: NodeKey, zygote: _Zygote) -> None:
        self.key = key
        self.zygote = zygote
        self.pid = 0
        self.pidfd = -1
        self.kill_wanted = False
        self.tail = ""
        self.received_bytes = 0
        self.listening = True
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
        self.sock.setblocking(False)  # noqa: FBT003 - as above
        self.outbox = wire.Outbox(self.sock)
        self.reader = wire.FrameReader()

    def close(self) -> None:
        """Free the descriptors."""
        self.outbox.close()
        self.sock.close()
        self.words.release()
        self._page.close()
        for fd in (self.tokens, self.output, self.pidfd):
            if fd >= 0:
                os.close(fd)


class ProcessEngine:
    """See the module and `engines.base.Engine`."""

    def __init__(self, loop: Loop, listener: Listener, *, preload: tuple[str, ...] = ()) -> None:
        self._loop = loop
        self._listener = listener
        self._preload = preload
        self._zygote: _Zygote | None = None
        self._retired: list[_Zygote] = []
        self._channels: dict[NodeKey, _Channel] = {}
        self._asked: set[str] = set()  # modules that this zygote was asked to import
        self._harmless: set[str] = set()  # those of them that started no threads
        self._spoilers: set[str] = set()  # those that may have: never asked for again

    # -- the zygote ----------------------------------------------------------------------------

    def renew(self) -> None:
        self._asked, self._harmless = set(), set()
        if self._zygote is not None:
            self._zygote.retired = True
            self._retired.append(self._zygote)
            self._drop_unused(self._zygote)
            self._zygote = None

    def preload(self, modules: list[str]) -> bool:
        fresh = [name for name in modules if name not in self._asked | self._spoilers]
        if not fresh:
            return False
        self._live_zygote().preload(fresh)
        self._asked.update(fresh)
        return True

    def is_stale(self) -> bool:
        sources = {} if self._zygote is None else self._zygote.sources
        for path, changed_ns in sources.items():
            try:
                if os.stat(path).st_mtime_ns != changed_ns:
                    return True
            except OSError:
                return True
        return False

    def _live_zygote(self) -> _Zygote:
        if self._zygote is None:
            preload = tuple(name for name in self._preload if name not in self._spoilers)
            zygote = _Zygote(preload)
            self._asked.update(preload)
            self._zygote = zygote
            self._loop.register(zygote.sock.fileno(), lambda mask: self._on_zygote(zygote, mask))
        return self._zygote

    def _on_zygote(self, zygote: _Zygote, mask: int) -> None:
        if zygote.sock.fileno() < 0:
            return
        frames: list[Frame] | None = None
        try:
            if mask & WRITE:
                self._flush_zygote(zygote)
            frames = zygote.reader.read(zygote.sock) if mask & ~WRITE else []
        except BlockingIOError:
            return
        except ConnectionError:
            frames = None
        if frames is None:
            self._zygote_ended(zygote)
            return
        for frame in frames:
            self._on_zygote_frame(zygote, frame)

    def _flush_zygote(self, zygote: _Zygote) -> None:
        done = zygote.outbox.flush()
        fd = zygote.sock.fileno()
        self._loop.want_write(fd, wanted=not done)

    def _on_zygote_frame(self, zygote: _Zygote, frame: Frame) -> None:
        fact = pickle.loads(frame.body)
        if frame.kind == Kind.PRELOADED:
            seconds, failed, threads, sources = fact
            zygote.sources.update(sources)
            if threads > 1 and zygote is self._zygote:
                self._spoilers |= self._asked - self._harmless
                self.renew()  # a fork of it would lose those threads
            else:
                self._harmless |= self._asked
            self._listener.on_preloaded(Preloaded(seconds, failed, threads))
            return
        index, (generation, incarnation) = fact[0], fact[1]
        channel = self._channels.get(NodeKey(generation, index, incarnation))
        if frame.kind == Kind.BORN:
            if channel is None:
                os.close(frame.fds[0])
                return
            channel.pid, channel.pidfd = fact[2], frame.fds[0]
            if channel.kill_wanted:
                self.kill(channel.key)
        elif channel is not None and frame.kind == Kind.UNBORN:
            self._remove(channel)
            self._listener.on_unborn(channel.key, fact[2])
        elif channel is not None and frame.kind == Kind.EXITED:
            self._ended(channel, fact[3])

    def _zygote_ended(self, zygote: _Zygote) -> None:
        """It was killed or could not start; the kernel ends its nodes."""
        self._loop.unregister(zygote.sock.fileno())
        words = zygote.last_words()
        zygote.close()
        code = zygote.process.returncode
        if self._zygote is zygote:
            self._zygote = None
        if zygote in self._retired:
            self._retired.remove(zygote)
        for channel in [c for c in self._channels.values() if c.zygote is zygote]:
            if channel.pid:
                self.kill(channel.key)
                channel.tail += f"(the zygote ended with {code}) {words}"
                self._ended(channel, -signal.SIGKILL)
            else:
                self._remove(channel)
                reason = f"the zygote ended with {code}: {words or 'it said nothing'}"
                self._listener.on_unborn(channel.key, reason)

    def _drop_unused(self, zygote: _Zygote) -> None:
        if zygote.retired and not zygote.children and zygote in self._retired:
            self._retired.remove(zygote)
            self._loop.unregister(zygote.sock.fileno())
            zygote.close()

    # -- births and deaths ---------------------------------------------------------------------

    def start(self, keys: list[NodeKey]) -> None:
        channels: list[_Channel] = []
        for key in keys:
            try:
                channel = _Channel(key, self._live_zygote())
            except OSError as error:
                self._loop.call(self._listener.on_unborn, key, f"{error.strerror} ({error.errno})")
                continue
            self._channels[key] = channel
            channel.zygote.children += 1
            channels.append(channel)
            self._loop.register(channel.sock.fileno(), self._reader(channel))
            self._loop.register(channel.output, self._output_reader(channel))
        for first in range(0, len(channels), NODES_PER_REQUEST):
            self._request(channels[first : first + NODES_PER_REQUEST])

    def _request(self, channels: list[_Channel]) -> None:
        zygote = channels[0].zygote
        fds: list[int] = []
        with contextlib.suppress(OSError):  # else nodes start where the zygote did
            fds.append(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        request = {
            "has_directory": bool(fds),
            "environment": dict(os.environ),
            "path": list(sys.path),
            "argv": list(sys.argv),
            "nodes": [(c.key.node, (c.key.generation, c.key.incarnation)) for c in channels],
        }
        for channel in channels:
            fds += channel.theirs
            channel.theirs = ()
        message = wire.encode(Kind.FORK, 0, pickle.dumps(request, protocol=5), fds=tuple(fds))
        try:
            zygote.outbox.send(message, own=True)
        except OSError:  # it is gone: the end of its channel says so, and every node is unborn
            zygote.outbox.close()
            return
        self._flush_zygote(zygote)

    def _remove(self, channel: _Channel) -> None:
        if self._channels.pop(channel.key, None) is None:
            return
        if channel.listening:
            self._loop.unregister(channel.sock.fileno())
        self._close_output(channel)
        channel.close()
        channel.zygote.children -= 1
        self._drop_unused(channel.zygote)

    def _ended(self, channel: _Channel, code: int) -> None:
        """A node is dead: deliver what it had sent, then the news."""
        with contextlib.suppress(OSError):
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
        )
        self._remove(channel)
        self._listener.on_death(channel.key, death)

    # -- reading -------------------------------------------------------------------------------

    def _reader(self, channel: _Channel) -> Callable[[int], None]:
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

        return on_ready

    def _read(self, channel: _Channel) -> bool:
        frames = channel.reader.read(channel.sock)
        if frames is None:
            return False
        for frame in frames:
            channel.received_bytes += wire.HEADER_BYTES + len(frame.body)
            self._listener.on_frame(channel.key, frame)
        return True

    def _stop_listening(self, channel: _Channel) -> None:
        # The end of the stream; what the node died of comes from the zygote.
        if channel.listening and channel.key in self._channels:
            channel.listening = False
            self._loop.unregister(channel.sock.fileno())

    def _output_reader(self, channel: _Channel) -> Callable[[int], None]:
        def on_ready(_mask: int) -> None:
            with contextlib.suppress(BlockingIOError):
                if channel.key in self._channels and not self._read_output(channel):
                    self._close_output(channel)

        return on_ready

    def _close_output(self, channel: _Channel) -> None:
        if channel.output >= 0:
            self._loop.unregister(channel.output)
            os.close(channel.output)
            channel.output = -1

    def _read_output(self, channel: _Channel) -> bool:
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
            if not channel.outbox.send(message, own=own) and channel.listening:
                self._loop.want_write(channel.sock.fileno(), wanted=True)
        except OSError:  # the node is gone; its death is on its way
            channel.outbox.close()

    def _flush(self, channel: _Channel) -> None:
        try:
            done = channel.outbox.flush()
        except OSError:
            channel.outbox.close()
            done = True
        if done and channel.listening:
            self._loop.want_write(channel.sock.fileno(), wanted=False)

    def grant(self, key: NodeKey) -> None:
        channel = self._channels.get(key)
        if channel is not None:
            os.eventfd_write(channel.tokens, 1)

    def revoke(self, key: NodeKey) -> bool:
        channel = self._channels.get(key)
        if channel is None:
            return False
        try:
            os.eventfd_read(channel.tokens)
        except BlockingIOError:
            return False
        return True

    def interrupt(self, key: NodeKey, chunk: int) -> None:
        channel = self._channels.get(key)
        if channel is not None and channel.pidfd >= 0:
            channel.words[Status.INTERRUPT] = chunk
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(channel.pidfd, signal.SIGINT)

    def began(self, key: NodeKey) -> tuple[int, int, float]:
        channel = self._channels.get(key)
        if channel is None:
            return 0, 0, 0.0
        words = channel.words
        return words[Status.CHUNK], words[Status.ITEM], words[Status.BEGAN] / 1e9

    def kill(self, key: NodeKey) -> None:
        channel = self._channels.get(key)
        if channel is None:
            return
        channel.kill_wanted = True
        if channel.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(channel.pidfd, signal.SIGKILL)

    def traffic(self, key: NodeKey) -> tuple[int, int]:
        channel = self._channels.get(key)
        return (0, 0) if channel is None else (channel.outbox.sent_bytes, channel.received_bytes)

    def close(self) -> None:
        for channel in list(self._channels.values()):
            self.kill(channel.key)
            self._remove(channel)
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            with contextlib.suppress(KeyError, ValueError):
                self._loop.unregister(zygote.sock.fileno())
            zygote.close()
        self._retired, self._zygote = [], None

    def forget(self) -> None:
        """In a fork of the master: close our copies of the descriptors, touch no process."""
        for channel in self._channels.values():
            channel.outbox.close()
            channel.sock.close()
            for fd in (channel.tokens, channel.output, channel.pidfd):
                if fd >= 0:
                    os.close(fd)
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            zygote.sock.close()
            os.close(zygote.stderr)
            zygote.process.returncode = 0  # not ours to wait for
        self._channels = {}
        self._retired, self._zygote = [], None
