"""What a call would do, without doing it; and the options as a container's methods take them."""

import json

import pytest

from azpool.errors import Conflict, UsageError
from azpool.pool.engines.inline import InlinePool
from azpool.report import State
from azpool.storage._retry import RetryOptions
from azpool.storage.container import Container
from azpool.storage.options import Overwrite, overwrite_of
from azpool.storage.plan import SMALL_FILE_BYTES

POOL = InlinePool()


@pytest.fixture
def container(recipe, store):
    return Container._of(recipe, RetryOptions(attempts=1))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "state"))
    for name in ("d/a", "d/b", "d/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path


def test_a_dry_run_moves_nothing_and_says_what_would_be_done(here, container, store):
    store.fill("p/a", body=b"old")
    (here / "d" / "back\\slash").touch()
    plan = container.upload_many("d/", "p", overwrite="never", dry_run=True, journal=True)
    assert [(f.source, f.action) for f in plan] == [
        ("d/a", "skip"), ("d/b", "upload"), ("d/back\\slash", "refuse"), ("d/c", "upload")
    ]  # fmt: skip
    assert plan[0].reason == "it exists"
    assert plan[1].target == "p/b"
    assert "backslash" in plan[2].reason
    assert plan.counts == {"upload": 2, "skip": 1, "refuse": 1}
    assert plan.size_bytes == 10
    assert list(store.blobs) == ["p/a"]
    assert not (here / "state").exists()
    assert {method for method, _ in store.calls} <= {"list", "head"}


def test_a_plan_is_a_sequence_a_table_and_data(here, container, store):
    store.fill("x/", *[f"x/{n:02}" for n in range(12)])
    plan = container.download_many("x/", "out", dry_run=True)
    assert len(plan) == 13
    assert [f.target for f in plan[1:3]] == ["out/00", "out/01"]
    assert plan[0].action == "make folder"
    assert plan.to_dicts()[1] == {
        "source": "x/00", "target": "out/00", "size_bytes": 1, "action": "download", "reason": ""
    }  # fmt: skip
    assert json.loads(plan.to_json())["counts"] == {"download": 12, "make folder": 1}
    lines = repr(plan).splitlines()
    assert lines[0] == "Plan: 12 to download, 1 to make folder, 12 B"
    assert lines[2].split() == ["download", "1", "B", "'x/00'", "->", "'out/00'"]
    assert lines[-1] == "  and 3 more"
    assert plan._repr_html_().count("<tr>") == 10
    assert not (here / "out").exists()


def test_a_dry_run_of_nothing_says_so(here, container):
    plan = container.download_many("", "out", dry_run=True)
    assert repr(plan).splitlines() == [
        "Plan: nothing to do, 0 B", "  note: container 'data' holds no blobs"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (True, Overwrite.ALWAYS),
        (False, Overwrite.NEVER),
        ("never", Overwrite.NEVER),
        ("if-newer", Overwrite.IF_NEWER),
        (Overwrite.FAIL, Overwrite.FAIL),
    ],
)
def test_ways_to_say_what_becomes_of_targets(value, mode):
    assert overwrite_of(value) is mode


def test_options_that_make_no_sense_are_refused_before_anything_is_done(here, container, store):
    with pytest.raises(UsageError, match="overwrite='maybe'"):
        container.upload_many("d/", overwrite="maybe")
    with pytest.raises(UsageError, match="verify='sha1'"):
        container.upload_many("d/", verify="sha1")
    with pytest.raises(UsageError, match="max_failures=0"):
        container.download_many("", "out", max_failures=0)
    with pytest.raises(TypeError, match="no_such"):
        container.upload_many("d/", no_such=1)
    assert store.calls == []


def test_options_reach_every_file_small_or_big(here, container, store):
    (here / "d" / "big").write_bytes(b"x" * (SMALL_FILE_BYTES + 1))
    report = container.upload_many(
        "d/", pool=POOL, verify="md5", metadata={"k": "v"}, cache_control="no-cache", tier="Cool"
    )
    assert report.counts == {State.OK: 4}
    for name in ("a", "big"):
        kept = store.kept[name]
        assert kept.metadata["k"] == "v"
        assert (kept.properties.cache_control, kept.properties.tier) == ("no-cache", "Cool")
        assert kept.md5 is not None


def test_a_single_file_takes_the_same_options(here, container, store):
    store.fill("a", body=b"old")
    assert container.upload("d/a", overwrite=False).state is State.SKIPPED
    with pytest.raises(Conflict):
        container.upload("d/a", overwrite="fail")
    assert container.upload("d/a", overwrite="if-different").ok
    assert container.upload("d/a", overwrite="if-different").note == "it is the same"
    assert container.download("a", "copy", overwrite="never").ok
    assert container.download("a", "copy", overwrite="never").note == "it exists"
    assert container.upload("d/a", dry_run=True).counts == {"upload": 1}


def test_names_go_and_come_back_encoded_on_request(here, container, store):
    (here / "d" / "back\\slash").write_bytes(b"x")
    assert len(container.upload_many("d/", pool=POOL).failed) == 1
    assert len(container.upload_many("d/", pool=POOL, encode_names=True).ok) == 4
    assert "back%5Cslash" in store.blobs
    assert len(container.download_many("", "plain", pool=POOL).ok) == 4
    assert (here / "plain" / "data" / "back%5Cslash").exists()
    container.download_many("", "out", pool=POOL, encode_names=True)
    assert (here / "out" / "data" / "back\\slash").read_bytes() == b"x"


def test_what_is_told_while_planning_says_so(here, container, store, monkeypatch):
    monkeypatch.setattr("azpool.storage._planning.TELL_SECONDS", -1)
    told = []
    container.upload_many("d/", pool=POOL, progress=told.append)
    planning = [(p.files_total, p.files_done) for p in told if p.planning]
    assert planning == [(0, 0), (3, 0)]
    assert not told[-1].planning
    assert told[-1].finished
