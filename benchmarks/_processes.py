"""What /proc says of a tree of processes: memory, time on a CPU, wake-ups. Linux only."""

import contextlib
import ctypes
import os
import re
import signal
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """Become the parent of whatever a descendant leaves behind, so that it can be found."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid):
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, tasks.read_text().split())
    return found


def tree(pid):
    """Return the process and its descendants."""
    found = [pid]
    for one in found:
        found += children(one)
    return found


def pss_bytes(pid):
    """Return a process's share of memory, its part of shared pages (tmpfs, memfd) included."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def activity(pids, but=()):
    """Return (voluntary context switches, ns on a CPU) of all threads, those of `but` left out."""
    switches = nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            if int(task.name) in but:
                continue
            with contextlib.suppress(OSError):
                status = (task / "status").read_text()
                switches += int(
                    re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[1]
                )
                nanoseconds += int((task / "schedstat").read_text().split()[0])
    return switches, nanoseconds


def clear_away(patience_seconds=3.0):
    """End and reap every descendant of this process; returns how many were still there.

    Those that are on their way out get `patience_seconds` to go.
    """
    give_up = time.monotonic() + patience_seconds
    while (left := _left()) and time.monotonic() < give_up:
        time.sleep(0.02)
    # A process may start another while it is ended: look until there is none.
    for _ in range(50):
        for pid in _left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        if not _left():
            break
    return len(left)


def _left():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return tree(os.getpid())[1:]
