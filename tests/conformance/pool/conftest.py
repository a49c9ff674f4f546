"""The suite of pools runs once with each starter: all tests of a module on pools of that kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", params=["zygote", "spawn"], autouse=True)
def starter(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the pools of this module start their nodes, unless they say otherwise."""
    os.environ["AZPOOL_START"] = request.param
    yield request.param
    del os.environ["AZPOOL_START"]
