"""No secret that azpool is given is found anywhere outside of its memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

import pytest

from azpool.storage._sas import SasLender
from azpool.testing.azurite import free_port
from azpool.testing.leaks import descendants
from azpool.testing.tokens import TokenEndpoint

pytestmark = pytest.mark.once

RUN = Path(__file__).parent / "secrecy_run.py"


def forms(secret: str) -> list[bytes]:
    """A secret as it is, quoted and unquoted."""
    texts = {secret, quote(secret, safe=""), unquote(secret)}
    return [text.encode() for text in texts]


def processes() -> dict[str, bytes]:
    """What every process of the run shows of its arguments and its environment.

    Others on this machine may know the emulator's key, which is no secret of theirs.
    """
    shown = {}
    for pid in [process.pid for process in descendants()]:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                shown[f"/proc/{pid}/{name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    return shown


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("start", ["zygote", "spawn"])
def test_no_secret_is_found_anywhere(azurite, container_name, tmp_path, start):
    home = tmp_path / "home"
    (home / "tree").mkdir(parents=True)
    (home / "one.txt").write_text("one")
    for n in range(8):
        (home / "tree" / f"{n}.txt").write_text(str(n))
    sas = SasLender(azurite.account).lend(azurite.key, (container_name, "https,http"), 2e9).value
    wrong = f"{sas.partition('&sig=')[0]}&sig={quote('RECOGNISABLE+SECRET/OF=MINE')}"
    given = {
        "url": azurite.blob_url,
        "box": container_name,
        "dead": f"http://127.0.0.1:{free_port()}/devstoreaccount1",
        "key": azurite.key,
        "sas": sas,
        "wrong_sas": wrong,
    }
    secrets = [azurite.key, parse_qs(sas)["sig"][0], parse_qs(wrong)["sig"][0]]
    with TokenEndpoint() as endpoint, (tmp_path / "stderr").open("wb") as stderr:
        environ = os.environ | endpoint.environ
        environ |= {"HOME": str(home), "TMPDIR": str(home), "AZPOOL_START": start}
        run = subprocess.Popen(
            [sys.executable, str(RUN)],
            cwd=home,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        with run:
            assert run.stdin and run.stdout
            run.stdin.write(json.dumps(given).encode() + b"\n")
            run.stdin.flush()
            said = []
            while line := run.stdout.readline():
                said.append(line)
                if line == b"READY\n":
                    found = processes()
                    run.stdin.write(b"\n")
                    run.stdin.flush()
    errors = (tmp_path / "stderr").read_bytes()
    assert run.returncode == 0, errors
    assert len(endpoint.requests) >= 2
    shown = {"stdout": b"".join(said), "stderr": errors, **found, **files(home)}
    # It went as it was meant to: there was something to be found.
    for expected in (b"NodeDied", b"AccessDenied", b"ConnectionFailed", b"ValueError", b"event"):
        assert expected in shown["stdout"], expected
    assert b"login-check" not in shown["stdout"] and b"ManagedIdentity" in shown["stdout"]
    assert shown[str(home / "debug.log")]
    assert sum(name.endswith("cmdline") for name in found) > 5
    for secret in secrets:
        for form in forms(secret):
            assert [name for name, text in shown.items() if form in text] == []
    token = re.compile(rb"eyJ[\w-]{10,}\.")
    assert [name for name, text in shown.items() if token.search(text)] == []
