from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.cli._values import pairs, rate
from azpool.errors import UsageError


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("4096", 4096),
        ("50MiB", 50 * 1024**2),
        ("50M", 50 * 1024**2),
        ("1.5 GiB/s", 1.5 * 1024**3),
        ("50MB", 50e6),
        ("50MBps", 50e6),
        ("400Mbit", 50e6),
        ("1gbit/s", 125e6),
        ("10k", 10240),
        ("7B", 7),
    ],
)
def test_rates_are_read_as_people_write_them(text: str, bytes_per_second: float) -> None:
    assert rate("--cap-rate", text) == bytes_per_second


@pytest.mark.parametrize("text", ["", "MiB", "-1M", "5 XiB", "1e6", "nan", "inf", "0", "0.0M", "٣"])
def test_what_is_no_rate_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--cap-rate"):
        rate("--cap-rate", text)


@given(st.text())
def test_any_text_is_a_rate_or_refused(text: str) -> None:
    try:
        found = rate("--cap-rate", text)
    except UsageError:
        return
    assert found is not None
    assert found > 0


def test_values_may_hold_equals_signs_and_be_empty() -> None:
    assert pairs("--metadata", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert pairs("--metadata", None) == {}
