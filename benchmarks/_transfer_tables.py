"""The tables of `benchmarks/transfer.py`: the goals of azpool's transfers, and what is compared."""

import itertools
from typing import NamedTuple

from _tables import US, Column, Sheet, memory, ms, plain, rate

VERSIONS = ("azure-storage-blob", "obstore")
NODES = (1, 2, 4)


def mib(number):
    return f"{number / 1024**2:,.0f} MiB/s"


def cpu(seconds):
    return f"{seconds:.2f} s"


def percent(share):
    return f"{share * 100:.0f} %"


def high(name, measure, title, form=rate):
    return Column(name, measure, title, form, low=False)


COLUMNS = {
    "Small files": [
        high("small_up", "small", "up"),
        high("small_down", "small", "down"),
        high("https_up", "https", "HTTPS up"),
        high("https_down", "https", "HTTPS down"),
        high("latency_up", "latency", "20 ms up"),
        high("latency_down", "latency", "20 ms down"),
        high("azurite_up", "azurite", "Azurite up"),
        high("azurite_down", "azurite", "Azurite down"),
    ],
    "Big files": [
        high("one_up", "one", "4 GiB up", mib),
        high("one_down", "one", "down", mib),
        high("one_md5_up", "one_md5", "MD5 up", mib),
        high("one_md5_down", "one_md5", "MD5 down", mib),
        high("many_up", "many", "100 × 64 up", mib),
        high("many_down", "many", "down", mib),
        high("many_md5_up", "many_md5", "MD5 up", mib),
        high("many_md5_down", "many_md5", "MD5 down", mib),
    ],
    "CPU": [
        Column("small_up_cpu", "small", "10,000 up", cpu),
        Column("small_down_cpu", "small", "down", cpu),
        Column("https_up_cpu", "https", "HTTPS up", cpu),
        Column("https_down_cpu", "https", "down", cpu),
        Column("one_up_cpu", "one", "1 GiB up", cpu),
        Column("one_down_cpu", "one", "down", cpu),
        Column("one_md5_up_cpu", "one_md5", "MD5 up", cpu),
        Column("one_md5_down_cpu", "one_md5", "down", cpu),
    ],
    "Memory, beginnings, refusals": [
        Column("memory_up", "memory", "50,000 up", memory),
        Column("memory_down", "memory", "down", memory),
        Column("memory_500k_up", "memory_of_500k", "500,000 up", memory),
        Column("memory_500k_down", "memory_of_500k", "down", memory),
        Column("first_up", "first_byte", "first byte up", ms),
        Column("first_down", "first_byte", "down", ms),
        Column("small_up_first", "small", "of 50,000 up", ms),
        Column("small_down_first", "small", "down", ms),
        high("throttled_share", "throttled", "throttled", percent),
        Column("throttled_refused", "throttled", "refused", percent),
    ],
}
LEGEND = """\
- All move to and from a stand-in that keeps nothing (nginx with Lua, one process, which shares the
  cores with the client); files come from tmpfs and go to it, and nobody syncs. Everything that came
  is counted: a move that was not whole is no figure. Before each download as much memory is written
  and freed, since a virtual machine's first touch of a page costs up to four times the later ones.
- azpool: the whole command `azpool cp`, from its start to its exit, as it is by default. azcopy:
  from its start to the server's last answer, because it then looks only every 2 s whether all is
  done. The SDK and obstore: their clients' own time, without imports; on Azurite all of them from
  start to exit.
- azcopy is run with the fastest of these settings, tried before on less work, for small files, at
  20 ms and for big files, up and down: as it comes; without its length check (a HEAD after each
  upload); and so with 8 and with 128 connections.
- Fewer files, because they take too long over all: 5,000 small ones for the SDK (2,000 with HTTPS
  and at 20 ms), a quarter of the big ones; on Azurite 2,000, the SDK 500.
- Fewer rounds: two of one file with MD5, of 100 × 64 MiB, of first bytes, refusals, nodes and
  Azurite; one of 100 × 64 MiB with MD5, of memory and of growth.
- CPU: of all processes of the client from start to exit, by `wait4`; of 10,000 small files, or of a
  GiB of one big file. Memory: the highest PSS of all of them together, seen 20 times a second, in
  runs of its own.
- First byte: from the start of the command until the server has a request that carries a file or
  asks for one; of 100 files, and of 50,000. Of the SDK and obstore that has their imports in it.
- Throttled: the server refuses what is above 2,000 requests a second with 503 and Retry-After: 1;
  the share of those 2,000 that became files, and how many refusals a file met.\
"""


class Row(NamedTuple):
    """What the goals speak of: our figure and the others', None where there is none."""

    ours: object
    azcopy: object
    sdk: object
    obstore: object


class Goal(NamedTuple):
    title: str
    goal: str
    measure: str
    name: str
    form: object
    met: object  # Row -> bool, or None where what it is compared with is not there
    low: bool = False


def faster(factor, sdk=0.0):
    def met(row):
        if row.azcopy is None or (sdk and row.sdk is None):
            return None
        return row.ours >= factor * row.azcopy and row.ours >= sdk * (row.sdk or 0)

    return met


def ahead(row):
    return None if row.azcopy is None else row.ours > row.azcopy


def half_memory(row):
    return None if row.azcopy is None else row.ours <= row.azcopy / 2


def level_with_obstore(row):
    return None if row.obstore is None else row.ours >= 0.9 * row.obstore


def below(limit):
    return lambda row: row.ours < limit


def both(title, goal, measure, name, form, met, *, low=False, suffix=""):
    return [
        Goal(f"{title}, {way}", goal, measure, f"{name}_{way}{suffix}", form, met, low)
        for way in ("up", "down")
    ]


GOALS = [
    *both(
        "50,000 × 4 KiB", "2 × azcopy, 12 × SDK", "small", "small", rate, faster(2, sdk=12)
    ),
    *both("... HTTPS", "1.5 × azcopy", "https", "https", rate, faster(1.5)),
    *both("... at 20 ms", "5 × azcopy", "latency", "latency", rate, faster(5)),
    *both("one of 4 GiB", "ahead of azcopy", "one", "one", mib, ahead),
    *both("... with MD5", "ahead of azcopy", "one_md5", "one_md5", mib, ahead),
    *both("100 × 64 MiB", "ahead of azcopy", "many", "many", mib, ahead),
    *both("... with MD5", "ahead of azcopy", "many_md5", "many_md5", mib, ahead),
    *both(
        "memory, 50,000", "half of azcopy's", "memory", "memory", memory, half_memory, low=True
    ),
    *both(
        "CPU of 10,000", "< 1.5 s", "small", "small", cpu, below(1.5), low=True, suffix="_cpu"
    ),
    Goal(
        *("azure.* in a node, SAS", "none", "modules", "azure_modules", plain),
        *(lambda row: row.ours == 0, True),
    ),
    *both(
        "Azurite, 2,000 × 4 KiB", "level with obstore", "azurite", "azurite", rate,
        level_with_obstore,
    ),
    *both("first byte", "< 300 ms", "first_byte", "first", ms, below(0.3), low=True),
]  # fmt: skip


def goal_rows(results):
    """Yield a row for each goal whose measure was run."""
    for goal in GOALS:
        row = Row(
            results.get(US, goal.name),
            results.get("azcopy", goal.name),
            best_sdk(results, goal),
            results.get("obstore, one process", goal.name),
        )
        if row.ours is None:
            why = results.why(US, goal.measure)
            if why:
                ours = "not yet" if "not there yet" in why else "fails"
                yield goal.title, goal.goal, ours, *map(formed(goal), row[1:]), "-", False
            continue
        ratio = f"{row.ours / row.azcopy:.2f}" if row.azcopy else "-"
        others = map(formed(goal), row[1:])
        yield goal.title, goal.goal, goal.form(row.ours), *others, ratio, goal.met(row)
    yield from growth_rows(results)


def formed(goal):
    return lambda figure: "-" if figure is None else goal.form(figure)


def best_sdk(results, goal):
    found = [
        figure
        for peer in results.peers
        if peer.startswith("azure-storage-blob")
        and (figure := results.get(peer, goal.name)) is not None
    ]
    return (min if goal.low else max)(found) if found else None


def growth_rows(results):
    """Yield the goals that hold azpool against itself."""
    for way in ("up", "down"):
        few, many = (results.get(US, f"{name}_{way}") for name in ("memory", "memory_500k"))
        if few and many:
            told = f"{many / few:.2f} ×"
            yield own(f"memory, 500,000 / 50,000, {way}", "flat (< 1.2)", told, many < 1.2 * few)
    for way in ("up", "down"):
        each = [results.get(US, f"nodes_{way}_{size}") for size in NODES]
        if all(each):
            yield own(f"us a file on 1, 2, 4 nodes, {way}", "falling", steps(each), falls(each))
    for way in ("up", "down"):
        named = sorted(
            (int(name.rpartition("_")[2]), name)
            for name in results.names(US)
            if name.startswith(f"growth_{way}_")
        )
        each = [results.get(US, name) for _, name in named]
        if each:
            counts = f"{named[0][0]:,} to {named[-1][0]:,} files"
            yield own(f"us a file, {counts}, {way}", "falling", steps(each), falls(each))


def own(title, goal, told, met):
    return title, goal, told, "-", "-", "-", "-", met


def steps(each):
    return " → ".join(f"{seconds * 1e6:,.0f}" for seconds in each)


def falls(each):
    """Whether nothing rises by more than runs differ."""
    return all(after <= 1.05 * before for before, after in itertools.pairwise(each))


SHEET = Sheet(
    title="Transfers beside their peers",
    intro="`benchmarks/transfer.py`, all in one run.",
    goal_titles=("work", "goal", "azpool", "azcopy", "SDK", "obstore", "/ azcopy"),
    goal_rows=goal_rows,
    columns=COLUMNS,
    legend=LEGEND,
    peers_title="client",
)

__all__ = ["SHEET", "VERSIONS"]
