"""How a process becomes a node, whoever started it."""

from __future__ import annotations

import _socket as socket  # see `wire`
import ctypes
import mmap
import os
import signal
import sys
from typing import Any

from azpool.pool import capture, context, node

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: Any) -> None:
    """Set one attribute of this process in the kernel."""
    _libc.prctl(option, value, 0, 0, 0)


def set_name(name: str) -> None:
    """Name this process, as ps and top show it (15 characters)."""
    prctl(PR_SET_NAME, name.encode())


def die_with(parent_pid: int) -> None:
    """Let the kernel kill this process when its parent ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before
        os._exit(1)


def enter(directory: int | None) -> None:
    """Go to the master's working directory, where it could be opened."""
    if directory is not None:
        os.fchdir(directory)
        os.close(directory)


def take_place(request: dict[str, Any]) -> None:
    """Take the master's environment, sys.path and arguments of this moment."""
    if request["environment"] != dict(os.environ):
        os.environ.clear()
        os.environ.update(request["environment"])
    sys.path[:] = request["path"]
    sys.argv[:] = request["argv"]


def take_over(request: dict[str, Any], directory: int | None) -> None:
    """Be where the master is, log at its levels and draw from fresh entropy."""
    enter(directory)
    capture.take_levels(request["levels"])
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:  # `random` reseeds itself after a fork, numpy does not
        numpy_random.seed()


def run_node(index: int, channel: int, status: int, tokens: int, output: int) -> None:
    """Run the node's loop on its four descriptors until the master says goodbye."""
    set_name(f"azpool-node-{index}")
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    page = mmap.mmap(status, node.Status.BYTES)
    os.close(status)
    words = memoryview(page).cast("Q")
    this = node.ProcessNode(index, socket.socket(fileno=channel), words, tokens)
    node.redirect(this)
    context.set_process_runner(this)
    this.main()
    sys.stdout.flush()
    sys.stderr.flush()
