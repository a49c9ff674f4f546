"""The emulator that everything else is tested against: found, started, and gone afterwards."""

import os
import subprocess
import sys
import time
from http.client import HTTPConnection

import pytest

from azpool.testing import azurite as module
from azpool.testing.azurite import Azurite, AzuriteNotFound, answers, free_port
from azpool.testing.leaks import mark_processes, processes_marked


def test_azurite_answers_as_the_blob_service(azurite):
    connection = HTTPConnection("127.0.0.1", azurite.port)
    connection.request("GET", "/devstoreaccount1?comp=list")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 403
    assert answer.getheader("Server").startswith("Azurite-Blob")


def test_the_official_sdk_accepts_its_connection_string(azurite, container_name):
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        container = client.create_container(container_name)
        container.upload_blob("a/b", b"bytes")
        assert container.download_blob("a/b").readall() == b"bytes"
        client.delete_container(container_name)


def test_stopped_azurite_is_gone_with_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    service = Azurite()
    with service:
        port, pid = service.port, service.pid
        assert answers(port)
        assert os.listdir(tmp_path)
    assert not answers(port)
    assert not os.path.exists(f"/proc/{pid}")
    assert os.listdir(tmp_path) == []
    assert (service.port, service.pid, repr(service)) == (0, 0, "<Azurite stopped>")
    service.stop()


def test_its_collector_never_runs():
    *command, main = module.find_azurite()
    look = (
        "data:text/javascript,import{createRequire}from'module';"
        "const{default:Collector}=createRequire(process.argv[1])('./gc/BlobGCManager');"
        "console.log(new Collector(null,null,null,()=>0,null).gcIntervalInMS);process.exit(0)"
    )
    reading, writing = os.pipe()  # it ends with its standard input
    with open(reading), open(writing, "w"):
        said = subprocess.check_output(
            [*command, "--import", look, main], stdin=reading, text=True, timeout=40
        )
    assert int(said) > 20 * 24 * 3600 * 1000


def test_azurite_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "import os, signal\n"
        "from azpool.testing.azurite import Azurite\n"
        "print(Azurite().start().port, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    marker = mark_processes()
    try:
        killed = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert killed.returncode < 0, killed
        deadline = time.monotonic() + 10
        while list(processes_marked(marker)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not list(processes_marked(marker))
    finally:
        del os.environ[marker]
    assert not answers(int(killed.stdout))


def test_missing_azurite_is_one_clear_message(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_folders", lambda: [tmp_path])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AzuriteNotFound, match=r"cannot find Azurite: .*; `npm install azurite`"):
        Azurite().start()


def test_azurite_that_ends_at_once_is_one_clear_message(monkeypatch, tmp_path):
    script = tmp_path / module.SCRIPT
    script.parent.mkdir(parents=True)
    script.write_text("console.error('no way'); process.exit(3)")
    monkeypatch.setattr(module, "_folders", lambda: [tmp_path])
    with pytest.raises(AzuriteNotFound, match=r"exit code 3 \(no way\)"):
        Azurite(tmp_path / "work").start()


def test_named_folder_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("AZPOOL_AZURITE_DIR", str(tmp_path))
    assert module._folders()[0] == tmp_path


def test_free_ports_are_free():
    port = free_port()
    assert 1024 < port < 65536
    assert not answers(port)
