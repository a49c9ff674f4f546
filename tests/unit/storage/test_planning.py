"""What is decided before anything moves: collisions, and what becomes of targets that exist."""

import hashlib
import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import Conflict, LocalFileError, UsageError
from azpool.report import State
from azpool.storage._batch import Direction
from azpool.storage._ledger import Ledger, LedgerOutcomes
from azpool.storage._listing import LIST_FROM_NAMES, Listing
from azpool.storage._planning import Existing, check_targets, in_common, keep, plan
from azpool.storage._retry import RetryOptions
from azpool.storage._sources import Planned, Selection
from azpool.storage._stored import MTIME, format_mtime
from azpool.storage.options import Overwrite
from azpool.storage.plan import SMALL_FILE_BYTES

PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "a!", "a.b", "~"]), min_size=1, max_size=3).map("/".join),
    max_size=12,
)


def collide(files, folders):
    """The rule itself: no two files of one path, and no file above another thing."""
    taken = set(folders)
    for path in (*files, *folders):
        parts = path.split("/")
        taken.update("/".join(parts[:n]) for n in range(1, len(parts)))
    return len(set(files)) < len(files) or any(path in taken for path in files)


@given(PATHS, PATHS)
def test_exactly_what_can_not_all_be_written_is_refused(files, folders):
    targets = [(path, "s", False) for path in files] + [(path, "s", True) for path in folders]
    targets.sort(key=lambda entry: entry[0].encode())
    if collide(files, folders):
        with pytest.raises(UsageError):
            check_targets(targets, Direction.DOWNLOAD)
    else:
        check_targets(targets, Direction.DOWNLOAD)


def test_blobs_may_be_below_blobs():
    check_targets([("a", "1", False), ("a/b", "2", False)], Direction.UPLOAD)
    with pytest.raises(UsageError, match="'1' and '2': both would become 'a'"):
        check_targets([("a", "1", False), ("a", "2", False)], Direction.UPLOAD)


@given(st.text("ab/é😀", max_size=6), st.text("ab/é😀", max_size=6), st.text("ab/é😀", max_size=6))
def test_what_two_names_begin_with_is_what_all_between_them_begin_with(one, two, three):
    first, middle, last = sorted([one, two, three], key=str.encode)
    assert middle.startswith(in_common(first, last))


SAME, OTHER = b"s" * 16, b"o" * 16


@pytest.mark.parametrize(
    ("mode", "source", "existing", "expected"),
    [
        (Overwrite.ALWAYS, (5, 100), Existing(5, 100), ""),
        (Overwrite.NEVER, (5, 100), Existing(9, 50), "it exists"),
        (Overwrite.IF_NEWER, (5, 100), Existing(5, 99), ""),
        (Overwrite.IF_NEWER, (5, 100), Existing(9, 100), "it is not newer"),
        (Overwrite.IF_NEWER, (5, 100), Existing(5, 101), "it is not newer"),
        (Overwrite.IF_NEWER, (5, None), Existing(5, 101), ""),
        (Overwrite.IF_NEWER, (5, 100), Existing(5, None), ""),
        (Overwrite.IF_DIFFERENT, (5, 100), Existing(5, 100), "it is the same"),
        (Overwrite.IF_DIFFERENT, (5, 100), Existing(6, 100), ""),
        (Overwrite.IF_DIFFERENT, (5, 100), Existing(5, 101), ""),
        (Overwrite.IF_DIFFERENT, (5, 100), Existing(5, 101, SAME), "it is the same"),
        (Overwrite.IF_DIFFERENT, (5, 100), Existing(5, 101, OTHER), ""),
        (Overwrite.IF_DIFFERENT, (5, None), Existing(5, None), ""),
    ],
)
def test_what_becomes_of_a_target_that_exists(mode, source, existing, expected):
    assert keep(mode, *source, existing, lambda md5: md5 == SAME) == expected


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(store, things, mode, direction=Direction.UPLOAD, **more):
    ledger = Ledger()
    plan(
        ledger,
        Selection(things=things),
        direction,
        mode,
        cwd=os.getcwd(),
        listing=lambda: Listing(store, RetryOptions(attempts=1), folders=False),
        **more,
    )
    return {o.source: o.note for o in LedgerOutcomes(ledger)}, ledger


def put(store, name, body, mtime_ns):
    store.put(name, body, metadata={MTIME: format_mtime(mtime_ns)})


@pytest.mark.parametrize("count", [3, LIST_FROM_NAMES + 5])
def test_uploads_are_compared_with_one_listing_not_a_look_at_each(here, store, count):
    things = []
    for n in range(count):
        body = b"%d" % n
        (here / f"f{n:03}").write_bytes(body)
        things.append(Planned(f"f{n:03}", f"p/f{n:03}", len(body), mtime_ns=1000))
    put(store, "p/f000", b"0", 1000)  # the same
    put(store, "p/f001", b"x", 999)  # as long, older, other bytes
    put(store, "p/f002", b"2", 2000)  # newer, the same bytes
    put(store, "p/other", b"", 0)
    store.calls.clear()
    notes, _ = planned(store, things, Overwrite.IF_DIFFERENT)
    assert {s: n for s, n in notes.items() if n} == {
        "f000": "it is the same", "f002": "it is the same"
    }  # fmt: skip
    if count > LIST_FROM_NAMES:
        assert store.calls == [("list", "p/f0")]
    notes, _ = planned(store, things, Overwrite.IF_NEWER)
    assert {s for s, n in notes.items() if n} == {"f000", "f002"}


def test_a_blob_without_a_time_of_its_own_has_that_of_its_last_change(here, store):
    store.last_modified = datetime(2026, 1, 1, tzinfo=UTC)
    (here / "f").write_bytes(b"1")
    store.put("f", b"1")
    newer = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp()) * 10**9
    for mtime_ns, note in ((newer, ""), (newer - 2 * 86400 * 10**9, "it is not newer")):
        things = [Planned("f", "f", 1, mtime_ns=mtime_ns)]
        assert planned(store, things, Overwrite.IF_NEWER)[0] == {"f": note}


def test_one_that_exists_fails_the_call_where_it_should(here, store):
    (here / "f").write_bytes(b"1")
    things = [Planned("f", "g", 1), Planned("f", "h", 1)]
    planned(store, things, Overwrite.FAIL)
    store.fill("h")
    with pytest.raises(Conflict, match=r"the blob 'h' exists; nothing was moved"):
        planned(store, things, Overwrite.FAIL)
    with pytest.raises(LocalFileError, match=r"'f' exists; nothing was moved"):
        planned(store, [Planned("h", "f", 1)], Overwrite.FAIL, Direction.DOWNLOAD)


def test_small_files_need_no_listing_to_be_kept(here, store):
    store.fill("f", "big")
    things = [Planned("f", "f", 1), Planned("big", "big", SMALL_FILE_BYTES + 1)]
    notes, _ = planned(store, things, Overwrite.NEVER)
    assert notes == {"f": "", "big": "it exists"}
    assert store.calls == [("head", "big")]
    notes, _ = planned(store, things, Overwrite.NEVER, ask_all=True)
    assert notes == {"f": "it exists", "big": "it exists"}


def test_downloads_are_compared_with_the_files_that_are_there(here, store):
    for name in ("same", "other", "touched", "dangling"):
        (here / name).write_bytes(b"12")
        os.utime(here / name, ns=(5000, 5000))
    os.unlink(here / "dangling")
    (here / "dangling").symlink_to("nowhere")
    md5 = hashlib.md5(b"12").digest()
    things = [
        Planned("same", "same", 2, mtime_ns=5000),
        Planned("other", "other", 3, mtime_ns=5000),
        Planned("touched", "touched", 2, mtime_ns=6000, md5=md5),
        Planned("new", "new", 2, mtime_ns=5000),
        Planned("dangling", "dangling", 2, mtime_ns=5000),
    ]

    def kept(mode):
        notes, _ = planned(store, things, mode, Direction.DOWNLOAD)
        return {name for name, note in notes.items() if note}

    assert kept(Overwrite.ALWAYS) == set()
    assert kept(Overwrite.NEVER) == {"same", "other", "touched", "dangling"}
    assert kept(Overwrite.IF_DIFFERENT) == {"same", "touched"}
    assert kept(Overwrite.IF_NEWER) == {"same", "other"}


def test_what_is_kept_is_skipped_and_counts_no_bytes(here, store):
    (here / "f").write_bytes(b"1")
    _, ledger = planned(store, [Planned("f", "f", 1)], Overwrite.NEVER, Direction.DOWNLOAD)
    (outcome,) = LedgerOutcomes(ledger)
    assert (outcome.state, outcome.error, outcome.attempts) == (State.SKIPPED, None, 0)
    assert ledger.totals().size_bytes == 0


def test_planning_tells_how_far_it_is(here, store, monkeypatch):
    monkeypatch.setattr("azpool.storage._planning.TELL_SECONDS", -1)
    told = []
    things = (Planned(f"{n}", f"{n}", 2) for n in range(2500))
    planned(store, things, Overwrite.ALWAYS, tell=lambda *facts: told.append(facts))
    assert told == [(1000, 2000), (2000, 4000), (2500, 5000)]
