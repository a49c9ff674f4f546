"""The zygote: a small single-threaded interpreter that forks a node whenever the master asks.

It runs in a session of its own, reads requests from one socket, and tells the master of each birth
(with a pidfd) and each death (with the exit status). It watches a pidfd of the master, because a
fork of the master keeps the socket open, and ends with it; each node asks the kernel to die with
the zygote.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import socket  # whole: most of what nodes run imports it, 1 MB on each where the zygote has it not
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from azpool.pool import wire
from azpool.pool.engines import _birth as birth
from azpool.pool.wire import Kind

FDS_PER_NODE = 4  # channel, status page, tokens, raw output
WATCH_SECONDS = 0.3
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


class Zygote:
    """The loop: requests from the master, deaths of children, the death of the master."""

    def __init__(self, control: socket.socket, master_pid: int) -> None:
        self._control = control
        self._reader = wire.FrameReader(with_fds=True)
        self._children: dict[int, tuple[int, int, int]] = {}  # pidfd -> index, incarnation, pid
        self._master = os.pidfd_open(master_pid)
        self._master_pid = master_pid
        if os.getppid() != master_pid:
            raise SystemExit("the master ended before its zygote had started")
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._master, select.POLLIN)

    def serve(self) -> None:
        """Serve until the master says goodbye or is gone; then no node is left."""
        birth.set_name("azpool-zygote")
        gc.collect()
        gc.freeze()  # nodes never touch these pages to collect them
        try:
            while self._turn():
                pass
        finally:
            for pidfd in self._children:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _turn(self) -> bool:
        ready = {fd for fd, _ in self._poll.poll()}
        if self._master in ready:
            return False
        for pidfd in ready & self._children.keys():
            self._reap(pidfd)
        if self._control.fileno() in ready:
            frames = self._reader.read(self._control)
            if frames is None:
                return False
            for frame in frames:
                if frame.kind == Kind.BYE:
                    return False
                if frame.kind == Kind.FORK:
                    self._fork_all(frame)
                elif frame.kind == Kind.PRELOAD:
                    self._preload(frame)
                elif frame.kind == Kind.KILL:
                    self._kill(wire.decode(frame))
        return True

    def _reap(self, pidfd: int) -> None:
        index, incarnation, pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        self._tell(Kind.EXITED, (index, incarnation, pid, os.waitstatus_to_exitcode(status)))

    def _kill(self, who: tuple[int, int]) -> None:
        """End a node whose descriptor the master has not."""
        for pidfd, (index, incarnation, _) in self._children.items():
            if (index, incarnation) == who:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _tell(self, kind: int, fact: Any, fds: tuple[int, ...] = ()) -> None:
        wire.send_now(self._control, wire.encode(kind, 0, pickle.dumps(fact, protocol=5), fds=fds))

    def _preload(self, frame: wire.Frame) -> None:
        """Import modules for all nodes to come, up to one that leaves a thread.

        The master forks nothing more from here then. It must not die unseen meanwhile.
        """
        request = pickle.loads(frame.body)
        birth.enter(frame.fds[0] if request["has_directory"] else None)
        birth.take_place(request)
        failed: dict[str, str] = {}
        spoiler = ""
        before = set(sys.modules)
        began = time.monotonic()
        with _watching(self._master_pid), _one_blas_thread():
            for name in request["modules"]:
                try:
                    __import__(name)
                except BaseException as error:
                    failed[name] = f"{type(error).__name__}: {error}"
                if len(os.listdir("/proc/self/task")) > 1:
                    spoiler = name
                    break
        seconds = time.monotonic() - began
        sys.stdout.flush()  # else every node would say it again
        sys.stderr.flush()
        if set(sys.modules) == before:
            seconds = 0.0  # new nodes would have nothing more, however late it is on a busy machine
        else:
            gc.collect()
            gc.freeze()
        found = _sources(set(sys.modules) - before)
        self._tell(Kind.PRELOADED, (seconds, failed, spoiler, found))

    # -- births --------------------------------------------------------------------------------

    def _fork_all(self, frame: wire.Frame) -> None:
        request = pickle.loads(frame.body)
        fds = list(frame.fds)
        directory = fds.pop(0) if request["has_directory"] else None
        birth.take_place(request)  # once for all: what a node writes is a page copied
        try:
            for position, (index, incarnation) in enumerate(request["nodes"]):
                mine = fds[position * FDS_PER_NODE : (position + 1) * FDS_PER_NODE]
                self._fork(request, index, incarnation, mine, directory, frame.fds)
        finally:
            for fd in frame.fds:
                os.close(fd)

    def _fork(
        self,
        request: dict[str, Any],
        index: int,
        incarnation: int,
        mine: list[int],
        directory: int | None,
        all_fds: tuple[int, ...],
    ) -> None:
        zygote_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(Kind.UNBORN, (index, incarnation, str(error)))
            return
        if pid == 0:
            others = set(all_fds) - set(mine) - {directory}
            _be_node(self, zygote_pid, request, index, mine, directory, others)
        try:
            pidfd = os.pidfd_open(pid)  # the child can't be reaped before we do it: no race
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._tell(Kind.UNBORN, (index, incarnation, str(error)))
            return
        self._children[pidfd] = (index, incarnation, pid)
        self._poll.register(pidfd, select.POLLIN)
        self._tell(Kind.BORN, (index, incarnation, pid), (pidfd,))

    def abandon(self, others: set[int]) -> None:
        """Close, in a new node, all that is not its own."""
        self._control.close()
        os.close(self._master)
        for fd in (*self._children, *others):
            os.close(fd)


@contextlib.contextmanager
def _watching(master_pid: int) -> Iterator[None]:
    """End with the master even while an import keeps the loop from noticing."""

    def look(_number: int, _frame: object) -> None:
        if os.getppid() != master_pid:
            os._exit(1)

    old = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, WATCH_SECONDS, WATCH_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let numpy's BLAS start no threads, which a fork would lose, unless the user wants some."""
    mine = [name for name in BLAS_VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(mine, "1"))
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


def _sources(modules: set[str]) -> list[tuple[str, int]]:
    """Return the source files of modules, with their times of change in ns."""
    found: list[tuple[str, int]] = []
    for name in modules:
        path = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(path, str):
            with contextlib.suppress(OSError):
                found.append((path, os.stat(path).st_mtime_ns))
    return found


def _be_node(
    zygote: Zygote,
    zygote_pid: int,
    request: dict[str, Any],
    index: int,
    fds: list[int],
    directory: int | None,
    others: set[int],
) -> NoReturn:
    """Live as a node; never returns."""
    code = 1
    try:
        birth.die_with(zygote_pid)
        zygote.abandon(others)
        birth.take_over(request, directory)
        birth.run_node(index, *fds)
        code = 0
    except BaseException:
        # stderr is the pool's pipe by now: the master shows what it says.
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def main(control_fd: int, master_pid: int) -> None:
    """Entry point of the interpreter that the process engine starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nodes set a handler of their own
    Zygote(socket.socket(fileno=control_fd), master_pid).serve()
