"""Fleets against the simulator: a pool for each module, and a simulator whose clock runs fast."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

sys.path.insert(0, str(Path(__file__).parent))

from typing import TYPE_CHECKING

from azpool import delete_pool
from azpool.testing.arm import Arm

if TYPE_CHECKING:
    from azpool.testing.azurite import Azurite


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    yield
    delete_pool()


@pytest.fixture(scope="module")
def speed() -> float:
    """How fast the clock runs: what takes Azure minutes is over before the first poll."""
    return 600.0


@pytest.fixture
def arm(speed: float) -> Iterator[Arm]:
    with Arm(speed=speed) as arm:
        yield arm
        # The service refuses; it does not break.
        assert arm.broken == []


@pytest.fixture
def kept(azurite: Azurite, container_name: str) -> Iterator[tuple[str, str]]:
    """A container for whole outputs: its address, and a SAS to write and read by."""
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        place = service.create_container(container_name)
        sas = generate_container_sas(
            place.account_name, container_name, account_key=azurite.key,
            permission=ContainerSasPermissions(read=True, add=True, create=True, write=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )  # fmt: skip
        yield place.url, sas
        place.delete_container()


@pytest.fixture(autouse=True)
def _long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what cleans up have the time that a busy machine takes."""
    monkeypatch.setattr("azpool.fleet._running.GRACE_SECONDS", 30.0)


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fleets wait at least 4 s between two polls, which is long where hours pass in seconds.

    They send as many more of them, too.
    """
    monkeypatch.setattr("azpool.fleet._running.POLL_SECONDS", 4 / 8)
    monkeypatch.setattr("azpool.fleet._running.POLLS_PER_SECOND", 25.0 * 8)
