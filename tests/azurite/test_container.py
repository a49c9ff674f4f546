"""A container as users hold it, on a real server; without a pool."""

import pickle

import pytest

from azpool.errors import AccessDenied, Conflict, ConnectionFailed, LocalFileError, NotFound
from azpool.report import State
from azpool.storage import Container, Endpoint, FileOutcome, Prefix, RetryOptions
from azpool.storage._stores import close_stores


@pytest.fixture(autouse=True)
def _no_connection_stays_open():
    yield
    close_stores()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(b"hello")
    return tmp_path


def names(container, *args, **more):
    return [entry.name for entry in container.list(*args, **more)]


def test_one_file_goes_up_and_comes_back_in_this_process(container, here):
    outcome = container.upload("f", "p/")
    assert isinstance(outcome, FileOutcome)
    assert (outcome.source, outcome.target, outcome.bytes_moved) == ("f", "p/f", 5)
    assert container.exists("p/f")
    back = container.download("p/f", "back")
    assert (back.target, back.state) == ("back", State.OK)
    assert (here / "back").read_bytes() == b"hello"


@pytest.mark.parametrize(
    "name",
    [
        "a//b",
        "é",
        "e\u0301",
        "100%",
        "%41",
        "a?b#c",
        "a b+c&d",
        "日本",
        "dot.",
        "'\"<>|*",
        ("x" * 250 + "/") * 4 + "y" * 20,
        "🎈",
    ],
)
def test_names_go_and_come_back(container, here, name):
    container.upload("f", name)
    assert names(container) == [name]
    assert container.exists(name)
    container.download(name.replace("*", "[*]") if "*" in name else name, "back/")
    container.delete(name)
    assert names(container) == []


def test_an_empty_file_goes_and_comes_back(container, here):
    (here / "empty").touch()
    container.upload("empty")
    container.download("empty", "back")
    assert (here / "back").read_bytes() == b""


def test_a_file_in_parts_goes_and_comes_back(container, here):
    body = bytes(range(256)) * (17 * 4096 + 1)
    (here / "big").write_bytes(body)
    assert container.upload("big").bytes_moved == len(body)
    container.download("big", "back")
    assert (here / "back").read_bytes() == body
    assert sorted(p.name for p in here.iterdir()) == ["back", "big", "f"]


def test_listing_flat_and_by_folder(container, here):
    for name in ("a", "d/x", "d/e/y", "z"):
        container.upload("f", name)
    assert names(container) == ["a", "d/e/y", "d/x", "z"]
    assert names(container, "d/") == ["d/e/y", "d/x"]
    # Azurite lists folders ahead of blobs, where Azure sorts them in.
    entries = sorted(container.list(recursive=False), key=lambda entry: entry.name)
    assert [e.name for e in entries] == ["a", "d/", "z"]
    assert [type(e) is Prefix for e in entries] == [False, True, False]
    assert entries[0].size_bytes == 5


def test_a_container_with_a_path_is_that_folder(container, azurite, here):
    folder = Container(f"{container.url}/in/side", key=azurite.key)
    folder.upload("f")
    folder.upload("f", "sub/g")
    assert names(container) == ["in/side/f", "in/side/sub/g"]
    assert names(folder) == ["f", "sub/g"]
    assert folder.exists("f")
    folder.download("sub/g", "g")
    folder.download("sub", "tree/")
    folder.download("/", "all")
    assert (here / "tree/sub/g").exists()
    assert (here / "all/sub/g").exists()
    folder.delete("f")
    assert names(folder) == ["sub/g"]


def test_containers_are_made_found_and_removed(azurite, container_name):
    endpoint = Endpoint(azurite.blob_url, key=azurite.key)
    container = endpoint.container(container_name)
    assert not container.exists()
    container.create()
    assert container.exists()
    assert container_name in list(endpoint.list_containers())
    with pytest.raises(Conflict):
        container.create()
    container.remove()
    assert container_name not in list(endpoint.list_containers())


def test_a_pickled_container_works(container, here):
    again = pickle.loads(pickle.dumps(container))
    again.upload("f")
    assert names(container) == ["f"]


@pytest.mark.usefixtures("azure_environment")
def test_the_environment_signs_in(container, here):
    Container(f"az://{container.name}").upload("f")
    assert names(container) == ["f"]


def test_deleting_what_is_not_there(container, here):
    container.upload("f")
    with pytest.raises(NotFound):
        container.delete("no")
    report = container.delete(["f", "no"])
    assert [o.state for o in report] == [State.OK, State.FAILED]
    assert not container.exists("f")


def test_existing_targets_are_skipped_on_request(container, here):
    container.upload("f", "x")
    (here / "g").write_bytes(b"other")
    assert container.upload("g", "x", overwrite=False).state is State.SKIPPED
    container.download("x", "back")
    assert (here / "back").read_bytes() == b"hello"
    assert container.download("x", "g", overwrite=False).state is State.SKIPPED
    assert (here / "g").read_bytes() == b"other"


def test_one_file_that_fails_raises(container, here):
    (here / "d").mkdir()
    (here / "gone").symlink_to("nowhere")
    container.upload("f", "x")
    for call, error, words in [
        (lambda: container.upload("no"), LocalFileError, "cannot upload 'no': no such file"),
        (lambda: container.upload("gone"), LocalFileError, "cannot upload 'gone'"),
        (lambda: container.download("no", "t"), NotFound, "cannot download 'no': no such blob"),
        (lambda: container.download("x", "f/t"), LocalFileError, "cannot write 'f/t': a part of"),
    ]:
        with pytest.raises(error, match=words):
            call()
    assert sorted(p.name for p in here.iterdir()) == ["d", "f", "gone"]


def test_an_unknown_container_is_told(azurite, here):
    container = Container(f"{azurite.blob_url}/nowhere", key=azurite.key)
    with pytest.raises(NotFound, match="the container does not exist"):
        container.upload("f")
    with pytest.raises(NotFound, match="the container does not exist"):
        container.download("f", "t")
    with pytest.raises(NotFound):
        list(container.list())


def test_refused_credentials_are_told_without_the_key(container, here):
    wrong = Container(container.url, key="d3Jvbmcta2V5")
    with pytest.raises(AccessDenied) as got:
        wrong.upload("f")
    assert got.value.status == 403
    assert "d3Jvbmcta2V5" not in str(got.value)


def test_a_server_that_is_not_there_is_told(here):
    container = Container(
        "http://127.0.0.1:1/dev/data",
        key="a2V5",
        retry=RetryOptions(attempts=2, first_delay_seconds=0.001),
    )
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
        container.upload("f")
