from __future__ import annotations

import json

import pytest


@pytest.fixture(autouse=True)
def blobs(storage):
    storage.one.blobs = {"a.txt": 2, "a/x": 3, "a/y/z": 4, "b": 5}


def test_one_blob_is_deleted_without_a_question(azpool, storage) -> None:
    ended = azpool("rm", "az://demo/b")
    assert ended.code == 0
    assert "b" not in storage.one.blobs
    assert ended.err.startswith("deleted 1 blob")


@pytest.mark.parametrize("address", ["az://demo", "az://demo/", "az://demo/a/", "az://demo/a*"])
def test_more_than_a_blob_needs_recursive(azpool, storage, address: str) -> None:
    ended = azpool("rm", address)
    assert ended.code == 2
    assert "give --recursive" in ended.err
    assert len(storage.one.blobs) == 4


def test_without_a_terminal_only_yes_deletes_a_folder(azpool, storage) -> None:
    ended = azpool("rm", "-r", "az://demo/a/")
    assert ended.code == 2
    assert "there is no terminal to ask on; give --yes" in ended.err
    assert len(storage.one.blobs) == 4
    assert azpool("rm", "-r", "--yes", "az://demo/a/").code == 0
    assert sorted(storage.one.blobs) == ["a.txt", "b"]


def test_dry_run_only_says_what_it_would_delete(azpool, storage) -> None:
    ended = azpool("rm", "-r", "--dry-run", "az://demo/a")
    assert ended.code == 0
    assert ended.out == "would delete a/x\nwould delete a/y/z\n"
    assert len(storage.one.blobs) == 4
    ended = azpool("rm", "--dry-run", "--json", "az://demo/b")
    assert json.loads(ended.out) == {"event": "would_delete", "name": "b"}


@pytest.mark.parametrize("address", ["az://demo/zz/", "az://demo/zz*"])
def test_a_folder_that_is_not_there_is_code_3_and_nothing_is_deleted(
    azpool, storage, address: str
) -> None:
    ended = azpool("rm", "-r", "--yes", "az://demo/a/", address)
    assert ended.code == 3
    assert len(storage.one.blobs) == 4


def test_different_containers_are_two_commands(azpool) -> None:
    assert azpool("rm", "az://demo/a.txt", "az://logs/b").code == 2
