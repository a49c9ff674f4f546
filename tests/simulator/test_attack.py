"""Crowds, odd requests and sudden ends: the simulator refuses, and never breaks or hangs."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import random
import ssl
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azpool.testing.arm import Arm
from azpool.testing.arm._filters import matching
from azpool.testing.arm._routes import ArmError, Request, find

THREADS, REQUESTS = 12, 80
WORDS = """name tagName tagValue resourceType resourceGroup location and or eq ne ( ) , substringof
startswith 'a' '' ' lone"""
NAMES = st.sampled_from(WORDS.split())


class Caller:
    """One kept connection, with a token."""

    def __init__(self, arm):
        context = ssl.create_default_context(cafile=arm.ca_file)
        address = arm.url.removeprefix("https://")
        self.connection = http.client.HTTPSConnection(address, context=context, timeout=30)
        token = arm.credential.get_token(*arm.scopes).token
        self.headers = {"Authorization": f"Bearer {token}"}
        self.base = (
            f"/subscriptions/{arm.subscription}/resourceGroups/workers/providers/Microsoft.Compute"
        )

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body)
        target = f"{self.base}/{path}?api-version=2026-04-01"
        self.connection.request(method, target, data, self.headers)
        with self.connection.getresponse() as answer:
            text = answer.read()
        return answer.status, json.loads(text) if text else None


def something(rng):
    """One request of many kinds, at instances and names that are there or not."""
    instance = f"virtualMachineScaleSets/crew/virtualMachines/{rng.randrange(40)}"
    extension = {"publisher": "p", "type": "t", "typeHandlerVersion": str(rng.random())}
    return rng.choice(
        [
            ("POST", f"{instance}/restart", None),
            ("POST", f"{instance}/reimageall", None),
            ("GET", f"{instance}/instanceView", None),
            ("DELETE", instance, None),
            (
                "PUT",
                f"{instance}/runCommands/c{rng.randrange(30)}",
                {"location": "x", "properties": {"source": {"script": f"exit {rng.randrange(9)}"}}},
            ),
            ("DELETE", f"{instance}/runCommands/c{rng.randrange(30)}", None),
            ("POST", f"{instance}/runCommand", {"commandId": "RunShellScript", "script": ["true"]}),
            ("GET", f"{instance}/networkInterfaces", None),
            ("PUT", f"{instance}/extensions/e", {"properties": extension}),
            ("POST", "virtualMachineScaleSets/crew/start", {"instanceIds": ["*"]}),
            (
                "POST",
                "virtualMachineScaleSets/crew/deallocate",
                {"instanceIds": [str(rng.randrange(40)) for _ in range(4)]},
            ),
            ("PUT", "virtualMachineScaleSets/crew/extensions/m", {"properties": extension}),
            ("POST", "virtualMachineScaleSets/crew/manualupgrade", {"instanceIds": ["*"]}),
            (
                "PATCH",
                "virtualMachineScaleSets/crew",
                {"sku": {"capacity": rng.randrange(25, 35)}},
            ),
            ("GET", "virtualMachineScaleSets/crew/virtualMachines", None),
        ]
    )


def test_crowd_of_requests_breaks_nothing_and_leaves_nothing_under_way():
    with Arm(speed=2000) as arm:
        scale_set = arm.scale_set("crew", 30, public=True, data_disks=1)
        told = [collections.Counter() for _ in range(THREADS)]  # one each: adding is no single step

        def run(seed):
            rng, caller, statuses = random.Random(seed), Caller(arm), told[seed]
            for _ in range(REQUESTS):
                status, body = caller.ask(*something(rng))
                statuses[status] += 1
                if status >= 400:
                    assert body["error"]["code"], body
                    assert body["error"]["message"], body
            caller.connection.close()

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sum(told, collections.Counter())
        assert sum(statuses.values()) == THREADS * REQUESTS == len(arm.requests)
        assert max(statuses) < 500
        assert {200, 202, 409} <= set(statuses)
        assert arm.broken == []
        assert arm.connections == THREADS
        arm.advance(10_000)
        with arm.world.lock:
            assert scale_set.busy is None
            assert {one.status for one in arm.world.operations.all.values()} == {"Succeeded"}
            for machine in scale_set.machines.values():
                assert machine.busy is None
                assert machine.provisioning == "Succeeded"
                assert machine.power in {"running", "deallocated"}
            # What belongs to machines that are gone is gone with them.
            disks = [one for one in arm.world.resources if "/disks/" in one]
            assert len(disks) == 2 * len(scale_set.machines)


def test_stop_in_the_middle_of_a_crowd_ends_all_of_it():
    arm = Arm(speed=100).start()
    arm.scale_set("crew", 30)
    begun = threading.Barrier(THREADS + 1)
    broken = []

    def run(seed):
        rng, caller = random.Random(seed), Caller(arm)
        caller.ask(*something(rng))
        begun.wait(30)
        try:
            while True:
                caller.ask(*something(rng))
        except (OSError, http.client.HTTPException):
            caller.connection.close()
        except Exception as error:
            broken.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    begun.wait(30)
    arm.stop()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert broken == []
    assert arm.broken == []


@given(st.lists(NAMES, max_size=9).map(" ".join) | st.text(max_size=30))
def test_any_filter_is_read_or_refused_in_arms_words(text):
    with contextlib.suppress(ArmError):
        test, _ = matching(text)
        one = {"id": "/subscriptions/s/resourceGroups/g/x", "name": "lone", "tags": {"a": "b"}}
        assert test(one) in (True, False)


def test_deeply_nested_filter_is_refused():
    matching("(" * 50 + "name eq 'a'" + ")" * 50)
    with pytest.raises(ArmError) as caught:
        matching("(" * 5000 + "name eq 'a'" + ")" * 5000)
    assert caught.value.code == "InvalidFilterInQueryString"


FIELDS = """source script parameters protectedParameters timeoutInSeconds asyncExecution publisher
treatFailureAsDeploymentFailure hardwareProfile vmSize type typeHandlerVersion settings instanceView
provisioningState capacity name value"""
KEYS = st.sampled_from(FIELDS.split())
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "*", "0", "RunShellScript", "echo a", "sleep 1", "eastus"])
    | st.text(max_size=5)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=8,
)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "source": VALUES | st.just({"script": "sleep 5"}),
        "parameters": VALUES | st.lists(VALUES, max_size=3),
        "timeoutInSeconds": VALUES,
        "hardwareProfile": VALUES | st.fixed_dictionaries({"vmSize": VALUES}),
        "publisher": VALUES,
        "type": VALUES,
        "typeHandlerVersion": VALUES,
        "outputBlobUri": st.just("") | st.none(),
        "treatFailureAsDeploymentFailure": VALUES,
    },
)
BODIES = LEAVES | st.fixed_dictionaries(
    {},
    optional={
        "location": VALUES | st.just("eastus"),
        "tags": VALUES,
        "properties": PROPERTIES | PROPERTIES | VALUES,
        "sku": VALUES | st.fixed_dictionaries({"capacity": VALUES, "name": VALUES}),
        "instanceIds": VALUES | st.lists(VALUES, max_size=3),
        "commandId": VALUES | st.just("RunShellScript"),
        "script": VALUES,
        "parameters": VALUES,
    },
)
BASE = f"/subscriptions/{'0' * 8}/resourceGroups/g/providers/Microsoft.Compute"
CHANGING = [
    (method, f"{owner}/{path}")
    for owner in ("virtualMachines/lone", "virtualMachineScaleSets/crew/virtualMachines/0")
    for method, path in (
        ("PUT", "runCommands/c"),
        ("PATCH", "runCommands/known"),
        ("POST", "runCommand"),
        ("PUT", "extensions/e"),
        ("PATCH", "extensions/known"),
        ("POST", "start"),
        ("POST", "reimage"),
    )
]
CHANGING += [
    ("PUT", "virtualMachines/new"),
    ("PATCH", "virtualMachines/lone"),
    ("PATCH", "virtualMachineScaleSets/crew"),
    ("PUT", "virtualMachineScaleSets/crew/virtualMachines/0"),
    ("PUT", "virtualMachineScaleSets/crew/extensions/e"),
    ("POST", "virtualMachineScaleSets/crew/start"),
    ("POST", "virtualMachineScaleSets/crew/delete"),
    ("POST", "virtualMachineScaleSets/crew/manualupgrade"),
]
GOOD = {
    "location": "eastus",
    "properties": {"publisher": "p", "type": "t", "typeHandlerVersion": "1"},
}


@settings(max_examples=300)
@given(st.sampled_from(CHANGING), BODIES)
def test_any_body_is_taken_or_refused(call, body):
    arm = Arm(speed=0, subscription="0" * 8, group="g")
    arm.scale_set("crew", 2)
    arm.vm("lone")
    machines = ("virtualMachines/lone", "virtualMachineScaleSets/crew/virtualMachines/0")
    script = {"location": "eastus", "properties": {"source": {"script": "true"}}}
    for owner in machines:
        answer(arm, "PUT", f"{owner}/runCommands/known", script)
        answer(arm, "PUT", f"{owner}/extensions/known", GOOD)
    arm.advance(1000)
    status = answer(arm, *call, body)
    assert 200 <= status < 500
    arm.advance(10_000)
    # Whatever was taken can be read afterwards.
    for owner in machines:
        for part in ("", "/instanceView", "/runCommands", "/extensions"):
            assert answer(arm, "GET", f"{owner}{part}") in (200, 404)
    assert answer(arm, "GET", "virtualMachineScaleSets/crew") == 200


def answer(arm, method, path, body=None):
    handler, params = find(method, f"{BASE}/{path}")
    request = Request(method=method, path=f"{BASE}/{path}", params=params, body=body)
    request.query = {"$expand": "instanceView"} if method == "GET" else {}
    try:
        reply = handler(arm.world, request)
    except ArmError as error:
        reply = error.reply()
    json.loads(reply.encoded() or b"null")
    return reply.status
