"""Measure the memory of a transfer: all processes together, while it runs.

    python scripts/measure_memory.py CONTAINER_URL [NAMES] [BIG_BYTES]

Uploads NAMES empty files (1,000,000), then one sparse file of BIG_BYTES (20 GiB), each with a
journal and progress, and prints the most proportional memory (PSS) that the process, its zygote and
its nodes held. The credentials are those of the environment. docs/guide/storage.md has the formula.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from azpool import delete_pool
from azpool.storage import Container

GiB = 1024**3


def tree(pid: int) -> list[int]:
    """Answer a process and all that came of it."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = " ".join(texts).split()
    return [pid, *(found for child in children for found in tree(int(child)))]


def pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


class Most:
    """The most that was held, of the master and of all."""

    def __init__(self) -> None:
        self.master = self.total = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            held = [pss_bytes(pid) for pid in tree(os.getpid())]
            self.master = max(self.master, held[0])
            self.total = max(self.total, sum(held))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()


def measured(what: str, work: Callable[[], Any]) -> None:
    begun = time.monotonic()
    with Most() as most:
        report = work()
    seconds = time.monotonic() - begun
    failed = f", {len(report.failed)} failed" if report.failed else ""
    print(
        f"{what}: {most.master / 1e6:.0f} MB in the master, {most.total / 1e6:.0f} MB in all; "
        f"{seconds:.0f} s{failed}"
    )


def main() -> None:
    container = Container(sys.argv[1])
    names = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    big_bytes = int(sys.argv[3]) if len(sys.argv) > 3 else 20 * GiB
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("AZPOOL_STATE_HOME", f"{folder}/state")
        for n in range(names):
            if n % 1000 == 0:
                os.makedirs(f"{folder}/names/d{n // 1000}")
            os.close(os.open(f"{folder}/names/d{n // 1000}/file-{n}", os.O_CREAT | os.O_WRONLY))
        measured(
            f"{names:,} names",
            lambda: container.upload_many(
                f"{folder}/names/", "p", journal=True, progress=lambda _: None
            ),
        )
        with open(f"{folder}/big", "wb") as file:
            file.truncate(big_bytes)
        measured(
            f"one file of {big_bytes / GiB:.0f} GiB",
            lambda: container.upload_many(f"{folder}/big", journal=True, progress=lambda _: None),
        )
    delete_pool()


if __name__ == "__main__":
    main()
