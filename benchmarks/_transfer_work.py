"""Run one command that moves files: how long, on how much CPU, in how much memory.

CPU is what the kernel charged, to the microsecond: `wait4` of the command and of every process
that it leaves behind. Those are adopted by the measuring process (a subreaper), and each process
that is waited for hands its own and its children's time to its parent. Where memory is sampled, the
times that /proc showed meanwhile must be in that sum, or the measure fails.

Memory is PSS of all processes from smaps_rollup, 20 times a second, the highest sum. Sampled runs
give no times.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

import _processes as processes

SAMPLE_SECONDS = 0.05
PATIENCE_SECONDS = 5.0
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    """What a command cost. `began` is `time.time`, so that a server's moments can be compared."""

    began: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    left_running: int
    said: str


def run(command, variables, folder, *, server_pid, limit_seconds, sample=False):
    """Run a command to its end, and wait for all that it started; `server_pid` is not part of it.

    Raises:
        RuntimeError: it failed, or was ended after `limit_seconds`; its last words are in the text.
    """
    said = Path(folder, "said")
    with said.open("wb") as stream:
        began_at, began = time.time(), time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=variables,
            cwd=folder,
            start_new_session=True,
        )
    late = threading.Event()
    alarm = threading.Timer(limit_seconds, lambda: (late.set(), process.kill()))
    alarm.start()
    sampler = Sampler(server_pid)
    try:
        if sample:
            sampler.run_until_ended(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - began
    finally:
        alarm.cancel()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu, left = wait_for_adopted(server_pid)
    cpu += usage.ru_utime + usage.ru_stime
    text = said.read_text(errors="replace")
    if process.returncode:
        last = " ".join(text.split())[-300:] or "it said nothing"
        why = f"took over {limit_seconds} s" if late.is_set() else f"exit {process.returncode}"
        raise RuntimeError(f"{Path(command[0]).name}: {why}: {last}")
    if sample:
        sampler.check(cpu)
    return Run(began_at, seconds, cpu, sampler.peak_bytes, left, text)


def wait_for_adopted(server_pid):
    """Wait for what the command left to us; returns its CPU seconds, and how many were ended."""
    cpu, give_up, ended = 0.0, time.monotonic() + PATIENCE_SECONDS, set()
    while pids := [pid for pid in processes.children(os.getpid()) if pid != server_pid]:
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                waited, _, usage = os.wait4(pid, os.WNOHANG)
                cpu += usage.ru_utime + usage.ru_stime if waited else 0.0
            if time.monotonic() > give_up:
                ended.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return cpu, len(ended)


class Sampler:
    """Looks at all processes of a command while it runs."""

    def __init__(self, server_pid):
        self.peak_bytes = 0
        self._but = {os.getpid(), server_pid}
        self._seen = {}  # (pid, when it began) -> ticks of CPU

    def run_until_ended(self, pid):
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            began = time.monotonic()
            pids = [one for one in processes.tree(os.getpid()) if one not in self._but]
            self.peak_bytes = max(self.peak_bytes, sum(map(processes.pss_bytes, pids)))
            for one in pids:
                self._look(one)
            time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - began)))

    def _look(self, pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            self._seen[pid, fields[19]] = int(fields[11]) + int(fields[12])

    def check(self, cpu_seconds):
        """Hold the sum of what was waited for against what was seen."""
        seen = sum(self._seen.values()) * TICK_SECONDS
        if seen > cpu_seconds * 1.02 + len(self._seen) * TICK_SECONDS:
            raise RuntimeError(f"{seen:.2f} CPU s were seen, {cpu_seconds:.2f} accounted for")


__all__ = ["Run", "run"]
