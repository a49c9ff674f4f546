"""The suite of pools runs with each kind of node: all tests of a module on pools of that kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", params=["zygote", "spawn", "inline"], autouse=True)
def starter(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the pools of this module start their nodes, unless they say otherwise."""
    inline = request.param == "inline"
    variable = "AZPOOL_ENGINE" if inline else "AZPOOL_START"
    os.environ[variable] = request.param
    yield request.param
    del os.environ[variable]


@pytest.fixture(autouse=True)
def _skip_what_cannot_apply(request: pytest.FixtureRequest, starter: str) -> None:
    """Skip tests marked `needs_processes(reason)` where nodes are objects of the master."""
    mark = request.node.get_closest_marker("needs_processes")
    if mark is not None and starter == "inline":
        pytest.skip(f"nodes are not processes: {mark.args[0]}")
