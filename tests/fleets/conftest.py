"""Fleets against the simulator: a pool for each module, and a simulator whose clock runs fast."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from azpool import delete_pool
from azpool.testing.arm import Arm


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


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fleets wait at least 4 s between two polls, which is long where hours pass in seconds.

    They send as many more of them, too.
    """
    monkeypatch.setattr("azpool.fleet._running.POLL_SECONDS", 4 / 8)
    monkeypatch.setattr("azpool.fleet._running.POLLS_PER_SECOND", 25.0 * 8)
