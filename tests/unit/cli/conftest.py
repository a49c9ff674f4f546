"""A storage that keeps blobs in a dict and fails as told, put behind the CLI's one seam."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from azpool.cli._app import main
from azpool.cli._options import Auth
from azpool.errors import Conflict, NotFound
from azpool.report import Report, State
from azpool.storage.outcome import FileOutcome, Progress
from azpool.storage.store import BlobInfo, Prefix

Calls: TypeAlias = list[tuple[Any, ...]]


@dataclass
class FakeContainer:
    """Blobs in a dict; `failures` says which source fails, and with what."""

    blobs: dict[str, int] = field(default_factory=dict)
    failures: Mapping[str, BaseException] = field(default_factory=dict)
    raises: BaseException | None = None
    exists: bool = True
    calls: Calls = field(default_factory=list)
    during: Callable[[int], None] = lambda number: None

    def upload_many(self, sources: Any, dest: str = "", **options: Any) -> Report[FileOutcome]:
        self.calls.append(("upload_many", sources, dest, options))
        return self._move([sources] if isinstance(sources, str) else sources, **options)

    def download_many(self, sources: Any, dest: str, **options: Any) -> Report[FileOutcome]:
        self.calls.append(("download_many", sources, dest, options))
        return self._move([sources] if isinstance(sources, str) else sources, **options)

    def delete(self, names: Any, *, progress: Any = None) -> Report[FileOutcome]:
        self.calls.append(("delete", names))
        report = self._move([names] if isinstance(names, str) else names, progress=progress)
        for outcome in report.ok:
            self.blobs.pop(outcome.name, None)
        return report

    def _move(self, names: list[str], *, progress: Any, **_: Any) -> Report[FileOutcome]:
        if self.raises is not None:
            raise self.raises
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
                bytes_moved=0 if error else 4096,
                size_bytes=4096,
            )
            outcomes.append(outcome)
            progress(
                Progress(
                    files_done=index + 1,
                    files_failed=sum(o.error is not None for o in outcomes),
                    files_total=len(names),
                    bytes_done=sum(o.bytes_moved for o in outcomes),
                    bytes_total=4096 * len(names),
                    current=name,
                    ended=(outcome,),
                )
            )
            self.during(index)
        return Report(outcomes, title="upload")

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
    pools: list[int] = field(default_factory=list)

    def container(self, url: str, auth: Auth) -> FakeContainer:
        self.asked.append((url, auth))
        return self.one

    def endpoint(self, url: str | None, auth: Auth) -> FakeStorage:
        self.asked.append((url, auth))
        return self

    def list_containers(self) -> Iterator[str]:
        yield from self.names

    def pool(self, nodes: int) -> object:
        self.pools.append(nodes)
        return f"pool of {nodes}"


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
