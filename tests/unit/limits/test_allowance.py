import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import UsageError
from azpool.limits import Allowance, share_out


@given(st.integers(1, 2000), st.integers(1, 200), st.none() | st.floats(0.1, 1e9))
def test_shares_add_up_and_are_even(limit, nodes, rate):
    shares = share_out(limit, nodes, requests_per_second=rate, bytes_per_second=rate)
    assert len(shares) == nodes
    threads = [share.threads for share in shares]
    assert sum(threads) == limit
    assert max(threads) - min(threads) <= 1
    for name in ("requests_per_second", "bytes_per_second"):
        rates = [getattr(share, name) for share in shares]
        if rate is None:
            assert set(rates) == {None}
        else:
            assert sum(rates) == pytest.approx(rate)
            assert all((one > 0) == (count > 0) for one, count in zip(rates, threads, strict=True))


def test_allowance_travels():
    share = share_out(7, 3, requests_per_second=30.0)[0]
    assert share == Allowance(3, 10.0, None)
    assert pickle.loads(pickle.dumps(share)) == share
    assert len(pickle.dumps(share, 5)) < 100


def test_throttled_node_halves_its_threads_and_keeps_one():
    share = Allowance(5, 10.0, 1e6)
    assert share.halved() == Allowance(2, 10.0, 1e6)
    assert share.halved().halved().halved() == Allowance(1, 10.0, 1e6)
    assert Allowance(0).halved() == Allowance(0)


@pytest.mark.parametrize(("limit", "nodes"), [(0, 1), (1, 0), (-1, 1), (1.5, 1)])
def test_nothing_to_share_is_refused(limit, nodes):
    with pytest.raises(UsageError, match="cannot use"):
        share_out(limit, nodes)
