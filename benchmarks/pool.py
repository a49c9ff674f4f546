"""The pool beside its peers: every figure of one run on one machine.

    python benchmarks/pool.py [--quick] [--only NAME] [--rounds 5] [--write]

Each measure of each peer runs in a process of its own, in rounds that go through the peers in
turns, so that what else the machine does meets all of them; the figures are medians. After each,
whatever it left running is ended, and told. `--only` names measures or peers, several times if
need be. `--write` puts the tables into benchmarks/results/pool.md. Needs the extra `bench`.
"""

import argparse
import functools
import os
import time

import _processes as processes
import _rounds
from _pool_measures import MEASURES
from _pool_peers import make_peers
from _pool_tables import SHEET, VERSIONS
from _tables import markdown, show

WRITTEN = _rounds.HERE / "results" / "pool.md"
LIMIT_SECONDS = 180  # for one measure of one peer


def main():
    options = parse_options()
    console = _rounds.prepare()
    load_before = os.getloadavg()[0]
    began = time.monotonic()
    run_one = functools.partial(
        _rounds.run_script,
        "_pool_one.py",
        quick=options.quick,
        limit_seconds=60 if options.quick else LIMIT_SECONDS,
    )
    try:
        results = _rounds.run_all(options, console, MEASURES, make_peers(), run_one)
    finally:
        processes.clear_away(0.0)
    results.note(began, load_before, VERSIONS, quick=options.quick)
    show(console, results, SHEET)
    if options.write:
        WRITTEN.write_text(markdown(results, SHEET), encoding="utf-8")
        console.print(f"written to {WRITTEN.relative_to(_rounds.HERE.parent)}")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of less of everything")
    parser.add_argument("--only", action="append", default=[], help="a measure or (part of) a peer")
    parser.add_argument("--rounds", type=int, help="5, or 1 with --quick")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/pool.md")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.measures, options.peers = _rounds.select(options.only, MEASURES, make_peers())
    if not options.measures or not options.peers:
        parser.error(f"--only: choose from {', '.join([*MEASURES, *make_peers()])}")
    return options


if __name__ == "__main__":
    main()
