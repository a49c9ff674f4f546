"""The token endpoint that azure-identity's credentials ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from azpool.testing.tokens import TokenEndpoint


@pytest.fixture
def endpoint(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TokenEndpoint]:
    """The endpoint of a managed identity, in this process's environment; a parameter says which."""
    with TokenEndpoint() as endpoint:
        environ = endpoint.environ
        if getattr(request, "param", "") == "app service":
            environ = endpoint.app_service_environ
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield endpoint
