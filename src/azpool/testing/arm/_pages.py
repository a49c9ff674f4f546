"""Lists in pages, with `nextLink` as ARM writes it: the same address and a `$skiptoken`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from azpool.testing.arm._routes import ArmError, Reply, Request

__all__ = ["page"]

T = TypeVar("T")


def page(request: Request, items: Sequence[T], size: int, write: Callable[[T], Any]) -> Reply:
    """Answer with one page of `items`, and a link to the next where there is one.

    `$skiptoken` is the number of items before the page: what comes or goes meanwhile moves the
    others, as it does in ARM. Only items of the page are written.
    """
    token = request.query.get("$skiptoken", "0")
    if not token.isdecimal():
        raise ArmError(400, "InvalidSkipToken", f"The skip token '{token}' is invalid.")
    start = int(token)
    body: dict[str, Any] = {"value": [write(item) for item in items[start : start + size]]}
    if start + size < len(items):
        others = [
            f"{quote(name, safe='$')}={quote(value, safe='')}"
            for name, value in request.query.items()
            if name != "$skiptoken"
        ]
        query = "&".join([*others, f"$skiptoken={start + size}"])
        body["nextLink"] = f"{request.base}{quote(request.path)}?{query}"
    return Reply(200, body)
