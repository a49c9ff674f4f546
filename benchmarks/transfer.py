"""azpool's transfers beside azcopy, Azure's SDK and obstore: every figure of one run.

    python benchmarks/transfer.py [--quick] [--only NAME] [--rounds 3] [--write] [--profile]

Each measure of each peer runs in a process of its own, in rounds that go through the peers in
turns; the figures are medians. All move to and from a server that stands in for the service and is
faster than any client (`_stand_in.py`). `--only` names measures or peers, several times if need be.
`--write` puts the tables into benchmarks/results/transfer.md. `--profile` shows instead where the
time of `azpool cp` goes, in the master and in one node.

Needs the extra `bench`, and nginx with Lua; without nginx it says what is missing and does nothing.
The whole takes 12 GiB of memory for files, and 25 minutes on 2 cores.
"""

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _processes as processes
import _rounds
import _stand_in
from _tables import markdown, show
from _transfer_measures import MEASURES
from _transfer_peers import find_azcopy, has_journal, make_peers
from _transfer_tables import SHEET, VERSIONS

WRITTEN = _rounds.HERE / "results" / "transfer.md"
LIMIT_SECONDS = 400  # for one measure of one peer
NEEDED_BYTES = 12 * 1024**3


def main():
    options = parse_options()
    console = _rounds.prepare()
    lacking = _stand_in.missing() or (None if options.quick else lacks_memory())
    if lacking:
        console.print(f"transfer.py does nothing here: {lacking}", highlight=False, soft_wrap=True)
        return
    load_before = os.getloadavg()[0]
    began = time.monotonic()
    shared = tempfile.mkdtemp(prefix="azpool-transfer-", dir=_rounds.in_memory())
    try:
        if options.profile:
            profile(shared, options)
            return
        peers = make_peers()
        absent = {name: why for name in options.peers if (why := peers[name].missing())}
        options.peers = [name for name in options.peers if name not in absent]
        run_one = functools.partial(
            _rounds.run_script,
            "_transfer_one.py",
            quick=options.quick,
            limit_seconds=100 if options.quick else LIMIT_SECONDS,
            variables={"TRANSFER_SHARED": shared},
        )
        results = _rounds.run_all(options, console, MEASURES, peers, run_one)
    finally:
        processes.clear_away(0.0)
        shutil.rmtree(shared, ignore_errors=True)
    results.failures.update({("start", name): why for name, why in absent.items()})
    results.note(began, load_before, VERSIONS, quick=options.quick)
    results.facts += " " + facts_of_peers(results)
    show(console, results, SHEET)
    if options.write:
        WRITTEN.write_text(markdown(results, SHEET), encoding="utf-8")
        console.print(f"written to {WRITTEN.relative_to(_rounds.HERE.parent)}")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of less of everything")
    parser.add_argument("--only", action="append", default=[], help="a measure or (part of) a peer")
    parser.add_argument("--rounds", type=int, help="3, or 1 with --quick")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/transfer.md")
    parser.add_argument("--profile", choices=("up", "down"), help="profile small files instead")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.measures, options.peers = _rounds.select(options.only, MEASURES, make_peers())
    if options.quick and options.write:
        parser.error("--write: the tables name the sizes of a full run; leave out --quick")
    if not options.measures or not options.peers:
        parser.error(f"--only: choose from {', '.join([*MEASURES, *make_peers()])}")
    # Whoever is measured at all is measured at its best.
    if "settings" not in options.measures and "azcopy" in options.peers:
        options.measures.insert(0, "settings")
    return options


def lacks_memory():
    """Say that there is not enough memory for the files of a full run, or None."""
    text = Path("/proc/meminfo").read_text()
    free = 1024 * int(text.partition("MemAvailable:")[2].split()[0])
    where = _rounds.in_memory()
    if where:
        free = min(free, shutil.disk_usage(where).free)
    if free >= NEEDED_BYTES:
        return None
    return f"its files need 12 GiB of memory, {free / 1024**3:.1f} are free; use --quick"


def facts_of_peers(results):
    """Say what stands in no package's metadata: azcopy's version and settings, azpool's journal."""
    told = []
    if "azcopy" in results.peers:
        command = [find_azcopy(), "--version"]
        version = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        told.append(version.strip().splitlines()[0].replace("version ", ""))
        settings = {
            name.removeprefix("setting of "): results.get("azcopy", name)
            for name in results.names("azcopy")
            if name.startswith("setting of ")
        }
        if settings:
            told[-1] += f" ({'; '.join(f'{work}: {name}' for work, name in settings.items())})"
    told.append(f"azpool {'with its journal' if has_journal() else 'without a journal yet'}")
    return ", ".join(told) + "."


def profile(shared, options):
    """Show where the time goes while azpool moves small files."""
    from _transfer_bench import Bench, Work, environment, source_of
    from _transfer_peers import ANY_SAS, Azpool

    os.environ["TMPDIR"] = tempfile.tempdir = shared
    with Bench(Azpool(), Work(count=2_000 if options.quick else 20_000)) as bench:
        local = source_of(bench.work) if options.profile == "up" else bench.folder / "target"
        url = bench.server.url(bench.work.container)
        script = _rounds.HERE / "_transfer_profile.py"
        command = [sys.executable, script, options.profile, local, url, ANY_SAS]
        path = os.environ.get("PYTHONPATH", "")
        subprocess.run(command, check=True, env=environment(bench.folder, {"PYTHONPATH": path}))


if __name__ == "__main__":
    main()
