"""The simulator's door: tokens, versions, JSON, limits, faults, permissions, its own life."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.mgmt.compute import ComputeManagementClient

from azpool.errors import UsageError
from azpool.testing.arm import Arm, ArmCredential, Limits
from azpool.testing.arm._routes import ArmError, Request

GROUP, SET, VM = "workers", "crew", "lone"
PATH = f"/subscriptions/{{subscription}}/resourceGroups/{GROUP}/providers/Microsoft.Compute"


@pytest.fixture
def client():
    """A function: a compute client of a simulator; closed at the end."""
    made = []

    def make(arm, credential=None, **more):
        options = arm.client_options | more
        one = ComputeManagementClient(credential or arm.credential, arm.subscription, **options)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


class Wire:
    """One TLS connection, and what is sent on it as it is."""

    def __init__(self, arm):
        self.arm = arm
        host, port = arm.url.removeprefix("https://").split(":")
        context = ssl.create_default_context(cafile=arm.ca_file)
        plain = socket.create_connection((host, int(port)), 10)
        self.sock = context.wrap_socket(plain, server_hostname=host)
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def ask(self, method, target, headers=(), body=b""):
        token = self.arm.credential.get_token(*self.arm.scopes).token
        given = {"Host": "x", "Authorization": f"Bearer {token}", "Content-Length": len(body)}
        given |= dict(headers)
        lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
        self.send("\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode() + body)
        return self.answer()

    def answer(self):
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        data = self.file.read(int(headers.get("content-length", 0)))
        return status, headers, json.loads(data) if data else None

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture
def sim():
    with Arm(speed=0) as arm:
        arm.scale_set(SET, 3)
        arm.vm(VM)
        yield arm
        assert arm.broken == []


@pytest.fixture
def wire(sim):
    one = Wire(sim)
    yield one
    one.close()


@pytest.fixture
def path(sim):
    return PATH.format(subscription=sim.subscription)


VERSION = "?api-version=2026-04-01"


def test_answers_carry_the_headers_that_were_recorded(wire, path):
    status, headers, body = wire.ask("GET", f"{path}/virtualMachines/{VM}{VERSION}")
    assert (status, body["name"]) == (200, VM)
    assert headers["content-type"] == "application/json; charset=utf-8"
    for name, value in (
        ("cache-control", "no-cache"),
        ("pragma", "no-cache"),
        ("expires", "-1"),
        ("x-content-type-options", "nosniff"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ):
        assert headers[name] == value
    for name in ("x-ms-request-id", "x-ms-correlation-request-id", "date"):
        assert headers[name]


def test_correlation_id_that_is_sent_comes_back(wire, path):
    _, headers, _ = wire.ask(
        "GET", f"{path}/virtualMachines{VERSION}", {"x-ms-correlation-request-id": "mine"}
    )
    assert headers["x-ms-correlation-request-id"] == "mine"
    assert headers["x-ms-request-id"] != "mine"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "AuthenticationFailed"),
        ("Basic abc", "AuthenticationFailed"),
        ("Bearer", "AuthenticationFailed"),
        ("Bearer x.y", "InvalidAuthenticationToken"),
        ("Bearer x.y.z", "InvalidAuthenticationToken"),
        ("Bearer a.W10.c", "InvalidAuthenticationToken"),
        ("Bearer a.e30.c", "ExpiredAuthenticationToken"),
        ("Bearer a.\N{LATIN SMALL LETTER E WITH ACUTE}.c", "InvalidAuthenticationToken"),
    ],
)
def test_request_without_a_good_token_is_unauthorized(wire, path, header, code):
    status, headers, body = wire.ask(
        "GET", f"{path}/virtualMachines{VERSION}", {"Authorization": header}
    )
    assert (status, body["error"]["code"]) == (401, code)
    assert headers["www-authenticate"].startswith("Bearer ")


def test_expired_and_foreign_tokens_are_refused_to_the_official_client(sim, client):
    expired = client(sim, ArmCredential(life_seconds=-10))
    with pytest.raises(ClientAuthenticationError) as caught:
        expired.virtual_machines.get(GROUP, VM)
    assert caught.value.error.code == "ExpiredAuthenticationToken"
    foreign = client(sim, credential_scopes=["https://vault.azure.net/.default"])
    with pytest.raises(ClientAuthenticationError) as caught:
        foreign.virtual_machines.get(GROUP, VM)
    assert caught.value.error.code == "InvalidAuthenticationTokenAudience"


def test_client_without_the_ca_does_not_trust_the_simulator(sim, client):
    with pytest.raises(ServiceRequestError):
        client(sim, connection_verify=True).virtual_machines.get(GROUP, VM)


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "{path}/virtualMachines", 400, "MissingApiVersionParameter"),
        ("GET", "/" + VERSION, 404, "NotFound"),
        ("GET", "//" + VERSION, 404, "NotFound"),
        ("GET", "/subscriptions" + VERSION, 404, "NotFound"),
        ("GET", "{path}/unheardOf/x/y/z/w" + VERSION, 404, "InvalidResourceType"),
        ("PATCH", "{path}/virtualMachines" + VERSION, 404, "InvalidResourceType"),
        ("POST", "{path}/virtualMachines/lone/fly" + VERSION, 404, "InvalidResourceType"),
        ("GET", "{path}/virtualMachines/nobody" + VERSION, 404, "ResourceNotFound"),
        ("GET", "{path}/virtualMachines/%2e%2e" + VERSION, 404, "ResourceNotFound"),
        ("GET", "{path}/virtualMachines" + VERSION + "&$skiptoken=-1", 400, "InvalidSkipToken"),
        ("GET", "{path}/virtualMachines" + VERSION + "&$filter=x", 400, "BadRequest"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_arms_form(wire, path, method, target, status, code):
    got, _, body = wire.ask(method, target.format(path=path))
    assert (got, body["error"]["code"]) == (status, code)
    assert body["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"a": }', b"\0"],
)
def test_body_that_is_no_json_is_refused_and_the_connection_goes_on(wire, path, body):
    target = f"{path}/virtualMachineScaleSets/{SET}/start{VERSION}"
    status, _, answer = wire.ask("POST", target, body=body)
    assert (status, answer["error"]["code"]) == (400, "InvalidRequestContent")
    assert wire.ask("GET", f"{path}/virtualMachines{VERSION}")[0] == 200


@pytest.mark.parametrize("body", ["[]", "1", '"x"', "null", "true"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "virtualMachineScaleSets/crew/start"),
        ("POST", "virtualMachineScaleSets/crew/manualupgrade"),
        ("PATCH", "virtualMachineScaleSets/crew"),
        ("PATCH", "virtualMachines/lone"),
        ("PUT", "virtualMachines/other"),
        ("PUT", "virtualMachines/lone/runCommands/c"),
        ("PUT", "virtualMachines/lone/extensions/e"),
        ("PUT", "virtualMachineScaleSets/crew/extensions/e"),
        ("POST", "virtualMachines/lone/runCommand"),
    ],
)
def test_json_of_another_shape_never_breaks_the_simulator(sim, path, method, target, body):
    wire = Wire(sim)
    status, _, _ = wire.ask(method, f"{path}/{target}{VERSION}", body=body.encode())
    wire.close()
    assert status < 500


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": "4194305"}, 413),
        ({"Content-Length": "many"}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": None, "Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_body_of_no_good_length_ends_the_connection(wire, path, headers, status):
    got, answered, _ = wire.ask("POST", f"{path}/virtualMachines/{VM}/start{VERSION}", headers)
    assert (got, answered["connection"]) == (status, "close")
    assert wire.file.read() == b""


def test_what_is_no_http_at_all_harms_nobody(sim, client):
    plain = socket.create_connection(("127.0.0.1", int(sim.url.rpartition(":")[2])), 10)
    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
    wire = Wire(sim)
    wire.send(b"\x16\x03\x01 nonsense\r\n\r\n")
    half = Wire(sim)
    half.send(b"POST /x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    half.close()
    assert client(sim).virtual_machines.get(GROUP, VM).name == VM
    wire.close()
    plain.close()


def test_faults_refuse_lose_and_cut_as_often_as_they_are_told(sim, client):
    machines = client(sim).virtual_machines
    rule = sim.faults.refuse(
        "GET", "*/virtualmachines/*", 429, "TooManyRequests", "Slow.", retry_after="7", times=2
    )
    for _ in range(2):
        with pytest.raises(HttpResponseError) as caught:
            machines.get(GROUP, VM)
        assert caught.value.response.headers["Retry-After"] == "7"
    machines.get(GROUP, VM)
    assert rule.applied == 2
    sim.faults.lose("POST", "*/deallocate", handled=False)
    with pytest.raises((ServiceResponseError, ServiceRequestError)):
        machines.begin_deallocate(GROUP, VM)
    assert machines.instance_view(GROUP, VM).statuses[1].code == "PowerState/running"
    sim.faults.lose("POST", "*/deallocate", handled=True)
    with pytest.raises((ServiceResponseError, ServiceRequestError)):
        machines.begin_deallocate(GROUP, VM)
    assert machines.instance_view(GROUP, VM).statuses[1].code == "PowerState/deallocating"
    assert [one.status for one in sim.requests if one.path.endswith("/deallocate")] == [0, 0]


def test_same_seed_fails_the_same_requests(client):
    def run(seed):
        with Arm(speed=0) as arm:
            arm.vm(VM)
            arm.faults.refuse("GET", "*", share=0.4, seed=seed)
            machines = client(arm).virtual_machines
            found = []
            for _ in range(30):
                try:
                    machines.get(GROUP, VM)
                    found.append(200)
                except HttpResponseError as error:
                    found.append(error.status_code)
            return found

    first = run(3)
    assert set(first) == {200, 500}
    assert run(3) == first
    assert run(4) != first


def test_principal_without_permission_is_forbidden_for_that_alone(sim, client, path):
    sim.deny(f"{path}/virtualMachines/{VM}", "stranger")
    stranger = client(sim, ArmCredential("stranger"))
    with pytest.raises(HttpResponseError) as caught:
        stranger.virtual_machines.begin_start(GROUP, VM)
    assert (caught.value.status_code, caught.value.error.code) == (403, "AuthorizationFailed")
    assert "'Microsoft.Compute/virtualMachines/start/action'" in caught.value.error.message
    assert stranger.virtual_machine_scale_sets.get(GROUP, SET).name == SET
    assert client(sim).virtual_machines.get(GROUP, VM).name == VM


def test_locked_machine_may_be_read_alone(sim, client, path):
    sim.lock(f"{path}/virtualMachines/{VM}")
    machines = client(sim).virtual_machines
    assert machines.get(GROUP, VM).name == VM
    with pytest.raises(HttpResponseError) as caught:
        machines.begin_delete(GROUP, VM)
    assert (caught.value.status_code, caught.value.error.code) == (409, "ScopeLocked")


def test_bucket_fills_in_real_time_and_holds_no_more_than_it_can():
    limits = Limits(buckets={"reads": (3, 0.5)}, policies=())

    def left(now):
        asked = Request(method="GET", path="/", headers={}, target="/")
        return limits.take(asked, "one", now)["x-ms-ratelimit-remaining-subscription-reads"]

    assert [left(now) for now in (100.0, 100.0, 100.0)] == ["2", "1", "0"]
    with pytest.raises(ArmError) as caught:
        left(101.0)
    assert caught.value.reply().headers["Retry-After"] == "1"
    assert [left(now) for now in (102.0, 1000.0)] == ["0", "2"]


@pytest.mark.usefixtures("no_refill")
def test_buckets_count_by_subscription_principal_and_kind(client):
    limits = Limits(buckets={"reads": (3, 0.01), "writes": (1, 0.01)}, policies=())
    with Arm(speed=0, limits=limits) as arm:
        arm.vm(VM)
        other = "00000000-0000-0000-0000-00000000000b"
        arm.vm(VM, subscription=other)
        machines = client(arm).virtual_machines
        left = []
        for _ in range(3):
            machines.get(GROUP, VM, cls=lambda raw, *_: left.append(raw.http_response.headers))
        name = "x-ms-ratelimit-remaining-subscription-reads"
        assert [one[name] for one in left] == ["2", "1", "0"]
        with pytest.raises(HttpResponseError) as caught:
            machines.get(GROUP, VM)
        assert caught.value.status_code == 429
        assert caught.value.error.code == "SubscriptionRequestsThrottled"
        assert int(caught.value.response.headers["Retry-After"]) == 100
        machines.begin_start(GROUP, VM, polling=False)  # another kind
        client(arm, ArmCredential("another")).virtual_machines.get(GROUP, VM)
        elsewhere = ComputeManagementClient(arm.credential, other, **arm.client_options)
        assert elsewhere.virtual_machines.get(GROUP, VM).name == VM
        elsewhere.close()


@pytest.mark.usefixtures("no_refill")
def test_limits_may_hold_in_one_subscription_alone(client):
    other = "00000000-0000-0000-0000-00000000000b"
    limits = Limits(buckets={"reads": (1, 0.01)}, policies=(), subscriptions=frozenset([other]))
    with Arm(speed=0, limits=limits) as arm:
        arm.vm(VM)
        arm.vm(VM, subscription=other)
        machines = client(arm).virtual_machines
        assert [machines.get(GROUP, VM).name for _ in range(5)] == [VM] * 5
        with ComputeManagementClient(arm.credential, other, **arm.client_options) as elsewhere:
            elsewhere.virtual_machines.get(GROUP, VM)
            with pytest.raises(HttpResponseError, match="SubscriptionRequestsThrottled"):
                elsewhere.virtual_machines.get(GROUP, VM)


@pytest.mark.usefixtures("no_refill")
def test_computes_own_policy_limits_one_machine_and_names_itself(client):
    with Arm(speed=0, limits=Limits()) as arm:
        arm.vm(VM)
        arm.vm("second")
        machines = client(arm).virtual_machines
        seen = []
        for number in range(12):
            machines.begin_update(
                GROUP,
                VM,
                {"tags": {"n": str(number)}},
                polling=False,
                raw_response_hook=lambda raw: seen.append(raw.http_response.headers),
            )
            arm.advance(60)
        assert (
            seen[0]["x-ms-ratelimit-remaining-resource"]
            == "Microsoft.Compute/UpdateVMSubscriptionMaximum;1499,"
            "Microsoft.Compute/UpdateVMResource;11"
        )
        with pytest.raises(HttpResponseError) as caught:
            machines.begin_start(GROUP, VM)
        error = caught.value.error
        assert (caught.value.status_code, error.code) == (429, "OperationNotAllowed")
        assert error.details[0].target == "UpdateVMResource"
        # "Bucket refill rate": 4 a minute.
        assert caught.value.response.headers["Retry-After"] == "15"
        machines.begin_start(GROUP, "second", polling=False)


@pytest.mark.usefixtures("no_refill")
def test_operation_may_be_asked_for_45_times_in_three_minutes(wire, path):
    arm = wire.arm
    _, headers, _ = wire.ask("POST", f"{path}/virtualMachines/{VM}/start{VERSION}")
    where = headers["azure-asyncoperation"].removeprefix(arm.url)
    arm.limits = Limits()
    answers = [wire.ask("GET", where) for _ in range(46)]
    assert [status for status, *_ in answers] == [200] * 45 + [429]
    left = answers[0][1]["x-ms-ratelimit-remaining-resource"]
    assert left == (
        "Microsoft.Compute/GetOperationSubscriptionMaximum;14999,"
        "Microsoft.Compute/GetOperationResource;44"
    )
    assert answers[-1][1]["retry-after"] == "4"
    assert answers[-1][1]["x-ms-ratelimit-remaining-resource"].endswith("GetOperationResource;0")


def test_an_answer_takes_its_time_of_which_the_work_is_a_part(client):
    waits = []

    class Closing(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return False

    with Arm(latency_seconds=0.5) as arm:
        arm.vm(VM)
        machines = client(arm).virtual_machines
        began = time.monotonic()
        machines.get(GROUP, VM)
        assert time.monotonic() - began >= 0.5
        arm._service.closing = Closing()
        arm.latency_seconds = 1000
        machines.get(GROUP, VM)
        before, after = waits
        assert 499 < before <= 500
        assert 990 < after < 1000  # what the answer took was taken off


def test_stop_cuts_waiting_requests_and_ends_at_once(client):
    arm = Arm(latency_seconds=200).start()
    arm.vm(VM)
    machines = client(arm).virtual_machines
    caught = []

    def ask():
        try:
            machines.get(GROUP, VM)
        except (ServiceRequestError, ServiceResponseError, HttpResponseError) as error:
            caught.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    idle = Wire(arm)
    while arm.connections < 5:
        time.sleep(0.01)
    began = time.monotonic()
    arm.stop()
    arm.stop()
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - began < 30  # and not the 100 s that a request travels
    idle.close()
    assert repr(arm) == "<Arm stopped>"


def test_stop_does_not_wait_for_clients_that_say_nothing():
    arm = Arm().start()
    silent = [
        socket.create_connection(("127.0.0.1", int(arm.url.rpartition(":")[2])), 10)
        for _ in range(3)
    ]
    half = Wire(arm)
    half.send(b"POST /x HTTP/1.1\r\nContent-Length: 100\r\n")
    while arm.connections < 4:
        time.sleep(0.01)
    began = time.monotonic()
    arm.stop()
    assert time.monotonic() - began < 30  # and not the 120 s that a silent client may take
    for sock in (*silent, half):
        sock.close()


def test_stop_while_a_client_is_greeted_breaks_nothing(monkeypatch):
    greeting, go_on = threading.Event(), threading.Event()
    greet = ssl.SSLSocket.do_handshake

    def do_handshake(sock, *args, **how):
        greeting.set()
        go_on.wait(30)
        greet(sock, *args, **how)

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", do_handshake)
    arm = Arm().start()
    cut = socket.socket.shutdown

    def shutdown(sock, how):
        cut(sock, how)
        go_on.set()

    monkeypatch.setattr(socket.socket, "shutdown", shutdown)
    with socket.create_connection(("127.0.0.1", int(arm.url.rpartition(":")[2])), 10):
        assert greeting.wait(30)
        arm.stop()
    assert go_on.is_set()
    assert arm.broken == []


def test_answers_are_sent_at_once_however_small(sim):
    wires = [Wire(sim) for _ in range(2)]
    for wire in wires:
        wire.ask("GET", "/")
    with sim._server._guard:
        kept = list(sim._server._open)
    assert len(kept) == 2
    assert all(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock in kept)
    for wire in wires:
        wire.close()


def test_two_simulators_know_nothing_of_each_other(client):
    with Arm(speed=0) as one, Arm(speed=0) as other:
        one.vm(VM)
        assert client(one).virtual_machines.get(GROUP, VM).name == VM
        assert list(client(other).virtual_machines.list_all()) == []


def test_name_that_is_taken_is_refused(sim):
    with pytest.raises(UsageError, match="cannot make machine 'lone'"):
        sim.vm(VM)
    with pytest.raises(UsageError, match="cannot make scale set 'crew'"):
        sim.scale_set(SET, 1)


def test_secret_of_a_credential_is_in_no_repr(sim):
    token = sim.credential.get_token(*sim.scopes).token
    assert token not in repr(sim.credential)
    assert token not in repr(sim) + repr(sim.requests)


def test_started_again_it_has_what_it_had(client):
    arm = Arm(speed=0)
    arm.vm(VM)
    for _ in range(2):
        with arm:
            assert client(arm).virtual_machines.get(GROUP, VM).name == VM


@pytest.mark.parametrize(
    "make",
    [
        lambda arm: arm.scale_set("", 1),
        lambda arm: arm.scale_set("a/b", 1),
        lambda arm: arm.scale_set("ok", -1),
        lambda arm: arm.vm("x" * 65),
        lambda arm: arm.vm("ok", data_disks=-1),
        lambda _: Arm(speed=-1),
        lambda _: Arm(latency_seconds=-0.1),
    ],
)
def test_what_no_service_would_take_is_refused(make):
    with pytest.raises(UsageError, match=r"^cannot make"):
        make(Arm(speed=0))
