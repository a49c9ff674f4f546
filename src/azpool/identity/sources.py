"""What tokens come from: adapters of credentials, and azure-identity's, which is loaded here alone.

Anything with azure-core's `get_token` or `get_token_info` will do, sync or async. The types that
tokens are answered with are azure-core's where it is installed.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from azpool.errors import UsageError
from azpool.identity.book import LEASE_SECONDS
from azpool.identity.tokens import Ask, Token

__all__ = ["CredentialSource", "default_credential", "who_answered"]


class CredentialSource:
    """Asks a credential; one question at a time, each on any thread."""

    immediate = False
    lease_seconds = LEASE_SECONDS

    def __init__(self, credential: Any) -> None:
        """Take a credential.

        Raises:
            UsageError: it has neither `get_token` nor `get_token_info`.
        """
        self.credential = credential
        if not any(callable(getattr(credential, name, None)) for name in METHODS):
            raise UsageError(
                f"cannot use a {type(credential).__name__} as credential: it has no "
                "get_token(); pass an azure-identity credential, or key=, sas="
            )
        self._loop: asyncio.AbstractEventLoop | None = None

    def fetch(self, ask: Ask, claims: str | None) -> Token:
        """Sign in, or have the credential's own cached token; raises what the credential does."""
        # Only what was asked for: a class of the user's own may take scopes alone.
        options: dict[str, Any] = {}
        if claims is not None:
            options["claims"] = claims
        if ask.tenant is not None:
            options["tenant_id"] = ask.tenant
        if ask.cae:
            options["enable_cae"] = True
        with_facts = getattr(self.credential, "get_token_info", None)
        if callable(with_facts):
            answer = self._result_of(with_facts, ask.scopes, {"options": options})
        else:
            answer = self._result_of(self.credential.get_token, ask.scopes, options)
        return _token_of(answer, self.credential)

    def _result_of(
        self, method: Callable[..., Any], scopes: tuple[str, ...], options: dict[str, Any]
    ) -> Any:
        answer = method(*scopes, **options)
        if not inspect.isawaitable(answer):
            return answer
        # One loop for all calls, since sessions belong to the loop that made them. It runs only
        # while somebody waits here, on whichever thread that is.
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            weakref.finalize(self, self._loop.close).atexit = False
        return self._loop.run_until_complete(_awaited(answer))


METHODS = ("get_token", "get_token_info")


async def _awaited(answer: Any) -> Any:
    return await answer


def _token_of(answer: Any, credential: Any) -> Token:
    value, expires_on = getattr(answer, "token", None), getattr(answer, "expires_on", None)
    if not isinstance(value, str) or not isinstance(expires_on, int | float):
        raise TypeError(
            f"cannot use the token of {type(credential).__name__}: it answered with a "
            f"{type(answer).__name__}; a token has .token and .expires_on"
        )
    refresh_on = getattr(answer, "refresh_on", None)
    return Token(
        value=value,
        expires_on=expires_on,
        refresh_on=refresh_on if isinstance(refresh_on, int | float) else None,
        kind=str(getattr(answer, "token_type", None) or "Bearer"),
    )


def default_credential(**options: Any) -> Any:
    """Make azure-identity's DefaultAzureCredential.

    Raises:
        UsageError: azure-identity is not installed.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise UsageError(
            "cannot sign in: azure-identity is not installed; pip install 'azpool[identity]'"
        ) from error
    return DefaultAzureCredential(**options)


# Where azure-identity's chains, and those that stand for one of several, keep who answered.
WITHIN = ("_successful_credential", "_credential")


def who_answered(credential: Any) -> tuple[str, ...]:
    """Answer the class names of a credential and of those within it that gave the last token."""
    names: list[str] = []
    while credential is not None and len(names) < 5:
        names.append(type(credential).__name__)
        found = (getattr(credential, name, None) for name in WITHIN)
        credential = next((one for one in found if one is not None), None)
    return tuple(names)
