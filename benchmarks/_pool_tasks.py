"""What the workers of `benchmarks/pool.py` run: small, by reference, with next to no imports."""

import os
import socket
import time

HELD = []


def meet(address):
    """Say which process this is, and stay until every other one has said it too."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(address)
        sock.sendall(str(os.getpid()).encode().ljust(16))
        sock.recv(1)


def meet_with_numpy(address):
    import numpy as np  # noqa: F401 - so that its memory is there before the array

    meet(address)


def hold(value):
    """An initializer that keeps what it is given."""
    HELD.append(value)


def read_held(address):
    """Read every byte of what is held, then meet: all have read when all have met."""
    HELD[-1].sum()
    meet(address)


def read_exported(address):
    from azpool import exports

    exports["benchmark_array"].sum()
    meet(address)


def hold_and_meet(value, address):
    """For pools that send arguments only."""
    HELD[:] = [value]
    read_held(address)


def take_shared(value, address):
    """For mpire, which puts its shared objects before the arguments."""
    hold_and_meet(value, address)


def nap(seconds):
    time.sleep(seconds)
