"""Credentials that tests hold in their hands."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any

from azure.core.credentials import AccessToken


class Credential:
    """Counts its sign-ins; `open` lets them through, `errors` are raised first, in order."""

    def __init__(self, *errors: BaseException, life_seconds: float = 3600) -> None:
        self.asked: list[dict[str, Any]] = []
        self.errors = list(errors)
        self.life_seconds = life_seconds
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.side_by_side = 0
        self._inside = 0

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.asked.append({"scopes": scopes, **options})
        number = len(self.asked)
        self._inside += 1
        self.side_by_side = max(self.side_by_side, self._inside)
        self.entered.set()
        try:
            assert self.open.wait(50)
        finally:
            self._inside -= 1
        if self.errors:
            raise self.errors.pop(0)
        return AccessToken(f"token-{number}", int(time.time() + self.life_seconds))


def claims_of(token: str) -> dict[str, Any]:
    """Read a JSON web token."""
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
