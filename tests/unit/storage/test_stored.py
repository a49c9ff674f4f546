from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.storage._stored import content_type_of, format_mtime, mtime_of, parse_mtime

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.json", "application/json"),
        ("X.HTML", "text/html"),
        ("x.tar", "application/x-tar"),
        ("x.tar.gz", "application/gzip"),
        ("x.tgz", "application/gzip"),
        ("x.csv.xz", "application/x-xz"),
        ("x.no-such-type", "application/octet-stream"),
        ("x", "application/octet-stream"),
        ("a.json/x", "application/octet-stream"),
        ("x.", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("data:text/html,x.png", "image/png"),
    ],
)
def test_types_are_guessed_by_the_end_of_the_name(name, expected):
    assert content_type_of(name) == expected
    assert content_type_of(name) == expected  # as remembered


def test_a_time_is_written_as_rclone_does():
    assert format_mtime(1_795_574_400 * SECOND + 120) == "2026-11-25T02:40:00.000000120Z"
    assert format_mtime(-1) == "1969-12-31T23:59:59.999999999Z"


@given(st.integers(-2_208_988_800 * SECOND, 32_503_680_000 * SECOND))
def test_times_come_back_to_the_nanosecond(mtime_ns):
    assert parse_mtime(format_mtime(mtime_ns)) == mtime_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-25T02:40:00Z", 1_795_574_400 * SECOND),
        ("2026-11-25T04:40:00.5+02:00", 1_795_574_400 * SECOND + SECOND // 2),
        ("2026-11-24T21:10:00-05:30", 1_795_574_400 * SECOND),
        ("1795574400", 1_795_574_400 * SECOND),
        ("1795574400.25", 1_795_574_400 * SECOND + SECOND // 4),
        ("-1.5", -SECOND - SECOND // 2),
        ("2026-13-25T02:40:00Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_what_others_write_is_read(text, expected):
    assert parse_mtime(text) == expected


def test_the_metadata_beats_the_blobs_own_time():
    changed = datetime(2026, 11, 25, 2, 40, tzinfo=UTC)
    own = 1_795_574_400 * SECOND
    assert mtime_of({}, changed) == own
    assert mtime_of({"Mtime": "1.5"}, changed) == SECOND * 3 // 2
    assert mtime_of({"modtime": "1700000000123456789"}, changed) == 1_700_000_000_123_456_789
    assert mtime_of({"mtime": "nonsense", "modtime": "x"}, changed) == own
    assert mtime_of({}, None) is None
