"""The ways in which what runs on a node can end, what the caller sees of each, and what is left.

Made by functions, so that they travel by value.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azpool.errors import NodeDied, RemoteError, TaskTimeout

if TYPE_CHECKING:
    from azpool import Pool

STOPPED_SECONDS = 2.0
Check = Callable[[Any], None]


def serves_100_more(pool: Pool) -> None:
    assert list(pool.map(abs, range(100))) == list(range(100))
    assert all(pool.call(os.getpid))


def make_endings() -> dict[str, Callable[[], None]]:
    def exception() -> None:
        raise ValueError("boom")

    def sys_exit() -> None:
        sys.exit(3)

    def os_exit() -> None:
        os._exit(3)

    def segfault() -> None:
        ctypes.string_at(0)

    def sigkill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    made = (exception, sys_exit, os_exit, segfault, sigkill, stopped)
    return {ending.__name__: ending for ending in made}


ENDINGS = make_endings()
DEADLY = ("os_exit", "segfault", "sigkill")


def is_exception(error: Any) -> None:
    assert type(error) is ValueError
    assert str(error) == "boom"
    assert "in exception" in str(error.__cause__)
    assert "on node" in error.__notes__[0]


def is_sys_exit(error: Any) -> None:
    assert type(error) is RemoteError
    assert error.type_name == "SystemExit"
    assert error.text == "3"


def died(*, of_signal: int | None = None, exit_code: int | None = None) -> Check:
    def check(error: Any) -> None:
        assert type(error) is NodeDied
        assert (error.signal, error.exit_code) == (of_signal, exit_code)
        assert error.begun
        assert error.pid > 0

    return check


def is_timeout(error: Any) -> None:
    assert type(error) is TaskTimeout
    assert error.seconds == STOPPED_SECONDS


SEEN: dict[str, Check] = {
    "exception": is_exception,
    "sys_exit": is_sys_exit,
    "os_exit": died(exit_code=3),
    "segfault": died(of_signal=signal.SIGSEGV),
    "sigkill": died(of_signal=signal.SIGKILL),
    "stopped": is_timeout,
}


def deadline_of(ending: str) -> float:
    """A deadline that passes where nothing else ends the item, and nowhere on a busy machine."""
    return STOPPED_SECONDS if ending == "stopped" else 30.0


def make_trap(end: Callable[[], None]) -> Any:
    """Return an object that ends whoever loads it."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return end, ()

    return Trap()


def make_unpicklable(end: Callable[[], None]) -> Any:
    """Return an object that ends whoever pickles it."""

    class Unpicklable:
        def __reduce__(self) -> tuple[Any, ...]:
            end()
            raise AssertionError("it went on")

    return Unpicklable()


def wait_until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def state_of(pid: int) -> str:
    """The letter that /proc has for it; X for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def late_identity(n: int) -> int:
    time.sleep(0.002)
    return n
