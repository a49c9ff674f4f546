from __future__ import annotations

import json

import pytest

BLOBS = {"a-b": 1, "a.txt": 2, "a/x": 3, "a/y/z": 4096, "b": 5}


@pytest.fixture(autouse=True)
def blobs(storage):
    storage.one.blobs = dict(BLOBS)


@pytest.mark.parametrize("arguments", [(), ("az://",), ("https://acme.blob.core.windows.net",)])
def test_without_a_container_the_containers_are_listed(azpool, arguments) -> None:
    ended = azpool("ls", *arguments)
    assert (ended.code, ended.out) == (0, "demo\nlogs\n")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("az://demo",), ["a/", "a-b", "a.txt", "b"]),
        (("az://demo/",), ["a/", "a-b", "a.txt", "b"]),
        (("-r", "az://demo"), ["a-b", "a.txt", "a/x", "a/y/z", "b"]),
        (("az://demo/a",), ["x", "y/"]),
        (("az://demo/a/",), ["x", "y/"]),
        (("-r", "az://demo/a"), ["x", "y/z"]),
        (("az://demo/a.txt",), ["a.txt"]),
        (("az://demo/a/y/z",), ["z"]),
        (("az://demo/a*",), ["a-b", "a.txt"]),
        (("az://demo/**/z",), ["a/y/z"]),
    ],
)
def test_names_are_those_that_the_address_means(azpool, arguments, names: list[str]) -> None:
    ended = azpool("ls", *arguments)
    assert ended.code == 0
    assert sorted(ended.out.splitlines()) == sorted(names)


@pytest.mark.parametrize(
    "address", ["az://demo/zz", "az://demo/a/y/", "az://demo/zz/", "az://demo/*.q"]
)
def test_what_is_not_there_is_code_3(azpool, storage, address: str) -> None:
    storage.one.blobs = {"a": 1}
    ended = azpool("ls", address)
    assert ended.code == 3
    assert ended.err.startswith(f"azpool: cannot list {address!r}: nothing there; see azpool ls ")


def test_an_empty_container_is_no_failure(azpool, storage) -> None:
    storage.one.blobs = {}
    assert azpool("ls", "az://demo").code == 0


def test_an_unknown_container_is_one_message(azpool, storage) -> None:
    storage.one.exists = False
    ended = azpool("ls", "az://demo")
    assert ended.code == 1
    assert ended.err.count("\n") == 1


def test_long_lines_have_size_and_time(azpool) -> None:
    assert azpool("ls", "-l", "az://demo/a/y").out == "  4.0 KiB                       z\n"


def test_json_lines_have_full_names(azpool) -> None:
    lines = [json.loads(line) for line in azpool("ls", "--json", "az://demo/a").out.splitlines()]
    assert [(line["kind"], line["name"]) for line in lines] == [("blob", "a/x"), ("folder", "a/y/")]
    assert lines[0]["size_bytes"] == 3


def test_several_addresses_are_told_apart(azpool) -> None:
    ended = azpool("ls", "az://demo/a", "az://demo/zz", "az://demo/b")
    assert ended.out == "az://demo/a:\nx\ny/\n\naz://demo/zz:\n\naz://demo/b:\nb\n"
    assert ended.code == 3


def test_a_local_path_is_no_address(azpool) -> None:
    ended = azpool("ls", "foo")
    assert ended.code == 2
    assert ended.err.startswith("azpool: cannot open 'foo': not an address; use az://CONTAINER")
