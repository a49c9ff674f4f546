"""`python -m azpool.testing.arm`: the simulator as a process, for clients that aren't Python's.

    $ python -m azpool.testing.arm --scale-set crew=3 --vm lone
    {"url": "https://127.0.0.1:...", "ca_file": "/tmp/...", "token": "...", ...}

One line of JSON tells how it is reached. It ends, and its CA file is gone, when its standard input
does, and at SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence

from azpool.errors import UsageError
from azpool.testing.arm import Arm, ArmCredential, Limits

TOKEN_SECONDS = 7 * 24 * 3600


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulator until it is told to end, and return the exit code."""
    asked = _parser().parse_args(argv)
    try:
        arm = _made(asked)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # Signals are caught before anyone can know of the process.
    with _signals() as told, arm:
        token = ArmCredential(life_seconds=TOKEN_SECONDS).get_token(*arm.scopes).token
        facts = {
            "url": arm.url,
            "ca_file": arm.ca_file,
            "subscription": arm.subscription,
            "group": arm.group,
            "token": token,
        }
        sys.stdout.write(f"{json.dumps(facts)}\n")
        sys.stdout.flush()
        _wait(told)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m azpool.testing.arm",
        description="Simulate Azure Resource Manager on loopback until standard input ends.",
    )
    add = parser.add_argument
    add("--scale-set", action="append", default=[], metavar="NAME=N", help="N instances; Uniform")
    add("--flexible", action="append", default=[], metavar="NAME=N", help="the same, Flexible")
    add("--vm", action="append", default=[], metavar="NAME", help="a machine of its own")
    add("--speed", type=float, default=1.0, help="simulated seconds in a real one (1)")
    add("--latency", type=float, default=0.0, metavar="SECONDS", help="of each answer (0)")
    add("--limits", action="store_true", help="with Azure's rate limits")
    return parser


def _made(asked: argparse.Namespace) -> Arm:
    limits = Limits() if asked.limits else None
    arm = Arm(speed=asked.speed, latency_seconds=asked.latency, limits=limits)
    for uniform, sets in ((True, asked.scale_set), (False, asked.flexible)):
        for text in sets:
            name, _, count = text.partition("=")
            if not count.isdecimal():
                raise UsageError(f"cannot make scale set {text!r}: no number; say NAME=3")
            arm.scale_set(name, int(count), uniform=uniform)
    for name in asked.vm:
        arm.vm(name)
    return arm


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Turn SIGTERM and SIGINT into a byte to read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    kept = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield reading
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def _wait(told: int) -> None:
    # A process that was started without a standard input has none that could end.
    standard = [] if sys.stdin is None else [sys.stdin.fileno()]
    while True:
        ready, _, _ = select.select([*standard, told], [], [])
        if told in ready or not os.read(ready[0], 4096):
            return


if __name__ == "__main__":
    sys.exit(main())
