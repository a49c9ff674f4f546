from __future__ import annotations

import json

import pytest


def test_a_container_is_made_and_removed(azpool, storage) -> None:
    storage.one.exists = False
    ended = azpool("mb", "az://demo")
    assert (ended.code, ended.err) == (0, "made az://demo\n")
    ended = azpool("rb", "az://demo")
    assert (ended.code, ended.err) == (0, "removed az://demo\n")
    assert not storage.one.exists


def test_one_that_exists_is_a_failure_unless_it_may(azpool) -> None:
    ended = azpool("mb", "az://demo")
    assert ended.code == 1
    assert ended.err == "azpool: cannot make 'demo': it exists already (409)\n"
    ended = azpool("mb", "--exist-ok", "--json", "az://demo")
    assert ended.code == 0
    assert json.loads(ended.out) == {"event": "exists", "container": "demo"}


def test_one_with_blobs_is_removed_only_with_recursive_and_yes(azpool, storage) -> None:
    storage.one.blobs = {"a": 1}
    ended = azpool("rb", "az://demo")
    assert ended.code == 2
    assert "it holds blobs; give --recursive" in ended.err
    ended = azpool("rb", "-r", "az://demo")
    assert ended.code == 2
    assert "no terminal to ask on; give --yes" in ended.err
    assert storage.one.blobs
    assert azpool("rb", "-r", "--yes", "az://demo").code == 0
    assert not storage.one.exists


def test_dry_run_removes_nothing(azpool, storage) -> None:
    storage.one.blobs = {"a": 1}
    ended = azpool("rb", "--dry-run", "az://demo")
    assert (ended.code, ended.err) == (0, "would remove az://demo\n")
    assert storage.one.exists


@pytest.mark.parametrize("command", ["mb", "rb"])
@pytest.mark.parametrize("address", ["az://demo/x", "az://", "demo", "az://A"])
def test_only_a_container_can_be_meant(azpool, command: str, address: str) -> None:
    ended = azpool(command, address)
    assert ended.code == 2
    assert ended.err.startswith("azpool: cannot ")
