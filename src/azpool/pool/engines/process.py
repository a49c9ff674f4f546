"""The process engine: nodes are processes that a zygote forks.

Births and deaths are the zygote's to tell: it is the parent, and sends a pidfd with each birth and
the exit status with each death. See `_zygote` for its side, `channels` for what a node is made of.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from azpool.pool import wire
from azpool.pool.engines.base import Listener, NodeKey, Preloaded
from azpool.pool.engines.channels import (
    STDERR_KEPT,
    Channel,
    Channels,
    request_of_this_moment,
)
from azpool.pool.loop import WRITE
from azpool.pool.wire import Frame, Kind

if TYPE_CHECKING:
    from azpool.pool.loop import Loop

NODES_PER_REQUEST = 40  # 4 descriptors each; Linux passes 253 in one message
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


class ProcessEngine(Channels):
    """See the module and `engines.base.Engine`."""

    def __init__(self, loop: Loop, listener: Listener, *, preload: tuple[str, ...] = ()) -> None:
        super().__init__(loop, listener)
        self._preload = preload
        self._zygote: _Zygote | None = None
        self._retired: list[_Zygote] = []
        self._homes: dict[NodeKey, _Zygote] = {}  # which zygote each node came from
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
        except OSError:  # it is gone, or the descriptor of a node was lost (EMFILE)
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
        for channel in [c for k, c in self._channels.items() if self._homes[k] is zygote]:
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
        try:
            zygote = self._live_zygote()
        except OSError as error:
            for key in keys:
                self._loop.call(self._listener.on_unborn, key, f"{error.strerror} ({error.errno})")
            return
        channels = self._open(keys)
        for channel in channels:
            self._homes[channel.key] = zygote
            zygote.children += 1
        for first in range(0, len(channels), NODES_PER_REQUEST):
            self._request(zygote, channels[first : first + NODES_PER_REQUEST])

    def _request(self, zygote: _Zygote, channels: list[Channel]) -> None:
        request, fds = request_of_this_moment()
        request["nodes"] = [(c.key.node, (c.key.generation, c.key.incarnation)) for c in channels]
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

    def _remove(self, channel: Channel) -> bool:
        if not super()._remove(channel):
            return False
        zygote = self._homes.pop(channel.key)
        zygote.children -= 1
        self._drop_unused(zygote)
        return True

    def close(self) -> None:
        super().close()
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            with contextlib.suppress(KeyError, ValueError):
                self._loop.unregister(zygote.sock.fileno())
            zygote.close()
        self._retired, self._zygote = [], None

    def forget(self) -> None:
        super().forget()
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            zygote.sock.close()
            os.close(zygote.stderr)
            zygote.process.returncode = 0  # not ours to wait for
        self._retired, self._zygote = [], None
