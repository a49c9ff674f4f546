"""Run measures of peers in rounds, each in a process of its own: what the benchmarks share.

The rounds go through the peers in turns, so that what else the machine does meets all of them.
After each measure, whatever it left running is ended, and told.
"""

import compileall
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import _processes as processes
from _tables import Results
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import azpool

HERE = Path(__file__).resolve().parent


def prepare():
    """Make this process one that measures others; returns where to print."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # As an installed package is: an environment may forbid it to Python itself.
    for folder in (HERE, Path(azpool.__file__).parent):
        compileall.compile_dir(folder, quiet=2)
    return console


def select(only, measures, peers):
    """Names of measures choose measures, all other names choose the peers that contain them."""
    chosen = [name for name in measures if name in only] or [*measures]
    parts = [part.lower() for part in only if part not in measures]
    found = [name for name in peers if not parts or any(part in name.lower() for part in parts)]
    return chosen, found


def run_all(options, console, measures, peers, run_one):
    """Run the chosen measures of the chosen peers in turns; `run_one(measure, peer)` runs one.

    A measure with an attribute `rounds` is run no more often than that.
    """
    work = [
        (measure, name)
        for measure in options.measures
        for name in options.peers
        if measures[measure].peers(peers[name])
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
                enough = number >= getattr(measures[measure], "rounds", options.rounds)
                if not enough and not results.hopeless(measure, name):
                    results.add(measure, name, run_one(measure, name))
                progress.advance(task)
    return results


def rotated(work, number, measures):
    """Keep the measures in their order, but begin each with another peer in each round."""
    for measure in measures:
        some = [pair for pair in work if pair[0] == measure]
        cut = number % max(1, len(some))
        yield from some[cut:] + some[:cut]


def run_script(script, measure, name, *, quick, limit_seconds, variables=None):
    """Run `script MEASURE PEER OUT [quick]`; returns its figures, or how it failed."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        out = Path(folder, "figures.json")
        said = Path(folder, "said")
        command = [sys.executable, HERE / script, measure, name, out]
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": folder, **(variables or {})}
        for variable in ("PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "PYTHONDEVMODE"):
            environment.pop(variable, None)
        with said.open("wb") as stream:
            process = subprocess.Popen(
                command + (["quick"] if quick else []),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )
            late = False
            try:
                process.wait(limit_seconds)
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
            figures["left_running"] = figures.get("left_running", 0) + left
        return figures


def in_memory():
    """Where the disk is in nobody's figures."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


__all__ = ["in_memory", "prepare", "run_all", "run_script", "select"]
