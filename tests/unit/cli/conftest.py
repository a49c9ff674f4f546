"""A storage that keeps blobs in a dict and fails as told, put behind the CLI's one seam."""

from __future__ import annotations

import io
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from azpool.cli._app import main
from azpool.cli._options import Auth
from azpool.errors import Conflict, LocalFileError, NotFound, UsageError
from azpool.report import Report, State
from azpool.storage._dry_run import PlannedFile
from azpool.storage.jobs import JobInfo, JobState
from azpool.storage.outcome import FileOutcome, Progress
from azpool.storage.store import BlobInfo, Prefix

Calls: TypeAlias = list[tuple[Any, ...]]


JOB_ID = "3f2a91bc"


@pytest.fixture(autouse=True)
def _interrupts_as_before() -> Iterator[None]:
    """A command that was interrupted ignores Ctrl-C from then on: its process is about to end."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


class FakePlan(list[PlannedFile]):
    """What `dry_run=True` answers."""

    notes = ("a note",)

    def __init__(self, title: str, planned: Sequence[PlannedFile]) -> None:
        super().__init__(planned)
        self.title = title

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(one.action for one in self))

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self if one.action == self.title)


@dataclass
class FakeContainer:
    """Blobs in a dict; `failures` says which source fails, and with what."""

    blobs: dict[str, int] = field(default_factory=dict)
    failures: Mapping[str, BaseException] = field(default_factory=dict)
    raises: BaseException | None = None
    exists: bool = True
    calls: Calls = field(default_factory=list)
    during: Callable[[int], None] = lambda number: None
    planned: Sequence[PlannedFile] = ()
    size_bytes: int = 4096

    def upload_many(self, sources: Any, dest: str = "", **options: Any) -> Any:
        self.calls.append(("upload_many", sources, dest, options))
        return self._answer("upload", sources, options)

    def download_many(self, sources: Any, dest: str, **options: Any) -> Any:
        self.calls.append(("download_many", sources, dest, options))
        return self._answer("download", sources, options)

    def _answer(self, verb: str, sources: Any, options: dict[str, Any]) -> Any:
        if options.get("dry_run"):
            return FakePlan(verb, self.planned)
        return self._move([sources] if isinstance(sources, str) else sources, **options)

    def delete(self, names: Any, *, progress: Any = None) -> Report[FileOutcome]:
        self.calls.append(("delete", names))
        report = self._move([names] if isinstance(names, str) else names, progress=progress)
        for outcome in report.ok:
            self.blobs.pop(outcome.name, None)
        return report

    def _move(
        self, names: list[str], *, progress: Any, journal: Any = None, **_: Any
    ) -> Report[FileOutcome]:
        if self.raises is not None:
            raise self.raises
        job = JOB_ID if journal else ""
        outcomes: list[FileOutcome] = []
        for index, name in enumerate(names):
            error = self.failures.get(name)
            outcome = FileOutcome(
                index=index,
                name=name,
                source=name,
                target=f"to/{name}",
                state=State.OK if error is None else State.FAILED,
                error=error,
                seconds=0.01,
                bytes_moved=0 if error else self.size_bytes,
                size_bytes=self.size_bytes,
            )
            outcomes.append(outcome)
            progress(
                Progress(
                    files_done=index + 1,
                    files_failed=sum(o.error is not None for o in outcomes),
                    files_total=len(names),
                    bytes_done=sum(o.bytes_moved for o in outcomes),
                    bytes_total=self.size_bytes * len(names),
                    current=name,
                    ended=(outcome,),
                    job=job,
                )
            )
            self.during(index)
        kept = (
            [f"the job {job} is kept in 'x': resume it, or remove it"]
            if job and self.failures
            else []
        )
        return Report(outcomes, title="upload", notes=kept)

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[BlobInfo | Prefix]:
        self.calls.append(("list", prefix, recursive))
        if not self.exists:
            raise NotFound("cannot list 'demo': no such container (404); azpool mb az://demo")
        folders = set()
        for name in sorted(self.blobs):
            if not name.startswith(prefix):
                continue
            head, slash, _ = name[len(prefix) :].partition("/")
            if slash and not recursive:
                if head not in folders:
                    folders.add(head)
                    yield Prefix(f"{prefix}{head}/")
            else:
                yield blob(name, self.blobs[name])

    def create(self) -> None:
        if self.exists:
            raise Conflict(
                "cannot make 'demo': it exists already (409)", code="ContainerAlreadyExists"
            )
        self.exists = True

    def remove(self) -> None:
        self.exists = False
        self.blobs.clear()


def blob(name: str, size_bytes: int) -> BlobInfo:
    return BlobInfo(
        name=name,
        size_bytes=size_bytes,
        etag="0x1",
        last_modified=None,
        md5=None,
        content_type="text/plain",
        metadata={},
    )


@dataclass
class FakeStorage:
    """One account with one container; remembers how it was asked."""

    one: FakeContainer = field(default_factory=FakeContainer)
    names: tuple[str, ...] = ("demo", "logs")
    asked: list[tuple[str | None, Auth]] = field(default_factory=list)
    pools: list[tuple[int | None, bool]] = field(default_factory=list)
    fault: str = ""

    def __post_init__(self) -> None:
        self.kept = FakeJobs(self.one)

    def container(self, url: str, auth: Auth) -> FakeContainer:
        self.asked.append((url, auth))
        return self.one

    def endpoint(self, url: str | None, auth: Auth) -> FakeStorage:
        self.asked.append((url, auth))
        return self

    def list_containers(self) -> Iterator[str]:
        yield from self.names

    def pool(self, nodes: int | None, *, wanted: bool) -> object:
        self.pools.append((nodes, wanted))
        return None if nodes is None else f"pool of {nodes}"

    def journal_fault(self) -> str:
        return self.fault

    def jobs(self) -> FakeJobs:
        return self.kept


@dataclass
class FakeJobs:
    """Jobs in a list; a resume moves what `one` says."""

    one: FakeContainer
    infos: list[JobInfo] = field(default_factory=list)
    failures: list[FileOutcome] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    resumed: list[tuple[str, Auth, bool, object]] = field(default_factory=list)

    def all(self) -> list[JobInfo]:
        return self.infos

    def find(self, job_id: str) -> JobInfo:
        for info in self.infos:
            if info.id.startswith(job_id):
                return info
        raise UsageError(f"cannot find the job {job_id!r}: azpool jobs lists those there are")

    def report(self, job_id: str) -> Report[FileOutcome]:
        return Report(self.failures)

    def resume(
        self, job_id: str, auth: Auth, *, check: bool, pool: object, progress: Any
    ) -> Report[FileOutcome]:
        self.resumed.append((job_id, auth, check, pool))
        return self.one._move(["a", "b", "c"], progress=progress, journal=True)

    def remove(self, job_id: str) -> None:
        if self.find(job_id).state is JobState.RUNNING:
            raise LocalFileError(f"cannot use the journal {job_id!r}: process 7 works on it")
        self.removed.append(job_id)


@dataclass
class Ended:
    """How one command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


@pytest.fixture
def azpool(
    storage: FakeStorage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Run one command in this process, on the fake storage."""
    for name in ("NO_COLOR", "FORCE_COLOR", "AZPOOL_DEBUG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, answer: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = main(list(arguments), storage=storage)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(int(code), captured.out, captured.err)

    return run
