"""What `get_token` answers with, with azure-core and without."""

import subprocess
import sys

CODE = """
import sys
if {without}:
    sys.modules["azure"] = None
    sys.modules["azure.core"] = None
    sys.modules["azure.core.credentials"] = None
from types import SimpleNamespace
from azpool.identity import share
given = SimpleNamespace(token="hush", expires_on=1 << 40)
shared = share(SimpleNamespace(get_token=lambda *scopes: given))
token = shared.get_token("s")
info = shared.get_token_info("s", options={{}})
import pickle
assert tuple(token) == ("hush", 1 << 40) == tuple(pickle.loads(pickle.dumps(token)))
assert (token.token, token.expires_on) == (info.token, info.expires_on) == ("hush", 1 << 40)
assert (info.token_type, info.refresh_on) == ("Bearer", None)
assert "hush" not in repr(token) + repr(info)
print(type(token).__mro__[1].__module__)
"""


def told(*, without):
    command = [sys.executable, "-W", "error", "-c", CODE.format(without=without)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_with_azure_core_they_are_its_own():
    assert told(without=False) == "azure.core.credentials"


def test_without_it_they_are_like_its_own():
    assert told(without=True) == "azpool.identity._types"
