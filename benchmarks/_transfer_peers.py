"""The programs that `benchmarks/transfer.py` compares: each turns a job into a command."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Not a secret: the stand-in asks for none, but clients want one to be there.
ANY_SAS = "sv=2024-08-04&ss=b&srt=sco&sp=rwdlac&se=2050-01-01T00:00:00Z&sig=c3RhbmQtaW4%3D"


class NotThere(Exception):
    """A peer can't do this here; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be moved: all of the folder `local` up, or all of the container down."""

    direction: str  # up, down
    url: str  # of the container
    local: str
    count: int
    sas: str = ANY_SAS
    ca_file: str | None = None
    md5: bool = False
    latency_ms: int = 0
    nodes: int | None = None  # azpool's, or as many as it likes
    setting: str = ""  # azcopy's


class Peer:
    """See the module.

    Attributes:
        share: of a measure's files that this peer gets, because it would take too long over all.
        big_share: the same of big files.
        md5: whether it can check what it moves.
    """

    name = ""
    share = 1.0
    big_share = 1.0
    md5 = True

    def missing(self):
        """Say why it can't be had here and how to get it, or None."""

    def command(self, job, folder):
        """Return the command and the variables that it needs besides."""
        raise NotImplementedError

    def seconds(self, run, facts):
        """Return how long the moving took, from what is known of a run."""
        return run.seconds


class Azpool(Peer):
    name = "azpool"

    def command(self, job, folder):
        command = [sys.executable, "-m", "azpool", "cp"]
        if job.nodes:
            command += ["--nodes", str(job.nodes)]
        if job.md5:
            if "--verify" not in help_of_cp():
                raise NotThere("not there yet: `azpool cp` has no --verify")
            command += ["--verify", "md5"]
        up = job.direction == "up"
        command += [f"{job.local}/", f"{job.url}/"] if up else [f"{job.url}/", job.local]
        variables = {"AZURE_STORAGE_SAS_TOKEN": job.sas}
        if job.ca_file:
            variables["SSL_CERT_FILE"] = job.ca_file
        return command, variables


@lru_cache
def help_of_cp():
    """What `azpool cp --help` says: which options there are."""
    command = [sys.executable, "-m", "azpool", "cp", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@lru_cache
def has_journal():
    command = [sys.executable, "-m", "azpool", "jobs", "--help"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Azcopy(Peer):
    """azcopy at the best of some settings: `_transfer_measures.py` tries them."""

    name = "azcopy"
    settings = {  # noqa: RUF012 - a constant
        "as it comes": ({}, ()),
        "no length check": ({}, ("--check-length=false",)),
        "no length check, 8 connections": (
            {"AZCOPY_CONCURRENCY_VALUE": "8"},
            ("--check-length=false",),
        ),
        "no length check, 128 connections": (
            {"AZCOPY_CONCURRENCY_VALUE": "128"},
            ("--check-length=false",),
        ),
    }

    def missing(self):
        program = find_azcopy()
        how = "`make bench` installs it, or name one in AZCOPY"
        if program is None:
            return f"azcopy is not installed; {how}"
        try:
            done = subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=False
            )
        except OSError as error:
            return f"azcopy does not run ({error}); {how}"
        if done.returncode == 0:
            return None
        last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        return (
            f"azcopy does not run ({last[0]}); it needs libsecret: "
            "as root: apt-get install libsecret-1-0"
        )

    def command(self, job, folder):
        variables, flags = self.settings[job.setting or "no length check"]
        address = f"{job.url}?{job.sas}"
        up = job.direction == "up"
        places = [job.local, address] if up else [address, job.local]
        if job.md5:
            flags = (*flags, "--put-md5" if up else "--check-md5=FailIfDifferent")
        elif not up:
            flags = (*flags, "--check-md5=NoCheck")
        command = [find_azcopy(), "copy", *places, *flags, "--recursive"]
        # By the URL alone it doesn't know a blob service on a loopback address.
        command += [f"--from-to={'LocalBlob' if up else 'BlobLocal'}"]
        command += ["--log-level=NONE", "--output-level=essential"]
        places = {
            "AZCOPY_LOG_LOCATION": f"{folder}/azcopy-log",
            "AZCOPY_JOB_PLAN_LOCATION": f"{folder}/azcopy-plan",
            "AZCOPY_DISABLE_SYSLOG": "true",
        }
        if job.ca_file:
            places["SSL_CERT_FILE"] = job.ca_file
        return command, {**places, **variables}

    def seconds(self, run, facts):
        # It looks every 2 s whether all is done. That wait is not held against it.
        return min(run.seconds, facts["last"] - run.began) if facts else run.seconds


def find_azcopy():
    """Find azcopy: $AZCOPY, PATH, then `.tools/azcopy`, where `make bench` puts it."""
    named = os.environ.get("AZCOPY") or shutil.which("azcopy")
    if named:
        return named
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    inside = f"node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_{machine}"
    found = HERE.parent / ".tools" / "azcopy" / inside
    return str(found) if found.exists() else None


class Client(Peer):
    """A library in one process, as its users call it."""

    kind = module = ""

    def __init__(self, threads):
        self.threads = threads

    def threads_for(self, job):
        return self.threads

    def missing(self):
        try:
            found = find_spec(self.module)
        except ImportError:
            found = None
        return None if found else f"{self.module} is not installed; pip install azpool[bench]"

    def command(self, job, folder):
        details = json.dumps({**asdict(job), "threads": self.threads_for(job)})
        return [sys.executable, str(HERE / "_transfer_clients.py"), self.kind, details], {}

    def seconds(self, run, facts):
        return json.loads(run.said.strip().splitlines()[-1])["seconds"]


class Sdk(Client):
    kind, module = "sdk", "azure.storage.blob"
    share = 0.1
    big_share = 0.25

    def __init__(self, threads):
        super().__init__(threads)
        self.name = f"azure-storage-blob, {threads} threads"


class Obstore(Client):
    kind = module = "obstore"
    name = "obstore, one process"
    md5 = False

    def threads_for(self, job):
        # Of 10, 32 and 64 threads, 64 were the fastest at 20 ms and 32 seldom slower elsewhere.
        return 64 if job.latency_ms else 32


def make_peers():
    """Return the peers by name, azpool first."""
    found = [Azpool(), Azcopy(), Sdk(10), Sdk(32), Obstore(32)]
    return {peer.name: peer for peer in found}


__all__ = [
    "ANY_SAS",
    "Azcopy",
    "Azpool",
    "Job",
    "NotThere",
    "Peer",
    "Sdk",
    "find_azcopy",
    "has_journal",
    "make_peers",
]
