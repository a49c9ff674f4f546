"""What one call on all machines costs: azpool beside the official SDK, one by one and by threads.

    python benchmarks/fleet.py [--quick] [--write benchmarks/results/fleet.md]

Against azpool.testing.arm, each time a new one in a process of its own: 100 ms an answer, time at
its real speed, Azure's own rate limits. Every way signs in at a token endpoint that counts, and
reads its list of machines before the clock starts; what was called is read from the simulator's
log. Where all machines would take the SDK too long it does fewer, and the figures are of those.
Nothing here is a test: figures depend on the machine. Needs the extras `fleet` and `testing`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import multiprocessing
import os
import platform
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from _tables import machine
from azure.identity import ManagedIdentityCredential
from azure.mgmt.compute import ComputeManagementClient

from azpool import delete_pool
from azpool.fleet import Fleet
from azpool.testing import TokenEndpoint
from azpool.testing.arm import Arm, Limits

LATENCY = 0.1
GOAL = 1.3
GROUP, SET = "workers", "crew"
START_SECONDS = 30.0  # the simulator's own: SECONDS["start"]
COMMAND_SECONDS = 20.0  # of a run command besides its script: OTHER_SECONDS
SCRIPT_SECONDS = 10.0
SCRIPT = f"sleep {SCRIPT_SECONDS:.0f}\nhostname"
PAGE = 100  # machines in a page of the simulator's lists
READS, READS_PER_SECOND = 250, 25.0  # ARM's bucket, full and refilled
WRITES, WRITES_PER_SECOND = 200, 10.0  # of writes; that of deletes is the same

AZPOOL, ONE, THREADS, BY_HAND = "azpool", "SDK, one by one", "SDK, 10 threads", "SDK, by hand"


@dataclass(frozen=True)
class Task:
    """What is done to how many of which kind; `some` is how many the slow ways do."""

    name: str
    verb: str
    uniform: bool
    count: int
    some: dict

    @property
    def title(self):
        what = {"status": "status of", "start": "start and wait,", "script": "a script on"}
        return f"{what[self.verb]} {self.count} {'Uniform' if self.uniform else 'Flexible'}"

    @property
    def ideal(self):
        """Seconds that budget, own time and latency allow, with every call sent once it may be.

        Calls that need not wait for each other are all on their way at once; an operation is
        asked for once, at its end.
        """
        pages = math.ceil(self.count / PAGE) * LATENCY
        if self.verb == "status":
            return pages  # of the other list of a Flexible set too: at the same time
        if self.verb == "start" and self.uniform:
            return LATENCY + START_SECONDS + LATENCY + pages  # POST, a poll, each one's truth
        writing = max(0.0, (self.count - WRITES) / WRITES_PER_SECOND)
        if self.verb == "start":
            reading = max(0.0, (self.count - READS) / READS_PER_SECOND)
            return writing + LATENCY + START_SECONDS + reading + LATENCY
        # PUT; when all have ended a poll and a GET each, from a bucket that was full; DELETE.
        reading = max(0.0, (2 * self.count - READS) / READS_PER_SECOND)
        own = COMMAND_SECONDS + SCRIPT_SECONDS
        return writing + LATENCY + own + reading + 3 * LATENCY


class Row(NamedTuple):
    """What was measured of one way."""

    way: str
    done: int
    failed: int
    seconds: float
    calls: int
    polls: int
    throttled: int
    tokens: int
    why: str


def tasks(quick):
    many, fewer = (50, 20) if quick else (500, 200)
    slow = {ONE: 1, THREADS: 10} if quick else {ONE: 2, THREADS: 20}
    return [
        Task("status-uniform", "status", True, many, {}),
        Task("status-flexible", "status", False, many, {}),
        Task("start-uniform", "start", True, many, slow),
        Task("start-flexible", "start", False, fewer, slow),
        Task("script", "script", False, fewer, slow),
    ]


# --- the service, in a process of its own -------------------------------------------------------


def serve(pipe, uniform, count, power):
    with (
        TokenEndpoint() as tokens,
        Arm(latency_seconds=LATENCY, limits=Limits()) as arm,
    ):
        arm.scale_set(SET, count, uniform=uniform, group=GROUP, power=power)
        assert arm.world.page_size == PAGE
        pipe.send((arm.url, arm.ca_file, arm.subscription, tokens.environ))
        skipped = 0
        while (asked := pipe.recv()) != "stop":
            if asked == "begin":
                arm.limits = Limits()  # as full as if nothing had been read yet
                skipped = len(arm.requests)
                pipe.send(None)
            else:
                seen = [(one.method, one.path, one.status) for one in arm.requests[skipped:]]
                pipe.send((seen, len(tokens.requests), list(arm.broken)))


class Service(NamedTuple):
    url: str
    ca_file: str
    subscription: str
    ask: object


@contextmanager
def service(task):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    power = "deallocated" if task.verb == "start" else "running"
    process = context.Process(target=serve, args=(theirs, task.uniform, task.count, power))
    process.start()
    theirs.close()

    def ask(what):
        ours.send(what)
        return ours.recv()

    try:
        url, ca_file, subscription, environ = ours.recv()
        os.environ.update(environ)
        yield Service(url, ca_file, subscription, ask)
    finally:
        ours.send("stop")
        process.join()


# --- the ways: each answers a function to time, which answers whether each one went well --------


def of_azpool(task, at, count):
    fleet = Fleet.scale_set(
        at.subscription,
        GROUP,
        SET,
        credential=ManagedIdentityCredential(),
        base_url=at.url,
        ca_file=at.ca_file,
    )[:count]

    def go():
        if task.verb == "status":
            report = fleet.status()
        elif task.verb == "start":
            report = fleet.start()
        else:
            report = fleet.run_script(SCRIPT)
        return [one.ok and (task.verb != "script" or bool(one.stdout)) for one in report]

    return go


def client_of(at):
    # As users make it: its own retries, its own polls (every 30 s where the service says nothing).
    return ComputeManagementClient(
        ManagedIdentityCredential(),
        at.subscription,
        base_url=at.url,
        credential_scopes=["https://management.azure.com/.default"],
        connection_verify=at.ca_file,
    )


def one_of_sdk(task, client, machine):
    """Do it to one machine as a script by the SDK does; answers whether it went well."""
    try:
        if task.verb == "status":
            if task.uniform:
                view = client.virtual_machine_scale_set_vms.get_instance_view(GROUP, SET, machine)
            else:
                view = client.virtual_machines.instance_view(GROUP, machine)
            return any(status.code == "PowerState/running" for status in view.statuses)
        if task.verb == "start":
            if task.uniform:
                client.virtual_machine_scale_set_vms.begin_start(GROUP, SET, machine).result()
            else:
                client.virtual_machines.begin_start(GROUP, machine).result()
            return True
        commands = client.virtual_machine_run_commands
        body = {"location": "eastus", "properties": {"source": {"script": SCRIPT}}}
        commands.begin_create_or_update(GROUP, machine, "check", body).result()
        read = commands.get_by_virtual_machine(GROUP, machine, "check", expand="instanceView")
        commands.begin_delete(GROUP, machine, "check", polling=False)
        return bool(read.instance_view.output)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]


def machines_of(task, client):
    if task.uniform:
        return [one.instance_id for one in client.virtual_machine_scale_set_vms.list(GROUP, SET)]
    return [one.name for one in client.virtual_machines.list(GROUP)]


def of_sdk(threads):
    def way(task, at, count):
        client = client_of(at)
        machines = machines_of(task, client)[:count]

        def go():
            if threads == 1:
                return [one_of_sdk(task, client, one) for one in machines]
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(lambda one: one_of_sdk(task, client, one), machines))

        return go

    return way


def by_hand(task, at, count):
    """The list, or the call for all, that the service has, by who knows of it (Uniform alone)."""
    client = client_of(at)
    machines = machines_of(task, client)[:count]

    def states():
        listed = client.virtual_machine_scale_set_vms.list(GROUP, SET, expand="instanceView")
        running = {
            one.instance_id
            for one in listed
            if any(status.code == "PowerState/running" for status in one.instance_view.statuses)
        }
        return [one in running for one in machines]

    def go():
        if task.verb == "start":
            ids = {"instanceIds": machines}
            client.virtual_machine_scale_sets.begin_start(GROUP, SET, ids).result()
        return states()

    return go


WAYS = {AZPOOL: of_azpool, ONE: of_sdk(1), THREADS: of_sdk(10), BY_HAND: by_hand}


def ways_of(task):
    return [way for way in WAYS if way != BY_HAND or (task.uniform and task.verb != "script")]


def measure(task, way):
    count = task.some.get(way, task.count)
    with service(task) as at:
        try:
            go = WAYS[way](task, at, count)
            at.ask("begin")
            begun = time.perf_counter()
            ends = go()
            seconds = time.perf_counter() - begun
            seen, tokens, broken = at.ask("log")
        finally:
            delete_pool()
    if broken:
        raise RuntimeError(f"the simulator itself failed: {broken[0]}")
    polls = sum("/operations/" in path.lower() for _, path, _ in seen)
    bad = [end for end in ends if end is not True]
    why, often = Counter(map(str, bad)).most_common(1)[0] if bad else ("", 0)
    return Row(
        way,
        len(ends),
        len(bad),
        seconds,
        len(seen) - polls,
        polls,
        sum(status == 429 for _, _, status in seen),
        tokens,
        f"{often} x {why}" if bad else "",
    )


def measure_all(every):
    """Measure azpool, and what keeps a core busy, alone; what sleeps, beside each other."""
    rows = {}
    work = [(task, way) for task in every for way in ways_of(task)]
    # The slow ways of the SDK wait nearly all of their time: for answers one by one, or for polls.
    beside = [(task, way) for task, way in work if way == ONE or (task.some and way != AZPOOL)]
    for task, way in work:
        if (task, way) not in beside:
            print(f"{task.title}: {way}", file=sys.stderr, flush=True)
            # What takes half a second is at the mercy of what else the machine does just then.
            runs = [measure(task, way) for _ in range(3 if task.verb == "status" else 1)]
            rows[task.name, way] = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    print(f"{len(beside)} of the SDK beside each other", file=sys.stderr, flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(beside), context) as processes:
        futures = {(task.name, way): processes.submit(measure, task, way) for task, way in beside}
        rows |= {key: future.result() for key, future in futures.items()}
    return rows


# --- how it is told -------------------------------------------------------------------------------


IDEAL = f"""Ideal: calls that need not wait for each other are all on their way at once, each
    {LATENCY} s; an operation takes its own time and is asked for once, at its end; reads beyond
    ARM's bucket ({READS}, {READS_PER_SECOND:.0f} more a second) and writes beyond theirs ({WRITES},
    {WRITES_PER_SECOND:.0f} more) wait for it. A list is read page after page of {PAGE}. Status: the
    pages. Start, Uniform: a POST, its own time, a poll, the list. Start, Flexible: POSTs, their own
    time, a poll each. Script: PUTs, their own time, a poll and a GET each, of which {READS} at
    once, DELETEs."""
COLUMNS = """Machines: of how many the row is measured; where that is less than the task's, its
    seconds, calls and polls are of those, and not of all. Calls and polls are those in the
    simulator's log, refused ones among them. One by one: an SDK call for each machine, and its
    poller. 10 threads: the same in a `ThreadPoolExecutor(10)`, as `az --ids` does it. By hand: the
    list, or the one call for many, that the service has for Uniform sets. The SDK's clients have
    their own defaults: retries after 429, a poll at once and then every 30 s where the service says
    nothing, so a start of 30 s ends just before their second one. The rows one by one, and all of
    the SDK that start machines or run scripts, ran beside each other, for they sleep."""


def paragraph(text):
    return textwrap.fill(" ".join(text.split()), 100)


def table(every, rows, options, minutes):
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    how = f"""`benchmarks/fleet.py`{", quick: fewer machines" * options.quick};
        {machine()}, {platform.system()}, {python}, {dt.datetime.now(dt.UTC):%Y-%m-%d};
        one round of {minutes:.1f} min, status the median of 3; load {load} at the end;
        azure-mgmt-compute {metadata.version("azure-mgmt-compute")}. Each way has an
        `azpool.testing.arm` to itself, in a process of its own: {LATENCY * 1e3:.0f} ms an
        answer, the simulator's work for it included, simulated time at its real speed,
        Azure's own rate limits (buckets full at the start), Retry-After of 10 s where an operation
        begins; a start takes {START_SECONDS:.0f} s, a run command {COMMAND_SECONDS:.0f} s and its
        script {SCRIPT_SECONDS:.0f} s more. Reading which machines there are is not in the seconds,
        but its sign-in is in the tokens."""
    lines = [
        "# One call on all machines",
        "",
        paragraph(how),
        "",
        "## azpool and the goal",
        "",
        f"| task | ideal, s | azpool, s | azpool / ideal | at most {GOAL} | tokens |",
        "|---|---:|---:|---:|---|---:|",
    ]
    for task in every:
        ours = rows[task.name, AZPOOL]
        ratio = ours.seconds / task.ideal
        lines.append(
            f"| {task.title} | {task.ideal:.1f} | **{ours.seconds:.1f}** | {ratio:.2f} "
            f"| {'✗✓'[ratio <= GOAL and not ours.failed]} | {ours.tokens} |"
        )
    lines += [
        "",
        "## Beside the SDK",
        "",
        "| task | way | machines | went well | seconds | calls | polls | 429 | tokens |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for task in every:
        for way in ways_of(task):
            row = rows[task.name, way]
            lines.append(
                f"| {task.title} | {way} | {row.done} | {row.done - row.failed} | "
                f"{row.seconds:.1f} | {row.calls} | {row.polls} | {row.throttled} | {row.tokens} |"
            )
    lines += ["", paragraph(IDEAL), "", paragraph(COLUMNS)]
    told = [
        f"- {task.title}, {way}: {rows[task.name, way].why}"
        for task in every
        for way in ways_of(task)
        if rows[task.name, way].failed
    ]
    if told:
        lines += ["", "What did not go well:", "", *told]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer machines")
    parser.add_argument("--write", type=Path, help="put the tables into this file")
    options = parser.parse_args()
    begun = time.monotonic()
    every = tasks(options.quick)
    text = table(every, measure_all(every), options, (time.monotonic() - begun) / 60)
    print(text)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
