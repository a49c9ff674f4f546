"""The adapter over a real socket: the official clients against a server that answers by script."""

from __future__ import annotations

import http.server
import json
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from azpool.errors import UsageError
from azpool.fleet._arm import ClientRecipe, close_clients, perform
from azpool.fleet.calls import Call, Kind
from azpool.identity import share
from azpool.identity.secret import Secret

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
OTHER = "7c2f6471-1bf0-4dda-aec3-cb9272f09591"


class Credential:
    """Counts who asks it."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], str | None]] = []

    def get_token(self, *scopes: str, claims: str | None = None, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        self.asked.append((scopes, claims))
        return AccessToken(f"secret-token-{len(self.asked)}", int(time.time()) + 3600)


class Request:
    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


class Server(http.server.ThreadingHTTPServer):
    """Answers with what `replies` has, in order; with `{}` when it has no more."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self.replies: list[Any] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.barrier: threading.Barrier | None = None
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of these tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 20

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.requests.append(Request(self.command, self.path, headers, body))
            reply = self.server.replies.pop(0) if self.server.replies else (200, {}, {})
        if self.server.barrier is not None:
            self.server.barrier.wait(10)
        if reply == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, more, content = reply
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        if "Content-Length" not in more:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if more.get("Content-Length"):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class's way

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = Server(context)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    close_clients()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def credential() -> Credential:
    return Credential()


@pytest.fixture
def recipe(server: Server, credential: Credential, ca_file: str) -> ClientRecipe:
    return ClientRecipe(
        credential=share(credential),
        base_url=server.url,
        ca_file=ca_file,
        connect_timeout_seconds=30,
        read_timeout_seconds=30,
    )


def start(name: str = "web", subscription: str = SUB) -> Call:
    return Call(
        subscription=subscription,
        method="compute.virtual_machines.begin_start",
        arguments={"resource_group_name": "rg", "vm_name": name},
        kind=Kind.WRITE,
    )


def listing() -> Call:
    return Call(
        subscription=SUB,
        method="compute.virtual_machines.list",
        arguments={"resource_group_name": "rg"},
        repeatable=True,
    )


def test_an_operation_is_begun_and_not_polled(server: Server, recipe: ClientRecipe):
    poll = f"{server.url}/subscriptions/{SUB}/providers/x/operations/1?api-version=1"
    headers = {
        "Azure-AsyncOperation": poll,
        "Location": poll,
        "Retry-After": "10",
        "x-ms-ratelimit-remaining-subscription-writes": "199",
        "x-ms-ratelimit-remaining-resource": "Microsoft.Compute/StartVM;11",
        "x-ms-request-id": "r1",
        "x-ms-correlation-request-id": "c1",
        "Server": "not of interest",
    }
    server.replies = [(202, headers, b"")]
    (answer,) = perform(recipe, [start()])
    assert (answer.status, answer.ok, answer.body, answer.code) == (202, True, None, None)
    assert answer.headers["azure-asyncoperation"] == answer.headers["location"] == poll
    assert answer.headers["retry-after"] == "10"
    assert answer.headers["x-ms-ratelimit-remaining-subscription-writes"] == "199"
    assert answer.headers["x-ms-ratelimit-remaining-resource"] == "Microsoft.Compute/StartVM;11"
    assert (answer.request_id, answer.correlation_id) == ("r1", "c1")
    assert "server" not in answer.headers
    assert answer.sent
    assert 0 < answer.seconds < 30
    assert pickle.loads(pickle.dumps(answer)) == answer
    (sent,) = server.requests
    assert sent.method == "POST"
    assert sent.path.startswith(f"/subscriptions/{SUB}/resourceGroups/rg/providers/")
    assert sent.path.partition("?")[0].endswith("/virtualMachines/web/start")


def test_a_list_is_one_page_and_the_next_one_is_had_with_a_token_too(
    server: Server, recipe: ClientRecipe
):
    # The origin's pager lost its token after the first page.
    more = f"{server.url}/subscriptions/{SUB}/next?$skiptoken=2"
    server.replies = [
        (200, {}, {"value": [{"name": "a"}], "nextLink": more}),
        (200, {}, {"value": [{"name": "b"}]}),
    ]
    (first,) = perform(recipe, [listing()])
    assert first.body == {"value": [{"name": "a"}], "nextLink": more}
    (second,) = perform(recipe, [Call(subscription=SUB, method="get", url=more)])
    assert second.body == {"value": [{"name": "b"}]}
    tokens = [one.headers["authorization"] for one in server.requests]
    assert tokens == ["Bearer secret-token-1"] * 2
    assert server.requests[1].path.endswith("/next?$skiptoken=2")


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (409, {"error": {"code": "Conflict", "message": "busy"}}, "Conflict", "busy"),
        (403, {"code": "AuthorizationFailed", "message": "no"}, "AuthorizationFailed", "no"),
        (
            400,
            {"error": {"code": "B", "message": "bad", "details": [{"message": "too long"}, 3]}},
            "B",
            "bad too long",
        ),
        (404, {"error": None}, None, "Not Found"),
        (500, b"<html>oops</html>", None, "<html>oops</html>"),
        (503, b"", None, "Service Unavailable"),
        (401, {"error": "invalid_token", "error_description": "old"}, "invalid_token", "old"),
    ],
)
def test_an_error_is_an_answer_with_the_service_s_own_words(
    server: Server, recipe: ClientRecipe, status: int, body: Any, code: str | None, message: str
):
    server.replies = [(status, {}, body)]
    (answer,) = perform(recipe, [listing()])
    assert (answer.status, answer.code, answer.message) == (status, code, message)
    assert answer.sent
    assert not answer.ok
    # Whole: a refusal for too many requests names its bucket in the details.
    assert answer.body == (body if isinstance(body, dict) else None)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_nothing_is_ever_sent_twice(server: Server, recipe: ClientRecipe, status: int):
    server.replies = [(status, {"Retry-After": "0"}, {})] * 5
    answers = perform(recipe, [listing(), start()])
    assert [answer.status for answer in answers] == [status] * 2
    assert [answer.headers["retry-after"] for answer in answers] == ["0"] * 2
    assert len(server.requests) == 2


def test_a_provider_that_is_not_registered_is_not_registered_unasked(
    server: Server, recipe: ClientRecipe
):
    words = "The subscription is not registered to use namespace 'Microsoft.Compute'"
    body = {"error": {"code": "MissingSubscriptionRegistration", "message": words}}
    server.replies = [(409, {}, body)]
    (answer,) = perform(recipe, [start()])
    assert answer.code == "MissingSubscriptionRegistration"
    assert len(server.requests) == 1


def test_a_bundle_is_on_its_way_all_at_once_and_answered_in_order(
    server: Server, recipe: ClientRecipe
):
    server.barrier = threading.Barrier(8)
    answers = perform(recipe, [start(f"web{n}") for n in range(8)])
    assert [answer.status for answer in answers] == [200] * 8
    server.barrier = None
    connections = server.connections
    perform(recipe, [start(f"web{n}") for n in range(8)])
    # Connections are kept, all of them, and the clients with them.
    assert server.connections == connections == 8


def test_one_token_serves_all_clients_of_all_subscriptions(
    server: Server, recipe: ClientRecipe, credential: Credential
):
    interfaces = Call(
        subscription=OTHER,
        method="network.network_interfaces.list",
        arguments={"resource_group_name": "rg"},
    )
    perform(recipe, [start(), start(subscription=OTHER), interfaces, listing()])
    assert len(server.requests) == 4
    assert {one.path.split("/")[2] for one in server.requests} == {SUB, OTHER}
    assert credential.asked == [(("https://management.azure.com/.default",), None)]


def test_a_body_is_sent_as_the_json_that_it_is(server: Server, recipe: ClientRecipe):
    body = {"properties": {"source": {"script": "echo ü"}, "asyncExecution": False}}
    call = Call(
        subscription=SUB,
        method="compute.virtual_machine_run_commands.begin_create_or_update",
        arguments={
            "resource_group_name": "rg",
            "vm_name": "web",
            "run_command_name": "azpool-1",
            "run_command": body,
        },
        kind=Kind.WRITE,
    )
    (answer,) = perform(recipe, [call])
    assert answer.ok
    assert json.loads(server.requests[0].body) == body
    assert server.requests[0].method == "PUT"
    assert server.requests[0].headers["content-type"] == "application/json"


def test_a_secret_reaches_the_service_and_no_answer(server: Server, recipe: ClientRecipe):
    sas = "https://a.blob.core.windows.net/c/b?sv=1&sig=Abc%2Bdef%3D&sp=w"
    words = f"cannot write to {sas} with pa55 and Bearer abc.def"
    server.replies = [(400, {}, {"error": {"code": "Bad", "message": words}})]
    call = Call(
        subscription=SUB,
        method="compute.virtual_machines.begin_run_command",
        arguments={
            "resource_group_name": "rg",
            "vm_name": "web",
            "parameters": {"parameters": [{"name": "p", "value": Secret("pa55")}]},
        },
    )
    (answer,) = perform(recipe, [call])
    sent = json.loads(server.requests[0].body)
    assert sent == {"parameters": [{"name": "p", "value": "pa55"}]}
    for secret in ("pa55", "Abc%2Bdef", "abc.def"):
        assert secret not in repr(answer)
        assert secret not in repr(call)
    assert "&sp=w" in answer.message


def test_the_error_of_an_operation_is_told_without_a_sas(server: Server, recipe: ClientRecipe):
    error = {"code": "Bad", "message": "no blob at https://a/c?sig=Abc", "details": ["sig=Abc", 1]}
    server.replies = [(200, {}, {"status": "Failed", "error": error})]
    url = f"{server.url}/operations/1"
    (answer,) = perform(recipe, [Call(subscription=SUB, method="get", url=url)])
    assert answer.body["error"] == {
        "code": "Bad",
        "message": "no blob at https://a/c?sig=***",
        "details": ["sig=***", 1],
    }


def test_a_challenge_for_claims_is_answered_once(
    server: Server, recipe: ClientRecipe, credential: Credential
):
    # {"access_token":{}} in base64
    claims = "eyJhY2Nlc3NfdG9rZW4iOnt9fQ"
    challenge = f'Bearer realm="", error="insufficient_claims", claims="{claims}"'
    server.replies = [(401, {"WWW-Authenticate": challenge}, {}), (200, {}, {"value": []})]
    (answer,) = perform(recipe, [listing()])
    assert answer.status == 200
    assert [one[1] for one in credential.asked] == [None, '{"access_token":{}}']


def refused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_where_nobody_listens_nothing_was_sent(server: Server, recipe: ClientRecipe, ca_file: str):
    nowhere = ClientRecipe(
        credential=recipe.credential,
        base_url=f"https://127.0.0.1:{refused_port()}",
        ca_file=ca_file,
    )
    (answer,) = perform(nowhere, [start()])
    assert (answer.status, answer.sent) == (None, False)
    assert answer.code == "ServiceRequestError"
    assert "refused" in answer.message


def test_a_certificate_that_nobody_vouches_for_ends_it_before_the_token_leaves(
    server: Server, recipe: ClientRecipe, tmp_path: Path
):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    other = ClientRecipe(
        credential=recipe.credential, base_url=server.url, ca_file=str(tmp_path / "other.pem")
    )
    (answer,) = perform(other, [start()])
    assert (answer.status, answer.sent) == (None, False)
    assert "certificate verify failed" in answer.message
    assert server.requests == []


def test_a_connection_that_is_cut_after_sending_leaves_it_open_what_was_done(
    server: Server, recipe: ClientRecipe
):
    server.replies = ["cut"]
    (answer,) = perform(recipe, [start()])
    assert (answer.status, answer.sent) == (None, True)
    assert len(server.requests) == 1
    # The next one is not held back by it.
    assert perform(recipe, [start()])[0].ok


def test_half_an_answer_is_none(server: Server, recipe: ClientRecipe):
    server.replies = [
        (200, {"Content-Length": "500"}, b'{"value": ['),
        (200, {}, b"<html>sign in to the hotel</html>"),
    ]
    cut, foreign = (perform(recipe, [listing()])[0] for _ in range(2))
    assert (cut.status, cut.sent, cut.body) == (None, True, None)
    assert (foreign.status, foreign.code, foreign.body) == (None, "BadResponse", None)


def test_silence_ends_after_the_read_timeout_and_may_have_been_done(
    server: Server, recipe: ClientRecipe, ca_file: str
):
    server.barrier = threading.Barrier(2)
    hasty = ClientRecipe(
        credential=recipe.credential,
        base_url=server.url,
        ca_file=ca_file,
        read_timeout_seconds=0.2,
    )
    (answer,) = perform(hasty, [start()])
    assert (answer.status, answer.sent) == (None, True)
    assert "Timeout" in (answer.code or "")
    server.barrier.wait(10)


@pytest.mark.parametrize(
    "url", ["https://example.org/x", "http://127.0.0.1/x", "https://127.0.0.1:1/x", "", "x://["]
)
def test_no_token_goes_to_an_address_that_is_not_the_service_s(
    server: Server, recipe: ClientRecipe, credential: Credential, url: str
):
    (answer,) = perform(recipe, [Call(subscription=SUB, method="get", url=url)])
    assert (answer.status, answer.sent, answer.code) == (None, False, "UsageError")
    assert "no token is sent there" in answer.message
    assert credential.asked == []


def test_a_redirect_is_followed_nowhere(server: Server, recipe: ClientRecipe):
    server.replies = [(307, {"Location": "https://example.org/"}, b"")]
    (answer,) = perform(recipe, [listing()])
    assert (answer.status, answer.code, answer.ok) == (None, "Redirected", False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "method",
    [
        "compute.virtual_machines.begin_dance",
        "compute.virtual_machines",
        "compute.virtual_machines._start_initial",
        "compute._client.close",
        "storage.blobs.list",
        "compute",
    ],
)
def test_a_method_that_the_clients_do_not_have_sends_nothing(
    server: Server, recipe: ClientRecipe, method: str
):
    (answer,) = perform(recipe, [Call(subscription=SUB, method=method)])
    assert (answer.status, answer.sent) == (None, False)
    assert server.requests == []


def test_arguments_that_the_method_does_not_take_send_nothing(server: Server, recipe: ClientRecipe):
    lacking = Call(subscription=SUB, method="compute.virtual_machines.begin_start")
    unknown = Call(
        subscription=SUB,
        method="compute.virtual_machines.begin_start",
        arguments={"resource_group_name": "rg", "vm_name": "x", "wings": 2},
    )
    for answer in perform(recipe, [lacking, unknown]):
        assert (answer.status, answer.sent, answer.code) == (None, False, "TypeError")
    assert server.requests == []


def test_a_credential_that_gives_no_token_is_told_and_nothing_is_sent(
    server: Server, recipe: ClientRecipe, ca_file: str
):
    class Refusing:
        def get_token(self, *scopes: str, **_: Any) -> Any:
            raise ValueError("the door is shut for secret eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl")

    refused = ClientRecipe(credential=share(Refusing()), base_url=server.url, ca_file=ca_file)
    (answer,) = perform(refused, [start()])
    assert (answer.status, answer.sent, answer.code) == (None, False, "ValueError")
    assert "the door is shut" in answer.message
    assert "eyJ" not in answer.message
    assert server.requests == []


def test_a_recipe_travels_without_a_secret(recipe: ClientRecipe):
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert "credential" not in repr(recipe)
    assert ClientRecipe.from_dict(json.loads(json.dumps(recipe.to_dict())), recipe.credential) == (
        recipe
    )


def test_tokens_are_for_the_cloud_that_they_are_sent_to():
    def scopes(url: str) -> tuple[str, ...]:
        return ClientRecipe(credential=None, base_url=url).token_scopes

    assert scopes("https://management.azure.com/") == ("https://management.azure.com/.default",)
    government = "https://management.usgovcloudapi.net"
    assert scopes(government) == (f"{government}/.default",)
    assert scopes("https://127.0.0.1:1") == ("https://management.azure.com/.default",)


@pytest.mark.parametrize(
    "bad",
    [
        {"base_url": "http://management.azure.com"},
        {"base_url": "management.azure.com"},
        {"base_url": "https://user@host"},
        {"ca_file": "/nowhere/ca.pem"},
        {"threads": 0},
        {"read_timeout_seconds": 0},
    ],
)
def test_a_recipe_that_cannot_be_right_is_refused(bad: dict[str, Any]):
    with pytest.raises(UsageError, match="cannot use"):
        ClientRecipe(credential=None, **bad)
