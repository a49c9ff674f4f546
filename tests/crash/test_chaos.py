"""2,000 files and all kinds of bad luck, by a seed, resumed until all is done: no byte wrong."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azpool.storage import Container
from azpool.storage._stores import close_stores
from azpool.storage.plan import PART_BYTES, SMALL_FILE_BYTES
from azpool.testing.azurite import Azurite
from azpool.testing.proxy import CuttingProxy

# What a user's cron job would do: begin, or go on with what was begun; 0 when all is done.
MASTER = """
import sys
from azpool import init_pool
from azpool.storage import Container, RetryOptions, jobs, plan
from azpool.storage.jobs import JobState

plan.VERIFIED_SMALL_FILE_BYTES = plan.SMALL_FILE_BYTES  # smaller files in parts are as good a test
url, direction, sources, dest = sys.argv[1:]
container = Container(url, retry=RetryOptions(attempts=3, first_delay_seconds=0.05))
init_pool(4)
found = []
for job in jobs.jobs():
    if job.state is JobState.UNREADABLE:
        jobs.remove(job.id)
    else:
        found.append(job)
if found:
    report = jobs.resume(found[0].id, container=container)
else:
    move = container.upload_many if direction == "upload" else container.download_many
    report = move(
        sources, dest, journal=True, verify="md5", max_requests_per_second=1500
    )
print(report)
sys.exit(1 if report.failed or report.unknown else 0)
"""
FILES = 2000  # at 1,500 requests a second: 1.3 s at least, however quick the machine is
LEAST_STRIKES = 3  # each way, and so these come soon
ROUGH_ROUNDS = 6
MOST_ROUNDS = 12


def make_files(folder, some):
    for n in range(FILES):
        path = folder / f"d{n % 20}" / f"f {n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(some.randbytes(some.choice([0, 1, 4096, 4096, 4096, 20_000])))
    for n in range(3):
        (folder / f"big{n}").write_bytes(some.randbytes(SMALL_FILE_BYTES + n * PART_BYTES + 7))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def children(pid):
    """Answer the processes that a process has started."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid):
            found.append(int(entry))
    return found


class Chaos:
    """What happens to one transfer; every choice and every moment comes from the seed."""

    def __init__(self, seed, azurite, proxy):
        self.some = random.Random(seed)
        self.azurite = azurite
        self.proxy = proxy
        self.luck = []

    def strike(self, master):
        what = self.some.choices(
            [self.kill_node, self.kill_master, self.cut_all, self.restart], [6, 3, 2, 2]
        )[0]
        self.luck.append(what.__name__)
        what(master)

    def kill_node(self, master):
        nodes = [node for zygote in children(master.pid) for node in children(zygote)]
        if nodes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.some.choice(nodes), signal.SIGKILL)

    def kill_master(self, master):
        master.kill()

    def cut_all(self, master):
        self.proxy.cut_all()

    def restart(self, master):
        """End the server as an operator would, and start it again."""
        self.proxy.target_port = 1  # nothing gets through any more, so that it can end
        self.proxy.cut_all()
        self.azurite.stop()
        self.azurite.start()
        self.proxy.target_port = self.azurite.port

    def run(self, url, direction, sources, dest, folder):
        """Begin, strike, and go on until all is done; answer how often it was begun."""
        before = len(self.luck)
        script = folder / "master.py"
        script.write_text(MASTER)
        for begun in range(1, MOST_ROUNDS + 1):
            with open(folder / f"{direction}{begun}.log", "wb") as log:
                master = subprocess.Popen(
                    [sys.executable, str(script), url, direction, sources, dest],
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                )
            try:
                while begun <= ROUGH_ROUNDS and master.poll() is None:
                    few = len(self.luck) - before < LEAST_STRIKES
                    try:
                        master.wait(self.some.uniform(0.1, 0.4 if few else 1.2))
                    except subprocess.TimeoutExpired:
                        self.strike(master)
                master.wait(60)
            finally:
                master.kill()
                master.wait()
            if master.returncode == 0:
                assert len(self.luck) - before >= LEAST_STRIKES, self.luck
                return begun
        log = (folder / f"{direction}{begun}.log").read_text()
        raise AssertionError(f"not done after {begun} rounds of {self.luck}: {log}")


@pytest.mark.once
@pytest.mark.timeout(180)
def test_every_byte_is_right_whatever_happens(tmp_path, monkeypatch):
    seed = int(os.environ.get("AZPOOL_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"AZPOOL_CHAOS_SEED={seed} repeats these choices")
    began = time.monotonic()
    make_files(tmp_path / "tree", random.Random(seed))
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "state"))
    with (
        Azurite(tmp_path / "log", location=tmp_path / "blobs") as azurite,
        CuttingProxy(azurite.port, seed=seed, cut_share=0.2) as proxy,
    ):
        direct = Container(f"{azurite.blob_url}/data", key=azurite.key)
        direct.create()
        close_stores()  # a connection that is kept alive would hold up the server's end
        monkeypatch.setenv("AZURE_STORAGE_KEY", azurite.key)
        url = f"http://127.0.0.1:{proxy.port}/{azurite.account}/data"
        chaos = Chaos(seed, azurite, proxy)
        rounds = [
            chaos.run(url, "upload", "tree/", "up/", tmp_path),
            chaos.run(url, "download", "up/", "back", tmp_path),
        ]
        print(f"{rounds} rounds, {proxy.cuts} cuts, {chaos.luck}, {time.monotonic() - began:.0f} s")
        assert contents(tmp_path / "back") == contents(tmp_path / "tree")
        assert list((tmp_path / "state").glob("*.journal")) == []
        direct = Container(f"{azurite.blob_url}/data", key=azurite.key)
        assert len(list(direct.list())) == FILES + 3
        close_stores()
    assert not list((tmp_path / "back").rglob(".*.part"))
