"""Errors of credentials, made fit to travel: the same class, the text without secrets.

azure-core's errors hold responses, tracebacks and the errors behind them, which don't pickle and
may hold secrets; so an error is made anew from its class and its text. Pure.
"""

from __future__ import annotations

import pickle
import re
from typing import Any

from azpool.errors import AzpoolError, RemoteError

__all__ = ["portable", "retry_after_seconds", "scrub"]

_HIDDEN = "***"
_PATTERNS = (
    # A JSON web token, signed or not; a bearer header whatever it holds.
    (re.compile(r"eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"), _HIDDEN),
    (re.compile(r"(?i)\b(bearer|sharedkey \w+:)\s*[^\s'\",;]{8,}"), rf"\1 {_HIDDEN}"),
    # name=value of queries, forms and connection strings; "name": "value" of JSON and reprs.
    (
        re.compile(
            r"(?i)\b(sig|client_secret|client_assertion|access_token|refresh_token|id_token"
            r"|password|accountkey|sharedaccesssignature|x-identity-header|secret"
            r")(['\"]?\s*[=:]\s*['\"]?)[^\s&;'\",}]+"
        ),
        rf"\1\2{_HIDDEN}",
    ),
)
# What azure-core's errors note of whatever is being handled while they are made.
TRACES = ("inner_exception", "exc_type", "exc_value", "exc_traceback")
FACTS = ("status_code", "reason")  # of azure-core's HttpResponseError


def scrub(text: str) -> str:
    """Take out of a text what looks like a token, a signature, a key or a password."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def portable(error: BaseException) -> Exception:
    """Make an error of the same class, or of its nearest base that can be, with scrubbed text."""
    text = scrub(_text_of(error))
    for cls in type(error).__mro__:
        if cls in (Exception, BaseException, object):
            break
        made = _made(cls, text)
        if made is None:
            continue
        if isinstance(error, AzpoolError):
            made.__dict__.update(_plain(error.__dict__, error.__dict__))
        made.__dict__.update(_plain(error.__dict__, FACTS))
        return made
    name = type(error).__qualname__
    return RemoteError(f"{name}: {text}", type_name=name, text=text)


def _text_of(error: BaseException) -> str:
    try:
        # azure-core's `str` adds the response's content to the message.
        message = getattr(error, "message", None)
        return message if isinstance(message, str) and message else str(error)
    except Exception:
        return "(its text could not be made)"


def _made(cls: Any, text: str) -> Exception | None:
    try:
        made = cls(text)
        for name in TRACES:
            if name in made.__dict__:
                made.__dict__[name] = None
        loaded = pickle.loads(pickle.dumps(made, protocol=5))
    except Exception:
        return None
    fits = isinstance(made, Exception) and type(loaded) is cls and text in (str(made), *made.args)
    return made if fits else None


def _plain(attributes: dict[str, Any], names: Any) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str):
            kept[name] = scrub(value)
        elif isinstance(value, bool | int | float):
            kept[name] = value
    return kept


def retry_after_seconds(error: BaseException, now: float) -> float | None:
    """Read how long the answer behind an error asks to wait, or None."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    cause = error.__cause__ or error.__context__
    if headers is None:
        return None if cause is None else retry_after_seconds(cause, now)
    try:
        for name, unit in (("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3)):
            if (text := _header(headers, name)) is not None:
                return float(text) * unit
        text = _header(headers, "Retry-After")
        if text is None:
            return None
        if text.strip().isdigit():
            return float(text)
        import email.utils  # seldom a date

        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError):
        return None


def _header(headers: Any, name: str) -> str | None:
    for key in (name, name.lower(), name.title()):
        value = headers.get(key)
        if value is not None:
            return str(value)
    return None
