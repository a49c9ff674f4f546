"""The whole output of run commands, in append blobs of a real Azurite, by SAS."""

from __future__ import annotations

import datetime as dt

import pytest
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, generate_blob_sas

GROUP = "workers"


@pytest.fixture
def store(azurite, container_name):
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        place = service.create_container(container_name)
        yield place
        place.delete_container()


@pytest.fixture
def blob(store):
    """A function: the blob of a name, and its address with the SAS that the agent asks for."""

    def made(name, **permission):
        client = store.get_blob_client(name)
        permission = permission or {"read": True, "add": True, "create": True, "write": True}
        sas = generate_blob_sas(
            client.account_name,
            client.container_name,
            name,
            account_key=client.credential.account_key,
            permission=BlobSasPermissions(**permission),
            expiry=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
        )
        return client, f"{client.url}?{sas}"

    return made


def put(arm, **properties):
    body = {"location": "eastus", "properties": {"source": {"script": "much"}, **properties}}
    arm.compute.virtual_machine_run_commands.begin_create_or_update(
        GROUP, "lone", "check", body
    ).result()
    read = arm.compute.virtual_machine_run_commands.get_by_virtual_machine(
        GROUP, "lone", "check", expand="instanceView"
    )
    return read.as_dict()["properties"]["instanceView"]


def test_whole_output_is_in_its_blobs_once_the_operation_has_ended(arm, blob):
    text = "".join(f"line {number}\n" for number in range(1_000_000))  # appended in three pieces
    arm.settings.scripts = lambda *_: (7, text, "wrong\n", 0)
    out, out_uri = blob("o/out")
    err, err_uri = blob("o/err")
    view = put(arm, outputBlobUri=out_uri, errorBlobUri=err_uri)
    assert (view["exitCode"], view["output"], view["error"]) == (7, text[-4096:], "wrong\n")
    assert out.download_blob().readall().decode() == text
    assert err.download_blob().readall() == b"wrong\n"
    assert out.get_blob_properties().blob_type == "AppendBlob"


def test_blob_that_is_there_is_made_anew(arm, blob):
    client, uri = blob("out")
    client.upload_blob(b"from before", blob_type="AppendBlob")
    arm.settings.scripts = lambda *_: (0, "new", "", 0)
    put(arm, outputBlobUri=uri)
    assert client.download_blob().readall() == b"new"


def test_no_output_leaves_an_empty_blob(arm, blob):
    client, uri = blob("out")
    arm.settings.scripts = lambda *_: (0, "", "", 0)
    put(arm, outputBlobUri=uri)
    assert client.get_blob_properties().size == 0


@pytest.mark.parametrize("fault", ["reading only", "nobody there", "no address"])
def test_script_whose_blob_cannot_be_made_does_not_run(arm, blob, fault):
    _, uri = blob("out", read=True)
    uri = {"nobody there": "http://127.0.0.1:9/c/out?sig=hidden", "no address": "ftp://x"}.get(
        fault, uri
    )
    view = put(arm, outputBlobUri=uri)
    assert (view["executionState"], view["exitCode"], view["output"]) == ("Failed", -101, "")
    assert "hidden" not in str(view)


def test_refused_blob_fails_the_operation_where_that_is_asked(arm):
    with pytest.raises(Exception, match="VMExtensionProvisioningError"):
        put(arm, outputBlobUri="http://127.0.0.1:9/c/x", treatFailureAsDeploymentFailure=True)


def test_stopping_the_simulator_waits_for_what_is_on_its_way(arm, blob):
    client, uri = blob("out")
    arm.settings.scripts = lambda *_: (0, "x" * 100_000, "", 3600)
    body = {
        "location": "eastus",
        "properties": {"source": {"script": "much"}, "outputBlobUri": uri},
    }
    arm.compute.virtual_machine_run_commands.begin_create_or_update(
        GROUP, "lone", "check", body, polling=False
    )
    arm.sim.stop()
    assert client.get_blob_properties().size == 100_000
