"""Small files to and from Azurite: azpool beside the SDK and one obstore process, in one run.

    python benchmarks/azurite.py [--files 2000] [--rounds 3] [--write benchmarks/results/azurite.md]

Every way moves the same files, in turns, so that what else the machine does meets all of them.
A fresh Azurite serves each round: it keeps everything in memory and grows slower as it fills.
Needs azure-storage-blob and obstore (extra `bench`) and Azurite (`make setup`).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azpool import delete_pool, init_pool
from azpool.storage import Container
from azpool.testing.azurite import Azurite

THREADS = 10
FILE_BYTES = 4096


def azpool_way(place, names, source, target):
    container = Container(f"{place.blob_url}/azpool", key=place.key)
    container.create()

    def up():
        container.upload_many(f"{source}/", "").raise_for_failures()

    def down():
        container.download_many("/", target).raise_for_failures()

    return up, down


def sdk_way(threads):
    def way(place, names, source, target):
        from azure.storage.blob import ContainerClient

        client = ContainerClient.from_connection_string(place.connection_string, f"sdk{threads}")
        client.create_container()

        def send(name):
            with (source / name).open("rb") as file:
                client.upload_blob(name, file, overwrite=True)

        def fetch(name):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                client.download_blob(name).readinto(file)

        def run(task):
            if threads == 1:
                for name in names:
                    task(name)
                return
            with ThreadPoolExecutor(threads) as executor:
                list(executor.map(task, names))

        return lambda: run(send), lambda: run(fetch)

    return way


def obstore_way(place, names, source, target):
    import obstore
    from obstore.store import AzureStore

    Container(f"{place.blob_url}/obstore", key=place.key).create()
    store = AzureStore(
        "obstore",
        account_name=place.account,
        account_key=place.key,
        endpoint=place.blob_url,
        client_options={"allow_http": True},
    )

    def send(name):
        obstore.put(store, name, (source / name).read_bytes(), use_multipart=False)

    def fetch(name):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(obstore.get(store, name).bytes())

    def run(task):
        with ThreadPoolExecutor(THREADS) as executor:
            list(executor.map(task, names))

    return lambda: run(send), lambda: run(fetch)


WAYS = {
    "azpool, pool of 10": azpool_way,
    "azure-storage-blob, 10 threads": sdk_way(THREADS),
    "azure-storage-blob, one at a time": sdk_way(1),
    "obstore, one process, 10 threads": obstore_way,
}


def make_files(folder, count):
    names = [f"d{n % 20:02}/file-{n:05}.bin" for n in range(count)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(FILE_BYTES))
    return names


def verify(source, target, names):
    for name in names:
        if (source / name).read_bytes() != (target / name).read_bytes():
            raise SystemExit(f"{name} came back changed")


def timed(call):
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def run_round(order, folder, names, figures, few):
    source = folder / "source"
    for label in order:
        # One at a time is slow and even: a quarter of the files tells as much.
        some = names[: len(names) // 4] if few and "one at a time" in label else names
        target = folder / "target"
        target.mkdir()
        place_folder = folder / "azurite"
        place_folder.mkdir()
        with Azurite(place_folder) as place:
            up, down = WAYS[label](place, some, source, target)
            times = timed(up), timed(down)
        verify(source, target, some)
        figures[label].append(tuple(len(some) / seconds for seconds in times))
        print(f"{label:<36}{figures[label][-1][0]:8,.0f}{figures[label][-1][1]:8,.0f}", flush=True)
        shutil.rmtree(target)
        shutil.rmtree(place_folder)


def table(figures, options):
    python = f"{platform.python_implementation()} {platform.python_version()}"
    how = (
        f"{options.files:,} files of 4 KiB, medians of {options.rounds} rounds, files/s. All in "
        f"one run of `benchmarks/azurite.py`, a fresh Azurite each; {os.cpu_count()} cores (which "
        f"Azurite, on one of them, shares with the client), {platform.system()}, {python}."
    )
    lines = [
        "# Small files on Azurite",
        "",
        textwrap.fill(how, 100),
        "",
        "| way | up | down |",
        "|---|---:|---:|",
    ]
    for label, rounds in figures.items():
        up, down = (statistics.median(column) for column in zip(*rounds, strict=True))
        lines.append(f"| {label} | {up:,.0f} | {down:,.0f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="azpool-benchmark-", dir=shm()))
    figures = {label: [] for label in WAYS}
    try:
        names = make_files(folder / "source", options.files)
        init_pool(options.nodes)
        for number in range(options.rounds):
            run_round([*WAYS][:: -1 if number % 2 else 1], folder, names, figures, few=True)
    finally:
        delete_pool()
        shutil.rmtree(folder)
    text = table(figures, options)
    print(text)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)


def shm():
    """Memory, so that the disk is in nobody's figures."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
