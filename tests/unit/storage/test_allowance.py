"""The limit of a whole pool, shared out with each job."""

import pytest

from azpool.storage._allowance import MOST_OF_A_NODE, Allowance
from azpool.storage.options import TransferOptions
from azpool.storage.plan import BATCH_SECONDS, TRYING_BATCH_SECONDS


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def allowance(nodes=10, clock=None, *, local=False, **options):
    return Allowance(nodes, TransferOptions(**options), local=local, clock=clock or Clock())


def test_shares_of_all_nodes_are_the_limit():
    some = allowance(nodes=7)
    assert some.limit == 42
    assert sum(some.share().threads for _ in range(7)) == 42
    some = allowance(nodes=4, max_concurrency=10)
    assert sorted(some.share().threads for _ in range(4)) == [2, 2, 3, 3]


def test_a_cap_below_the_number_of_nodes_leaves_nodes_idle():
    some = allowance(nodes=10, max_concurrency=3)
    assert (some.nodes, some.limit) == (3, 3)
    assert [some.share().threads for _ in range(3)] == [1, 1, 1]


def test_rates_are_divided_among_the_nodes():
    share = allowance(nodes=4, max_requests_per_second=100.0, max_bytes_per_second=2e6).share()
    assert (share.requests_per_second, share.bytes_per_second) == (25.0, 5e5)


def test_a_job_is_in_flight_until_its_last_result():
    some = allowance()
    job = some.give(5, 3)
    seen = [some.in_flight]
    for _ in range(5):
        some.answered(job)
        seen.append(some.in_flight)
    assert seen == [3, 3, 3, 2, 1, 0]
    lost = some.give(5, 3)
    some.answered(lost)
    some.lost(lost)
    some.lost(lost)
    assert some.in_flight == 0


def test_a_job_more_than_there_are_nodes_is_in_flight_when_one_has_ended():
    some = allowance(nodes=2)
    first, second, third, fourth = (some.give(2, 2) for _ in range(4))
    assert some.in_flight == 4
    some.answered(first)
    assert some.in_flight == 3
    some.answered(first)
    assert some.in_flight == 4  # the third has begun
    some.answered(fourth)  # another order than was thought
    assert some.in_flight == 5
    some.lost(third)
    some.lost(second)
    assert some.in_flight == 1
    some.answered(fourth)
    assert some.in_flight == 0
    assert some.give(9, 4).begun


def run(some, clock, seconds, latency_seconds, most_per_second=1e9, throttle=False):
    """A server that answers after its latency, whatever is asked, up to a rate."""
    end = clock.now + seconds
    while clock.now < end:
        limit = some.limit
        clock.now += max(latency_seconds, limit / most_per_second)
        some._in_flight = limit  # what was given out is in flight again at once
        some.note(limit, 0, limit if throttle else 0)


def test_the_limit_grows_where_latency_is_all_there_is():
    clock = Clock()
    some = allowance(clock=clock, local=True)
    assert some.limit == 10
    run(some, clock, 20, 0.02)
    assert some.limit >= 320


def test_batches_are_short_while_a_limit_is_looked_for():
    clock = Clock()
    some = allowance(nodes=2, clock=clock, max_concurrency=2)
    assert some.batch_seconds == TRYING_BATCH_SECONDS
    run(some, clock, 1, 0.02)  # neither more nor less can be tried
    assert some.batch_seconds == BATCH_SECONDS


def test_the_limit_is_never_above_what_the_nodes_can_use_or_the_user_allows():
    clock = Clock()
    some = allowance(nodes=2, clock=clock)
    run(some, clock, 60, 0.2)
    assert some.limit <= 2 * MOST_OF_A_NODE
    clock = Clock()
    some = allowance(clock=clock, max_concurrency=50)
    run(some, clock, 60, 0.02)
    assert some.limit <= 50


def test_the_limit_falls_where_the_server_asks_for_less():
    clock = Clock()
    some = allowance(clock=clock)
    run(some, clock, 10, 0.02)
    high = some.limit
    run(some, clock, 3, 0.02, throttle=True)
    assert some.limit < high / 2
    assert some.throttled > 0


@pytest.mark.parametrize("nodes", [1, 3, 10, 64])
def test_every_node_may_do_something(nodes):
    some = allowance(nodes=nodes, local=True)
    assert min(some.share().threads for _ in range(nodes)) >= 1
