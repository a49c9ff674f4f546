"""The process engine: nodes are processes that a zygote forks.

Births and deaths are the zygote's to tell: it is the parent, and sends a pidfd with each birth and
the exit status with each death. See `_zygote` for its side, `channels` for what a node is made of.

Modules are imported in the zygote itself. No node is forked while it imports, and never one from a
zygote in which an import has left a thread: that module is left to the nodes, and a new zygote
imports the others (docs/decisions/0007).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, Any

from azpool.pool import wire
from azpool.pool.engines import launch
from azpool.pool.engines.base import Listener, NodeKey
from azpool.pool.engines.channels import (
    STDERR_KEPT,
    Channel,
    Channels,
    is_stopped,
    request_of_this_moment,
    why_unborn,
)
from azpool.pool.loop import WRITE
from azpool.pool.node import Status
from azpool.pool.wire import Frame, Kind

if TYPE_CHECKING:
    from azpool.pool.loop import Loop

_log = logging.getLogger("azpool.pool")

NODES_PER_REQUEST = 40  # 4 descriptors each; Linux passes 253 in one message
CLOSE_SECONDS = 1.0


class _Zygote:
    """The master's end of one zygote."""

    def __init__(self, launched: launch.Launched) -> None:
        self.process = launched.process
        self.stderr = launched.stderr
        self.sock = launched.sock
        self.outbox = wire.Outbox(self.sock)
        self.reader = wire.FrameReader(with_fds=True, may_lose_fds=True)
        self.children = 0
        self.retired = False
        self.asked: deque[list[str]] = deque()  # imports that it has not answered yet
        self.unborn: list[Channel] = []  # nodes to be forked when it has
        self.seconds = 0.0  # that these imports took
        self._told = 0  # bytes of its output that were shown
        self.sources: dict[str, int] = {}  # files of preloaded modules, with their times of change
        self.environment: dict[str, str] | None = None  # that they were imported in

    def preload(self, modules: list[str], request: dict[str, Any], fds: list[int]) -> None:
        """Ask for imports, where and as nodes would make them; PRELOADED answers."""
        request["modules"] = modules
        payload = pickle.dumps(request, protocol=5)
        self.asked.append(modules)
        if self.environment is None:
            self.environment = request["environment"]
        self.send(wire.encode(Kind.PRELOAD, 0, payload, fds=tuple(fds)))

    def send(self, message: wire.Message) -> None:
        """Write a frame, or as much as goes; where it is gone, the end of its channel says so."""
        try:
            self.outbox.send(message, own=True)
        except ConnectionError:
            self.outbox.close()
        except OSError:  # the kernel takes no more descriptors: it misses what it was to hear
            self.outbox.close()
            self.process.kill()

    def news(self) -> str:
        """What modules have printed, logged and warned of when they were imported, once."""
        text = b""
        while more := os.pread(self.stderr, 1 << 16, self._told):
            self._told += len(more)
            text += more
        return text.decode("utf-8", "replace")

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
        if self.asked:  # it may be in an import, and would not notice
            self.process.kill()
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
        self._preload = list(preload)
        self._ahead = launch.take()
        self._zygote: _Zygote | None = None
        self._retired: list[_Zygote] = []
        self._homes: dict[NodeKey, _Zygote] = {}  # which zygote each node came from
        self._wanted: dict[str, None] = {}  # modules that this zygote was asked for, in order
        self._said = ""  # by modules that were imported
        self._spoilers: set[str] = set()  # those that left threads or ended it: never asked again

    # -- the zygote ----------------------------------------------------------------------------

    def renew(self) -> None:
        self._wanted = {}
        waiting = self._zygote is not None and self._zygote.asked
        self._retire_zygote()
        if waiting:
            self._tell_preloaded(0.0)

    def _retire_zygote(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.retired = True
            self._retired.append(zygote)
            self._drop_unused(zygote)

    def preload(self, modules: list[str]) -> bool:
        known = self._wanted.keys() | self._spoilers
        fresh = [name for name in modules if name not in known]
        if not fresh:
            return False
        try:
            zygote = self._live_zygote()
        except OSError:  # nodes import for themselves, if there are any
            return False
        self._wanted.update(dict.fromkeys(fresh))
        self._import(zygote, fresh)
        return True

    def _import(self, zygote: _Zygote, modules: list[str]) -> None:
        latest = max(self._moments, default=None)
        there = request_of_this_moment() if latest is None else self._moment_of(latest)
        zygote.preload(modules, *there)
        self._flush_zygote(zygote)

    def is_stale(self) -> bool:
        zygote = self._zygote
        if zygote is None or not zygote.sources:
            return False
        if zygote.environment != dict(os.environ):  # modules may have read it when imported
            return True
        for path, changed_ns in zygote.sources.items():
            try:
                if os.stat(path).st_mtime_ns != changed_ns:
                    return True
            except OSError:
                return True
        return False

    def _live_zygote(self) -> _Zygote:
        if self._zygote is None:
            wanted = dict.fromkeys([*self._preload, *self._wanted])
            self._wanted = {name: None for name in wanted if name not in self._spoilers}
            launched, self._ahead = self._ahead, None
            zygote = self._zygote = _Zygote(launched or launch.Launched())
            self._loop.register(zygote.sock.fileno(), lambda mask: self._on_zygote(zygote, mask))
            if self._wanted:
                self._import(zygote, list(self._wanted))
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
        except OSError:  # it is gone
            frames = None
        if frames is None:
            self._zygote_ended(zygote)
            return
        for frame in frames:
            self._on_zygote_frame(zygote, frame)

    def _flush_zygote(self, zygote: _Zygote) -> None:
        try:
            done = zygote.outbox.flush()
        except OSError:  # it is gone: the end of its channel says so, and every node is unborn
            zygote.outbox.close()
            done = True
        self._loop.want_write(zygote.sock.fileno(), wanted=not done)

    def _on_zygote_frame(self, zygote: _Zygote, frame: Frame) -> None:
        fact = pickle.loads(frame.body)
        if frame.kind == Kind.PRELOADED:
            self._on_preloaded(zygote, *fact)
            return
        index, (generation, incarnation) = fact[0], fact[1]
        channel = self._channels.get(NodeKey(generation, index, incarnation))
        if frame.kind == Kind.BORN:
            if channel is None:
                wire.release_fds(frame.fds)
                return
            channel.pid, channel.pidfd = fact[2], frame.fds[0]
            if channel.pidfd < 0:  # what can't be held by a descriptor is no node
                self._stop_listening(channel)
                self.kill(channel.key, "its descriptor was lost: too many open files")
            elif channel.kill_wanted:
                self.kill(channel.key)
            elif wanted := channel.words[Status.INTERRUPT]:
                self.interrupt(channel.key, wanted)  # it says hello, and may run, before this news
            if not channel.received_bytes:  # else its hello came first, and is owed no more
                self._listener.on_born(channel.key)
        elif channel is not None and frame.kind == Kind.UNBORN:
            self._unborn(channel, fact[2])
        elif channel is not None and frame.kind == Kind.EXITED:
            if channel.pidfd < 0 and not channel.received_bytes:
                self._unborn(channel, channel.verdict)
            else:
                self._ended(channel, fact[3])

    def _on_preloaded(
        self,
        zygote: _Zygote,
        seconds: float,
        failed: dict[str, str],
        spoiler: str,
        sources: list[tuple[str, int]],
    ) -> None:
        zygote.asked.popleft()
        zygote.sources.update(sources)
        zygote.seconds += seconds
        self._said += zygote.news()
        current = zygote is self._zygote
        if spoiler:  # a fork of it would lose that module's threads
            failed[spoiler] = "its import starts threads; each node imports it for itself"
            self._spoilers.add(spoiler)
            zygote.asked.clear()
            if current:
                self._retire_zygote()
        for name, reason in failed.items():
            level = logging.WARNING if name in self._preload else logging.INFO
            _log.log(level, "cannot preload %s: %s", name, reason)
        if zygote.asked:
            return
        unborn, zygote.unborn = zygote.unborn, []
        self._fork(unborn, None if spoiler else zygote)
        if not current:
            return
        if spoiler and self._wanted.keys() - self._spoilers:
            with contextlib.suppress(OSError):
                self._live_zygote()  # it imports the others, and its answer does for all
                return
        seconds, zygote.seconds = zygote.seconds, 0.0
        self._tell_preloaded(0.0 if spoiler else seconds)

    def _tell_preloaded(self, seconds: float) -> None:
        said, self._said = self._said, ""
        self._listener.on_preloaded(seconds, said)

    def _zygote_ended(self, zygote: _Zygote) -> None:
        """It was killed or could not start; the kernel ends its nodes."""
        self._loop.unregister(zygote.sock.fileno())
        words = zygote.last_words()
        zygote.close()
        code = zygote.process.returncode
        current = self._zygote is zygote
        if current:
            self._zygote = None
            for modules in zygote.asked:
                self._spoilers.update(name for name in modules if name not in self._preload)
        if zygote in self._retired:
            self._retired.remove(zygote)
        for channel in [c for k, c in self._channels.items() if self._homes.get(k) is zygote]:
            if channel.pid:
                self.kill(channel.key)
                channel.tail += f"(the zygote ended with {code}) {words}"
                self._ended(channel, -signal.SIGKILL)
            else:
                self._unborn(channel, f"the zygote ended with {code}: {words or 'it said nothing'}")
        if current and zygote.asked:
            self._tell_preloaded(0.0)

    def _drop_unused(self, zygote: _Zygote) -> None:
        if zygote.retired and not zygote.children and zygote in self._retired:
            self._retired.remove(zygote)
            self._loop.unregister(zygote.sock.fileno())
            zygote.close()

    # -- births and deaths ---------------------------------------------------------------------

    def start(self, keys: list[NodeKey]) -> None:
        with contextlib.suppress(OSError):  # `_fork` tries again, and says why
            self._live_zygote()  # it starts while channels are made
        self._fork(self._open(keys), None)

    def _fork(self, channels: list[Channel], zygote: _Zygote | None) -> None:
        """Have nodes forked, as soon as what the zygote was asked to import is there."""
        try:
            home = zygote or self._live_zygote()
        except OSError as error:
            for channel in channels:
                self._loop.call(self._unborn, channel, why_unborn(error))
            return
        for channel in channels:
            old = self._homes.get(channel.key)
            if old is not None:
                old.children -= 1
            self._homes[channel.key] = home
            home.children += 1
        if home.asked:
            home.unborn += channels
            return
        for _, some in groupby(channels, lambda channel: channel.key.generation):
            alike = [*some]
            for first in range(0, len(alike), NODES_PER_REQUEST):
                self._request(home, alike[first : first + NODES_PER_REQUEST])

    def _unborn(self, channel: Channel, reason: str) -> None:
        if self._remove(channel):
            self._listener.on_unborn(channel.key, reason)

    def _request(self, zygote: _Zygote, channels: list[Channel]) -> None:
        request, fds = self._moment_of(channels[0].key.generation)
        request["nodes"] = [(c.key.node, (c.key.generation, c.key.incarnation)) for c in channels]
        for channel in channels:
            fds += channel.theirs
            channel.theirs = ()
        payload = pickle.dumps(request, protocol=5)
        zygote.send(wire.encode(Kind.FORK, 0, payload, fds=tuple(fds)))
        self._flush_zygote(zygote)

    def kill(self, key: NodeKey, verdict: str = "") -> None:
        super().kill(key, verdict)
        channel = self._channels.get(key)
        if channel is not None and channel.pid and channel.pidfd < 0:
            zygote = self._homes[key]
            fact = (key.node, (key.generation, key.incarnation))
            zygote.outbox.put(wire.encode(Kind.KILL, 0, pickle.dumps(fact, protocol=5)))
            self._flush_zygote(zygote)

    def is_stopped(self, key: NodeKey) -> bool:
        channel = self._channels.get(key)
        if channel is None or channel.pid:
            return super().is_stopped(key)
        zygote = self._homes.get(key)
        if zygote is not None and is_stopped(zygote.process.pid):
            zygote.process.send_signal(signal.SIGCONT)
        return False

    def _remove(self, channel: Channel) -> bool:
        if not super()._remove(channel):
            return False
        zygote = self._homes.pop(channel.key, None)
        if zygote is not None:
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
        self._close_ahead()

    def _close_ahead(self) -> None:
        launched, self._ahead = self._ahead, None
        if launched is not None:
            launched.close()

    def forget(self) -> None:
        super().forget()
        self._close_ahead()
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            zygote.sock.close()
            os.close(zygote.stderr)
            zygote.process.returncode = 0  # not ours to wait for
        self._retired, self._zygote = [], None
