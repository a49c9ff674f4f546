"""Entry point of an interpreter that the spawn engine started."""

from __future__ import annotations

import os
import pickle
import traceback
from typing import NoReturn

from azpool.pool.engines import _birth as birth


def main(request: bytes, index: int, master_pid: int, directory: int, fds: list[int]) -> NoReturn:
    """Live as a node; never returns."""
    code = 1
    try:
        birth.die_with(master_pid)
        facts = pickle.loads(request)
        birth.take_place(facts)
        birth.take_over(facts, None if directory < 0 else directory)
        birth.run_node(index, *fds)
        code = 0
    except BaseException:
        # stderr is the pool's pipe from the start: the master shows what it says.
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)
