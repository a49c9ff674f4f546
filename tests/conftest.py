"""What every test gets: Azurite, a fresh container, and a look at what it left behind.

After each test no process, thread, file descriptor or file may be left over. A module whose tests
share a pool marks them `pytest.mark.may_leave("processes", "threads", "fds")`; they are then
checked once, after the module.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.internal.conjecture import engine as hypothesis_engine

from azpool.testing.azurite import Azurite
from azpool.testing.leaks import KINDS, Leaks, Snapshot, mark_processes, temporary_files_in

ROOT = Path(__file__).resolve().parent.parent

# Beside pytest's own cache, not in whatever the working directory is.
CACHE = ROOT / ".pytest_cache" / "hypothesis"
set_hypothesis_home_dir(CACHE)
settings.register_profile(
    "azpool",
    # A loaded machine is slow, not wrong: a hung example is the timeout's business.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=DirectoryBasedExampleDatabase(CACHE / "examples"),
    print_blob=True,
)
settings.load_profile("azpool")

# Shrinking may take minutes, and then the timeout hides what failed. There is no setting for it.
hypothesis_engine.MAX_SHRINKING_SECONDS = 20

# The environment that azpool reads must be the tests' own, not the developer's.
KEPT = ("AZPOOL_AZURITE_DIR", "AZPOOL_LEAKS_", "AZPOOL_CHAOS_")
for name in [*os.environ]:
    if name.startswith(("AZURE_", "AZPOOL_")) and not name.startswith(KEPT):
        del os.environ[name]
# Typer and rich look at these; a terminal's width and colours must not decide over a test.
for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "PY_COLORS"):
    os.environ.pop(name, None)


# What these folders hold tests Python the most; of the Pythons between the default and the newest
# no other tests are run.
ON_EVERY_PYTHON = ("unit", "conformance", "crash")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(ROOT / "tests").parts[0] not in ON_EVERY_PYTHON:
            item.add_marker(pytest.mark.outer)


class Watch:
    """Compares what is there with what was there, less what the session's fixtures hold."""

    def __init__(self, folder: Path) -> None:
        self.marker = mark_processes()
        self.folders = (folder,)
        self.expected = Snapshot(frozenset(), frozenset(), frozenset(), frozenset())

    def look(self) -> Snapshot:
        return Snapshot.take(self.marker, self.folders)

    def leaks_since(self, before: Snapshot, kinds: tuple[str, ...] = KINDS) -> Leaks:
        base = before | self.expected
        return Snapshot.take_settled(base, marker=self.marker, folders=self.folders, kinds=kinds)

    def expect_what_is_new_since(self, before: Snapshot) -> None:
        """Count what a session's fixture has started as no leak of the test that came first."""
        now = self.look()
        self.expected |= Snapshot(
            processes=now.processes - before.processes,
            threads=now.threads - before.threads,
            fds=now.fds - before.fds,
            files=now.files - before.files,
        )


@pytest.fixture(scope="session")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """The session's watch; its folder is the working directory and takes temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    with temporary_files_in(folder), contextlib.chdir(folder):
        yield Watch(folder)


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing(watch: Watch) -> Iterator[None]:
    before = watch.look()
    yield
    leaks = watch.leaks_since(before)
    assert not leaks, leaks


@pytest.fixture(autouse=True)
def _test_leaves_nothing(
    request: pytest.FixtureRequest, watch: Watch, _module_leaves_nothing: None
) -> Iterator[None]:
    allowed = {kind for mark in request.node.iter_markers("may_leave") for kind in mark.args}
    assert allowed <= set(KINDS), f"may_leave takes {KINDS}, not {allowed}"
    before = watch.look()
    yield
    kinds = tuple(kind for kind in KINDS if kind not in allowed)
    if kinds:
        leaks = watch.leaks_since(before, kinds)
        assert not leaks, leaks


@pytest.fixture(scope="session")
def azurite(watch: Watch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One Azurite for the session, in memory; use `container` for a place of one's own."""
    before = watch.look()
    with Azurite(tmp_path_factory.mktemp("azurite")) as service:
        watch.expect_what_is_new_since(before)
        yield service


@pytest.fixture
def container_name() -> str:
    """A container name that no other test uses; the container doesn't exist."""
    return f"test-{secrets.token_hex(8)}"


@pytest.fixture
def azure_environment(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that points azpool at Azurite, for this test and what it starts."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)


@pytest.fixture
def container(azurite: Azurite, container_name: str):
    """A fresh, empty container of azpool, removed after the test."""
    from azpool.storage import Container

    place = Container(f"{azurite.blob_url}/{container_name}", key=azurite.key)
    place.create()
    yield place
    place.remove()
