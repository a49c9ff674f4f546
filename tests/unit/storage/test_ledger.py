"""One row for each thing: what goes in comes out, in pages, and never all at once."""

import os
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import LocalFileError, NameRefused, NotFound
from azpool.report import State
from azpool.storage import _ledger
from azpool.storage._ledger import Ledger, LedgerOutcomes, Settled
from azpool.storage._sources import Planned
from azpool.storage.plan import SMALL_FILE_BYTES, Transfer

STRANGE = "caf\udce9/\udcff"  # bytes that are not UTF-8, as os.fsdecode gives them
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def filled(things, path="", notes=None):
    ledger = Ledger(path)
    ledger.add(0, things, notes or [""] * len(things))
    return ledger


def small(count):
    return [Planned(f"s{n}", f"t{n}", n, mtime_ns=n) for n in range(count)]


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 2**62)), max_size=20))
def test_what_goes_in_comes_out(rows):
    ledger = filled([Planned(s, t, n, '"e"', mtime_ns=-n, md5=b"m" * 16) for s, t, n in rows])
    expected = [Transfer(i, s, t, n, '"e"', -n, b"m" * 16) for i, (s, t, n) in enumerate(rows)]
    assert list(ledger.open_things()) == expected
    assert [(o.source, o.target, o.size_bytes) for o in LedgerOutcomes(ledger)] == rows
    ledger.close()


def test_names_that_are_not_utf8_survive():
    ledger = filled([Planned("a", "b", 1), Planned(STRANGE, "t", 2), Planned("x", STRANGE, 3)])
    assert [(t.source, t.target) for t in ledger.open_things()] == [
        ("a", "b"), (STRANGE, "t"), ("x", STRANGE)
    ]  # fmt: skip
    assert ledger.matching("source", STRANGE, "1")[0].place == 1
    assert {source for _, source, _ in ledger.by_target()} == {"a", STRANGE, "x"}
    assert LedgerOutcomes(ledger)[1].name == STRANGE


def test_small_and_big_files_are_read_in_their_orders():
    sizes = [5, SMALL_FILE_BYTES + 1, 3, SMALL_FILE_BYTES * 9, SMALL_FILE_BYTES * 9]
    ledger = filled([Planned(f"s{n}", f"t{n}", size) for n, size in enumerate(sizes)])
    assert [t.place for t in ledger.open_small(-1)] == [0, 2]
    assert [t.place for t in ledger.open_small(0)] == [2]
    first = ledger.open_big(None, limit=1)
    assert [t.size_bytes for t in first] == [SMALL_FILE_BYTES * 9]
    rest = ledger.open_big((first[0].size_bytes, first[0].place))
    assert [t.size_bytes for t in rest] == [SMALL_FILE_BYTES * 9, SMALL_FILE_BYTES + 1]
    assert ledger.open_counts() == (2, 3)


def test_what_is_settled_is_not_open_and_keeps_its_facts():
    ledger = filled(small(4))
    error = NotFound("gone", status=404, request_id="r")
    ledger.settle(
        [
            Settled(0, State.OK, 0.5, 2, 100),
            Settled(1, State.FAILED, 1.5, 5, error=error),
            Settled(2, State.SKIPPED, attempts=1, note="it exists"),
        ]
    )
    assert [t.place for t in ledger.open_things()] == [3]
    one, two, three, four = LedgerOutcomes(ledger, rest=State.CANCELLED)
    assert (one.state, one.seconds, one.attempts, one.bytes_moved) == (State.OK, 0.5, 2, 100)
    assert (two.error.status, two.request_id, two.attempts) == (404, "r", 5)
    assert (three.state, three.note) == (State.SKIPPED, "it exists")
    assert four.state is State.CANCELLED
    assert ledger.totals() == (4, 6, 3, 1, 1, 100)


def test_what_is_refused_while_planning_is_settled_at_once():
    things = [
        Planned("a", "", 7, error=NameRefused("no")),
        Planned("b", "b", 5, error=LocalFileError("link"), skip=True),
        Planned("c", "c", 3),
    ]
    ledger = filled(things, notes=["", "", "it exists"])
    assert list(ledger.open_things()) == []
    assert [o.state.value for o in LedgerOutcomes(ledger)] == ["failed", "skipped", "skipped"]
    assert ledger.totals().size_bytes == 0


def test_parts_are_kept_until_their_file_is_done():
    ledger = filled(small(2))
    ledger.settle([], [(0, 1), (0, 2), (1, 7), (0, 1)])
    assert ledger.parts_done(0) == {1, 2}
    ledger.settle([Settled(0, State.OK), Settled(1, State.FAILED)])
    assert ledger.parts_done(0) == set()
    assert ledger.parts_done(1) == {7}


def test_settling_is_all_or_nothing(tmp_path):
    ledger = filled(small(2), str(tmp_path / "j"))
    with pytest.raises(LocalFileError):
        ledger.settle([Settled(0, State.OK)], [(0, object())])
    assert ledger.open_counts() == (2, 0)
    ledger.settle([Settled(0, State.OK)])
    assert ledger.open_counts() == (1, 0)
    ledger.close()


def test_outcomes_are_a_sequence_like_a_list_of_them(monkeypatch):
    monkeypatch.setattr(_ledger, "PAGE_ROWS", 3)
    ledger = filled(small(10))
    ledger.settle([Settled(n, State.OK if n % 2 else State.FAILED) for n in range(10)])
    every = LedgerOutcomes(ledger)
    assert len(every) == 10
    assert [o.index for o in every] == list(range(10))
    assert (every[-1].index, [o.index for o in every[2:8:3]]) == (9, [2, 5])
    with pytest.raises(IndexError):
        every[10]
    odd = every.of(frozenset({State.OK}))
    assert [o.index for o in odd] == [1, 3, 5, 7, 9]
    assert (odd[1].index, odd[-1].index, len(odd)) == (3, 9, 5)
    assert odd == list(odd)
    assert odd != list(odd)[1:]
    assert odd.of(frozenset({State.FAILED})) == []
    assert every.counts() == {State.OK: 5, State.FAILED: 5}


def test_things_may_be_settled_while_they_are_read(monkeypatch):
    monkeypatch.setattr(_ledger, "PAGE_ROWS", 2)
    ledger = filled(small(7))
    seen = []
    for thing in ledger.open_things():
        ledger.settle([Settled(thing.place, State.OK)])
        seen.append(thing.place)
    assert seen == list(range(7))


def test_an_error_that_can_not_be_pickled_is_kept_in_words():
    class Odd(Exception):
        pass

    ledger = filled(small(1))
    ledger.settle([Settled(0, State.FAILED, error=Odd("why"))])
    assert "Odd: why" in str(LedgerOutcomes(ledger)[0].error)


def test_a_frozen_ledger_shows_what_was_when_it_was_frozen(tmp_path):
    path = str(tmp_path / "j")
    ledger = filled(small(2), path)
    ledger.freeze()
    other = Ledger(path, new=False)
    other.settle([Settled(0, State.OK)])
    assert other.open_counts() == (1, 0)
    assert ledger.open_counts() == (2, 0)
    other.close()
    ledger.close()


def test_another_version_is_refused_clearly(tmp_path):
    path = str(tmp_path / "j")
    ledger = Ledger(path)
    ledger.rows("PRAGMA user_version = 99")
    ledger.close()
    with pytest.raises(LocalFileError, match=r"of version 99, this azpool reads version 1"):
        Ledger(path, new=False)


def test_a_file_that_is_none_is_refused_clearly(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b"no database at all, and long enough to look like one" * 100)
    with pytest.raises(LocalFileError, match="cannot use the journal"):
        Ledger(str(path), new=False)
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(LocalFileError, match="it is none of azpool's"):
        Ledger(str(path), new=False)


@pytest.mark.parametrize("keep", [0, 100, 4096, 5000])
def test_a_file_that_was_cut_off_is_refused_clearly(tmp_path, keep):
    path = str(tmp_path / "j")
    ledger = filled(small(2000), path)
    ledger.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    os.truncate(path, keep)
    with pytest.raises(LocalFileError, match="cannot use"):
        cut = Ledger(path, new=False)
        try:
            list(cut.things("1"))
            cut.totals()
        finally:
            cut.close()


def test_a_journal_that_has_no_room_says_so(tmp_path):
    ledger = filled(small(10), str(tmp_path / "j"))
    ledger.rows("PRAGMA max_page_count = 12")
    with pytest.raises(LocalFileError, match="no space left on the disk"):
        ledger.add(10, [Planned("s" * 500, "t" * 500)] * 1000, [""] * 1000)
    assert ledger.open_counts() == (10, 0)
    ledger.close()


def test_a_ledger_of_this_process_alone_leaves_no_file_and_little_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def resident_bytes():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    ledger = filled(small(1000))
    before = resident_bytes()
    for block in range(1, 100):
        things = [
            Planned(f"source/{block}/{n}" * 4, f"target/{block}/{n}" * 4) for n in range(1000)
        ]
        ledger.add(block * 1000, things, [""] * 1000)
    assert ledger.open_counts() == (100_000, 0)
    assert resident_bytes() - before < 25_000_000  # some 25 MB of rows, of which 8 may be cached
    assert list(tmp_path.iterdir()) == []
