"""What a token costs on a node: azpool beside what else gives one to many processes, in one run.

    python benchmarks/identity.py [--rounds 5] [--write benchmarks/results/identity.md]

Every way uses azure-identity's ManagedIdentityCredential against a token endpoint on loopback,
which counts. Microseconds are of one process that asks while nobody else does; the last two columns
are of 10 processes that start cold and make 1,000 calls each. Nothing here is a test: figures
depend on the machine. Needs azure-identity (extra `identity`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import textwrap
import time
from multiprocessing.managers import BaseManager
from pathlib import Path

from azure.identity import ManagedIdentityCredential

from azpool import Pool
from azpool.identity import share
from azpool.testing import TokenEndpoint

SCOPE = "https://storage.azure.com/.default"
PROCESSES = 10
CALLS = 1000


def microseconds(call, calls):
    """The median of one call; short ones are timed by the hundred."""
    bundle = 100 if calls >= 10_000 else 1
    times = []
    for _ in range(calls // bundle):
        begun = time.perf_counter()
        for _ in range(bundle):
            call()
        times.append((time.perf_counter() - begun) / bundle)
    return statistics.median(times) * 1e6


def cached(credential):
    credential.get_token(SCOPE)
    return microseconds(lambda: credential.get_token(SCOPE), 100_000)


def cached_in_azure_identity(credential):
    credential.get_token(SCOPE)
    return microseconds(lambda: credential.get_token(SCOPE), 3_000)


def asked(credential):
    """Let nothing be held, so that each call asks the master."""
    held = credential._held

    def call():
        held.clear()
        credential.get_token(SCOPE)

    call()
    return microseconds(call, 3_000)


def many(credential):
    for _ in range(CALLS):
        credential.get_token(SCOPE)


def many_of_its_own(_):
    many(ManagedIdentityCredential())


# -- ways: name -> microseconds of a call, seconds and requests of 10 x 1,000 calls ----------------


def of_azpool(endpoint):
    shared = share(ManagedIdentityCredential())
    with Pool(PROCESSES) as pool:
        endpoint.requests.clear()
        begun = time.perf_counter()
        pool.call(many, shared)
        seconds = time.perf_counter() - begun
        requests = len(endpoint.requests)
        yield "azpool, held by the node", pool.submit(cached, shared).result(), seconds, requests
        yield "azpool, asked of the master", pool.submit(asked, shared).result(), None, None


def of_azure_identity(endpoint):
    yield (
        "azure-identity's cache, one process",
        cached_in_azure_identity(ManagedIdentityCredential()),
        None,
        None,
    )
    context = multiprocessing.get_context("forkserver")
    with context.Pool(PROCESSES) as pool:
        pool.map(abs, range(PROCESSES), chunksize=1)
        endpoint.requests.clear()
        begun = time.perf_counter()
        pool.map(many_of_its_own, range(PROCESSES), chunksize=1)
        seconds = time.perf_counter() - begun
    yield "a ManagedIdentityCredential in each process", None, seconds, len(endpoint.requests)


class Manager(BaseManager):
    pass


Manager.register("Credential", ManagedIdentityCredential)


def proxied(credential):
    credential.get_token(SCOPE)
    return microseconds(lambda: credential.get_token(SCOPE), 3_000)


def of_manager(endpoint):
    context = multiprocessing.get_context("forkserver")
    with Manager(ctx=context) as manager, context.Pool(PROCESSES) as pool:
        credential = manager.Credential()
        pool.map(abs, range(PROCESSES), chunksize=1)
        endpoint.requests.clear()
        begun = time.perf_counter()
        pool.map(many, [credential] * PROCESSES, chunksize=1)
        seconds = time.perf_counter() - begun
        requests = len(endpoint.requests)
        yield (
            "multiprocessing.Manager, a proxy",
            pool.apply(proxied, (credential,)),
            seconds,
            requests,
        )


WAYS = (of_azpool, of_azure_identity, of_manager)


def table(figures, options):
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    how = (
        f"Medians of {options.rounds} rounds, in turns, in one run of `benchmarks/identity.py`; "
        f"{os.cpu_count()} cores, {platform.system()}, {python}; load {load} at the end. The token "
        "endpoint is on loopback and answers at once: in Azure each sign-in takes 10 ms to seconds."
    )
    lines = [
        "# What a token costs on a node",
        "",
        textwrap.fill(how, 100),
        "",
        f"| way | one call, µs | {PROCESSES} processes x {CALLS:,} calls, s | sign-ins |",
        "|---|---:|---:|---:|",
    ]
    for name, rounds in figures.items():
        cells = []
        for column, form in zip(zip(*rounds, strict=True), (".2f", ".3f", ".0f"), strict=True):
            cells.append("" if None in column else format(statistics.median(column), form))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    figures = {}
    with TokenEndpoint() as endpoint:
        os.environ.update(endpoint.environ)
        for number in range(options.rounds):
            for way in WAYS[:: -1 if number % 2 else 1]:
                for name, *row in way(endpoint):
                    figures.setdefault(name, []).append(row)
    text = table(figures, options)
    print(text)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
