"""Who signed in: what a token says of itself, and which credential of a chain got it.

A token is read, never checked: that is for the service it was made for. Pure but for `look`.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from azpool.identity.failures import portable
from azpool.identity.sources import CredentialSource, who_answered
from azpool.identity.tokens import Ask

__all__ = ["Login", "claims_of", "look"]

PEOPLE = ("upn", "preferred_username", "unique_name", "email")
PROGRAMS = ("xms_mirid", "app_displayname", "appid", "azp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A sign-in that went well.

    Attributes:
        credentials: the class that was asked, and those within it that answered.
        scope: what the token is for.
        tenant: its id, or None where the token does not say.
        account: a person's name, or a program's id or resource, or None.
        person: whether it is a person.
        object_id: of the account in its tenant, or None.
        expires_on: seconds since the epoch.
    """

    credentials: tuple[str, ...]
    scope: str
    tenant: str | None
    account: str | None
    person: bool
    object_id: str | None
    expires_on: float


def look(credential: Any, scope: str, *, tenant: str | None = None) -> Login:
    """Sign in and tell as whom; blocks.

    Raises:
        Exception: why there is no token, of the credential's own class, without secrets.
    """
    failed: Exception | None = None
    try:
        token = CredentialSource(credential).fetch(Ask((scope,), tenant), None)
    except Exception as error:
        failed = portable(error)
    if failed is not None:
        raise failed
    claims = claims_of(token.value)
    person, account = _text(claims, *PEOPLE), _text(claims, *PROGRAMS)
    return Login(
        credentials=who_answered(credential),
        scope=scope,
        tenant=_text(claims, "tid"),
        account=person or account,
        person=person is not None,
        object_id=_text(claims, "oid"),
        expires_on=token.expires_on,
    )


def claims_of(token: str) -> dict[str, Any]:
    """Read the claims of a JSON web token; {} where it is none, as some of Microsoft's are not."""
    parts = token.split(".")
    try:
        body = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(body))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _text(claims: dict[str, Any], *names: str) -> str | None:
    for name in names:
        value = claims.get(name)
        if isinstance(value, str) and value:
            return value
    return None
