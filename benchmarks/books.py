"""What the master spends on a file beside its transfer: plan, outcome, progress and report.

    python benchmarks/books.py

Nodes that answer at once, so that nothing else is measured. The aim is 40 us a file, a sixth of
what a node spends on it.
"""

from __future__ import annotations

import statistics
import time

from azpool.storage import transfer
from azpool.storage._batch import Action, Direction, Result
from azpool.storage._http import ClientOptions
from azpool.storage._recipe import StoreRecipe
from azpool.storage._retry import RetryOptions
from azpool.storage._signing import Anonymous
from azpool.storage._sources import Planned, Selection
from azpool.storage.transfer import Options, move

ROUNDS = 5


class Instant(transfer.Inline):
    slots = 4

    def run(self, task, jobs, on_results):
        for job in jobs:
            yield [Result(t.place, -1, Action.DONE, 4096, 0.01, 1, None) for t in job.files]


def microseconds_a_file(files):
    transfer._choose_nodes = lambda *_, **__: Instant()
    things = [Planned(f"src/file-{n}", f"p/file-{n}", 4096) for n in range(files)]
    recipe = StoreRecipe(
        account_url="http://memory.invalid/dev",
        container="data",
        auth=Anonymous(),
        options=ClientOptions(),
    )
    begun = time.process_time()
    chosen = Selection(things=things)
    options = Options(retry=RetryOptions())
    report = move(Direction.UPLOAD, recipe, chosen, options, progress=lambda told: None)
    assert len(report.ok) == files
    return (time.process_time() - begun) / files * 1e6


def main():
    for files in (1_000, 50_000, 500_000):
        rounds = ROUNDS if files < 500_000 else 1
        each = [microseconds_a_file(files) for _ in range(rounds)]
        print(f"{files:>7,} files: {statistics.median(each):5.1f} us a file")


if __name__ == "__main__":
    main()
