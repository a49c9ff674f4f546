from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.cli import _words as words


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (4096, "4.0 KiB"),
        (1023 * 1024, "1.0 MiB"),
        (8 * 1024 * 1024, "8.0 MiB"),
        (812 * 1024 * 1024, "812 MiB"),
        (3 * 1024**6, "3072 PiB"),
    ],
)
def test_sizes_keep_to_four_characters_and_a_unit(size_bytes: int, shown: str) -> None:
    assert words.size(size_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0484, "48 ms"),
        (0.9996, "1.0 s"),
        (2.06, "2.1 s"),
        (59.96, "1:00 min"),
        (187, "3:07 min"),
        (3723, "1:02:03 h"),
    ],
)
def test_times_never_show_sixty_of_anything(seconds: float, shown: str) -> None:
    assert words.seconds(seconds) == shown


def test_a_share_names_its_unit_once_where_it_can() -> None:
    assert words.size_of(4096 * 1024, 8192 * 1024) == "4.0 of 8.0 MiB"
    assert words.size_of(512, 8192 * 1024) == "512 B of 8.0 MiB"


def test_one_file_is_no_plural() -> None:
    assert words.plural(1, "file") == "1 file"
    assert words.plural(2000, "file") == "2,000 files"


def test_names_cannot_steer_the_terminal() -> None:
    assert words.printable("a\x1b[31mb\n\udcff") == r"a\x1b[31mb\n\udcff"
    assert words.printable("grüße 日本") == "grüße 日本"


@given(st.text(), st.integers(min_value=0, max_value=60))
def test_shortened_names_fit(name: str, width: int) -> None:
    assert words.cells(words.shorten(name, width)) <= max(width, 0)


def test_wide_and_combining_characters_are_counted_as_they_show() -> None:
    assert words.cells("日本") == 4
    assert words.cells("e\u0301") == 1
    assert words.shorten("日本語日本語", 5) == "…本語"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0:01"),
        (7.2, "0:07"),
        (599.0, "9:59"),
        (720.0, "12 min"),
        (11100.0, "3 h 05 min"),
        (9 * 86400.0, "9 days"),
    ],
)
def test_a_time_left_is_no_more_exact_than_it_is_known(seconds: float, shown: str) -> None:
    assert words.left(seconds) == shown


@given(st.text())
def test_printable_names_are_printable(name: str) -> None:
    assert words.printable(name).isprintable()
