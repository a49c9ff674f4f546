"""The measures of `benchmarks/transfer.py`: each a function of one peer that returns its figures.

Each runs in a process of its own (`_transfer_one.py`), with a server of its own. Times are seconds,
memory is bytes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _transfer_work as work_of
from _transfer_bench import MIB, Bench, Work, choose_settings, environment, source_of
from _transfer_peers import Azcopy, Azpool, Job, Sdk

KIB4 = 4096
BOTH = ("up", "down")
MEASURES = {}


def measure(*, peers=lambda _: True, rounds=None):
    """Register a measure; `peers` says which run it, `rounds` how often it is run at most."""

    def register(function):
        function.peers = peers
        if rounds:
            function.rounds = rounds
        MEASURES[function.__name__] = function
        return function

    return register


def only(*kinds):
    return lambda peer: isinstance(peer, kinds)


def one_sdk(peer):
    return not isinstance(peer, Sdk) or peer.threads == 10


def can_check(peer):
    return peer.md5


def some(peer, count, *, least=200):
    """How many small files a peer gets."""
    return count if peer.share == 1 else max(min(count, least), int(count * peer.share))


def rates(peer, work, name, *, by="files"):
    """Move both ways; returns the rates, the CPU (of 10,000 files or a GiB) and the first bytes."""
    figures = {"left_running": 0}
    with Bench(peer, work) as bench:
        for direction in BOTH:
            moved = bench.move(direction)
            amount, unit = work.count, 10_000
            if by == "bytes":
                amount, unit = work.count * work.size_bytes, 1024 * MIB
            key = f"{name}_{direction}"
            figures[key] = amount / moved.seconds
            figures[f"{key}_cpu"] = moved.cpu_seconds / amount * unit
            figures[f"{key}_first"] = moved.first_seconds
            figures["left_running"] += moved.left_running
    return figures


# --- small files ------------------------------------------------------------------------------


@measure(peers=only(Azcopy), rounds=1)
def settings(peer, quick):
    """Which of azcopy's settings are best here; the other measures use them."""
    if quick:
        return {}
    return {f"setting of {work}": name for work, name in choose_settings().items()}


@measure()
def small(peer, quick):
    """50,000 files of 4 KiB, no latency."""
    return rates(peer, Work(count=some(peer, 2_000 if quick else 50_000)), "small")


@measure(peers=one_sdk)
def https(peer, quick):
    """The same over HTTPS."""
    count = 2_000 if quick else 50_000
    if isinstance(peer, Sdk):
        count = some(peer, count * 2 // 5)
    return rates(peer, Work(count=count, secure=True), "https")


@measure()
def latency(peer, quick):
    """The same at 20 ms."""
    count = 1_000 if quick else 50_000
    if isinstance(peer, Sdk):
        count = some(peer, count * 2 // 5)
    return rates(peer, Work(count=count, latency_ms=20, kind="latency"), "latency")


@measure(peers=only(Azpool, Azcopy), rounds=2)
def throttled(peer, quick):
    """Up to a server that takes 2,000 a second and refuses the others with 503 and Retry-After."""
    work = Work(count=2_000 if quick else 10_000, per_second=500 if quick else 2_000)
    with Bench(peer, work) as bench:
        moved = bench.move("up")
    return {
        "throttled": work.count / moved.seconds,
        "throttled_share": work.count / moved.seconds / work.per_second,
        "throttled_refused": moved.refused / work.count,
        "left_running": moved.left_running,
    }


# --- big files --------------------------------------------------------------------------------


def big_rates(peer, quick, name, *, count, md5=False):
    size = (4096 if count == 1 else 64) * MIB
    if quick:
        size //= 16 if count == 1 else 2  # of 32 MiB they still move in parts
    if count == 1:
        size = int(size * peer.big_share)
    else:
        count = max(2, int(count * peer.big_share))
    work = Work(count=count, size_bytes=size, md5=md5, kind="big")
    return rates(peer, work, name, by="bytes")


@measure(peers=one_sdk)
def one(peer, quick):
    """One file of 4 GiB."""
    return big_rates(peer, quick, "one", count=1)


@measure(peers=lambda peer: one_sdk(peer) and can_check(peer), rounds=2)
def one_md5(peer, quick):
    """The same with an MD5, stored and compared."""
    return big_rates(peer, quick, "one_md5", count=1, md5=True)


@measure(peers=one_sdk, rounds=2)
def many(peer, quick):
    """100 files of 64 MiB."""
    return big_rates(peer, quick, "many", count=6 if quick else 100)


@measure(peers=lambda peer: one_sdk(peer) and can_check(peer), rounds=1)
def many_md5(peer, quick):
    """The same with an MD5."""
    return big_rates(peer, quick, "many_md5", count=6 if quick else 100, md5=True)


# --- memory, modules, the first byte ----------------------------------------------------------


def peaks(peer, count, name):
    figures = {"left_running": 0}
    with Bench(peer, Work(count=count)) as bench:
        for direction in BOTH:
            moved = bench.move(direction, sample=True)
            figures[f"{name}_{direction}"] = moved.peak_bytes
            figures["left_running"] += moved.left_running
    return figures


@measure(peers=lambda peer: peer.share == 1, rounds=1)
def memory(peer, quick):
    """The highest PSS of all processes together while 50,000 files move."""
    return peaks(peer, 5_000 if quick else 50_000, "memory")


@measure(peers=only(Azpool), rounds=1)
def memory_of_500k(peer, quick):
    """The same of 500,000 files."""
    return peaks(peer, 10_000 if quick else 500_000, "memory_500k")


@measure(peers=only(Azpool), rounds=1)
def modules(peer, quick):
    """What the nodes have loaded of azure.* after they moved files with a SAS."""
    with Bench(peer, Work(count=1_000)) as bench:
        code = (
            "import json, sys\n"
            "from azpool import get_pool\n"
            "from azpool.storage import Container\n"
            f"source, url, sas = {str(source_of(bench.work))!r}, sys.argv[1], sys.argv[2]\n"
            "Container(url, sas=sas).upload_many(source + '/', '').raise_for_failures()\n"
            "def names():\n"
            "    import sys\n"
            "    return [name for name in sys.modules]\n"
            "print(json.dumps(get_pool().call(names)))\n"
        )
        command = [sys.executable, "-c", code, bench.server.url(bench.work.container)]
        command.append(Job(direction="up", url="", local="", count=0).sas)
        variables = environment(bench.folder, {})
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-200:]}")
    of_nodes = json.loads(done.stdout.strip().splitlines()[-1])
    azure = {name for names in of_nodes for name in names if name.partition(".")[0] == "azure"}
    return {"azure_modules": len(azure), "modules": max(map(len, of_nodes))}


@measure(rounds=2)
def first_byte(peer, quick):
    """From the start of the command until the first request that carries a file or asks for one."""
    figures = {"left_running": 0}
    with Bench(peer, Work(count=100)) as bench:
        for direction in BOTH:
            moves = [bench.move(direction) for _ in range(1 if quick else 3)]
            figures[f"first_{direction}"] = statistics.median(m.first_seconds for m in moves)
            figures["left_running"] += sum(m.left_running for m in moves)
    return figures


# --- growth -----------------------------------------------------------------------------------


@measure(peers=only(Azpool), rounds=2)
def nodes(peer, quick):
    """Time a file on 1, 2 and 4 nodes."""
    work = Work(count=1_000 if quick else 20_000)
    figures = {}
    with Bench(peer, work) as bench:
        for size in (1, 2, 4):
            for direction in BOTH:
                moved = bench.move(direction, nodes=size)
                figures[f"nodes_{direction}_{size}"] = moved.seconds / work.count
    return figures


@measure(peers=only(Azpool), rounds=1)
def growth(peer, quick):
    """Time a file of 1,000 to 500,000 files, up and (to 100,000) down."""
    steps = (200, 1_000, 5_000) if quick else (1_000, 10_000, 100_000, 500_000)
    figures = {}
    for count in steps:
        with Bench(peer, Work(count=count)) as bench:
            for direction in BOTH if count < 500_000 else BOTH[:1]:
                repeats = 3 if count <= 10_000 and not quick else 1
                each = [bench.move(direction).seconds / count for _ in range(repeats)]
                figures[f"growth_{direction}_{count}"] = statistics.median(each)
    return figures


# --- Azurite ----------------------------------------------------------------------------------


@measure(peers=lambda peer: one_sdk(peer) and not isinstance(peer, Azcopy), rounds=2)
def azurite(peer, quick):
    """2,000 files of 4 KiB to and from a fresh Azurite."""
    from azpool.storage import Container
    from azpool.testing.azurite import Azurite

    count = 300 if quick else 2_000
    if peer.share < 1:
        count //= 4
    figures = {"left_running": 0}
    with tempfile.TemporaryDirectory() as made, Azurite(Path(made, "azurite")) as place:
        folder = Path(made)
        url = f"{place.blob_url}/files"
        Container(url, key=place.key).create()
        for direction in BOTH:
            local = source_of(Work(count=count)) if direction == "up" else folder / "target"
            os.makedirs(local, exist_ok=True)
            job = Job(
                direction=direction,
                url=url,
                local=str(local),
                count=count,
                sas=sas_of(place),
            )
            command, variables = peer.command(job, folder)
            ran = work_of.run(
                command,
                environment(folder, variables),
                folder,
                server_pid=place.pid,
                limit_seconds=120,
            )
            # From start to exit, of every client: with 2,000 files that is a part of it.
            figures[f"azurite_{direction}"] = count / ran.seconds
            figures["left_running"] += ran.left_running
        came = sum(1 for path in (folder / "target").rglob("*.bin") if path.stat().st_size == KIB4)
    if came != count:
        raise RuntimeError(f"{came} of {count} files came back")
    return figures


def sas_of(place):
    """Make a SAS for Azurite, which checks it."""
    import datetime as dt

    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    return generate_account_sas(
        place.account,
        place.key,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, write=True, list=True, create=True, add=True, delete=True),
        dt.datetime.now(dt.UTC) + dt.timedelta(hours=2),
    )


__all__ = ["MEASURES"]
