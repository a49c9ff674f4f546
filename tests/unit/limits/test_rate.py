import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import UsageError
from azpool.limits import RateLimit


def drain(rate, amounts, now=0.0):
    """Take one after the other as soon as it may be; answers when each went."""
    times = []
    for amount in amounts:
        for _ in range(3):
            wait = rate.take(amount, now)
            if wait == 0:
                break
            now += wait
        else:
            pytest.fail("who waited as long as told was told to wait again, and again")
        times.append(now)
    return times


def test_rate_is_kept_over_a_long_time():
    times = drain(RateLimit(100, now=0.0), [1] * 1000)
    assert times[-1] == pytest.approx(10.0, rel=0.02)


def test_more_than_the_bucket_holds_goes_at_once_and_what_follows_pays():
    rate = RateLimit(1000, burst=10, now=0.0)
    assert rate.take(5000, 0.0) == 0
    assert rate.take(1, 0.0) == pytest.approx(4.99)
    assert rate.take(1, 4.0) == pytest.approx(0.99)
    assert rate.take(1, 4.99) == 0


def test_bucket_that_was_left_alone_holds_its_burst_and_no_more():
    rate = RateLimit(10, burst=5, now=0.0)
    times = drain(rate, [1] * 20, now=100.0)
    # Five, and one that goes into debt.
    assert sum(when == 100.0 for when in times) == 6


def test_waiting_takes_nothing():
    rate = RateLimit(10, burst=1, now=0.0)
    rate.take(2, 0.0)
    assert [rate.take(1, 0.0) for _ in range(10)] == [0.1] * 10
    assert rate.statistics(0.0).taken == 2
    assert rate.statistics(0.0).waits == 10


def test_what_moved_already_is_charged_afterwards():
    rate = RateLimit(100, burst=10, now=0.0)
    rate.charge(60, 0.0)
    assert rate.wait_seconds(0.0) == pytest.approx(0.5)
    assert rate.statistics(0.0).debt_seconds == pytest.approx(0.5)


def test_no_rate_never_waits():
    rate = RateLimit(None)
    assert drain(rate, [1e12] * 5) == [0.0] * 5
    assert rate.share(4) is None
    assert rate.statistics(0.0).per_second is None


def test_shares_add_up_to_the_rate():
    assert RateLimit(90).share(3) * 3 == 90
    nodes = [RateLimit(RateLimit(90).share(3), now=0.0) for _ in range(3)]
    went = [when for node in nodes for when in drain(node, [1] * 300)]
    assert sum(when <= 5 for when in went) <= 90 * 5 + 3 * (3 + 1)


@given(
    st.floats(0.5, 1e9),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 10)), min_size=1, max_size=50),
    st.sampled_from([0.0, 1e5, 2e9]),
)
def test_no_time_sees_more_than_the_rate_the_burst_and_one_amount(per_second, wishes, start):
    rate = RateLimit(per_second, now=start)
    now, let_go = start, []
    for pause, times_rate in wishes:
        now = drain(rate, [times_rate * per_second], now=now + pause)[0]
        let_go.append((now, times_rate * per_second))
    slack = 1e-5 * per_second + 1e-6
    for first, (begin, _) in enumerate(let_go):
        total = 0.0
        for end, amount in let_go[first:]:
            assert total <= per_second * (end - begin) + rate.burst + let_go[first][1] + slack
            total += amount
            assert total <= per_second * (end - begin) + rate.burst + amount + slack


@pytest.mark.parametrize("per_second", [0, -1, math.inf, math.nan, "1"])
def test_rate_that_makes_no_sense_is_refused(per_second):
    with pytest.raises(UsageError, match="cannot use per_second"):
        RateLimit(per_second)


def test_amount_below_0_is_refused():
    with pytest.raises(UsageError, match="cannot use amount"):
        RateLimit(1).take(-1, 0.0)
