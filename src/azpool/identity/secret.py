"""`Secret`: a string that never shows itself, and pickles as a handle.

A node asks the master for what the handle stands for, over the pool's private channel, once. A
secret with a lender never leaves its process: nodes are lent something less instead.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from time import time
from typing import Any, Protocol

from azpool.errors import UsageError
from azpool.identity import registry
from azpool.identity.shared import Held, Holder, holder_of
from azpool.identity.tokens import Ask, Token

__all__ = ["Lender", "Secret"]


class Lender(Hashable, Protocol):
    """Makes of a secret what nodes get in its place; a value, and pure but for the clock."""

    def lend(self, secret: str, purpose: tuple[str, ...], now: float) -> Token:
        """Make what serves the purpose, and ends."""
        ...


class _Kept:
    """The source of a secret: itself, or what its lender makes of it."""

    immediate = True
    lease_seconds = math.inf  # nothing replaces it before it ends

    def __init__(self, value: str, lender: Lender | None) -> None:
        self.value = value
        self.lender = lender

    def fetch(self, ask: Ask, claims: str | None) -> Token:  # noqa: ARG002 - a source's signature
        if self.lender is None:
            return Token(value=self.value, expires_on=math.inf)
        if not ask.scopes:
            raise UsageError(
                "cannot give out a secret that stays in its process; borrow for a purpose instead"
            )
        return self.lender.lend(self.value, ask.scopes, time())


class Secret:
    """A string that never shows itself: `repr`, `str` and formatting give `Secret(***)`."""

    __slots__ = ("_holder", "_registration")
    _holder: Holder
    _registration: registry.Registration | None

    def __init__(self, value: str, lender: Lender | None = None) -> None:
        registration = registry.register(("secret", value, lender), lambda: _Kept(value, lender))
        self._be(registration.handle, registration)

    def _be(self, handle: str, registration: registry.Registration | None) -> None:
        object.__setattr__(self, "_registration", registration)
        object.__setattr__(self, "_holder", holder_of(handle))

    @property
    def is_here(self) -> bool:
        """Whether this process has the value itself, and not on loan."""
        return self._registration is not None

    def reveal(self) -> str:
        """Give the value itself, for signing; never for a message, a log or a repr.

        Raises:
            UsageError: it stays in the process that made it, which is another one.
            NotShared: this process is neither that one nor one of its nodes.
        """
        if self._registration is not None:
            source = self._registration.source
            assert isinstance(source, _Kept)
            return source.value
        return self._holder.get(Ask()).value

    def borrow(self, *purpose: str, refused: bool = False) -> Held:
        """Give what the lender makes of it for this purpose; cheap, until it nears its end.

        With `refused`, what this process holds was refused: another one is made, at most every 30
        seconds for all who say so.
        """
        return self._holder.get(Ask(purpose), "refused" if refused else None)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._holder.handle == self._holder.handle

    def __hash__(self) -> int:
        return hash((Secret, self._holder.handle))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret can't be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Secret can't be changed")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._registration is not None:
            registry.pin(self._registration)
        return _arrive, (self._holder.handle,)


def _arrive(handle: str) -> Secret:
    secret = Secret.__new__(Secret)
    secret._be(handle, registry.find(handle))
    return secret
