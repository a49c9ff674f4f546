import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import NameRefused, UsageError
from azpool.storage import naming

SEGMENT = st.text(
    st.characters(exclude_characters="/\\", exclude_categories=("Cs", "Cc")), min_size=1
).filter(lambda s: s not in {".", ".."})
NAME = st.lists(SEGMENT, min_size=1, max_size=5).map("/".join).filter(lambda n: len(n) <= 1024)


@pytest.mark.parametrize(
    ("dest", "target"),
    [("p/", "p/f"), ("p/x", "p/x"), ("", "f"), ("p", "p")],
)
def test_where_one_file_lands(dest, target):
    assert naming.blob_target(dest, "f") == target


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/../b",
        "./a",
        "a/.",
        "../a",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\x7f",
        "a\x85",
        "a\udc80",
        "x" * 1025,
    ],
)
def test_names_that_would_not_come_back_are_refused_by_name(name):
    with pytest.raises(NameRefused, match=r"^cannot store .*: .*; rename it$") as got:
        naming.check_blob_name(name)
    assert got.value.path == (name or None)


@pytest.mark.parametrize(
    "name", ["a//b", "a.", "a/", "...", ".a", "a b", "%41", "a?b#c", "é", "e\u0301", "x" * 1024]
)
def test_names_that_go_and_come_back(name):
    naming.check_blob_name(name)


@given(NAME)
def test_a_clean_name_keeps_its_path(name):
    assert naming.local_relative(name) == name


@given(st.text(max_size=40))
def test_no_name_leaves_the_target_folder(name):
    try:
        path = naming.local_relative(name)
    except NameRefused:
        return
    assert path
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert "\\" not in path


@pytest.mark.parametrize(("name", "path"), [("a//b", "a/b"), ("/etc/passwd", "etc/passwd")])
def test_empty_segments_are_folded_below_the_target(name, path):
    assert naming.local_relative(name) == path


def test_a_name_of_slashes_is_refused():
    with pytest.raises(NameRefused):
        naming.local_relative("//")


def test_two_sources_for_one_target_are_an_error_that_names_both():
    with pytest.raises(UsageError, match=r"'a/x' and 'b/x': both would become 'p/x'"):
        naming.check_unique([("a/x", "p/x"), ("c", "p/c"), ("b/x", "p/x")])


def test_the_same_name_given_twice_is_an_error_too():
    twice = "ab"
    with pytest.raises(UsageError):
        naming.check_unique([("ab", "p/ab"), (twice, "p/ab")])


def test_a_file_and_a_folder_of_one_name_are_an_error():
    with pytest.raises(UsageError, match=r"'a' and 'a/b/c': 'd/a' would be a file and a folder"):
        naming.check_local_targets([("a", "d/a"), ("a/b/c", "d/a/b/c")])


def test_a_file_and_an_empty_folder_of_one_name_are_an_error():
    with pytest.raises(UsageError):
        naming.check_local_targets([("x", "d/x")], [("x/", "d/x")])
    naming.check_local_targets([("x/y", "d/x/y")], [("x/", "d/x")])


@given(st.lists(NAME, max_size=12, unique=True))
def test_checked_targets_can_all_exist(names):
    try:
        naming.check_local_targets([(n, n) for n in names])
    except UsageError:
        assert any(a.startswith(b + "/") for a in names for b in names)
    else:
        assert not any(a.startswith(b + "/") for a in names for b in names)


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*.nc", ["a.nc", ".nc"], ["d/a.nc", "a.ncx"]),
        ("d/*/x", ["d/1/x"], ["d/x", "d/1/2/x"]),
        ("**", ["a", "d/a", "d/.zarray"], []),
        ("**/*.nc", ["a.nc", "d/e/a.nc"], ["a.txt"]),
        ("d/**", ["d/a", "d/e/f"], ["e/a"]),
        ("d/**/x", ["d/x", "d/1/x", "d/1/2/x"], ["d/1x", "x"]),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("[ab]?", ["a1", "bb"], ["c1", "a", "a/"]),
        ("[!a]x", ["bx"], ["ax", "/x"]),
        ("[[]1]", ["[1]"], ["1"]),
        ("a[", ["a["], ["a"]),
        ("[]]", ["]"], ["["]),
        ("a.c", ["a.c"], ["abc"]),
        ("*", ["line\nbreak"], []),
    ],
)
def test_globs(pattern, matches, others):
    matcher = naming.compile_glob(pattern)
    assert [m for m in matches if not matcher.fullmatch(m)] == []
    assert [o for o in others if matcher.fullmatch(o)] == []


def test_a_senseless_class_is_a_usage_error():
    with pytest.raises(UsageError, match="cannot use the glob"):
        naming.compile_glob("[z-a]")


@given(NAME)
def test_an_escaped_name_matches_itself_alone(name):
    escaped = re.sub(r"([*?\[])", r"[\1]", name)
    assert naming.compile_glob(escaped).fullmatch(name)
    assert not naming.compile_glob(escaped).fullmatch(name + "x")


@given(st.text(alphabet="ab/*?[]!-^\\x", max_size=12))
def test_every_pattern_compiles_or_is_refused(pattern):
    try:
        naming.compile_glob(pattern)
    except UsageError:
        assert "[" in pattern


@pytest.mark.parametrize(
    ("pattern", "root", "kept"),
    [
        ("data/2020*/x.nc", "data/", "2020*/x.nc"),
        ("*.nc", "", "*.nc"),
        ("/d/**/a", "/d/", "**/a"),
        ("a/b[1]/c", "a/", "b[1]/c"),
    ],
)
def test_the_path_is_kept_from_the_first_wildcard_on(pattern, root, kept):
    assert naming.split_glob(pattern) == (root, kept)


# What a file can be called on Linux, and what a path of such can be.
FILE_NAME = st.one_of(
    st.binary(min_size=1, max_size=30),
    st.text("%25CEF.\\\n\x7f\x85aé", min_size=1, max_size=12).map(os.fsencode),
).map(lambda b: os.fsdecode(b.replace(b"\0", b"").replace(b"/", b"") or b"x"))
LOCAL_PATH = st.lists(FILE_NAME.filter(lambda s: s not in {".", ".."}), min_size=1, max_size=4).map(
    "/".join
)


@given(LOCAL_PATH)
def test_every_path_of_a_file_system_goes_up_encoded_and_comes_back(path):
    encoded = naming.encode_blob_name(path)
    naming.check_blob_name(encoded)
    assert naming.local_relative(encoded, decode=True) == path


@given(st.lists(st.one_of(FILE_NAME, st.sampled_from([".", "..", ""])), min_size=1).map("/".join))
def test_encoding_can_be_undone_and_leaves_nothing_to_refuse(name):
    encoded = naming.encode_blob_name(name)
    assert naming.decode_blob_name(encoded) == name
    if name:
        naming.check_blob_name(encoded)


@given(NAME.filter(lambda n: "%" not in n))
def test_what_may_stay_is_not_encoded(name):
    assert naming.encode_blob_name(name) == name == naming.decode_blob_name(name)


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("a\\b", "a%5Cb"),
        ("a\nb\x7f", "a%0Ab%7F"),
        ("\x85", "%C2%85"),
        ("a\udcff", "a%FF"),
        ("./a/..", "%2E/a/%2E%2E"),
        ("a..b/...", "a..b/..."),
        ("100%", "100%"),
        ("a%20b%zz%5c", "a%20b%zz%5c"),
        ("a%5Cb", "a%255Cb"),
        ("%25", "%2525"),
        ("%\\", "%%5C"),
        ("é/e\u0301", "é/e\u0301"),
    ],
)
def test_exactly_what_is_refused_is_encoded(name, encoded):
    assert naming.encode_blob_name(name) == encoded
    assert naming.decode_blob_name(encoded) == name


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/%2E%2E/b", "a/%2E%2E/b"),
        ("%2E%2E/%2E%2E/etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
        ("%2E/x", "%2E/x"),
        ("a%00b", "a%00b"),
        ("a%2E%2Eb", "a..b"),
        ("a%5Cb/c%0A", "a\\b/c\n"),
        ("a%2Fb", "a%2Fb"),
        ("a//b%5C", "a/b\\"),
    ],
)
def test_no_decoded_name_leaves_the_folder_or_is_none(name, path):
    assert naming.local_relative(name, decode=True) == path


def test_names_are_decoded_on_request_alone():
    assert naming.local_relative("a%5Cb") == "a%5Cb"


def test_an_encoded_name_that_is_too_long_is_refused():
    with pytest.raises(NameRefused, match="1,200 characters are more than"):
        naming.check_blob_name(naming.encode_blob_name("\\" * 400))
