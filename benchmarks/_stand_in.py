"""A blob service that is faster than any client, to measure clients against: nginx with Lua.

    with StandIn(folder) as server:
        server.url("n50000-s4096")      # a container that holds 50,000 blobs of 4 KiB
        server.facts()["puts"]          # what came, and when

It keeps nothing: `_stand_in.lua` says what it answers, `_stand_in.conf` how. One process on one
core, on a free loopback port; HTTPS with a certificate that is made for the one run. It ends with
its block, or with the thread that began it.
"""

import base64
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

from azpool.testing.azurite import free_port

HERE = Path(__file__).resolve().parent
ACCOUNT = "standin"
MIB = 1024**2
START_SECONDS = 10.0
PR_SET_PDEATHSIG = 1
HOW_TO_INSTALL = "as root: apt-get install nginx-light libnginx-mod-http-lua"


def missing():
    """Say what the stand-in lacks on this machine and how to get it, or None."""
    nginx = find_nginx()
    if nginx is None:
        return f"nginx is not installed; {HOW_TO_INSTALL}"
    if modules_of(nginx) is None:
        return f"nginx has no Lua module; {HOW_TO_INSTALL}"
    return None


def find_nginx():
    # Debian keeps it where PATH of a user does not look.
    return shutil.which("nginx", path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin"]))


def modules_of(nginx):
    """Return the folder of nginx's modules if Lua is among them."""
    told = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"--modules-path=(\S+)", told)
    if not found or not Path(found[1], "ngx_http_lua_module.so").exists():
        return None
    return found[1]


class StandIn:
    """See the module.

    Attributes:
        pid: of nginx.
        ca_file: what clients must trust, or None without HTTPS.
    """

    def __init__(self, folder, *, secure=False, digests=None):
        """Prepare a server that keeps its files in `folder`.

        `digests` has the MD5 in base64 of zeros of each length that is asked for whole and is long.
        """
        self._folder = Path(folder)
        self._secure = secure
        self._digests = digests or {}
        self._process = None
        self.ca_file = None
        self.port = 0

    @property
    def account_url(self):
        return f"{'https' if self._secure else 'http'}://127.0.0.1:{self.port}/{ACCOUNT}"

    def url(self, container):
        return f"{self.account_url}/{container}"

    @property
    def pid(self):
        return self._process.pid

    def facts(self):
        """Return what came since `forget`: counts, bytes, and moments as `time.time` has them."""
        return self._ask("facts")

    def forget(self):
        self._ask("forget")

    def set_latency(self, seconds):
        self._ask(f"latency?seconds={seconds}")

    def set_rule(self, *, every=0, per_second=0, retry_after=1):
        """Refuse each `every`-th request for data, or all above `per_second`, with a 503."""
        self._ask(f"rule?every={every}&per_second={per_second}&retry_after={retry_after}")

    def _ask(self, what):
        scheme = self.account_url.partition(":")[0]
        address = f"{scheme}://127.0.0.1:{self.port}/_{what}"
        context = ssl.create_default_context(cafile=self.ca_file) if self._secure else None
        with urllib.request.urlopen(address, timeout=10, context=context) as answer:
            return json.load(answer)

    def __enter__(self):
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._secure:
            self._make_certificate()
        for _ in range(3):  # somebody else may take the port first
            self._start()
            if self._wait():
                return self
        said = (self._folder / "said").read_text(errors="replace").strip()
        raise RuntimeError(f"cannot start the stand-in: {said[-500:] or 'it said nothing'}")

    def __exit__(self, *exc_info):
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _start(self):
        self.port = free_port()
        config = self._folder / "nginx.conf"
        config.write_text(self._configuration())
        with (self._folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                [find_nginx(), "-p", self._folder, "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no other thread is there yet
            )

    def _configuration(self):
        tls = ""
        if self._secure:
            tls = f"ssl_certificate {self._folder}/cert.pem; ssl_certificate_key "
            tls += f"{self._folder}/key.pem; ssl_session_cache shared:tls:1m;"
        values = {
            "MODULES": modules_of(find_nginx()),
            "FOLDER": str(self._folder),
            "LUA": str(HERE / "_stand_in.lua"),
            "PORT": str(self.port),
            "LISTEN": "ssl" if self._secure else "",
            "TLS": tls,
            "DIGESTS": ", ".join(f'[{size}] = "{md5}"' for size, md5 in self._digests.items()),
        }
        text = (HERE / "_stand_in.conf").read_text().partition("\n")[2]
        return re.sub(r"@([A-Z0-9]+)@", lambda found: values[found[1]], text)

    def _wait(self):
        give_up = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < give_up:
            try:
                self.facts()
            except OSError:
                time.sleep(0.01)
            else:
                return True
        return False

    def _make_certificate(self):
        import trustme

        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.ca_file = str(self._folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        certificate.private_key_pem.write_to_path(self._folder / "key.pem")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(self._folder / "cert.pem", append=True)


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def md5_of_zeros(size):
    """Return the MD5 of `size` zero bytes, in base64 as the service gives it."""
    digest = hashlib.md5(usedforsecurity=False)
    block = bytes(MIB)
    for _ in range(size // MIB):
        digest.update(block)
    digest.update(bytes(size % MIB))
    return base64.b64encode(digest.digest()).decode()


__all__ = ["StandIn", "md5_of_zeros", "missing"]
