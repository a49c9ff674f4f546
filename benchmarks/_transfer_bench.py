"""What the measures of `benchmarks/transfer.py` stand on: files, a server, and one move of them.

Files are made once a run, in memory, in the folder that TRANSFER_SHARED names. A move that was not
whole is no figure: what came is compared with what was to come, on the server or on the disk.
"""

import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import _transfer_work as work_of
from _stand_in import StandIn, md5_of_zeros
from _transfer_peers import Azcopy, Job

MIB = 1024**2
LONG_BYTES = MIB  # files from here on are all holes, and their MD5 is made beforehand
IN_A_FOLDER = 1000
SHARED = Path(os.environ.get("TRANSFER_SHARED") or tempfile.gettempdir())


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Files to move, and how the server is.

    Attributes:
        kind: of azcopy's settings: those that are best for other work may not be for this.
        latency_ms: before each answer.
        per_second: how many requests for data the server takes; it refuses the others. 0 is all.
    """

    count: int
    size_bytes: int = 4096
    kind: str = "small"
    latency_ms: int = 0
    md5: bool = False
    secure: bool = False
    per_second: int = 0

    @property
    def container(self):
        latency = f"-l{self.latency_ms}" if self.latency_ms else ""
        return f"n{self.count}-s{self.size_bytes}{latency}{'-m' if self.md5 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One move: seconds as the peer's figures count them, the whole command's, and its costs."""

    seconds: float
    command_seconds: float
    cpu_seconds: float
    peak_bytes: int
    first_seconds: float  # from the command's start to the first request for data
    refused: int
    left_running: int


class Bench(ExitStack):
    """A server, and moves of one kind of work to and from it."""

    def __init__(self, peer, work, *, limit_seconds=240):
        super().__init__()
        self.peer = peer
        self.work = work
        self.limit_seconds = limit_seconds

    def __enter__(self):
        super().__enter__()
        work = self.work
        self.folder = Path(self.enter_context(tempfile.TemporaryDirectory()))
        digests = {work.size_bytes: digest_of(work.size_bytes)} if work.md5 else {}
        self.server = self.enter_context(
            StandIn(self.folder / "stand-in", secure=work.secure, digests=digests)
        )
        if work.per_second:
            self.server.set_rule(per_second=work.per_second)
        return self

    def move(self, direction, *, nodes=None, sample=False, setting=None):
        """Move everything in one direction."""
        if setting is None and isinstance(self.peer, Azcopy):
            setting = chosen_setting(self.work.kind, direction)
        target = self.folder / "target"
        local = target if direction == "down" else source_of(self.work)
        target.mkdir()
        if direction == "down":
            warm(target, self.work.count * self.work.size_bytes)
        job = Job(
            direction=direction,
            url=self.server.url(self.work.container),
            local=str(local),
            count=self.work.count,
            ca_file=self.server.ca_file,
            md5=self.work.md5,
            latency_ms=self.work.latency_ms,
            nodes=nodes,
            setting=setting or "",
        )
        try:
            command, variables = self.peer.command(job, self.folder)
            self.server.forget()
            ran = work_of.run(
                command,
                environment(self.folder, variables),
                self.folder,
                server_pid=self.server.pid,
                limit_seconds=self.limit_seconds,
                sample=sample,
            )
            facts = self.server.facts()
            self._check(direction, target, facts, ran)
        finally:
            shutil.rmtree(target)
        return Moved(
            seconds=self.peer.seconds(ran, facts),
            command_seconds=ran.seconds,
            cpu_seconds=ran.cpu_seconds,
            peak_bytes=ran.peak_bytes,
            first_seconds=facts["first_data"] - ran.began,
            refused=int(facts["refused"]),
            left_running=ran.left_running,
        )

    def _check(self, direction, target, facts, ran):
        work = self.work
        expected = work.count, work.count * work.size_bytes
        if direction == "up":
            found = int(facts["puts"] + facts["commits"]), int(facts["bytes_in"])
            whole = found[0] == expected[0] and found[1] >= expected[1]
        else:
            found = found_in(target)
            whole = found == expected
        if not whole:
            raise RuntimeError(
                f"{found[0]:,} files and {found[1]:,} bytes came, of {expected[0]:,} and "
                f"{expected[1]:,}: {' '.join(ran.said.split())[-200:]}"
            )


def environment(folder, variables):
    """Return this process's environment without what steers clients, all state in `folder`."""
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("AZURE_", "AZCOPY_", "AZPOOL_")) and "proxy" not in name.lower()
    }
    home = str(folder / "home")
    os.makedirs(home, exist_ok=True)
    names = ("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    return {**kept, **dict.fromkeys(names, home), "TERM": "dumb", **variables}


def warm(folder, size_bytes):
    """Touch as much memory as will be written: the first touch of a page costs a virtual machine up
    to four times what the later ones do, which would meet whoever comes first.
    """
    chunk = bytes(MIB)
    path = folder / "warm"
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size_bytes, MIB):
            file.write(chunk)
    path.unlink()


# --- files ------------------------------------------------------------------------------------


def source_of(work):
    """Return the folder with the files to send; make it if this run has none yet."""
    folder = SHARED / f"source-{work.count}-{work.size_bytes}"
    if folder.exists():
        return folder
    half_made = folder.with_suffix(".new")
    shutil.rmtree(half_made, ignore_errors=True)
    content = os.urandom(work.size_bytes) if work.size_bytes < LONG_BYTES else b""
    for index in range(work.count):
        if index % IN_A_FOLDER == 0:
            inner = half_made / f"d{index // IN_A_FOLDER:04}"
            inner.mkdir(parents=True)
        descriptor = os.open(f"{inner}/f{index:07}.bin", os.O_WRONLY | os.O_CREAT)
        if content:
            os.write(descriptor, content)
        else:
            os.truncate(descriptor, work.size_bytes)
        os.close(descriptor)
    half_made.rename(folder)
    return folder


def found_in(folder):
    """Return how many whole files there are, and their bytes."""
    files = size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            files += 1
            size += os.stat(f"{where}/{name}").st_size
    return files, size


def digest_of(size_bytes):
    """Return the MD5 of a blob of the stand-in, which one run makes once."""
    kept = SHARED / f"md5-{size_bytes}"
    if not kept.exists():
        kept.write_text(md5_of_zeros(size_bytes))
    return kept.read_text()


# --- azcopy's best setting --------------------------------------------------------------------

TRIALS = {
    "small": Work(count=10_000),
    "latency": Work(count=2_000, latency_ms=20, kind="latency"),
    "big": Work(count=1, size_bytes=1024 * MIB, kind="big"),
}


def choose_settings():
    """Try azcopy's settings on less of each kind of work, in both directions; keep the fastest."""
    peer, best = Azcopy(), {}
    for kind, work in TRIALS.items():
        with Bench(peer, work) as bench:
            for direction in ("up", "down"):
                seconds = {
                    name: bench.move(direction, setting=name).seconds for name in peer.settings
                }
                best[f"{kind} {direction}"] = min(seconds, key=seconds.get)
    (SHARED / "azcopy.json").write_text(json.dumps(best))
    return best


def chosen_setting(kind, direction):
    kept = SHARED / "azcopy.json"
    return json.loads(kept.read_text())[f"{kind} {direction}"] if kept.exists() else None


__all__ = ["MIB", "Bench", "Moved", "Work", "choose_settings", "environment", "source_of"]
