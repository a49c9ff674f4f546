"""The types that `get_token` answers with: azure-core's where it is installed, else their like.

Loaded with the first token that a user or an SDK asks for; storage reads tokens without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from azpool.identity.tokens import Grant

__all__ = ["access_token", "access_token_info"]


class _Token(NamedTuple):
    """azure-core's AccessToken, where that is not installed."""

    token: str
    expires_on: int


class _TokenInfo:
    """azure-core's AccessTokenInfo, where that is not installed."""

    def __init__(
        self, token: str, expires_on: int, *, token_type: str, refresh_on: int | None
    ) -> None:
        self.token = token
        self.expires_on = expires_on
        self.token_type = token_type
        self.refresh_on = refresh_on


try:
    from azure.core.credentials import AccessToken as _AzureToken
    from azure.core.credentials import AccessTokenInfo as _AzureTokenInfo
except ImportError:
    _TokenBase: Any = _Token
    _InfoBase: Any = _TokenInfo
else:
    _TokenBase, _InfoBase = _AzureToken, _AzureTokenInfo


# azure-core's own show the token in their repr, and so in every log of a variable.
class _AccessToken(_TokenBase):  # type: ignore[misc]  # decided when it is loaded
    __slots__ = ()

    def __repr__(self) -> str:
        return f"AccessToken(token='***', expires_on={self.expires_on})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _TokenBase, tuple(self)


class _AccessTokenInfo(_InfoBase):  # type: ignore[misc]  # as above
    def __repr__(self) -> str:
        return (
            f"AccessTokenInfo(token='***', expires_on={self.expires_on}, "
            f"token_type={self.token_type!r}, refresh_on={self.refresh_on})"
        )


_AccessToken.__name__ = _AccessToken.__qualname__ = "AccessToken"
_AccessTokenInfo.__name__ = _AccessTokenInfo.__qualname__ = "AccessTokenInfo"


def access_token(grant: Grant) -> Any:
    """Make what `get_token` answers."""
    return _AccessToken(grant.value, int(grant.expires_on))


def access_token_info(grant: Grant) -> Any:
    """Make what `get_token_info` answers."""
    refresh_on = None if grant.refresh_on is None else int(grant.refresh_on)
    return _AccessTokenInfo(
        grant.value, int(grant.expires_on), token_type=grant.kind, refresh_on=refresh_on
    )
