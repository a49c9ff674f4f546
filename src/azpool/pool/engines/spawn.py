"""The spawn engine: every node is an interpreter of its own, started by exec, all at once.

For where fork is not to be had, or not wanted. The master is the parent; a pidfd tells it of each
death. Starting takes several times as long as forks of a zygote, and nothing can be preloaded.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from azpool.pool.engines.channels import Channel, Channels, why_unborn

if TYPE_CHECKING:
    from azpool.pool.engines.base import Listener, NodeKey
    from azpool.pool.loop import Loop

# The node finds azpool by sys.path, which comes first; then it is as any other.
_BOOTSTRAP = """\
import marshal, os, sys
boot, index, master, directory, *fds = map(int, sys.argv[1:])
data = os.pread(boot, os.fstat(boot).st_size, 0)
os.close(boot)
size = int.from_bytes(data[:8], "little")
sys.path[:] = marshal.loads(data[8 : 8 + size])
from azpool.pool.engines._spawned import main
main(data[8 + size :], index, master, directory, fds)
"""


class SpawnEngine(Channels):
    """See the module and `engines.base.Engine`."""

    def __init__(self, loop: Loop, listener: Listener) -> None:
        super().__init__(loop, listener)
        self._processes: dict[NodeKey, subprocess.Popen[bytes]] = {}

    def start(self, keys: list[NodeKey]) -> None:
        channels = self._open(keys)
        if not channels:
            return
        request, directory = self._moment_of(keys[0].generation)
        path = marshal.dumps(request["path"])
        with contextlib.ExitStack() as stack:
            for fd in directory:
                stack.callback(os.close, fd)
            try:
                boot = os.memfd_create("azpool-boot", os.MFD_CLOEXEC)
                stack.callback(os.close, boot)
                os.write(boot, len(path).to_bytes(8, "little") + path + pickle.dumps(request))
            except OSError as error:
                for channel in channels:
                    self._loop.call(self._unborn, channel, why_unborn(error))
                return
            for channel in channels:
                self._start_one(channel, boot, directory)

    def _start_one(self, channel: Channel, boot: int, directory: list[int]) -> None:
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        numbers = [boot, channel.key.node, os.getpid(), *(directory or [-1]), *channel.theirs]
        process: subprocess.Popen[bytes] | None = None
        try:
            process = subprocess.Popen(
                [sys.executable, *flags, "-P", "-c", _BOOTSTRAP, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=channel.theirs[-1],
                stderr=channel.theirs[-1],
                pass_fds=[boot, *directory, *channel.theirs],
                start_new_session=True,
            )
            channel.pid, channel.pidfd = process.pid, os.pidfd_open(process.pid)
        except OSError as error:
            if process is not None:  # a process, and no descriptor left to hold it by
                process.kill()
                process.wait()
            self._loop.call(self._unborn, channel, why_unborn(error))
            return
        finally:
            for fd in channel.theirs:
                os.close(fd)
            channel.theirs = ()
        self._processes[channel.key] = process
        self._loop.register(channel.pidfd, lambda _mask: self._exited(channel))
        self._listener.on_born(channel.key)

    def _unborn(self, channel: Channel, reason: str) -> None:
        if self._remove(channel):
            self._listener.on_unborn(channel.key, reason)

    def _exited(self, channel: Channel) -> None:
        code = self._processes[channel.key].wait()
        self._ended(channel, code)

    def _remove(self, channel: Channel) -> bool:
        process = self._processes.pop(channel.key, None)
        if process is not None:
            self._loop.unregister(channel.pidfd)
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(channel.pidfd, signal.SIGKILL)
                process.wait()
        return super()._remove(channel)

    def preload(self, modules: list[str]) -> bool:
        return False

    def renew(self) -> None:
        """Do nothing: every node begins with a new interpreter."""

    def is_stale(self) -> bool:
        return False

    def forget(self) -> None:
        super().forget()
        for process in self._processes.values():
            process.returncode = 0  # not ours to wait for
        self._processes = {}
