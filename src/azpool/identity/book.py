"""Which token serves which question, and when to sign in: a pure machine, the clock passed in.

    ask -> Give (and perhaps fetch) | Wait (and perhaps fetch) | Refuse
    done, failed -> the answer for all who wait for that sign-in

At most one sign-in is under way for each place and claims. Who can be given a valid token never
waits, unless a challenge says that it was refused. Why so: docs/decisions/0008-token-broker.md.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from azpool.identity.tokens import Grant, Token

__all__ = ["Book", "Give", "Refuse", "Wait"]

REFRESH_SECONDS = 300.0  # before the end, as azure-core does
LIFE_SHARE = 0.2  # of a token's life, at most: 5 minutes are nonsense for one that lives for 3 s
SPARE_SECONDS = 5.0  # a token that ends this soon may end before it is read
SPARE_SHARE = 0.05
LEASE_SECONDS = 30.0  # how long a process goes on without asking whether a token was replaced
DUE_LEASE_SECONDS = 1.0  # the same, while a new one is on its way
COALESCE_SECONDS = 30.0  # equal challenges within that time are one
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0  # as long as azure-identity waits between two attempts
SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_WISH_SECONDS = 3600.0  # a Retry-After beyond that is a mistake
CHALLENGES = 8  # remembered for each place
MANY_PLACES = 1000  # then those that ended are looked for

Claims: TypeAlias = str | None


class Give(NamedTuple):
    """Hand this out; with `fetch`, sign in as well: nobody waits for it."""

    grant: Grant
    fetch: bool = False


class Wait(NamedTuple):
    """A sign-in is under way; with `fetch`, it is yours to make."""

    fetch: bool


class Refuse(NamedTuple):
    """There is no token, and this is why."""

    error: BaseException


@dataclass(slots=True)
class _Held:
    token: Token
    serial: int
    since: float
    refresh_at: float
    ends_at: float

    def grant(self, now: float, lease_seconds: float) -> Grant:
        if now < self.refresh_at:
            lease = min(lease_seconds, self.refresh_at - now)
        else:
            lease = min(lease_seconds, DUE_LEASE_SECONDS, (self.ends_at - now) / 2)
        token = self.token
        return Grant(
            token.value,
            token.expires_on,
            token.refresh_on,
            token.kind,
            self.serial,
            max(0.0, lease),
        )


@dataclass(slots=True)
class _Place:
    """All that is known of one (credential, scopes, tenant, CAE)."""

    current: _Held | None = None
    answered: dict[str, _Held] = field(default_factory=dict)
    under_way: dict[Claims, int] = field(default_factory=dict)  # the newest serial at their start
    errors: dict[Claims, tuple[BaseException, float]] = field(default_factory=dict)  # until when
    failures: int = 0
    quiet_until: float = float("-inf")  # no refresh before
    challenged: int = 0  # serial of the newest token that a challenge brought

    def is_over(self, now: float) -> bool:
        held = [self.current, *self.answered.values()]
        return not self.under_way and all(one is None or one.ends_at <= now for one in held)


class Book:
    """The tokens of one process."""

    def __init__(self) -> None:
        self._places: dict[Hashable, _Place] = {}
        self._serial = 0

    def ask(
        self,
        key: Hashable,
        now: float,
        *,
        claims: Claims = None,
        had: int = 0,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Give | Wait | Refuse:
        """Answer a question; `had` is the serial of the token that a challenge refused."""
        place = self._places.get(key)
        if place is None:
            self._forget_what_is_over(now)
            place = self._places[key] = _Place()
        if claims is not None:
            held = place.answered.get(claims)
            known = held is not None and now < held.ends_at
            if held is not None and known and _answers(held, had, now):
                return Give(held.grant(now, lease_seconds))
            return self._need(place, claims, now)
        held = place.current
        if held is None or now >= held.ends_at:
            return self._need(place, None, now)
        due = now >= held.refresh_at and now >= place.quiet_until and None not in place.under_way
        if due:
            place.under_way[None] = self._serial
        return Give(held.grant(now, lease_seconds), fetch=due)

    def _need(self, place: _Place, claims: Claims, now: float) -> Wait | Refuse:
        if claims in place.under_way:
            return Wait(fetch=False)
        error, until = place.errors.get(claims, (None, now))
        if error is not None and now < until:
            return Refuse(error)
        place.under_way[claims] = self._serial
        return Wait(fetch=True)

    def done(
        self,
        key: Hashable,
        claims: Claims,
        token: Token,
        now: float,
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Give:
        """Take the token that a sign-in brought; the answer is for those who wait for it."""
        place = self._places[key]
        began = place.under_way.pop(claims)
        place.errors.pop(claims, None)
        old = place.current
        if claims is None and old is not None and place.challenged > began:
            # Asked for before a challenge replaced the token: this one may be the refused one.
            return Give(old.grant(now, lease_seconds))
        if claims is None and old is not None and token.value == old.token.value:
            self._put_off(place, now, None)
            return Give(old.grant(now, lease_seconds))
        self._serial += 1
        held = _held(token, self._serial, now)
        place.current = held
        place.failures = 0
        place.quiet_until = float("-inf")
        if held.refresh_at <= now:  # its source could not do better: asking at once won't either
            self._put_off(place, now, None)
        if claims is not None:
            place.challenged = held.serial
            place.answered.pop(claims, None)
            place.answered[claims] = held
            if len(place.answered) > CHALLENGES:
                del place.answered[next(iter(place.answered))]
        return Give(held.grant(now, lease_seconds))

    def failed(
        self,
        key: Hashable,
        claims: Claims,
        error: BaseException,
        now: float,
        *,
        retry_after_seconds: float | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Give | Refuse:
        """Note that a sign-in failed; the answer is for those who wait for it."""
        place = self._places[key]
        place.under_way.pop(claims)
        wish = min(retry_after_seconds or 0.0, LONGEST_WISH_SECONDS)
        place.errors[claims] = error, now + max(FIRST_PAUSE_SECONDS, wish)
        while len(place.errors) > CHALLENGES:
            del place.errors[next(iter(place.errors))]
        if claims is not None:
            return Refuse(error)
        self._put_off(place, now, wish)
        held = place.current
        if held is not None and now < held.ends_at:
            return Give(held.grant(now, lease_seconds))
        return Refuse(error)

    def _put_off(self, place: _Place, now: float, wish_seconds: float | None) -> None:
        """Let some time pass before the next attempt to refresh."""
        pause = min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(place.failures, 10))
        place.failures += 1
        if place.current is not None:
            pause = min(pause, max(SHORTEST_PAUSE_SECONDS, (place.current.ends_at - now) / 4))
        place.quiet_until = now + max(pause, wish_seconds or 0.0)

    def forget(self, key_of: Hashable) -> None:
        """Drop all places of one credential; keys are tuples that begin with it."""
        for key in [key for key in self._places if isinstance(key, tuple) and key[0] == key_of]:
            del self._places[key]

    def forget_under_way(self) -> None:
        """Count no sign-in as under way: this process is a fork of the one that makes them."""
        for place in self._places.values():
            place.under_way.clear()

    def _forget_what_is_over(self, now: float) -> None:
        if len(self._places) >= MANY_PLACES and len(self._places) % MANY_PLACES == 0:
            for key in [key for key, place in self._places.items() if place.is_over(now)]:
                del self._places[key]

    def __len__(self) -> int:
        return len(self._places)


def _answers(held: _Held, had: int, now: float) -> bool:
    """Whether a token that answered a challenge answers an equal one."""
    return held.serial > had or now - held.since < COALESCE_SECONDS


def _held(token: Token, serial: int, now: float) -> _Held:
    life = max(0.0, token.expires_on - now)
    ends_at = token.expires_on - min(SPARE_SECONDS, life * SPARE_SHARE)
    refresh_at = token.expires_on - min(REFRESH_SECONDS, life * LIFE_SHARE)
    if token.refresh_on is not None and token.refresh_on < ends_at:
        refresh_at = token.refresh_on
    return _Held(token, serial, now, refresh_at, ends_at)
