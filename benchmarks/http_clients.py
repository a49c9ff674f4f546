"""Measure HTTP clients side by side: small files up and down, over HTTP and HTTPS.

Each peer runs in PROCESSES fresh processes of THREADS threads. An upload reads a 4 KiB file and
sends it as a signed-looking Put Blob; a download fetches 4 KiB, writes a file and renames it. The
server is nginx with Lua on loopback, which answers from memory, so that the client is what is
measured; both share the machine's cores. Peers take turns (round by round), medians are printed.

    apt-get install nginx libnginx-mod-http-lua
    pip install pyreqwest obstore urllib3 trustme
    python benchmarks/http_clients.py [--rounds 5] [--files 4000] [--only pyreqwest,sockets]
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import multiprocessing
import os
import platform
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROCESSES = 2
THREADS = 8
SIZE_BYTES = 4096
SIGNED = {
    "x-ms-version": "2024-11-04",
    "x-ms-date": "Mon, 27 Jul 2009 12:28:53 GMT",
    "x-ms-blob-type": "BlockBlob",
    "Authorization": "SharedKey account:" + "A" * 43 + "=",
    "Content-Type": "application/octet-stream",
}

Call = Callable[[str, bytes | None], bytes]  # (url, body to put or None to get) -> body
Peer = Callable[[str, str], Callable[[], Call]]  # (base url, CA file) -> makes one thread's Call


def _checked(status: int, data: Any) -> Any:
    if status not in (200, 201):
        raise SystemExit(f"unexpected status {status}")
    return data


def pyreqwest(base: str, ca: str) -> Callable[[], Call]:
    from pyreqwest.client import SyncClientBuilder

    builder = SyncClientBuilder().no_proxy().follow_redirects(False).gzip(False).brotli(False)
    builder = builder.zstd(False).deflate(False).read_timeout(timedelta(seconds=30))
    builder = builder.add_root_certificate_pem(Path(ca).read_bytes())
    client = builder.build()

    def call(url: str, body: bytes | None) -> bytes:
        request = client.request("GET" if body is None else "PUT", url).headers(SIGNED)
        if body is not None:
            request = request.body_bytes(body)
        answer = request.build().send()
        return bytes(_checked(answer.status, answer.bytes()))

    return lambda: call


def pyreqwest_multi(base: str, ca: str) -> Callable[[], Call]:
    from pyreqwest.runtime import runtime_multithreaded_default, runtime_worker_threads

    runtime_worker_threads(2)
    runtime_multithreaded_default(True)
    return pyreqwest(base, ca)


def http_client(base: str, ca: str) -> Callable[[], Call]:
    target = urlsplit(base)
    context = ssl.create_default_context(cafile=ca)

    def make() -> Call:
        connection: http.client.HTTPConnection
        if target.scheme == "https":
            connection = http.client.HTTPSConnection(
                str(target.hostname), target.port, context=context
            )
        else:
            connection = http.client.HTTPConnection(str(target.hostname), target.port)

        def call(url: str, body: bytes | None) -> bytes:
            path = url[len(base) :]
            connection.request("GET" if body is None else "PUT", path, body, SIGNED)
            answer = connection.getresponse()
            return bytes(_checked(answer.status, answer.read()))

        return call

    return make


def urllib3(base: str, ca: str) -> Callable[[], Call]:
    library = importlib.import_module("urllib3")
    manager = library.PoolManager(maxsize=THREADS, ca_certs=ca, retries=False)

    def call(url: str, body: bytes | None) -> bytes:
        answer = manager.request(
            "GET" if body is None else "PUT", url, body=body, headers=SIGNED, redirect=False
        )
        return bytes(_checked(answer.status, answer.data))

    return lambda: call


def sockets(base: str, ca: str) -> Callable[[], Call]:
    """The idealised floor: no chunked answers, no proxies, no retries, headers found by search."""
    target = urlsplit(base)
    context = ssl.create_default_context(cafile=ca)
    fixed = f"Host: {target.netloc}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in SIGNED.items())

    def make() -> Call:
        plain = socket.create_connection((target.hostname, target.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = plain
        if target.scheme == "https":
            link = context.wrap_socket(plain, server_hostname=target.hostname)

        def call(url: str, body: bytes | None) -> bytes:
            verb, size = ("GET", 0) if body is None else ("PUT", len(body))
            head = f"{verb} {url[len(base) :]} HTTP/1.1\r\n{fixed}Content-Length: {size}\r\n\r\n"
            link.sendall(head.encode("latin-1") + (body or b""))
            return _read_answer(link)

        return call

    return make


def _read_answer(link: socket.socket) -> bytes:
    data = link.recv(65536)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += link.recv(65536)
    head = data[:end]
    _checked(int(head[9:12]), None)
    found = head.lower().find(b"\r\ncontent-length:")
    size = int(head[found + 17 :].split(b"\r\n", 1)[0]) if found >= 0 else 0
    parts = [data[end + 4 :]]
    left = size - len(parts[0])
    while left > 0:
        parts.append(link.recv(left))
        left -= len(parts[-1])
    return b"".join(parts)


def azpool(base: str, ca: str) -> Callable[[], Call]:
    """The client as built: pool, time-outs, chunked answers, proxies, checked lengths."""
    module = importlib.import_module("azpool.storage._http")
    client = module.HttpClient(base, module.ClientOptions(ca_file=ca))

    def call(url: str, body: bytes | None) -> bytes:
        if body is None:
            answer = client.send("GET", url, SIGNED)
        else:
            answer = client.send("PUT", url, {**SIGNED, "Content-Length": str(len(body))}, body)
        return bytes(_checked(answer.status, answer.body))

    return lambda: call


def obstore(base: str, ca: str) -> Callable[[], Call]:
    library = importlib.import_module("obstore")
    stores = importlib.import_module("obstore.store")
    # It takes no CA file, so the certificate goes unchecked: that favours this peer a little.
    options = {"allow_http": True, "allow_invalid_certificates": True, "timeout": "30s"}
    store = stores.HTTPStore.from_url(base, client_options=options)

    def call(url: str, body: bytes | None) -> bytes:
        path = url[len(base) + 1 :]
        if body is None:
            return bytes(library.get(store, path).bytes())
        library.put(store, path, body, use_multipart=False)
        return b""

    return lambda: call


PEERS: dict[str, Peer] = {
    "sockets (idealised)": sockets,
    "azpool (sockets, complete)": azpool,
    "pyreqwest": pyreqwest,
    "pyreqwest, 2 workers": pyreqwest_multi,
    "obstore": obstore,
    "http.client": http_client,
    "urllib3": urllib3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    files_per_second: float
    cpu_seconds_per_10k: float
    rss_mib: float
    import_ms: float


def _run_thread(call: Call, base: str, folder: Path, jobs: list[int], up: bool) -> None:
    for number in jobs:
        path = folder / f"{number}"
        if up:
            call(f"{base}/container/dir/file-{number}.bin", path.read_bytes())
            continue
        data = call(f"{base}/container/dir/file-{number}.bin", None)
        if len(data) != SIZE_BYTES:
            raise SystemExit("short download")
        part = f"{path}.part"
        with open(part, "wb") as out:
            out.write(data)
        os.replace(part, path)


def _run_process(
    peer: str, base: str, ca: str, folder: Path, count: int, up: bool, pipe: Any
) -> None:
    begin = time.perf_counter()
    make = PEERS[peer](base, ca)
    import_ms = (time.perf_counter() - begin) * 1000
    calls = [make() for _ in range(THREADS)]
    for call in calls:  # a warm connection for each thread
        call(f"{base}/container/warm", None)
    pipe.send("ready")
    pipe.recv()
    cpu = time.process_time()
    threads = [
        threading.Thread(
            target=_run_thread, args=(call, base, folder, list(range(i, count, THREADS)), up)
        )
        for i, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send((time.process_time() - cpu, import_ms, _rss_mib()))
    os._exit(0)


def _rss_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(peer: str, base: str, ca: str, files: int, up: bool, scratch: Path) -> Run:
    context = multiprocessing.get_context("spawn")
    children = []
    count = files // PROCESSES
    for index in range(PROCESSES):
        folder = scratch / f"files{index}"
        mine, theirs = context.Pipe()
        child = context.Process(
            target=_run_process, args=(peer, base, ca, folder, count, up, theirs)
        )
        child.start()
        theirs.close()
        children.append((child, mine))
    for _, pipe in children:
        pipe.recv()
    begin = time.perf_counter()
    for _, pipe in children:
        pipe.send("go")
    answers = [pipe.recv() for _, pipe in children]
    seconds = time.perf_counter() - begin
    for child, _ in children:
        child.join()
    return Run(
        files_per_second=files / seconds,
        cpu_seconds_per_10k=sum(answer[0] for answer in answers) / files * 10_000,
        import_ms=statistics.median(answer[1] for answer in answers),
        rss_mib=statistics.median(answer[2] for answer in answers),
    )


NGINX = """
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_buffer_size 64k;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  init_by_lua_block {{ data = string.rep("x", {size}) }}
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ content_by_lua_block {{
      ngx.req.read_body()
      ngx.header["ETag"] = '"0x8D"'
      ngx.header["Last-Modified"] = "Mon, 27 Jul 2009 12:28:53 GMT"
      ngx.header["x-ms-request-id"] = "3a2b5c7e-001e-0000-0000-000000000000"
      if ngx.req.get_method() == "PUT" then
        if #ngx.req.get_body_data() ~= {size} then return ngx.exit(400) end
        ngx.status = 201; ngx.header["Content-Length"] = 0; return
      end
      ngx.header["Content-Length"] = {size}
      ngx.print(data)
    }} }}
  }}
}}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the HTTP base URL, the HTTPS base URL and the CA's file of a running nginx."""
    trustme = importlib.import_module("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=number > 0)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    plain, tls = _free_port(), _free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    text = NGINX.format(folder=folder, plain=plain, tls=tls, size=SIZE_BYTES, user=user)
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen(
        [shutil.which("nginx") or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    )
    try:
        _wait_for(plain)
        yield f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}", str(folder / "ca.pem")
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit("nginx does not answer")


def table(results: dict[tuple[str, str], list[Run]], peers: list[str]) -> str:
    columns = ["http up", "http down", "https up", "https down"]
    lines = ["| client | " + " | ".join(columns) + " | RSS MiB | set-up ms |"]
    lines.append("|---" * (len(columns) + 3) + "|")
    for peer in peers:
        cells = []
        for column in columns:
            runs = results[peer, column]
            rate = statistics.median(run.files_per_second for run in runs)
            cpu = statistics.median(run.cpu_seconds_per_10k for run in runs)
            cells.append(f"{rate:,.0f} ({cpu:.2f})")
        every = [run for column in columns for run in results[peer, column]]
        cells.append(f"{statistics.median(run.rss_mib for run in every):.0f}")
        cells.append(f"{statistics.median(run.import_ms for run in every):.0f}")
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--only", default="")
    # In memory, so that the client is measured and not the disk.
    parser.add_argument("--scratch", default="/dev/shm")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    peers = [peer for peer in PEERS if not wanted or any(peer.startswith(w) for w in wanted)]
    results: dict[tuple[str, str], list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="http-clients-", dir=options.scratch) as text:
        folder = Path(text)
        for index in range(PROCESSES):
            (folder / f"files{index}").mkdir()
            for number in range(options.files // PROCESSES):
                (folder / f"files{index}" / f"{number}").write_bytes(b"x" * SIZE_BYTES)
        with server(folder) as (plain, tls, ca):
            for _ in range(options.rounds):
                for peer in peers:
                    for scheme, base in (("http", plain), ("https", tls)):
                        for way in ("up", "down"):
                            run = measure(peer, base, ca, options.files, way == "up", folder)
                            results.setdefault((peer, f"{scheme} {way}"), []).append(run)
    print(
        f"{os.cpu_count()} cores, {platform.system()}, CPython {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d')}; {PROCESSES} processes x {THREADS} threads, "
        f"{options.files} files of {SIZE_BYTES} bytes, median of {options.rounds} rounds; "
        "files/s (client CPU s per 10,000)\n"
    )
    print(table(results, peers))


if __name__ == "__main__":
    sys.exit(main())
