"""`azpool login-check`: who answered, as whom, until when, and never the token."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from azure.core.exceptions import ClientAuthenticationError
from credentials import Credential

from azpool.identity.login import claims_of, look
from azpool.testing.tokens import CLIENT, TENANT, unsigned_token

COMMAND = [sys.executable, "-W", "error", "-m", "azpool", "login-check"]


def run(*arguments, **environ):
    ended = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "eyJ" not in ended.stdout + ended.stderr
    return ended


def test_it_tells_who_answered_and_never_the_token(endpoint):
    ended = run()
    assert (ended.returncode, ended.stderr) == (0, "")
    told = dict(line.split(None, 1) for line in ended.stdout.splitlines())
    assert told["credential"].startswith("DefaultAzureCredential > ManagedIdentityCredential")
    assert told["tenant"] == TENANT
    assert told["account"] == f"{CLIENT} (program)"
    assert told["scope"] == "https://storage.azure.com/.default"
    assert "in 59:" in told["expires"] or "in 1:00:" in told["expires"]
    assert len(endpoint.requests) == 1


def test_programs_get_it_as_json(endpoint):
    ended = run("--json", "--scope", "https://vault.azure.net/.default")
    told = json.loads(ended.stdout)
    assert told["event"] == "login"
    assert told["credentials"][:2] == ["DefaultAzureCredential", "ManagedIdentityCredential"]
    assert (told["tenant"], told["object_id"], told["person"]) == (TENANT, CLIENT, False)
    assert 3500 < told["seconds_left"] <= 3600
    assert datetime.fromisoformat(told["expires_on"]).timestamp() > time.time()
    assert endpoint.requests[0].resource == "https://vault.azure.net"


def test_quiet_only_has_an_exit_code(endpoint):
    ended = run("--quiet")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_sign_in_that_fails_says_what_was_tried(endpoint, tmp_path):
    endpoint.refuse(400)
    ended = run(PATH=str(tmp_path))  # no az, no azd, no pwsh
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "EnvironmentCredential: " in ended.stderr
    assert "ManagedIdentityCredential: " in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("azpool: cannot sign in: ClientAuthenticationError: ")
    assert last.endswith("run az login, or set the variables of a service principal")
    told = json.loads(run("--json", PATH=str(tmp_path)).stdout)
    assert (told["event"], told["exit_code"]) == ("error", 4)


def test_without_azure_identity_it_says_what_to_install():
    code = "import sys; sys.modules['azure.identity'] = None; from azpool.cli import main; "
    code += "sys.exit(main(['login-check']))"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 2
    assert "azure-identity is not installed; pip install 'azpool[identity]'" in ended.stderr


def test_an_empty_scope_is_a_usage_error():
    assert run("--scope", "").returncode == 2


@pytest.mark.parametrize(
    ("claims", "account", "person"),
    [
        ({"upn": "a@b.c", "appid": "x"}, "a@b.c", True),
        ({"preferred_username": "a@b.c"}, "a@b.c", True),
        ({"xms_mirid": "/subscriptions/s", "appid": "x"}, "/subscriptions/s", False),
        ({"appid": "x"}, "x", False),
        ({}, None, False),
        ({"upn": 7}, None, False),
    ],
)
def test_whose_token_it_is(claims, account, person):
    class Given(Credential):
        def get_token(self, *scopes, **options):
            token = super().get_token(*scopes, **options)
            return token._replace(token=unsigned_token(**claims))

    found = look(Given(), "s", tenant="t")
    assert (found.account, found.person) == (account, person)
    assert found.credentials == ("Given",)


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "a.bm8.c", "a.WzFd.c"])
def test_tokens_that_are_no_json_web_tokens_say_nothing(token):
    assert claims_of(token) == {}


def test_a_failure_shows_no_secret(caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ClientAuthenticationError, match=r"client_secret=\*\*\*"):
        look(Credential(ClientAuthenticationError("client_secret=SECRET")), "s")
    assert "SECRET" not in caplog.text
