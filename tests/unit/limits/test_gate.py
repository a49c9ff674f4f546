import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from azpool.errors import UsageError
from azpool.limits import Gate, GateOptions, Gates


def test_gate_is_closed_until_retry_after_and_jitter_have_passed():
    gate = Gate(GateOptions(spread=0.5), now=0.0)
    assert gate.take(0.0) == 0
    assert gate.close(10.0, 8.0, jitter=0.25) == 19.0
    assert gate.wait_seconds(10.0) == 9.0
    assert gate.take(18.9) == pytest.approx(0.1)
    assert gate.take(19.0) == 0


@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.999])
def test_jitter_never_shortens_what_the_server_asked_for(jitter):
    assert Gate(now=0.0).close(0.0, 7.0, jitter=jitter) >= 7.0


def test_long_retry_after_is_never_cut():
    assert Gate(GateOptions(max_seconds=5), now=0.0).close(0.0, 3600.0) == 3600.0


def test_shorter_wait_does_not_open_it_earlier():
    gate = Gate(now=0.0)
    gate.close(0.0, 30.0)
    gate.close(1.0, 2.0)
    gate.close(2.0)
    assert gate.closed_until == 30.0


def test_waits_double_where_the_server_says_nothing():
    gate = Gate(GateOptions(first_seconds=1, max_seconds=6), now=0.0)
    now, waits = 0.0, []
    for _ in range(5):
        waits.append(gate.close(now) - now)
        now = gate.closed_until
    assert waits == [1, 2, 4, 6, 6]


def test_refusals_of_one_moment_are_one():
    gate = Gate(GateOptions(first_seconds=1), now=0.0)
    for n in range(100):
        gate.close(n * 0.001)
    assert gate.closed_until == pytest.approx(0.099 + 1)
    assert gate.statistics(0.1).closings == 1


def test_success_ends_the_row_of_refusals():
    gate = Gate(GateOptions(first_seconds=1), now=0.0)
    gate.close(0.0)
    gate.close(1.0)
    gate.answered(1.5)  # a late answer, from before it closed
    assert gate.close(3.0) == 7.0
    gate.answered(8.0)
    assert gate.close(8.0) == 9.0


def test_budget_of_a_window_holds_back_until_it_resets():
    gate = Gate(now=0.0)
    gate.learn(0.0, 3, window_seconds=60)
    assert [gate.take(1.0) for _ in range(4)] == [0, 0, 0, 59]
    assert gate.take(60.0) == 0


def test_budget_that_refills_lets_through_at_its_rate():
    gate = Gate(now=0.0)
    gate.learn(0.0, 2, refill_per_second=4, capacity=10)
    assert [gate.take(0.0) for _ in range(3)] == [0, 0, 0.25]
    assert gate.take(0.25) == 0
    # Left alone it holds its capacity, and not more.
    assert [gate.take(1000.0) for _ in range(11)] == [0] * 10 + [0.25]


def test_requests_on_their_way_count_against_what_the_server_says_is_left():
    gate = Gate(now=0.0)
    for _ in range(5):
        gate.take(0.0)
    gate.answered(1.0)
    gate.learn(1.0, 6, window_seconds=30)  # four more may be on their way
    assert [gate.take(1.0) for _ in range(3)] == [0, 0, 30]
    assert gate.statistics(1.0).outstanding == 6
    assert gate.statistics(1.0).remaining == 0


def test_budget_without_window_or_refill_holds_nothing_back():
    gate = Gate(now=0.0)
    gate.learn(0.0, 0)
    assert gate.take(0.0) == 0
    assert gate.statistics(0.0).remaining is None


def test_more_than_a_full_bucket_passes_when_it_is_full():
    gate = Gate(now=0.0)
    gate.learn(0.0, 0, refill_per_second=1, capacity=5)
    assert gate.take(0.0, 50) == 5
    assert gate.take(5.0, 50) == 0
    assert gate.take(5.0) == pytest.approx(46)


def test_bucket_that_is_said_to_hold_nothing_lets_one_through_at_a_time():
    gate = Gate(now=0.0)
    gate.learn(0.0, 0, refill_per_second=1, capacity=0)
    assert gate.take(0.0) == 1
    assert [gate.take(100.0) for _ in range(2)] == [0, 1]


SUBSCRIPTIONS = ["one", "two"]


def test_closed_gate_stalls_no_other_subscription():
    gates = Gates(now=0.0)
    gates.close(("one", "me", "write"), 0.0, 100.0)
    gates.learn(("one", "me", "read"), 0.0, 0, window_seconds=50)
    assert gates.wait_seconds([("one", "me", "write")], 1.0) == 99
    assert gates.wait_seconds([("one", "me", "read")], 1.0) == 49
    for operation in ("read", "write"):
        assert [gates.take([("two", "me", operation)], 1.0) for _ in range(1000)] == [0] * 1000


def test_request_passes_all_its_gates_or_none():
    gates = Gates(now=0.0)
    gates.learn("subscription", 0.0, 10, window_seconds=60)
    gates.learn("resource", 0.0, 1, window_seconds=20)
    assert gates.take(["subscription", "resource"], 0.0) == 0
    assert gates.take(["subscription", "resource"], 0.0) == 20
    assert gates.statistics(0.0)["subscription"].remaining == 9
    gates.answered(["subscription", "resource"], 1.0)
    assert gates["resource"].statistics(1.0).outstanding == 0
    assert len(gates) == 2
    assert gates.take([], 0.0) == 0


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_wait_that_makes_no_sense_is_refused(seconds):
    gate = Gate(now=0.0)
    with pytest.raises(UsageError, match="cannot use seconds"):
        gate.close(0.0, seconds)
    assert gate.take(0.0) == 0


STEPS = st.lists(
    st.tuples(
        st.floats(-1, 20),
        st.one_of(
            st.tuples(st.just("close"), st.none() | st.floats(0, 100), st.floats(0, 0.99)),
            st.tuples(
                st.just("learn"), st.integers(0, 5), st.none() | st.floats(0, 50),
                st.floats(0, 3), st.none() | st.integers(0, 8),
            ),
            st.tuples(st.just("take"), st.integers(1, 4)),
            st.tuples(st.just("answered"), st.integers(1, 4), st.booleans()),
        ),
    ),
    max_size=60,
)  # fmt: skip


@given(STEPS)
@example([(0.0, ("learn", 0, None, 0.0, 0)), (1.0, ("take", 1)), (0.0, ("take", 1))])
@example([(0.0, ("take", 1)), (0.0, ("learn", 0, None, 1e-308, None)), (0.0, ("take", 1))])
@example([(0.0, ("close", 0.0, 0.0)), (-1.0, ("take", 1))])
@example(
    [
        (0.0, ("learn", 0, 0.0, 0.0, 0)), (1.0, ("close", None, 0.0)),
        (1.0, ("take", 1)), (0.0, ("take", 1)),
    ]
)  # fmt: skip
def test_gate_never_opens_early_and_never_stays_shut(steps):
    gate = Gate(now=0.0)
    now, closed_until = 0.0, float("-inf")
    for pause, (what, *about) in steps:
        now += pause
        before = gate.closed_until
        if what == "close":
            seconds, jitter = about
            closed_until = max(closed_until, now + (seconds or 0.0))
            gate.close(now, seconds, jitter=jitter)
        elif what == "learn":
            remaining, window, refill, capacity = about
            gate.learn(
                now, remaining, window_seconds=window, refill_per_second=refill, capacity=capacity
            )
        elif what == "take":
            wait = gate.take(now, about[0])
            # An earlier time than the gate has seen counts as the latest one.
            assert wait > 0 or gate._now >= closed_until - 1e-6
            assert wait < float("inf")
        else:
            gate.answered(now, about[0], success=about[1])
        assert gate.closed_until >= before
        assert gate.statistics(now).wait_seconds >= 0
    # Whatever happened, who waits as told gets through.
    for _ in range(4):
        wait = gate.take(now)
        if wait == 0:
            return
        now = max(now, gate._now) + wait
    pytest.fail(f"still closed: {gate.statistics(now)}")


@given(
    st.lists(st.tuples(st.sampled_from(SUBSCRIPTIONS), st.floats(0, 50)), min_size=1, max_size=30)
)
def test_gates_are_as_if_each_were_alone(closings):
    gates = Gates(now=0.0)
    alone = {key: Gate(now=0.0) for key in SUBSCRIPTIONS}
    for now, (key, seconds) in enumerate(closings):
        gates.close(key, float(now), seconds)
        alone[key].close(float(now), seconds)
    now = float(len(closings))
    for key, gate in alone.items():
        assert gates.wait_seconds([key], now) == gate.wait_seconds(now)
    both = gates.wait_seconds(SUBSCRIPTIONS, now)
    assert both == max(gate.wait_seconds(now) for gate in alone.values())
