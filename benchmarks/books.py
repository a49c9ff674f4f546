"""What the master spends on a file beside its transfer: plan, ledger, outcome, progress and report.

    python benchmarks/books.py

Nodes that answer at once, so that nothing else is measured; without a journal and with one. The aim
is 40 us a file, a sixth of what a node spends on it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time

from azpool.storage import transfer
from azpool.storage._batch import Action, Direction, Result
from azpool.storage._http import ClientOptions
from azpool.storage._recipe import StoreRecipe
from azpool.storage._signing import Anonymous
from azpool.storage._sources import Planned, Selection
from azpool.storage.journal import Journal
from azpool.storage.transfer import Call, move

ROUNDS = 5


class Instant(transfer.Inline):
    slots = 4

    def run(self, task, jobs, on_results, *, ahead, ordered):
        for job in jobs:
            yield [Result(t.place, -1, Action.DONE, 4096, 0.01, 1, None) for t in job.files]


def microseconds_a_file(files, *, journaled):
    transfer._choose_nodes = lambda *_, **__: Instant()
    things = (Planned(f"src/file-{n}", f"p/file-{n}", 4096) for n in range(files))
    recipe = StoreRecipe(
        account_url="http://memory.invalid/dev",
        container="data",
        auth=Anonymous(),
        options=ClientOptions(),
    )
    call = Call(direction=Direction.UPLOAD, recipe=recipe, cwd="/")
    begun = time.process_time()
    journal = Journal.create() if journaled else None
    report = move(call, Selection(things=things), progress=lambda told: None, journal=journal)
    assert len(report.ok) == files
    return (time.process_time() - begun) / files * 1e6


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AZPOOL_STATE_HOME"] = folder
        for journaled in (False, True):
            print("with a journal" if journaled else "without a journal")
            for files in (1_000, 50_000, 500_000):
                rounds = ROUNDS if files < 500_000 else 1
                each = [microseconds_a_file(files, journaled=journaled) for _ in range(rounds)]
                print(f"{files:>9,} files: {statistics.median(each):5.1f} us a file")


if __name__ == "__main__":
    main()
