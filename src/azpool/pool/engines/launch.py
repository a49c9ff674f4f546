"""The start of a zygote's interpreter, apart from the engine that it is for.

It takes as long as the master's own imports, so it begins before them: this module imports next to
nothing (docs/decisions/0014). The engine that is made meanwhile takes it, and tells it all the rest
in frames; the interpreter's flags and the sys.path by which it finds azpool are of the launch.
"""

from __future__ import annotations

import _socket as socket  # see `wire`
import contextlib
import marshal
import os
import subprocess
import sys

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


class Launched:
    """An interpreter that is about to be a zygote: its process, its channel, what it will say.

    Raises:
        OSError: it can't be started.
    """

    def __init__(self) -> None:
        hello = marshal.dumps((list(sys.path), os.getpid()))
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            try:
                self.stderr = os.memfd_create("azpool-zygote-stderr", os.MFD_CLOEXEC)
                undo.callback(os.close, self.stderr)
                self.process = subprocess.Popen(
                    [sys.executable, *flags, "-P", "-c", _BOOTSTRAP, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=self.stderr,
                    stderr=self.stderr,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            finally:
                theirs.close()
            undo.callback(self.process.wait)
            undo.callback(self.process.kill)
            ours.sendall(len(hello).to_bytes(8, "little") + hello)
            ours.setblocking(False)  # noqa: FBT003 - the standard library's own
            undo.pop_all()
        self.sock = ours
        self.pid = os.getpid()

    def close(self) -> None:
        """End one that nobody wants."""
        self.sock.close()
        os.close(self.stderr)
        if self.pid != os.getpid():  # a fork of the master: the process is not ours to end
            self.process.returncode = 0
            return
        self.process.kill()
        self.process.wait()


_begun: list[Launched] = []  # and not taken by an engine yet


def begin(engine: str | None = None) -> Launched | None:
    """Start a zygote for the pool of `engine` that is about to be made, if it needs one.

    Where none can be started it does nothing: the engine tries again, and its error says why.
    """
    engine = engine or os.environ.get("AZPOOL_ENGINE") or "process"
    starter = os.environ.get("AZPOOL_START") or "zygote"
    if (engine, starter) != ("process", "zygote") or _begun:
        return None
    with contextlib.suppress(OSError):
        _begun.append(Launched())
        return _begun[-1]
    return None


def take() -> Launched | None:
    """Return what was begun in this process, once."""
    while _begun:
        with contextlib.suppress(IndexError):  # another thread was quicker
            found = _begun.pop()
            if found.pid == os.getpid():
                return found
            found.close()
    return None


class ahead:  # noqa: N801 - used as a `with` statement only
    """`begin` for the pool that is made inside the block; what it did not take is ended."""

    def __init__(self, engine: str | None = None) -> None:
        self._engine = engine
        self._launched: Launched | None = None

    def __enter__(self) -> None:
        self._launched = begin(self._engine)

    def __exit__(self, *_: object) -> None:
        if self._launched is not None:
            with contextlib.suppress(ValueError):
                _begun.remove(self._launched)
                self._launched.close()
