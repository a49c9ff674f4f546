"""The naming table of the design, line by line, up and down."""

import os

import pytest

from azpool.errors import LocalFileError, NameRefused, NotFound, UsageError
from azpool.storage._batch import Direction
from azpool.storage._ledger import Ledger
from azpool.storage._listing import LIST_FROM_NAMES, Listing
from azpool.storage._outcomes import LedgerOutcomes
from azpool.storage._planning import plan
from azpool.storage._retry import RetryOptions
from azpool.storage._sources import select_downloads, select_uploads
from azpool.storage.options import Overwrite


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with `f`, `g` and the folder `d` with `d/x`, `d/e/y`."""
    for name in ("f", "g", "d/x", "d/e/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(selection, direction):
    """Give the things that a ledger holds after planning."""
    ledger = Ledger()
    plan(ledger, selection, direction, Overwrite.ALWAYS, cwd=os.getcwd(), listing=None)
    return [(o.source, o.target) for o in LedgerOutcomes(ledger)]


def ups(sources, dest=""):
    return planned(select_uploads(sources, dest), Direction.UPLOAD)


def downs(store, sources, dest):
    listing = Listing(store, RetryOptions(attempts=1))
    return planned(select_downloads(listing, sources, dest, "c"), Direction.DOWNLOAD)


@pytest.mark.parametrize(
    ("sources", "dest", "targets"),
    [
        ("f", "p/", ["p/f"]),
        ("f", "p/x", ["p/x"]),
        ("f", "", ["f"]),
        ("./f", "p/", ["p/f"]),
        ("d", "p", ["p/d/x", "p/d/e/y"]),
        ("d", "p/", ["p/d/x", "p/d/e/y"]),
        ("d", "", ["d/x", "d/e/y"]),
        ("d/", "p", ["p/x", "p/e/y"]),
        ("d/", "p/", ["p/x", "p/e/y"]),
        ("d/", "", ["x", "e/y"]),
        ("d/.", "p", ["p/x", "p/e/y"]),
        (".", "p", ["p/f", "p/g", "p/d/x", "p/d/e/y"]),
        (["f"], "p", ["p/f"]),
        (["f", "d"], "p", ["p/f", "p/d/x", "p/d/e/y"]),
        (["d/x", "f"], "", ["x", "f"]),
        ("*", "p", ["p/f", "p/g"]),
        ("d/*", "p", ["p/x"]),
        ("d/**", "p", ["p/x", "p/e/y"]),
        ("*/*", "p/", ["p/d/x"]),
        ("**/y", "p", ["p/d/e/y"]),
        (["d/*", "g"], "p", ["p/x", "p/g"]),
    ],
)
def test_where_uploads_land(here, sources, dest, targets):
    assert [target for _, target in ups(sources, dest)] == targets


def test_a_path_object_is_a_path(here):
    assert ups(here / "f", "p/") == [(f"{here}/f", "p/f")]


def test_a_name_with_wildcard_characters_that_exists_is_itself(here):
    (here / "a[1].nc").write_bytes(b"1")
    assert ups("a[1].nc", "p/") == [("a[1].nc", "p/a[1].nc")]


def test_two_files_for_one_blob_are_an_error(here):
    (here / "x").write_bytes(b"1")
    with pytest.raises(UsageError, match=r"'x' and 'd/x': both would become 'p/x'"):
        ups(["x", "d/x"], "p")
    with pytest.raises(UsageError):
        ups(["f", "f"], "p")


@pytest.mark.parametrize("source", ["no", "no/", "f/", "no*", "d/e/*/z", "no/**"])
def test_a_source_that_is_not_there_is_a_failed_thing_beside_the_others(here, source):
    missing, found = select_uploads([source, "f"], "p").things
    assert isinstance(missing.error, LocalFileError)
    assert str(missing.error).startswith(f"cannot upload {source!r}: ")
    assert isinstance(missing.error.__cause__, OSError)
    assert found.target == "p/f"


@pytest.mark.parametrize("dest", ["../p", "a/./b", "a\\b"])
def test_refused_names_fail_by_name(here, dest):
    (thing,) = select_uploads("f", dest).things
    assert isinstance(thing.error, NameRefused)


def test_a_local_name_with_a_backslash_fails_alone(here):
    (here / "d" / "b\\c").write_bytes(b"1")
    errors = {t.source: t.error for t in select_uploads("d/", "").things}
    assert isinstance(errors.pop("d/b\\c"), NameRefused)
    assert set(errors.values()) == {None}


def test_an_empty_folder_is_noted(here):
    (here / "empty").mkdir()
    selection = select_uploads("empty", "")
    assert list(selection.things) == []
    assert selection.notes == ["'empty' holds no files"]


def test_no_path_is_no_source(here):
    with pytest.raises(UsageError):
        list(select_uploads("", "").things)
    with pytest.raises(UsageError, match="text"):
        select_uploads(b"f", "")


@pytest.mark.parametrize(
    ("sources", "dest", "targets"),
    [
        ("a/b", "new", ["new"]),
        ("a/b", "new/", ["new/b"]),
        ("a/b", "d", ["d/b"]),
        ("a/b", ".", ["./b"]),
        ("a/b", "", ["./b"]),
        ("a/t", "new", ["new/t/x", "new/t/e/y"]),
        ("a/t", "new/", ["new/t/x", "new/t/e/y"]),
        ("a/t/", "new", ["new/x", "new/e/y"]),
        ("a/t/", "d/", ["d/x", "d/e/y"]),
        (["a/b"], "new", ["new/b"]),
        (["a/b", "a/t"], "new", ["new/b", "new/t/x", "new/t/e/y"]),
        ("a/*", "new", ["new/b"]),
        ("a/**", "new", ["new/b", "new/t/x", "new/t/e/y"]),
        ("a/t/*/y", "new", ["new/e/y"]),
        ("*/b", "new", ["new/a/b"]),
        ("", "new", ["new/c/a/b", "new/c/a/t/x", "new/c/a/t/e/y"]),
        ("/", "new", ["new/a/b", "new/a/t/x", "new/a/t/e/y"]),
    ],
)
def test_where_downloads_land(here, store, sources, dest, targets):
    store.fill("a/b", "a/t/x", "a/t/e/y")
    assert sorted(target for _, target in downs(store, sources, dest)) == sorted(targets)


def test_where_a_name_is_both_the_blob_is_taken_and_the_report_says_so(here, store):
    store.fill("a/b", "a/b/c")
    selection = select_downloads(Listing(store, RetryOptions()), "a/b", "new", "c")
    assert [t.target for t in list(selection.things)] == ["new"]
    assert selection.notes == [
        "'a/b' is a blob and a folder: the blob was taken; use 'a/b/' for what is in the folder"
    ]


def test_blobs_that_can_not_both_be_files_are_an_error(here, store):
    store.fill("t/a", "t/a/b")
    with pytest.raises(UsageError, match="a file and a folder"):
        downs(store, "t/", "new")
    store.fill("u/a", "v/a")
    with pytest.raises(UsageError, match="both would become"):
        downs(store, ["u/a", "v/a"], "new")
    store.fill("w/x//y", "w/x/y")
    with pytest.raises(UsageError, match="both would become"):
        downs(store, "w/", "new")


def test_a_marker_is_an_empty_folder(here, store):
    store.fill("t/x/", "t/y")
    things = select_downloads(Listing(store, RetryOptions()), "t/", "new", "c").things
    assert [(t.target, t.folder) for t in things] == [("new/x", True), ("new/y", False)]


def test_the_marker_of_the_folder_itself_is_the_destination(here, store):
    store.fill("t/", "t/y")
    things = select_downloads(Listing(store, RetryOptions()), "t/", "new", "c").things
    assert [(t.target, t.folder) for t in things] == [("new", True), ("new/y", False)]


@pytest.mark.parametrize("name", ["t/../x", "t/./x", "t/a\\b", "t/a\x01b", "t/.."])
def test_names_that_would_leave_the_folder_fail_and_the_others_go_on(here, store, name):
    store.fill(name, "t/ok")
    by_name = {
        t.source: t for t in select_downloads(Listing(store, RetryOptions()), "t/", "n", "c").things
    }
    assert isinstance(by_name[name].error, NameRefused)
    assert by_name[name].error.path == name
    assert by_name["t/ok"].error is None


@pytest.mark.parametrize("source", ["no", "no/", "no*", "a/n"])
def test_a_blob_that_is_not_there_is_a_failed_thing_beside_the_others(here, store, source):
    store.fill("a/b", "a/no")
    missing, found = select_downloads(
        Listing(store, RetryOptions()), [source, "a/b"], "new", "c"
    ).things
    assert isinstance(missing.error, NotFound)
    assert str(missing.error).startswith(f"cannot download {source!r}: ")
    assert found.target == "new/b"


def test_a_blob_name_with_wildcard_characters_that_exists_is_itself(here, store):
    store.fill("a[1]", "a1", "b*", "bb")
    assert downs(store, "a[1]", "new") == [("a[1]", "new")]
    assert downs(store, "b*", "new/") == [("b*", "new/b*")]
    assert downs(store, "a[[]1]", "new") == [("a[1]", "new/a[1]")]


def test_a_file_where_the_target_folder_should_be_is_one_error(here, store):
    store.fill("t/a", "t/b")
    with pytest.raises(LocalFileError, match="it is a file, not a folder"):
        downs(store, "t/", "f")
    with pytest.raises(LocalFileError):
        downs(store, ["t/a", "t/b"], "f")
    assert downs(store, "t/a", "f") == [("t/a", "f")]


def test_many_names_of_one_folder_are_looked_up_by_one_listing(here, store):
    names = [f"t/f{n:04}" for n in range(LIST_FROM_NAMES + 1)]
    store.fill(*names)
    assert len(downs(store, names, "new")) == len(names)
    assert store.calls == [("list", "t/f00")]


def test_few_names_are_looked_up_side_by_side(here, store):
    store.fill("t/a", "u/b", "v/c", "v/d/e")
    got = downs(store, ["t/a", "u/b", "v/c", "v/d"], "new")
    assert sorted(target for _, target in got) == ["new/a", "new/b", "new/c", "new/d/e"]


def test_an_empty_container_is_noted(here, store):
    selection = select_downloads(Listing(store, RetryOptions()), "", "new", "c")
    assert list(selection.things) == []
    assert selection.notes == ["container 'c' holds no blobs"]


def test_local_paths_below_a_folder_object(here, store):
    store.fill("t/a")
    assert downs(store, "t/", os.fspath(here / "d")) == [("t/a", f"{here}/d/a")]
