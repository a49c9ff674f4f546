"""A simulator whose clock only polls of operations move, and the official clients."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, NamedTuple

import pytest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.core.rest import HttpRequest
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient

from azpool.testing.arm import Arm, _limits

POLL_SECONDS = 5  # of simulated time that pass at each poll of an operation


class Answered(NamedTuple):
    """One answer that came to a client."""

    method: str
    url: str
    status: int
    headers: Any
    body: Any


class Watch(SansIOHTTPPolicy):
    """Keeps answers, and lets simulated time pass at each poll of an operation."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def on_request(self, request):
        if "/operations/" in request.http_request.url:
            self.bench.advance(POLL_SECONDS)

    def on_response(self, request, response):
        answer = response.http_response
        answer.read()
        text = answer.text()
        asked = request.http_request
        self.bench.answers.append(
            Answered(
                asked.method,
                asked.url,
                answer.status_code,
                answer.headers,
                json.loads(text) if text else None,
            )
        )


class Bench:
    """A simulator with one Uniform scale set and one machine, and clients that look at it."""

    def __init__(self, arm: Arm) -> None:
        self.sim, self.world = arm, arm.world
        self.answers: list[Answered] = []
        scale_set = arm.scale_set("crew", 3, public=True)
        lone = arm.vm("lone", tags={"role": "worker"}, public=True, allocation="Dynamic")
        self._machines = {"uniform instance": scale_set.machines["0"], "virtual machine": lone}
        self.ids = {kind: machine.id for kind, machine in self._machines.items()}
        self._clients: list[Any] = []

    def _client(self, kind):
        arm = self.sim
        options = arm.client_options | {"per_call_policies": [Watch(self)], "polling_interval": 0}
        client = kind(arm.credential, arm.subscription, **options)
        self._clients.append(client)
        return client

    @cached_property
    def compute(self):
        return self._client(ComputeManagementClient)

    @cached_property
    def network(self):
        return self._client(NetworkManagementClient)

    @cached_property
    def resources(self):
        return self._client(ResourceManagementClient)

    def close(self):
        for client in self._clients:
            client.close()

    @property
    def settings(self):
        return self.sim.run_commands

    @property
    def operations(self):
        return self.world.operations

    def machine(self, kind):
        return self._machines[kind]

    def advance(self, seconds):
        self.sim.advance(seconds)

    def last(self, method):
        return next(one for one in reversed(self.answers) if one.method == method)

    def ask(self, url, method="GET", **more):
        """Send a request as it is, with the client's token."""
        self.compute._client.send_request(HttpRequest(method, url, **more))
        return self.last(method)


@pytest.fixture
def no_refill(monkeypatch):
    """Have no bucket gain anything, so that a machine that stalls changes no count."""
    monkeypatch.setattr(_limits._Bucket, "refill", lambda bucket, now: None)


@pytest.fixture
def arm():
    with Arm(speed=0) as simulator:
        bench = Bench(simulator)
        yield bench
        bench.close()
        # The service refuses; it does not break.
        assert simulator.broken == []
