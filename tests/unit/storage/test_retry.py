import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import ConnectionFailed, NotFound, Throttled, UsageError
from azpool.storage._retry import RetryOptions, delay_before_retry

OPTIONS = RetryOptions(attempts=5, first_delay_seconds=0.2, max_delay_seconds=10)


def test_what_will_not_succeed_is_not_repeated():
    assert delay_before_retry(NotFound(), 1, OPTIONS, 0.5) is None
    assert delay_before_retry(ValueError(), 1, OPTIONS, 0.5) is None


def test_attempts_end():
    assert delay_before_retry(Throttled(), 4, OPTIONS, 0.5) is not None
    assert delay_before_retry(Throttled(), 5, OPTIONS, 0.5) is None


@given(st.integers(1, 4), st.floats(0, 1, exclude_max=True))
def test_waits_double_with_jitter(attempt, jitter):
    full = 0.2 * 2 ** (attempt - 1)
    pause = delay_before_retry(ConnectionFailed(), attempt, OPTIONS, jitter)
    assert full / 2 <= pause <= full


def test_the_servers_wish_is_kept_up_to_the_limit():
    assert delay_before_retry(Throttled(retry_after_seconds=3), 1, OPTIONS, 0.0) == 3
    assert delay_before_retry(Throttled(retry_after_seconds=99), 1, OPTIONS, 0.0) == 10


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"first_delay_seconds": -1}, {"max_delay_seconds": -1}]
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(UsageError):
        RetryOptions(**wrong)
