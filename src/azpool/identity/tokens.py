"""What is asked for and what is given: the records that all of identity shares. Pure.

A process holds a `Grant` until its lease is over; the master holds a `Token` until it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["SERVICE", "Ask", "Grant", "Token"]

SERVICE = "azpool.identity"


class Ask(NamedTuple):
    """What a token is wanted for; of a secret that is lent, `scopes` says for what."""

    scopes: tuple[str, ...] = ()
    tenant: str | None = None
    cae: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, or whatever else a source gives, and when it ends (seconds since the epoch)."""

    value: str = field(repr=False)
    expires_on: float
    refresh_on: float | None = None
    kind: str = "Bearer"


class Grant(NamedTuple):
    """A token as it is handed out: `serial` grows with each one, after the lease ask again."""

    value: str
    expires_on: float
    refresh_on: float | None
    kind: str
    serial: int
    lease_seconds: float

    def __repr__(self) -> str:
        return f"Grant(***, serial={self.serial}, lease_seconds={self.lease_seconds:.3f})"
