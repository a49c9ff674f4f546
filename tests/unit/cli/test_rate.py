from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from azpool.cli._rate import Amount, Pace, Speed, fraction


def test_no_rate_is_known_from_one_look() -> None:
    speed = Speed()
    speed.sample(0.0, Amount(files=5))
    assert speed.pace(Amount(files=5)) == Pace()


def test_rates_are_those_of_the_last_seconds() -> None:
    speed = Speed()
    for second in range(11):
        speed.sample(float(second), Amount(files=100 * second))
    for second in range(11, 21):
        speed.sample(float(second), Amount(files=1000 + 10 * (second - 10)))
    assert speed.pace().files_per_second == 10.0


def test_a_stall_shows_as_no_rate_and_no_time_left() -> None:
    speed = Speed()
    for second in range(20):
        speed.sample(float(second), Amount(files=100))
    pace = speed.pace(Amount(files=100))
    assert pace.files_per_second == 0.0
    assert pace.seconds_left is None


def test_time_left_goes_by_files_where_they_are_small() -> None:
    speed = Speed()
    speed.sample(0.0, Amount())
    speed.sample(1.0, Amount(files=100))
    assert speed.pace(Amount(files=300)).seconds_left == 3.0


def test_time_left_goes_by_bytes_where_files_are_big() -> None:
    speed = Speed()
    speed.sample(0.0, Amount())
    speed.sample(1.0, Amount(size_bytes=2**30))
    left = speed.pace(Amount(size_bytes=3 * 2**30)).seconds_left
    assert left == 3.0


def test_nothing_left_takes_no_time() -> None:
    speed = Speed()
    speed.sample(0.0, Amount())
    speed.sample(1.0, Amount(files=1))
    assert speed.pace(Amount()).seconds_left == 0.0


amounts = st.builds(
    Amount,
    files=st.integers(min_value=0, max_value=10**7),
    size_bytes=st.integers(min_value=0, max_value=10**15),
)


@given(amounts, amounts)
def test_the_bar_stays_between_empty_and_full(done: Amount, total: Amount) -> None:
    part = fraction(done, total)
    assert part is not None
    assert 0.0 <= part <= 1.0


def test_the_bar_is_full_where_there_is_nothing_to_do() -> None:
    assert fraction(Amount(), Amount()) == 1.0
    assert fraction(Amount(), None) is None
