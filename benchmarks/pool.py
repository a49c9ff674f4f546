"""The pool beside its peers: every figure of one run on one machine.

    python benchmarks/pool.py [--quick] [--only NAME] [--rounds 5] [--write]

Each measure of each peer runs in a process of its own, in rounds that go through the peers in
turns, so that what else the machine does meets all of them; the figures are medians. After each,
whatever it left running is ended, and told. `--only` names measures or peers, several times if
need be. `--write` puts the tables into benchmarks/results/pool.md. Needs the extra `bench`.
"""

import argparse
import compileall
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _processes as processes
from _pool_measures import MEASURES
from _pool_peers import make_peers
from _pool_tables import Results, markdown, show
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import azpool

HERE = Path(__file__).resolve().parent
WRITTEN = HERE / "results" / "pool.md"
LIMIT_SECONDS = 180  # for one measure of one peer


def main():
    options = parse_options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    compile_ahead()
    load_before = os.getloadavg()[0]
    began = time.monotonic()
    try:
        results = run_all(options, console)
    finally:
        processes.clear_away(0.0)
    results.note(began, load_before, quick=options.quick)
    show(console, results)
    if options.write:
        WRITTEN.write_text(markdown(results), encoding="utf-8")
        console.print(f"written to {WRITTEN.relative_to(HERE.parent)}")


def compile_ahead():
    """Compile azpool, as an installed package is: an environment may forbid it to Python itself."""
    for folder in (HERE, Path(azpool.__file__).parent):
        compileall.compile_dir(folder, quiet=2)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of less of everything")
    parser.add_argument("--only", action="append", default=[], help="a measure or (part of) a peer")
    parser.add_argument("--rounds", type=int, help="5, or 1 with --quick")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/pool.md")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.measures, options.peers = select(options.only)
    if not options.measures or not options.peers:
        parser.error(f"--only: choose from {', '.join([*MEASURES, *make_peers()])}")
    return options


def select(only):
    """Names of measures choose measures, all other names choose the peers that contain them."""
    measures = [name for name in MEASURES if name in only] or [*MEASURES]
    parts = [part.lower() for part in only if part not in MEASURES]
    peers = make_peers()
    chosen = [name for name in peers if not parts or any(part in name.lower() for part in parts)]
    return measures, chosen


def run_all(options, console):
    """Run every measure of every peer in turns."""
    peers = make_peers()
    work = [
        (measure, name)
        for measure in options.measures
        for name in options.peers
        if MEASURES[measure].peers(peers[name])
    ]
    results = Results([*options.peers], options.rounds)
    columns = [
        TextColumn("{task.description:<52}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=options.rounds * len(work))
        for number in range(options.rounds):
            for measure, name in rotated(work, number, options.measures):
                progress.update(task, description=f"{measure} · {name}")
                if not results.hopeless(measure, name):
                    results.add(measure, name, run_one(measure, name, options))
                progress.advance(task)
    return results


def rotated(work, number, measures):
    """Keep the measures in their order, but begin each with another peer in each round."""
    for measure in measures:
        some = [pair for pair in work if pair[0] == measure]
        cut = number % max(1, len(some))
        yield from some[cut:] + some[:cut]


def run_one(measure, name, options):
    """Run one measure of one peer; returns its figures, or how it failed."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        out = Path(folder, "figures.json")
        said = Path(folder, "said")
        command = [sys.executable, HERE / "_pool_one.py", measure, name, out]
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": folder}
        for variable in ("PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "PYTHONDEVMODE"):
            environment.pop(variable, None)
        with said.open("wb") as stream:
            process = subprocess.Popen(
                command + (["quick"] if options.quick else []),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )
            late = False
            try:
                process.wait(60 if options.quick else LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                late = True
                process.kill()
                process.wait()
            left = processes.clear_away()
        figures = {}
        with contextlib.suppress(OSError, ValueError):
            figures = json.loads(out.read_text())
        if late and not figures:
            figures["failed"] = "hangs"
        elif process.returncode and not figures:
            last = said.read_text(errors="replace").strip().splitlines()[-1:] or ["said nothing"]
            figures["failed"] = f"exit {process.returncode}: {last[0][:200]}"
        elif late:
            figures["hung_at_close"] = 1
        if left and not late:
            figures["left_running"] = left
        return figures


def in_memory():
    """Where the disk is in nobody's figures."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    main()
