"""Show azpool at work: what `make demo` runs.

Starts Azurite (the official emulator of Azure Storage) on a free loopback port, makes 2,000 small
files, moves them up and down with the command line on a pool of 10 nodes, verifies every byte, does
the same work one file at a time, and shows both side by side. Whatever it started is stopped and
whatever it wrote is removed, also after Ctrl-C or a failure.

    python scripts/demo.py [--files 2000] [--size 4096] [--nodes 10] [--whole]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from azpool.errors import AzpoolError
from azpool.storage import Container
from azpool.testing.azurite import Azurite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

BAR_WIDTH = 34
OTHER_COLUMNS = 60
CHILD_GRACE_SECONDS = 10.0
DEMO_SECONDS = 17.0  # `make demo` is promised to take under 20 s
AT_LEAST_SECONDS = 2.0


class DemoFailed(Exception):
    """A step of the demo went wrong; its text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what."""

    files: int
    size_bytes: int
    nodes: int
    whole: bool = False

    @property
    def total_mib(self) -> float:
        return self.files * self.size_bytes / 2**20


@dataclass(slots=True)
class Times:
    """Seconds of each way, pool and one at a time."""

    began: float = field(default_factory=time.perf_counter)
    pool: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    """How many files one at a time came to; with fewer than all, `alone` is reckoned."""


def main() -> int:
    plan = _arguments()
    console = Console(stderr=False, highlight=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        times = run(console, plan)
    except KeyboardInterrupt:
        console.print("[bold]stopped[/]; what was started is ended, what was written is removed")
        return 130
    except (DemoFailed, AzpoolError) as error:
        console.print(Text.assemble(("demo: ", "bold red"), str(error)))
        return 1
    console.print(result_table(plan, times, console.width))
    return 0


def _arguments() -> Plan:
    parser = argparse.ArgumentParser(description="Show azpool at work against Azurite.")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--size", type=int, default=4096, help="bytes of each file")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument(
        "--whole", action="store_true", help="one at a time to the end, however long it takes"
    )
    given = parser.parse_args()
    if min(given.files, given.nodes) < 1 or given.size < 0:
        parser.error("--files and --nodes are at least 1, --size at least 0")
    return Plan(files=given.files, size_bytes=given.size, nodes=given.nodes, whole=given.whole)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(console: Console, plan: Plan) -> Times:
    """Do all the steps; everything that is started here ends here."""
    times = Times()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="azpool-demo-")))
        with console.status("starting Azurite and making the files"):
            azurite = stack.enter_context(Azurite(folder / "azurite"))
            names = make_files(folder / "files", plan)
            wanted = digests(folder / "files", names)
        console.print(
            f"Azurite listens on 127.0.0.1:{azurite.port}; made {plan.files:,} files, "
            f"{plan.total_mib:.1f} MiB\n"
        )
        with_pool(console, plan, azurite, folder, times)
        check(wanted, folder / "down", names)
        moved = one_at_a_time(console, plan, azurite, folder, names, times)
        check(wanted[:moved], folder / "alone", names[:moved])
    return times


def make_files(folder: Path, plan: Plan) -> list[str]:
    """Make the files in 20 folders, of bytes that no compression shortens; answer their names."""
    # Always the same bytes: two runs move the same files.
    source = random.Random(2000)
    names = [f"{number % 20:02d}/{number:05d}.bin" for number in range(plan.files)]
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(plan.size_bytes))
    return names


def digests(folder: Path, names: Iterable[str]) -> list[bytes]:
    return [hashlib.sha256((folder / name).read_bytes()).digest() for name in names]


def check(wanted: list[bytes], folder: Path, names: list[str]) -> None:
    """Compare every byte that came back with what was sent, and see that nothing else came."""
    found = sum(path.is_file() for path in folder.rglob("*"))
    if found != len(names):
        raise DemoFailed(f"cannot verify: {found:,} files came back, not {len(names):,}")
    different = sum(a != b for a, b in zip(wanted, digests(folder, names), strict=True))
    if different:
        raise DemoFailed(f"cannot verify: {different:,} files differ")


def with_pool(console: Console, plan: Plan, azurite: Azurite, folder: Path, times: Times) -> None:
    """Move everything up and down with the command line, as a user would."""
    environment = os.environ | {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    nodes = str(plan.nodes)
    steps = {
        "": ("mb", "az://demo"),
        "up": ("cp", "--nodes", nodes, "files/", "az://demo/"),
        "down": ("cp", "--nodes", nodes, "az://demo/", "down/"),
    }
    for way, arguments in steps.items():
        console.print(Text(f"$ azpool {' '.join(arguments)}", "dim"))
        began = time.perf_counter()
        _azpool(console, folder, environment, *arguments)
        times.pool[way] = time.perf_counter() - began


def _azpool(console: Console, folder: Path, environment: dict[str, str], *arguments: str) -> None:
    """Run the real command on this terminal; it ends before this returns, whatever happens."""
    console.file.flush()
    command = [sys.executable, "-m", "azpool", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment) as child:
        try:
            code = child.wait()
        except BaseException:
            _await_the_end(child)
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code != 0:
        raise DemoFailed(f"cannot go on: azpool {arguments[0]} ended with exit code {code}")


def _await_the_end(child: subprocess.Popen[bytes]) -> None:
    # Ctrl-C on a terminal reaches the child too, which says what it did; a kill does not.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(0.5)
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(CHILD_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def one_at_a_time(
    console: Console,
    plan: Plan,
    azurite: Azurite,
    folder: Path,
    names: list[str],
    times: Times,
) -> int:
    """Do the same work in a loop of this process, over one connection.

    On a slow machine it is broken off when the demo's time is used up (unless `--whole`) and the
    rest reckoned at the same pace; the table says so. Answers how many files came down.
    """
    up = Container(f"{azurite.blob_url}/alone", key=azurite.key)
    up.create()
    # What the pool has sent up is there as a whole, however far this gets.
    down = Container(f"{azurite.blob_url}/demo", key=azurite.key)
    console.print(Text("\nthe same, one file at a time", "dim"))
    work: dict[str, Callable[[str], Any]] = {
        "up": lambda name: up.upload(str(folder / "files" / name), name),
        "down": lambda name: down.download(name, str(folder / "alone" / name)),
    }
    moved = 0
    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
        for way, move in work.items():
            task = progress.add_task(f"{'↑' if way == 'up' else '↓'} {way:<4}", total=len(names))
            began = time.perf_counter()
            left = max(AT_LEAST_SECONDS, times.began + DEMO_SECONDS - began)
            deadline = began + (left / 2 if way == "up" else left)
            moved = 0
            for name in names:
                move(name)
                moved += 1
                progress.advance(task)
                if time.perf_counter() > deadline and not plan.whole:
                    break
            times.moved[way] = moved
            times.alone[way] = (time.perf_counter() - began) * len(names) / moved
    return moved


def result_table(plan: Plan, times: Times, width: int = 100) -> Panel:
    """Draw both ways side by side, with bars as long as they took."""
    bar_width = max(8, min(BAR_WIDTH, width - OTHER_COLUMNS))
    longest = max(times.pool["up"], times.pool["down"], *times.alone.values())
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for header in ("", "", "seconds", "files/s"):
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    table.add_column("", width=bar_width)
    table.add_column("faster", justify="right", no_wrap=True)
    whole = {way: moved == plan.files for way, moved in times.moved.items()}
    subtitle = "wall clock, the start of each command included"
    if not all(whole.values()):
        counts = " and ".join(f"{times.moved[way]:,} {way}" for way in whole if not whole[way])
        subtitle = f"≈ from the first {counts}: --whole moves all of them"
    for way, arrow in (("up", "↑"), ("down", "↓")):
        pool, alone = times.pool[way], times.alone[way]
        rows = ((f"pool of {plan.nodes}", pool, "green"), ("one at a time", alone, "yellow"))
        table.add_row()
        for who, seconds, style in rows:
            first = seconds is pool
            table.add_row(
                Text(f"{arrow} {way}" if first else "", "bold"),
                Text(who, style),
                Text(
                    f"{'' if first or whole[way] else '≈ '}{seconds:.2f}", "bold" if first else ""
                ),
                Text(f"{plan.files / seconds:,.0f}", "bold" if first else ""),
                Text("━" * max(1, round(bar_width * seconds / longest)), style),
                Text(f"{alone / pool:.1f} x" if first else "", "bold green"),
            )
    return Panel(
        table,
        box=box.ROUNDED,
        border_style="dim",
        padding=(1, 2),
        expand=False,
        title=f"[bold]{plan.files:,} files of {plan.size_bytes:,} bytes, every byte verified",
        subtitle=f"[dim]{subtitle}",
    )


if __name__ == "__main__":
    sys.exit(main())
