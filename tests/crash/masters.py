"""Masters of their own, in processes of their own, for what is done to a master."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import textwrap
import time
from pathlib import Path

GONE_SECONDS = 1.0  # what is promised
STALL_SECONDS = 0.05  # what is longer between two looks is the machine's: it stood still

# Of scripts that are interrupted at random moments between `armed.append(1)` and `disarm()`.
HAMMER = """
import random, signal, sys, threading, time

rng = random.Random(int(sys.argv[1]))
main = threading.main_thread().ident
armed, over = [], []  # no locks: an interrupt may come while one is taken

def hammer():
    while not over:
        time.sleep(rng.random() * 0.002)
        if armed:
            signal.pthread_kill(main, signal.SIGINT)

def disarm():
    while True:
        try:
            armed.clear()
            ends = time.monotonic() + 0.01  # one may be on its way
            while time.monotonic() < ends:
                pass
            return
        except KeyboardInterrupt:
            pass
"""


def script(folder: Path, text: str) -> list[str]:
    path = folder / "master.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, "-u", str(path)]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until_gone(pids: list[int]) -> None:
    """Wait until all have ended, for as long as is promised while this process has a core."""
    passed, looked = 0.0, time.monotonic()
    while any(is_alive(pid) for pid in pids):
        assert passed < GONE_SECONDS, [pid for pid in pids if is_alive(pid)]
        time.sleep(0.01)
        before, looked = looked, time.monotonic()
        passed += min(looked - before, STALL_SECONDS)


def run_on_a_terminal(folder: Path, text: str, interrupts: int) -> tuple[str, int, float]:
    """Run a script in the foreground of a pty and press Ctrl-C after each line 'now'.

    After the n-th time there is a file `pressed-n` in its working directory.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execv(sys.executable, script(folder, text))
    out = b""
    pressed = 0
    began = time.monotonic()
    pressed_at = began
    try:
        while True:
            if time.monotonic() - began > 50:
                os.kill(pid, signal.SIGKILL)
                raise AssertionError(out.decode())
            if not select.select([terminal], [], [], 0.5)[0]:
                continue
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            out += data
            while pressed < min(interrupts, out.count(b"now\r\n")):
                pressed += 1
                pressed_at = time.monotonic()
                os.write(terminal, b"\x03")
                (folder / f"pressed-{pressed}").touch()
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    text_out = out.decode().replace("\r\n", "\n").replace("^C", "")
    return text_out, os.waitstatus_to_exitcode(status), time.monotonic() - pressed_at
