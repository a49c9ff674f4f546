"""The tables of `benchmarks/pool.py`: its goals, and what is compared."""

from typing import NamedTuple

from _tables import US, Column, Sheet, memory, ms, percent, plain, rate, times, us

VERSIONS = ("loky", "mpire", "joblib", "ipyparallel", "distributed", "numpy", "azure-storage-blob")

COLUMNS = {
    "Speed": [
        Column("start", "start", "start", ms),
        Column("call", "call", "one call", us),
        Column("single", "single", "one at a time", rate, low=False),
        Column("submitted", "single", "submitted", rate, low=False),
        Column("default", "trivial", "map, default", rate, low=False),
        Column("best", "trivial", "map, best chunk", rate, low=False),
        Column("sleep_default", "sleeping", "sleep, default", times),
        Column("sleep_single", "sleeping", "sleep, one by one", times),
        Column("hundred", "hundred", "100 nodes / 10", times),
    ],
    "State, life and cost": [
        Column("export", "export", "200 MB export", ms),
        Column("export_copies", "export", "copies", plain),
        Column("renew", "renew", "all fresh", ms),
        Column("killed", "killed", "after a kill", ms),
        Column("heavy_ratio", "heavy", "slow import", times),
        Column("idle_pss", "start", "idle worker", memory),
        Column("wakeups", "idle", "wake-ups/s", plain),
        Column("idle_cpu", "idle", "idle CPU", percent),
        Column("import", "importing", "import", ms),
        Column("close", "start", "close", ms),
    ],
}
LEGEND = """\
- start: until all 10 workers have answered. one call: there and back, warm. one at a time: a map
  with chunksize 1; submitted: calls queued one by one, then awaited; integers and `abs`.
- map: 100,000 × `abs`, warm (fewer where a default takes long: the executors, Dask), with default
  chunks and with the best of 500, 2,500, 10,000 and 25,000.
- sleep: items of 1-50 ms, most of them short, as a multiple of the ideal schedule.
- export: until every worker holds the array; peers that hand it to new workers only start those in
  that time. copies: memory added over all processes (PSS), after all have read it, in arrays.
- all fresh: `reset` for azpool, a new pool for the others. after a kill: of an idle worker, until
  all answer again. slow import: a first job whose module imports azure.storage.blob, until all 10
  have run it, in single imports of that module.
- Pools that fork the user's process have its memory, its imports and its array for nothing, and
  its locks and threads too; where that decides, they are not the best peer above.
- idle worker: PSS. wake-ups: voluntary context switches of all threads of all processes.\
"""


def decorate(results, peer, column):
    if column.name == "best" and (chunk := results.get(peer, "best_chunk")):
        return f" ({chunk:,.0f})"
    if column.name == "killed" and "broken" in (results.get(peer, "killed_how") or ""):
        return " (broke)"
    return ""


# --- goals ------------------------------------------------------------------------------------


class Goal(NamedTuple):
    title: str
    goal: str
    name: str
    form: object
    met: object  # (ours, best peer's or None) -> bool
    low: bool = True
    versus: str = ""  # the peers' figure, where it has another name
    but: tuple = ()  # peers that are not compared
    compares: bool = False  # means nothing without a peer


def below(limit):
    return lambda ours, _: ours < limit


FORKS = ("multiprocessing.Pool, fork", "mpire, fork")
GOALS = [
    Goal(
        *("start until all 10 answered", "< 100 ms, ahead of all that do not fork the master"),
        *("start", ms, lambda ours, peer: ours < 0.1 and ours < peer),
        compares=True,
        but=FORKS,
    ),
    Goal(
        *("one call, there and back", "half of the best peer's", "call", us),
        lambda ours, peer: ours <= peer / 2,
        compares=True,
    ),
    Goal(
        *("items one at a time", "ahead of every peer", "single", rate),
        lambda ours, peer: ours > peer,
        compares=True,
        low=False,
    ),
    Goal(
        *("100,000 × abs, default", "ahead of every default", "default", rate),
        lambda ours, peer: ours > peer,
        compares=True,
        low=False,
    ),
    Goal(
        *("100,000 × abs, default", "level with every best chunk", "default", rate),
        lambda ours, peer: ours > 0.95 * peer,
        compares=True,
        low=False,
        versus="best",
    ),
    Goal("sleeping items, skewed", "< 1.05 × ideal", "sleep_default", times, below(1.05)),
    Goal("200 MB to 10 nodes", "< 300 ms", "export", ms, below(0.3), but=FORKS),
    Goal("... memory added", "< 1.3 copies", "export_copies", times, below(1.3), but=FORKS),
    Goal("reset of 10 nodes", "< 60 ms", "renew", ms, below(0.06), but=FORKS),
    Goal("killed node replaced", "< 50 ms", "replaced", ms, below(0.05), versus="killed"),
    Goal("all gone after their killed master", "< 1 s", "gone_killed", ms, below(1)),
    Goal("... after its exit, all busy", "< 1 s", "gone_exit", ms, below(1)),
    Goal("idle node's memory", "< 4 MB", "idle_pss", memory, below(4e6), but=FORKS),
    Goal("idle pool, wake-ups/s", "none", "wakeups", plain, lambda ours, _: ours == 0),
    Goal("idle pool, CPU", "0 %", "idle_cpu", percent, lambda ours, _: ours < 1e-4),
    Goal("slow import on 10", "< 2 × one import", "heavy_ratio", times, below(2), but=FORKS),
    Goal("cost of an item, 10^7 / 10^6", "flat (< 1.2)", "item_growth", times, below(1.2)),
    Goal("100 nodes / 10 nodes", "< 1.5", "hundred", times, below(1.5)),
    Goal("import azpool", "< 60 ms", "import", ms, below(0.06)),
    Goal(
        *("... loads besides itself", "nothing", "import_foreign"),
        *(lambda names: ", ".join(set(names) - {US}) or "nothing", lambda names, _: names == [US]),
    ),
]


def goal_rows(results):
    """Yield (measure, goal, ours, best peer's, whose, met) for what was measured."""
    for goal in GOALS:
        ours = results.get(US, goal.name)
        if ours is None:
            continue
        best = None
        if goal.name != "import_foreign":
            best = results.best_peer(goal.versus or goal.name, low=goal.low, but=goal.but)
        met = None if goal.compares and best is None else goal.met(ours, best and best[0])
        peers = goal.form(best[0]) if best else "-"
        yield goal.title, goal.goal, goal.form(ours), peers, best[1] if best else "", met


SHEET = Sheet(
    title="The pool beside its peers",
    intro="`benchmarks/pool.py`, 10 workers each, all in one run.",
    goal_titles=("measure", "goal", "azpool", "best peer", "which"),
    words=("which",),
    goal_rows=goal_rows,
    columns=COLUMNS,
    legend=LEGEND,
    peers_title="pool",
    decorate=decorate,
)

__all__ = ["SHEET", "VERSIONS"]
