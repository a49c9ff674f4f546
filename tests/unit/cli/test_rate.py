from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.cli._rate import Amount, Pace, Speed, fraction

MiB = 1024**2


def test_no_rate_is_known_from_one_look() -> None:
    speed = Speed()
    speed.sample(0.0, Amount(files=5))
    assert speed.pace(Amount(files=5)) == Pace()


def test_rates_are_those_of_the_last_seconds() -> None:
    speed = Speed()
    for second in range(11):
        speed.sample(float(second), Amount(files=100 * second))
    for second in range(11, 31):
        speed.sample(float(second), Amount(files=1000 + 10 * (second - 10)))
    assert speed.pace().files_per_second == 10.0


def test_what_arrives_by_jumps_has_a_steady_rate() -> None:
    """A part of 8 MiB each 1.6 s is 5 MiB/s at every look, not 8, then 0."""
    speed = Speed()
    rates = []
    for tick in range(300):
        now = tick / 10
        speed.sample(now, Amount(size_bytes=int(now / 1.6) * 8 * MiB))
        rates.append(speed.pace().bytes_per_second)
    settled = rates[100:]
    assert min(settled) == pytest.approx(5 * MiB, rel=0.05)
    assert max(settled) == pytest.approx(5 * MiB, rel=0.05)


def test_a_stall_shows_as_no_rate_and_no_time_left() -> None:
    speed = Speed()
    for second in range(20):
        speed.sample(float(second), Amount(files=100 * min(second, 5)))
    pace = speed.pace(Amount(files=100))
    assert pace.files_per_second == 0.0
    assert pace.seconds_left is None


def steady(speed: Speed, seconds: int, step: Amount, left: Amount | None = None) -> Pace:
    pace = Pace()
    for second in range(seconds):
        done = Amount(files=step.files * second, size_bytes=step.size_bytes * second)
        speed.sample(float(second), done)
        pace = speed.pace(left)
    return pace


def test_time_left_goes_by_files_where_they_are_small() -> None:
    pace = steady(Speed(), 4, Amount(files=100), Amount(files=300))
    assert pace.seconds_left == pytest.approx(3.0, abs=1.0)


def test_time_left_goes_by_bytes_where_files_are_big() -> None:
    pace = steady(Speed(), 4, Amount(size_bytes=2**30), Amount(size_bytes=30 * 2**30))
    assert pace.seconds_left == pytest.approx(30.0, abs=2.5)


def test_nothing_left_takes_no_time() -> None:
    assert steady(Speed(), 3, Amount(files=1), Amount()).seconds_left == 0.0


def test_no_time_left_is_claimed_in_the_first_second() -> None:
    speed = Speed()
    said = []
    for tick in range(30):
        now = tick / 10
        speed.sample(now, Amount(files=max(0, tick - 5)))
        said.append(speed.pace(Amount(files=100)).seconds_left)
    assert said[:16] == [None] * 16
    assert said[-1] is not None


def test_time_left_runs_down_without_jumps() -> None:
    """The rate changes wildly from second to second; what is shown goes down with the clock."""
    speed = Speed()
    draw = random.Random(7)
    done, total, shown = 0, 20_000, []
    for tick in range(600):
        done = min(total, done + draw.choice([0, 0, 10, 90]))
        speed.sample(tick / 10, Amount(files=done))
        left = speed.pace(Amount(files=total - done)).seconds_left
        if left is not None and tick > 50:
            shown.append(left)
    steps = [after - before for before, after in pairwise(shown)]
    assert max(map(abs, steps)) < 2.0


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
