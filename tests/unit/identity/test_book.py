"""The broker's decisions: one sign-in at a time, ahead of expiry, and what follows a failure."""

import itertools
import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from azpool.identity.book import (
    COALESCE_SECONDS,
    LEASE_SECONDS,
    Book,
    Give,
    Refuse,
    Wait,
)
from azpool.identity.tokens import Ask, Token

KEY = ("handle", Ask(("scope",)))


def token(value, expires_on, refresh_on=None):
    return Token(value=value, expires_on=expires_on, refresh_on=refresh_on)


def signed_in(life=3600.0, now=0.0, refresh_on=None):
    book = Book()
    assert book.ask(KEY, now) == Wait(fetch=True)
    book.done(KEY, None, token("first", now + life, refresh_on), now)
    return book


def test_who_asks_while_a_sign_in_is_under_way_waits_for_it():
    book = Book()
    assert book.ask(KEY, 0) == Wait(fetch=True)
    assert [book.ask(KEY, 0) for _ in range(9)] == [Wait(fetch=False)] * 9
    given = book.done(KEY, None, token("a", 3600), 0)
    assert given.grant.value == "a" and not given.fetch
    assert book.ask(KEY, 1).grant.value == "a"


@pytest.mark.parametrize("other", [("scope2",), ("scope", "more")])
def test_other_scopes_tenants_and_cae_are_other_tokens(other):
    book = signed_in()
    assert book.ask(("handle", Ask(other)), 0) == Wait(fetch=True)
    assert book.ask(("handle", Ask(("scope",), "tenant")), 0) == Wait(fetch=True)
    assert book.ask(("handle", Ask(("scope",), None, True)), 0) == Wait(fetch=True)
    assert book.ask(("other", Ask(("scope",))), 0) == Wait(fetch=True)


@pytest.mark.parametrize(
    ("life", "refresh_on", "due"),
    [
        (3600, None, 3300),  # 5 minutes before
        (86400, 43200, 43200),  # when its issuer said
        (3, None, 2.4),  # a fifth of a short life
        (600, None, 480),
        (3600, 99999, 3300),  # refresh_on is nonsense
    ],
)
def test_a_refresh_begins_ahead_of_expiry_and_nobody_waits(life, refresh_on, due):
    book = signed_in(life, refresh_on=refresh_on)
    assert not book.ask(KEY, due - 0.01).fetch
    first = book.ask(KEY, due)
    assert first.fetch and first.grant.value == "first"
    others = [book.ask(KEY, due) for _ in range(9)]
    assert not any(other.fetch for other in others)
    assert {other.grant.value for other in others} == {"first"}
    book.done(KEY, None, token("second", due + life), due)
    assert book.ask(KEY, due).grant.value == "second"


def test_a_lease_ends_when_a_refresh_is_due_and_is_short_while_it_is_under_way():
    book = signed_in(3600)
    assert book.ask(KEY, 0).grant.lease_seconds == LEASE_SECONDS
    assert book.ask(KEY, 3290).grant.lease_seconds == pytest.approx(10)
    assert book.ask(KEY, 3301).grant.lease_seconds == 1
    assert 0 < book.ask(KEY, 3594.9).grant.lease_seconds < 0.1


def test_the_old_token_serves_while_refreshing_fails_and_attempts_become_rare():
    book = signed_in(3600)
    attempts, now = [], 3300.0
    while now < 3595:
        given = book.ask(KEY, now)
        assert given.grant.value == "first"
        if given.fetch:
            attempts.append(now)
            answer = book.failed(KEY, None, OSError("down"), now)
            assert answer.grant.value == "first"
        now += 0.25
    gaps = [b - a for a, b in itertools.pairwise(attempts)]
    assert gaps[:5] == [1, 2, 4, 8, 16] and max(gaps) == 30
    assert book.ask(KEY, 3600) == Wait(fetch=True)


def test_no_attempt_is_made_before_the_server_allows_it():
    book = signed_in(3600)
    assert book.ask(KEY, 3300).fetch
    book.failed(KEY, None, OSError("429"), 3300, retry_after_seconds=120)
    assert not book.ask(KEY, 3419).fetch
    assert book.ask(KEY, 3420).fetch


def test_without_a_token_all_who_wait_and_who_ask_soon_get_one_error():
    book = Book()
    book.ask(KEY, 0)
    error = OSError("down")
    assert book.failed(KEY, None, error, 0) == Refuse(error)
    assert book.ask(KEY, 0.9) == Refuse(error)
    assert book.ask(KEY, 1.0) == Wait(fetch=True)
    book.failed(KEY, None, error, 1, retry_after_seconds=10)
    assert book.ask(KEY, 10.9) == Refuse(error)
    assert book.ask(KEY, 11) == Wait(fetch=True)


def test_a_credential_that_gives_its_old_token_again_is_not_asked_at_once():
    book = signed_in(3600)
    assert book.ask(KEY, 3300).fetch
    book.done(KEY, None, token("first", 3600), 3300)
    assert not book.ask(KEY, 3300.5).fetch
    assert book.ask(KEY, 3301).fetch


def test_a_token_that_is_due_when_it_comes_is_not_refreshed_at_once():
    book = Book()
    book.ask(KEY, 100)
    book.done(KEY, None, token("late", 200, refresh_on=50), 100)
    assert not book.ask(KEY, 100.5).fetch
    assert book.ask(KEY, 101).fetch


def test_a_token_that_has_ended_is_given_once_and_not_kept():
    book = Book()
    book.ask(KEY, 100)
    given = book.done(KEY, None, token("old", 50), 100)
    assert given.grant.value == "old" and given.grant.lease_seconds == 0
    assert book.ask(KEY, 100) == Wait(fetch=True)


def test_what_never_ends_is_never_asked_for_again():
    book = Book()
    book.ask(KEY, 0, lease_seconds=math.inf)
    given = book.done(KEY, None, token("sas", math.inf), 0, lease_seconds=math.inf)
    assert given.grant.lease_seconds == math.inf


def test_a_challenge_signs_in_once_and_replaces_the_token():
    book = signed_in()
    refused = book.ask(KEY, 1).grant.serial
    assert book.ask(KEY, 1, claims="c", had=refused) == Wait(fetch=True)
    assert book.ask(KEY, 1, claims="c", had=refused) == Wait(fetch=False)
    assert book.ask(KEY, 1).grant.value == "first"  # nobody else has been refused yet
    book.done(KEY, "c", token("second", 3600), 2)
    assert book.ask(KEY, 3).grant.value == "second"
    # A node that is refused much later still holds the first one.
    late = book.ask(KEY, 2000, claims="c", had=refused)
    assert late.grant.value == "second"


def test_another_challenge_signs_in_again():
    book = signed_in()
    book.ask(KEY, 1, claims="c", had=1)
    second = book.done(KEY, "c", token("second", 3600), 1).grant.serial
    assert book.ask(KEY, 1, claims="d", had=second) == Wait(fetch=True)


def test_equal_challenges_of_the_newest_token_count_as_one_for_a_while():
    book = signed_in()
    book.ask(KEY, 1, claims="c", had=1)
    serial = book.done(KEY, "c", token("second", 3600), 1).grant.serial
    soon, later = 1 + COALESCE_SECONDS - 0.1, 1 + COALESCE_SECONDS
    assert book.ask(KEY, soon, claims="c", had=serial).grant.value == "second"
    assert book.ask(KEY, later, claims="c", had=serial) == Wait(fetch=True)


def test_a_refresh_that_began_before_a_challenge_does_not_bring_the_old_token_back():
    book = signed_in(3600)
    assert book.ask(KEY, 3300).fetch
    book.ask(KEY, 3301, claims="c", had=1)
    book.done(KEY, "c", token("challenged", 7000), 3302)
    assert book.done(KEY, None, token("stale", 7000), 3303).grant.value == "challenged"
    assert book.ask(KEY, 3304).grant.value == "challenged"


def test_a_failed_challenge_leaves_the_token_to_the_others():
    book = signed_in()
    book.ask(KEY, 1, claims="c", had=1)
    error = OSError("no")
    assert book.failed(KEY, "c", error, 1) == Refuse(error)
    assert book.ask(KEY, 1).grant.value == "first"
    assert book.ask(KEY, 1.5, claims="c", had=1) == Refuse(error)
    assert book.ask(KEY, 2, claims="c", had=1) == Wait(fetch=True)


def test_what_is_dead_or_over_is_forgotten():
    book = Book()
    for n in range(3000):
        key = (f"h{n}", Ask())
        book.ask(key, n)
        book.done(key, None, token("t", n + 10), n)
    assert len(book) < 1100
    book.forget("h2999")
    assert book.ask(("h2999", Ask()), 3000) == Wait(fetch=True)


class Nodes(RuleBasedStateMachine):
    """Nodes ask in any order, sign-ins end or fail in any order, and time goes by."""

    def __init__(self):
        super().__init__()
        self.book = Book()
        self.now = 1000.0
        self.made = 0
        self.under_way = {}  # claims -> how many wait for it
        self.newest = None  # the newest token that was had, and what of it was given
        self.held = {}  # node -> grant
        self.allowed_at = -math.inf
        self.brought = {"c": set(), "d": set(), None: set()}  # claims -> tokens

    def took(self, node, answer, claims):
        if isinstance(answer, Wait):
            assert answer.fetch == (claims not in self.under_way)
            self.under_way.setdefault(claims, []).append(node)
        elif isinstance(answer, Give):
            assert answer.grant.expires_on > self.now
            assert self.now + answer.grant.lease_seconds <= answer.grant.expires_on
            if answer.fetch:
                assert None not in self.under_way
                assert self.now >= self.allowed_at
                self.under_way[None] = []
            self.held[node] = answer.grant
        return answer

    @rule(node=st.integers(0, 3))
    def ask(self, node):
        answer = self.took(node, self.book.ask(KEY, self.now), None)
        if self.newest and self.now < self.newest.expires_on - 5:
            assert isinstance(answer, Give)  # nobody waits, nobody fails, while one is valid
        if isinstance(answer, Give):
            assert answer.grant.value == self.newest.value

    @precondition(lambda self: self.held)
    @rule(data=st.data(), claims=st.sampled_from(["c", "d"]))
    def challenge(self, data, claims):
        node = data.draw(st.sampled_from(sorted(self.held)))
        refused = self.held[node].serial
        answer = self.book.ask(KEY, self.now, claims=claims, had=refused)
        if isinstance(answer, Give):
            assert answer.grant.value in self.brought[claims]
        self.took(node, answer, claims)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), life=st.sampled_from([0.0, 3.0, 60.0, 3600.0]), same=st.booleans())
    def succeed(self, data, life, same):
        claims = data.draw(st.sampled_from(sorted(self.under_way, key=str)))
        self.made += 1
        again = same and claims is None and self.newest is not None
        new = self.newest if again else token(f"t{self.made}", self.now + life)
        self.brought[claims].add(new.value)
        given = self.book.done(KEY, claims, new, self.now)
        for node in self.under_way.pop(claims):
            self.held[node] = given.grant
        if given.grant.value == new.value:
            self.newest = new
        elif given.grant.value != self.newest.value:
            raise AssertionError("an older token came back")

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), wish=st.sampled_from([None, 5.0, 100.0]))
    def fail(self, data, wish):
        claims = data.draw(st.sampled_from(sorted(self.under_way, key=str)))
        answer = self.book.failed(KEY, claims, OSError(), self.now, retry_after_seconds=wish)
        if claims is None:
            self.allowed_at = self.now + (wish or 0)
            assert isinstance(answer, Give | Refuse)
        else:
            assert isinstance(answer, Refuse)
        self.under_way.pop(claims)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 200.0, 4000.0]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def counts_each_sign_in_once(self):
        place = self.book._places.get(KEY)
        assert (set(place.under_way) if place else set()) == set(self.under_way)


TestNodes = Nodes.TestCase
