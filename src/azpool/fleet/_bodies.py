"""What goes out and what comes back, in plain values: bodies with their secrets, answers without.

    Call.arguments -> argument() -> what the client's method takes
    response -> answer_of() -> Answer -> scrubbed()

No secret of a call gets into an answer, nor does a token or the signature of a SAS, whoever put it
there. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from azpool.fleet.calls import Answer
from azpool.identity.secret import Secret

__all__ = ["answer_of", "argument", "body_bytes", "scrubbed", "scrubbed_body"]

MESSAGE_CHARACTERS = 2000
_HEADERS = frozenset({
    "azure-asyncoperation",
    "date",
    "etag",
    "location",
    "retry-after",
    "x-ms-arm-service-request-id",
    "x-ms-correlation-request-id",
    "x-ms-failure-cause",
    "x-ms-request-charge",
    "x-ms-request-id",
})  # fmt: skip
_RATE_LIMITS = "x-ms-ratelimit-"
# Signatures of a SAS, bearer tokens, JSON web tokens: whoever put them into a message.
_SECRETS = re.compile(
    r"(?i)(?P<kept>\bsig=|\bbearer\s+)[^\s&\"']+|\beyJ[\w-]+\.[\w-]+\.[\w-]*",
)


def answer_of(response: Any) -> Answer:
    """Take a response as it is; reads its body."""
    status = int(response.status_code)
    data = response.read() if hasattr(response, "read") else response.body()
    headers = {
        name.lower(): value
        for name, value in response.headers.items()
        if name.lower() in _HEADERS or name.lower().startswith(_RATE_LIMITS)
    }
    body, code, message = None, None, ""
    try:
        body = json.loads(data) if data.strip() else None
    except ValueError:
        # A proxy's page, or half an answer: an empty list must not be read out of it.
        message = data[:MESSAGE_CHARACTERS].decode("utf-8", "replace")
        if status < 300:
            return Answer(
                status=None, headers=headers, code="BadResponse", message=f"no JSON: {message}"
            )
    if status >= 300:
        if status < 400:  # followed nowhere: a token would go along
            where = f"with {status} to another address"
            return Answer(status=None, headers=headers, code="Redirected", message=where)
        code, message = _error_of(body, message or str(response.reason or ""))
    return Answer(status=status, headers=headers, body=body, code=code, message=message)


def _error_of(body: Any, reason: str) -> tuple[str | None, str]:
    """Answer ARM's code and words: in `error`, or at the top, as older services have them."""
    found = body.get("error", body) if isinstance(body, Mapping) else None
    if isinstance(found, str):
        return found, str(body.get("error_description") or body.get("message") or reason)
    if not isinstance(found, Mapping):
        return None, reason
    code = found.get("code") or found.get("Code")
    message = str(found.get("message") or found.get("Message") or reason)
    for detail in _details(found):
        text = str(detail.get("message") or "")
        if text and text not in message:
            message = f"{message} {text}"
    return (str(code) if code else None), message


def _details(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    details = error.get("details")
    if isinstance(details, list):
        yield from (one for one in details[:5] if isinstance(one, Mapping))


def argument(value: Any, revealed: list[str]) -> Any:
    """Answer an argument as the client takes it: a body as the bytes that are sent, unchanged."""
    if isinstance(value, Secret):
        return _open(value, revealed)
    if isinstance(value, Mapping):
        return body_bytes(value, revealed)
    return value


def body_bytes(body: Mapping[str, Any], revealed: list[str] | None = None) -> bytes:
    """Write a body as it is sent; the texts of its secrets are put down in `revealed`."""
    return json.dumps(_plain(body, [] if revealed is None else revealed)).encode()


def _plain(value: Any, revealed: list[str]) -> Any:
    if isinstance(value, Secret):
        return _open(value, revealed)
    if isinstance(value, Mapping):
        return {name: _plain(one, revealed) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, revealed) for one in value]
    return value


def _open(secret: Secret, revealed: list[str]) -> str:
    text = secret.reveal()
    revealed.append(text)
    return text


def scrubbed(text: str, revealed: Sequence[str] = ()) -> str:
    """Take out what is secret, and what is too much."""
    for secret in sorted(revealed, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    text = _SECRETS.sub(lambda found: f"{found['kept'] or ''}***", text)
    return text if len(text) <= MESSAGE_CHARACTERS else text[:MESSAGE_CHARACTERS] + "…"


def scrubbed_body(answer: Answer, revealed: Sequence[str]) -> Any:
    """Take out what is secret where the service may tell it: of an error, a failed operation."""
    body = answer.body
    if not answer.ok:
        return _scrubbed_within(body, revealed)
    if isinstance(body, dict) and body.get("error"):
        return {**body, "error": _scrubbed_within(body["error"], revealed)}
    return body


def _scrubbed_within(value: Any, revealed: Sequence[str]) -> Any:
    if isinstance(value, str):
        return scrubbed(value, revealed)
    if isinstance(value, dict):
        return {name: _scrubbed_within(one, revealed) for name, one in value.items()}
    if isinstance(value, list):
        return [_scrubbed_within(one, revealed) for one in value]
    return value
