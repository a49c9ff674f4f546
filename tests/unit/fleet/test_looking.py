"""The calendar of polls: never too early, never more than the bucket of reads regains."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from azpool.fleet._looking import FORWARD, LIST_SECONDS, SELDOM_SECONDS, Looking

A, B = "sub-a", "sub-b"


def sweep(looking: Looking, count: int, begun: float) -> list[float]:
    return [looking.put(place, A, begun) for place in range(count)]


def test_200_operations_at_25_a_second_are_asked_for_every_8_seconds():
    looking = Looking(25.0)
    asked = [(due, place) for place, due in enumerate(sweep(looking, 200, 10.0))]
    heapq.heapify(asked)
    times: dict[int, list[float]] = {place: [] for place in range(200)}
    while asked[0][0] < 100:
        due, place = heapq.heappop(asked)
        assert looking.take(place, A, due)
        times[place].append(due)
        heapq.heappush(asked, (looking.put(place, A, due + 4), place))
    seconds = Counter(int(due) for each in times.values() for due in each)
    assert max(seconds.values()) == 25
    gaps = [after - before for each in times.values() for before, after in pairwise(each)]
    assert min(gaps) > 7
    assert max(gaps) < 9


def test_few_operations_are_asked_for_as_soon_as_they_may_be():
    assert sweep(Looking(25.0), 20, 14.0) == [14.0 + n / 25 for n in range(20)]
    assert Looking(25.0).put(0, A, 14.5) == 14.5


def test_another_subscription_has_seconds_of_its_own():
    looking = Looking(25.0)
    sweep(looking, 500, 10.0)
    assert looking.put(500, B, 10.0) == 10.0


def test_where_all_end_together_each_end_brings_others_forward():
    looking = Looking(25.0)
    dues = sweep(looking, 200, 10.0)
    assert max(dues) > 17
    ready, seen = [0], set()
    assert looking.take(0, A, dues[0])
    while ready:
        place = ready.pop()
        seen.add(place)
        for other, due in looking.ended(place, A, 10.0):
            assert due == 10.0
            assert looking.take(other, A, due)
            # What it was to be looked at before says nothing any more.
            assert not looking.take(other, A, dues[other])
            ready.append(other)
    # Those that were due at that moment anyhow are not brought forward.
    assert len(seen) >= 199


def test_an_end_that_was_never_waited_for_brings_nothing_forward():
    looking = Looking(25.0)
    sweep(looking, 100, 10.0)
    assert looking.ended(777, A, 10.0) == []
    assert looking.ended(0, B, 10.0) == []
    assert len(looking.ended(0, A, 10.0)) == FORWARD


def test_a_crowd_waits_until_a_list_says_that_nothing_is_under_way():
    looking = Looking(2.0)
    dues = sweep(looking, 120, 10.0)
    assert dues[-1] < 71
    assert looking.crowded(A)
    assert not looking.crowded(B)
    assert looking.put(120, A, 14.0) == 14.0 + SELDOM_SECONDS
    # As many as the bucket regains until the next list, beside the list itself.
    found = looking.listed(A, {120, *range(100)}, 20.0, pages=6)
    assert len(found) == 2 * LIST_SECONDS - 6
    assert found == [(place, 20.0 + n / 2) for n, (place, _) in enumerate(found)]
    assert looking.listed(A, set(), 20.0, pages=6) == []
    # No end brings others forward: the list knows better.
    assert looking.ended(5, A, 20.0) == []


def test_what_is_left_of_a_crowd_is_asked_for_in_turn():
    looking = Looking(2.0)
    dues = sweep(looking, 130, 10.0)
    for place in range(100):
        assert looking.take(place, A, dues[place])
    assert not looking.crowded(A)
    found = dict(looking.listed(A, set(), 50.0, pages=0))
    assert sorted(found) == list(range(120, 130))
    assert all(50 <= due < 120 for due in found.values())
    assert looking.listed(A, set(), 50.0, pages=0) == []
    assert all(looking.take(place, A, due) for place, due in found.items())


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), max_size=300), st.integers(1, 9))
def test_nothing_is_looked_at_before_its_time(asked: list[tuple[float, bool]], rate: int):
    looking = Looking(float(rate))
    earliest: dict[int, float] = {}
    seconds: Counter[int] = Counter()
    for place, (at, ends) in enumerate(asked):
        earliest[place] = at
        due = looking.put(place, A, at)
        assert due >= at
        seconds[int(due)] += 1
        if ends:
            for other, sooner in looking.ended(place, A, at):
                assert sooner >= earliest[other]
    if not any(ends for _, ends in asked):
        assert max(seconds.values(), default=0) <= rate
