"""Find what was left behind: processes, threads, file descriptors, files.

A `Snapshot` says what is there; the difference of two, taken around a test, is what the test left:

    before = Snapshot.take()
    ...
    leaks = Snapshot.take_settled(before)
    assert not leaks, leaks

Processes are found as descendants of this one, and by a marker in their environment, which also
finds those that were given to init: a pool's nodes run in a session of their own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

__all__ = ["KINDS", "Leaks", "Process", "Snapshot", "mark_processes", "processes_marked"]

KINDS = ("processes", "threads", "fds", "files")
# Nodes are gone within 1 s of their master, by the pool's own promise: where they get a core.
SETTLE_SECONDS = 20.0

# Markers of this process, and when it had started: none that is older carries them.
_made: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Process:
    """A process; its start time tells it from a later one with the same number."""

    pid: int
    started: int
    command: str = field(compare=False)

    def __str__(self) -> str:
        return f"process {self.pid}: {self.command}"


@dataclass(frozen=True, slots=True)
class Leaks:
    """What was left behind, by kind, each in words; false where there is nothing."""

    processes: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    fds: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def __str__(self) -> str:
        lines = [f"  {item}" for kind in KINDS for item in getattr(self, kind)]
        return "\n".join(["left behind:", *lines]) if lines else "nothing left behind"

    def of(self, kinds: tuple[str, ...]) -> Leaks:
        """Return these leaks with the kinds not named left out."""
        return Leaks(**{kind: getattr(self, kind) for kind in kinds})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is there at one moment: processes, threads and fds of this one, files in `folders`."""

    processes: frozenset[Process]
    threads: frozenset[threading.Thread]
    fds: frozenset[tuple[int, str]]
    files: frozenset[str]

    @classmethod
    def take(cls, marker: str = "", folders: tuple[str | Path, ...] = ()) -> Self:
        """Look at once; `marker` is what `mark_processes` returned."""
        return cls(
            processes=frozenset(descendants()) | frozenset(processes_marked(marker)),
            threads=frozenset(threading.enumerate()),
            fds=frozenset(open_fds()),
            files=frozenset(
                os.path.join(folder, name) for folder in folders for name in listing(folder)
            ),
        )

    @classmethod
    def take_settled(
        cls,
        before: Snapshot,
        *,
        marker: str = "",
        folders: tuple[str | Path, ...] = (),
        kinds: tuple[str, ...] = KINDS,
        seconds: float = SETTLE_SECONDS,
    ) -> Leaks:
        """Look until nothing of `kinds` is left over since `before`, for `seconds` at most.

        What is on its way out (a killed process not yet reaped, a socket in a reference cycle) is
        no leak; what is still there afterwards is.
        """
        deadline = time.monotonic() + seconds
        while True:
            last = time.monotonic() >= deadline  # and so the last look is not an old one
            leaks = cls.take(marker, folders).since(before).of(kinds)
            if not leaks or last:
                return leaks
            gc.collect()
            time.sleep(0.02)

    def since(self, before: Snapshot) -> Leaks:
        """What is here and was not in `before`."""
        processes = sorted(self.processes - before.processes, key=lambda process: process.pid)
        threads = (thread for thread in self.threads - before.threads if thread.is_alive())
        return Leaks(
            processes=tuple(map(str, processes)),
            threads=tuple(sorted(f"thread {thread.name}" for thread in threads)),
            fds=tuple(f"fd {fd}: {target}" for fd, target in sorted(self.fds - before.fds)),
            files=tuple(f"file {name}" for name in sorted(self.files - before.files)),
        )

    def __or__(self, other: Snapshot) -> Snapshot:
        """What is in either: a base line that expects both."""
        return Snapshot(
            processes=self.processes | other.processes,
            threads=self.threads | other.threads,
            fds=self.fds | other.fds,
            files=self.files | other.files,
        )


def mark_processes() -> str:
    """Mark this process's environment, so that whatever it starts from now on can be found.

    A marker of its own name for each call: a run inside a run carries both.
    """
    marker = f"AZPOOL_LEAKS_{secrets.token_hex(6)}"
    os.environ[marker] = "1"
    _made[marker] = int(_stat(os.getpid())[19])
    return marker


def processes_marked(marker: str) -> Iterator[Process]:
    """Find the processes that were started with `marker` in their environment, but for this one."""
    if not marker:
        return
    needle = f"{marker}=1".encode()
    oldest = _made.get(marker, 0)
    for pid in _pids():
        # A process may end, or belong to someone else, at any moment of this.
        with contextlib.suppress(OSError):
            if pid == os.getpid() or int(_stat(pid)[19]) < oldest:
                continue
            if needle in _read(f"/proc/{pid}/environ"):
                yield from _process(pid)


def descendants() -> Iterator[Process]:
    """Find the children of this process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            children.setdefault(int(_stat(pid)[1]), []).append(pid)
    waiting = [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            yield from _process(child)
            waiting.append(child)


def open_fds() -> Iterator[tuple[int, str]]:
    """List this process's file descriptors with what they point to."""
    folder = "/proc/self/fd"
    for name in listing(folder):
        # The descriptor that lists the folder is gone by now.
        with contextlib.suppress(OSError):
            yield int(name), os.readlink(f"{folder}/{name}")


def listing(folder: str | Path) -> list[str]:
    """The names in a folder; none where there is no folder."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


@contextlib.contextmanager
def temporary_files_in(folder: str | Path) -> Iterator[None]:
    """Have `tempfile`, here and in what is started meanwhile, make its files in `folder`."""
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[1]


def _process(pid: int) -> Iterator[Process]:
    with contextlib.suppress(OSError):
        fields = _stat(pid)
        # A zombie that is no child of ours waits for someone else: it holds nothing any more.
        if fields[0] == "Z" and int(fields[1]) != os.getpid():
            return
        command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode().strip()
        yield Process(pid, int(fields[19]), command or "(zombie or kernel)")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold anything: state, parent, ..."""
    text = _read(f"/proc/{pid}/stat").decode("utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _pids() -> Iterator[int]:
    return map(int, filter(str.isdigit, listing("/proc")))


def _read(path: str) -> bytes:
    # All processes are read before and after each test; a Path and a buffered file take longer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
