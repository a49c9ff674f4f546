"""The one seam between the commands and `azpool.storage`: tests put a fake `Storage` here.

Everything of azpool.storage and azpool.pool that the CLI uses goes through this file.
"""

from __future__ import annotations

import os
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from azpool._cores import nodes_for
from azpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    import typer

    from azpool.cli._options import Auth
    from azpool.report import Report
    from azpool.storage.outcome import ProgressCallable

__all__ = ["AzureStorage", "Container", "Endpoint", "Listed", "Storage", "storage_of"]


# What every node would import for its first file: 10 imports on 2 cores take a second, one and
# its 10 forks a tenth of that.
PRELOAD = ("azpool.storage._on_node",)
WARM = "azpool-warm"  # the thread that makes a pool


class Listed(Protocol):
    """A blob (which has `size_bytes`) or a folder."""

    @property
    def name(self) -> str: ...


class PlannedFile(Protocol):
    """What would become of one file."""

    @property
    def source(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def action(self) -> str: ...

    @property
    def reason(self) -> str: ...


class Plan(Protocol):
    """What the commands need of the answer to `dry_run=True`."""

    title: str
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[PlannedFile]: ...

    def __len__(self) -> int: ...

    @property
    def counts(self) -> dict[str, int]: ...

    @property
    def size_bytes(self) -> int: ...


class Container(Protocol):
    """What the commands need of `azpool.storage.Container`.

    With `dry_run` the answer of `upload_many` and `download_many` is a `Plan`; their other options
    are `pool`, `progress`, `journal`, and the fields of `azpool.storage.options.TransferOptions`.
    """

    @property
    def upload_many(self) -> Callable[..., Any]: ...

    @property
    def download_many(self) -> Callable[..., Any]: ...

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[Listed]: ...

    def delete(self, names: Sequence[str], *, progress: ProgressCallable) -> Report[Any] | None: ...

    def create(self) -> None: ...

    def remove(self) -> None: ...


class JobState(Protocol):
    """One of running, interrupted, failed, unreadable."""

    @property
    def value(self) -> str: ...


class JobInfo(Protocol):
    """What the commands need of `azpool.storage.jobs.JobInfo`, which explains each."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def state(self) -> JobState: ...
    @property
    def direction(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def dest(self) -> str: ...
    @property
    def cwd(self) -> str: ...
    @property
    def started(self) -> datetime | None: ...
    @property
    def planned(self) -> bool: ...
    @property
    def files_total(self) -> int: ...
    @property
    def files_done(self) -> int: ...
    @property
    def files_failed(self) -> int: ...
    @property
    def files_skipped(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...
    @property
    def bytes_done(self) -> int: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def problem(self) -> str: ...


class Jobs(Protocol):
    """What the commands need of `azpool.storage.jobs`."""

    def all(self) -> Sequence[JobInfo]: ...

    def find(self, job_id: str) -> JobInfo: ...

    def report(self, job_id: str) -> Report[Any]: ...

    def resume(
        self, job_id: str, auth: Auth, *, check: bool, pool: Any, progress: ProgressCallable
    ) -> Report[Any]: ...

    def remove(self, job_id: str) -> None: ...


class Endpoint(Protocol):
    """What the commands need of `azpool.storage.Endpoint`."""

    def list_containers(self) -> Iterator[str]: ...


class Storage(Protocol):
    """How the commands reach containers, accounts and nodes."""

    def container(self, url: str, auth: Auth) -> Container: ...

    def endpoint(self, url: str | None, auth: Auth) -> Endpoint: ...

    def pool(self, nodes: int | None, *, wanted: bool) -> Any:
        """Begin to start a pool, and answer what `upload_many` takes for it; never waits.

        Args:
            nodes: its size, or None: as many as keep this machine's cores busy.
            wanted: whether one is needed for sure; else it is left to the engine.
        """

    def journal_fault(self) -> str:
        """Say why no journal can be kept, or ""."""

    def jobs(self) -> Jobs: ...


class AzureStorage:
    """The real one."""

    def container(self, url: str, auth: Auth) -> Container:
        from azpool.storage import Container

        return Container(url, **auth.arguments())

    def endpoint(self, url: str | None, auth: Auth) -> Endpoint:
        from azpool.storage import Endpoint

        return Endpoint(url, **auth.arguments())

    def pool(self, nodes: int | None, *, wanted: bool) -> Any:
        if nodes is None and not wanted:
            return None
        early = _early.pop() if _early else None
        if early is not None and nodes is None:
            return early
        return _pool_of(nodes)

    def begin_pool(self) -> None:
        """Begin the pool that `pool` will be asked for."""
        _early.append(_pool_of(None))

    def journal_fault(self) -> str:
        from azpool.storage.journal import state_folder

        folder = state_folder()
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            return f"no folder {folder!r} for its journal: {error.strerror}"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"the folder {folder!r} of journals can't be written"
        return ""

    def jobs(self) -> Jobs:
        return StoredJobs()


class StoredJobs:
    """The jobs of this user's state folder."""

    def all(self) -> Sequence[JobInfo]:
        from azpool.storage.jobs import jobs

        return jobs()

    def find(self, job_id: str) -> JobInfo:
        from azpool.storage.jobs import job

        try:
            return job(job_id)
        except UsageError as error:  # it names the function that lists them
            raise UsageError(str(error).replace("jobs() lists", "azpool jobs lists")) from error

    def report(self, job_id: str) -> Report[Any]:
        from azpool.storage.jobs import report

        return report(job_id)

    def resume(
        self, job_id: str, auth: Auth, *, check: bool, pool: Any, progress: ProgressCallable
    ) -> Report[Any]:
        from azpool.storage.jobs import resume

        return resume(job_id, check=check, pool=pool, progress=progress, **auth.arguments())

    def remove(self, job_id: str) -> None:
        from azpool.storage.jobs import remove

        remove(job_id)


def _begin() -> None:
    """Start the zygote, and load what a pool is made of while that starts."""
    from azpool.pool import session
    from azpool.pool.engines import launch

    if not session.pool_exists():
        launch.begin()
    # Not by the thread that makes the pool: two threads that import only wait for one another.
    import_module("azpool.pool.pool")


_early: list[LatePool] = []


def _pool_of(nodes: int | None) -> LatePool:
    _begin()
    return LatePool(nodes or nodes_for(len(os.sched_getaffinity(0))))


class LatePool:
    """A pool of a size that starts while the plan is made: only who uses it waits for it."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._pool: Any = None
        self._error: Exception | None = None
        # Not a daemon: an interpreter that ends waits for it, so that no half pool is left.
        self._thread = threading.Thread(target=self._start, name=WARM)
        self._thread.start()

    def _start(self) -> None:
        from azpool.pool.session import init_pool

        try:
            self._pool = init_pool(self._nodes, preload=list(PRELOAD))
        except Exception as error:
            self._error = error

    @property
    def size(self) -> int:
        return self._nodes

    def __getattr__(self, name: str) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return getattr(self._pool, name)


def storage_of(ctx: typer.Context) -> Storage:
    """Answer what this command works on: the caller's of `main`, else the real one."""
    storage: Storage = ctx.obj if ctx.obj is not None else AzureStorage()
    return storage
