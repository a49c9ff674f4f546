"""Fail if a process is left that carries a marker in its environment.

python scripts/left_behind.py MARKER
"""

from __future__ import annotations

import sys
import time

from azpool.testing.leaks import SETTLE_SECONDS, processes_marked


def main() -> int:
    """Print what is left after a moment's grace; the exit code is 1 if anything is."""
    deadline = time.monotonic() + SETTLE_SECONDS
    left = list(processes_marked(sys.argv[1]))
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = list(processes_marked(sys.argv[1]))
    for process in left:
        print(f"left behind: {process}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
