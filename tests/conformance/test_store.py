"""The contract of `store.Store`, on every filling of it: here the REST client on real Azurite."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading

import pytest

from azpool.errors import AccessDenied, Conflict, IntegrityError, NotFound, UsageError
from azpool.identity.secret import Secret
from azpool.storage._rest import open_account, open_store
from azpool.storage._signing import Anonymous, Sas, SharedKey
from azpool.storage.store import BlobInfo, FilePiece, Prefix, Properties

TRICKY = [
    "plain.txt", "a//b", "//a", "dir/", "a b+c", "100%", "%2E%2E/x", "%25", "#?&=;:@!$'()*,",
    "ü/€/😀", "a.", "a/...", "a..b/c", '<x> & "y"', "~tilde_-", "[brackets]{braces}|^`",
    "a" * 1024,
]  # fmt: skip


@pytest.fixture
def auth(azurite):
    return SharedKey(azurite.account, Secret(azurite.key))


@pytest.fixture
def store(azurite, auth):
    made = open_store(azurite.blob_url, f"c-{secrets.token_hex(8)}", auth)
    made.create_container()
    yield made
    made.delete_container()
    made.close()


def test_a_blob_comes_back_as_it_went(store):
    body = os.urandom(70_000)
    meta = {"Origin": "here", "b_1": "x"}
    put = store.put("d/x.bin", body, content_type="text/plain", metadata=meta)
    head = store.head("d/x.bin")
    info, back = store.get("d/x.bin")
    assert back == body
    for seen in (put, head, info):
        assert (seen.name, seen.size_bytes, seen.etag) == ("d/x.bin", 70_000, put.etag)
        assert seen.last_modified is not None
    assert head.content_type == info.content_type == "text/plain"
    assert head.md5 == hashlib.md5(body).digest()
    assert {k.lower(): v for k, v in head.metadata.items()} == {"origin": "here", "b_1": "x"}


@pytest.mark.parametrize("body", [b"", b"x", bytearray(b"ab"), memoryview(b"abcdef")[2:4]])
def test_bodies_of_every_kind_and_none(store, body):
    assert store.put("x", body).size_bytes == len(body)
    assert store.get("x")[1] == bytes(body)


def test_names_travel_exactly_there_and_back(store):
    for name in TRICKY:
        store.put(name, name.encode())
    for name in TRICKY:
        assert store.get(name)[1] == name.encode()
    assert {item.name for item in store.list()} == set(TRICKY)
    for name in TRICKY:
        assert [item.name for item in store.list(name)] == [
            other for other in sorted(TRICKY) if other.startswith(name)
        ]
        store.delete(name)
    assert list(store.list()) == []


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 3, b"012"), (2, None, b"23456789"), (8, 100, b"89"), (9, 1, b"9"), (10, 5, b""),
     (100, None, b""), (3, 0, b""), (0, 10, b"0123456789"), (0, 100, b"0123456789")],
)  # fmt: skip
def test_ranges(store, offset, length, expected):
    store.put("x", b"0123456789")
    info, data = store.get("x", offset=offset, length=length)
    assert data == expected
    assert info.size_bytes == 10


def test_an_empty_blob_has_no_range_that_fails(store):
    store.put("x", b"")
    assert store.get("x", length=100)[1] == b""
    assert store.get("x", offset=5)[1] == b""


def test_a_blob_that_changed_is_a_conflict(store):
    first = store.put("x", b"one")
    assert store.get("x", etag=first.etag)[1] == b"one"
    second = store.put("x", b"two")
    assert first.etag != second.etag
    for asked in ({}, {"length": 2}, {"length": 0}, {"offset": 99}):
        with pytest.raises(Conflict):
            store.get("x", etag=first.etag, **asked)


def test_overwrite_off_keeps_what_is_there(store):
    store.put("x", b"one", overwrite=False)
    with pytest.raises(Conflict) as refused:
        store.put("x", b"two", overwrite=False)
    assert refused.value.status == 409 and refused.value.path == "x"
    store.stage("x", "1", b"two")
    with pytest.raises(Conflict):
        store.commit("x", ["1"], overwrite=False)
    assert store.get("x")[1] == b"one"


def test_blocks_are_staged_seen_and_committed_in_order(store):
    assert store.staged("x") == {}
    for number in (2, 0, 1):
        store.stage("x", f"{number:05}", bytes([number]) * 10)
    assert store.staged("x") == {f"{number:05}": 10 for number in range(3)}
    with pytest.raises(NotFound):
        store.head("x")
    ids = ["00000", "00002", "00001"]
    done = store.commit("x", ids, content_type="a/b", metadata={"k": "v"})
    assert done.etag == store.head("x").etag and done.size_bytes == -1
    info, data = store.get("x")
    assert data == b"\0" * 10 + b"\2" * 10 + b"\1" * 10
    assert (info.content_type, dict(info.metadata)) == ("a/b", {"k": "v"})
    assert store.staged("x") == {}


PROPERTIES = Properties(
    cache_control="max-age=60",
    content_encoding="gzip",
    content_language="de-AT",
    content_disposition='attachment; filename="a b.txt"',
    tier="Cool",
)


@pytest.mark.parametrize("way", ["put", "commit"])
def test_what_is_stored_with_a_blob_is_there_as_others_see_it(store, azurite, way):
    blob = pytest.importorskip("azure.storage.blob")
    if way == "put":
        store.put("x", b"1", metadata={"k": "v"}, properties=PROPERTIES)
    else:
        store.stage("x", "1", b"1")
        store.commit("x", ["1"], metadata={"k": "v"}, properties=PROPERTIES)
    with blob.BlobClient(azurite.blob_url, store._container, "x", credential=azurite.key) as other:
        facts = other.get_blob_properties()
    settings = facts.content_settings
    assert settings.cache_control == "max-age=60"
    assert settings.content_encoding == "gzip"
    assert settings.content_language == "de-AT"
    assert settings.content_disposition == 'attachment; filename="a b.txt"'
    assert facts.blob_tier == "Cool"
    assert facts.metadata == {"k": "v"}


@pytest.mark.parametrize("way", ["put", "commit"])
def test_tags_are_stored(store, azurite, way):
    blob = pytest.importorskip("azure.storage.blob")
    tags = {"project": "a b", "path": "x/y=z"}
    properties = Properties(tags=tags)
    if way == "put":
        store.put("x", b"1", properties=properties)
    else:
        store.stage("x", "1", b"1")
        store.commit("x", ["1"], properties=properties)
    with blob.BlobClient(azurite.blob_url, store._container, "x", credential=azurite.key) as other:
        assert other.get_blob_tags() == tags


def test_a_put_with_another_bodys_md5_is_refused_and_stores_nothing(store):
    with pytest.raises(IntegrityError) as refused:
        store.put("x", b"one", md5=hashlib.md5(b"two").digest())
    assert refused.value.status == 400 and refused.value.retryable
    with pytest.raises(NotFound):
        store.head("x")
    store.put("x", b"one", md5=hashlib.md5(b"one").digest())
    assert store.get("x")[0].md5 == hashlib.md5(b"one").digest()


def test_a_block_with_another_bodys_md5_is_refused(store):
    with pytest.raises(IntegrityError):
        store.stage("x", "1", b"one", md5=hashlib.md5(b"two").digest())
    assert store.staged("x") == {}
    store.stage("x", "1", b"one", md5=hashlib.md5(b"one").digest())
    assert store.staged("x") == {"1": 3}


def test_the_md5_of_a_commit_is_kept_and_comes_with_ranges_and_listings(store):
    whole = hashlib.md5(b"onetwo").digest()
    store.stage("x", "1", b"one")
    store.stage("x", "2", b"two")
    store.commit("x", ["1", "2"], md5=whole)
    store.stage("y", "1", b"one")
    store.commit("y", ["1"])
    assert store.get("x", offset=1, length=2)[0].md5 == whole
    assert store.get("x")[0].md5 == store.head("x").md5 == whole
    assert [item.md5 for item in store.list()] == [whole, None]


def test_a_large_block_and_a_large_get(store):
    body = os.urandom(9 << 20)
    store.stage("x", "1", body)
    store.commit("x", ["1"])
    assert store.get("x")[1] == body


def test_what_is_not_there_is_not_found(store, azurite, auth):
    for action in (store.head, store.get, store.delete):
        with pytest.raises(NotFound) as missing:
            action("absent")
        assert (missing.value.status, missing.value.path) == (404, "absent")
        assert missing.value.request_id
    other = open_store(azurite.blob_url, "absent-container", auth)
    assert not other.container_exists()
    for action in (lambda: other.put("x", b""), lambda: list(other.list()), other.delete_container,
                   lambda: other.staged("x")):  # fmt: skip
        with pytest.raises(NotFound) as missing:
            action()
        assert missing.value.code == "ContainerNotFound"
    other.close()


def test_listings_fold_at_the_delimiter_and_know_the_facts(store):
    for name in ("a/1", "a/b/2", "c", "a.txt"):
        store.put(name, b"123", metadata={"Key": name.replace("/", "_")})
    assert [item.name for item in store.list()] == ["a.txt", "a/1", "a/b/2", "c"]
    folded = list(store.list(delimiter="/"))
    assert {item.name for item in folded} == {"a.txt", "a/", "c"}
    assert [type(item) for item in folded if item.name == "a/"] == [Prefix]
    assert {item.name for item in store.list("a/", delimiter="/")} == {"a/1", "a/b/"}
    (blob,) = store.list("c")
    assert isinstance(blob, BlobInfo)
    head = store.head("c")
    assert (blob.size_bytes, blob.etag, blob.last_modified) == (3, head.etag, head.last_modified)
    assert dict(blob.metadata) == {"Key": "c"}
    assert list(store.list("zzz")) == []


def test_a_listing_of_several_pages_is_complete(store, monkeypatch):
    monkeypatch.setattr("azpool.storage._requests.Builder.list.__kwdefaults__", {"items": 7})
    names = [f"n{number:03}" for number in range(30)]
    for name in names:
        store.put(name, b"")
    assert [item.name for item in store.list()] == names


def test_folder_markers_are_seen(store):
    store.put("d/", b"")
    store.put("e", b"", metadata={"hdi_isfolder": "true"})
    store.put("f", b"")
    assert {item.name: item.is_directory_marker for item in store.list()} == {
        "d/": True, "e": True, "f": False,
    }  # fmt: skip


def test_containers_come_and_go(azurite, auth):
    name = f"c-{secrets.token_hex(8)}"
    made = open_store(azurite.blob_url, name, auth)
    account = open_account(azurite.blob_url, auth)
    assert not made.container_exists()
    made.create_container()
    assert made.container_exists()
    with pytest.raises(Conflict):
        made.create_container()
    assert list(account.list_containers(name)) == [name]
    assert name in account.list_containers()
    made.delete_container()
    assert list(account.list_containers(name)) == []
    made.close()
    account.close()


def test_refused_credentials_say_so_without_showing_them(azurite, store):
    wrong = "d3Jvbmcga2V5"
    sas = "sv=2024-11-04&ss=b&srt=sco&sp=r&se=2030-01-01&sig=WRONGSIG"
    container = store._container
    for auth in (SharedKey(azurite.account, Secret(wrong)), Sas(Secret(sas)), Anonymous()):
        refused = open_store(azurite.blob_url, container, auth)
        with pytest.raises((AccessDenied, NotFound)) as failed:
            refused.put("x", b"1")
        assert wrong not in str(failed.value) and "WRONGSIG" not in str(failed.value)
        refused.close()


def test_a_sas_is_enough(azurite, store):
    blob = pytest.importorskip("azure.storage.blob")
    from datetime import UTC, datetime, timedelta

    token = blob.generate_container_sas(
        azurite.account, store._container, account_key=azurite.key, permission="rwdl",
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    mine = open_store(azurite.blob_url, store._container, Sas(Secret(f"?{token}")))
    mine.put("a b", b"1")
    assert [item.name for item in mine.list()] == ["a b"]
    assert mine.container_exists()
    assert mine.get("a b")[1] == b"1"
    mine.close()


def test_many_threads_share_one_store(store):
    wrong = []

    def work(number: int) -> None:
        for turn in range(10):
            body = f"{number}-{turn}".encode() * 50
            store.put(f"t{number}", body)
            if store.get(f"t{number}")[1] != body:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(list(store.list())) == 8


def test_closing_twice_is_harmless(azurite, auth):
    made = open_store(azurite.blob_url, "unused-box", auth)
    made.close()
    made.close()


class Collected:
    def __init__(self):
        self.got = bytearray()

    def write(self, data):
        self.got += data


def test_a_piece_of_a_file_goes_up_as_any_other_body(store, tmp_path):
    body = os.urandom(3 << 20)
    (tmp_path / "f").write_bytes(body)
    with open(tmp_path / "f", "rb") as file:
        piece = FilePiece(file.fileno(), 100, 2 << 20, "f")
        inside = body[100 : 100 + (2 << 20)]
        assert store.put("x", piece, md5=hashlib.md5(inside).digest()).size_bytes == 2 << 20
        store.stage("y", "1", piece)
        store.stage("y", "2", piece, md5=hashlib.md5(inside).digest())
        with pytest.raises(IntegrityError):
            store.put("z", piece, md5=hashlib.md5(body).digest())
    store.commit("y", ["1", "2"])
    assert store.get("x")[1] == inside
    assert store.get("y")[1] == inside * 2


def test_a_range_comes_down_into_a_sink(store):
    body = os.urandom(3 << 20)
    put = store.put("x", body, metadata={"k": "v"})
    for offset, length in ((0, 3 << 20), (5, 1 << 20), (3 << 20, 10), ((3 << 20) - 3, 100)):
        sink = Collected()
        info, data = store.get("x", offset=offset, length=length, etag=put.etag, into=sink)
        assert data == b""
        assert sink.got == body[offset : offset + length]
        assert (info.size_bytes, info.etag, dict(info.metadata)) == (3 << 20, put.etag, {"k": "v"})
    sink = Collected()
    with pytest.raises(NotFound):
        store.get("absent", length=10, into=sink)
    with pytest.raises(UsageError):
        store.get("x", into=sink)
    assert sink.got == b""
