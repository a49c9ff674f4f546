"""Which handler answers which request: a registry that each topic's module adds its own to.

    @route("POST", f"{MACHINE}/start")
    def start(world: World, request: Request) -> Reply: ...

Segments match in any case, `{name}` matches one of them, and `{name}` arrives in
`request.params["name"]` as it was sent. A handler runs under the world's lock, takes no time, and
raises `ArmError` for what the service refuses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from azpool.testing.arm._world import World

__all__ = [
    "COMPUTE",
    "GROUP",
    "SUBSCRIPTION",
    "ArmError",
    "Handler",
    "Reply",
    "Request",
    "find",
    "route",
]

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = f"{SUBSCRIPTION}/resourceGroups/{{group}}"
COMPUTE = f"{GROUP}/providers/Microsoft.Compute"


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, read.

    Attributes:
        method: `GET`, `POST`, ...
        path: as it was sent, unquoted, without the query.
        params: what the route's `{names}` stand for.
        query: by name in lower case (`$expand`, `api-version`).
        headers: by name in lower case.
        body: the JSON of the body; None where there was none.
        principal: who asks: the `oid` of the token.
        base: the server's own address, for links.
        target: path and query as they were sent.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    principal: str = ""
    base: str = ""
    target: str = ""
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return self.query.get("api-version", "")


@dataclass(slots=True)
class Reply:
    """What is answered; a body of None is an empty one."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        return b"" if self.body is None else json.dumps(self.body, separators=(",", ":")).encode()


class ArmError(Exception):
    """The service refuses: answered as ARM writes errors, `{"error": {"code", "message"}}`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})
        self.details = details

    def reply(self) -> Reply:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            error = {"code": self.code, "details": self.details, "message": self.message}
        return Reply(self.status, {"error": error}, dict(self.headers))


def part(body: Any, name: str) -> dict[str, Any]:
    """Give the object under a name of a body; an empty one where there is none.

    Raises:
        ArmError: 400, something else stands there.
    """
    value = body.get(name) if isinstance(body, Mapping) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _no(f"'{name}' is no object")
    return value


def tags_of(body: Any) -> dict[str, str]:
    """Give the tags of a body."""
    return {str(name): str(value) for name, value in part(body, "tags").items()}


def whole(value: Any, name: str) -> int:
    """Give a number of 0 or more; 0 for none.

    Raises:
        ArmError: 400, it is no such number.
    """
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _no(f"'{name}' is no whole number of 0 or more")
    return value


def _no(cause: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", f"The request content was invalid: {cause}.")


Handler: TypeAlias = Callable[["World", Request], Reply]


class _Node:
    """One segment of the paths that are known."""

    __slots__ = ("handlers", "literal", "param")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.param: _Node | None = None
        self.handlers: dict[str, tuple[Handler, tuple[str, ...]]] = {}


_root = _Node()


def route(method: str, template: str) -> Callable[[Handler], Handler]:
    """Register a handler for a method and a template of a path; the same twice is an error."""

    def register(handler: Handler) -> Handler:
        node, names = _root, []
        for segment in template.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment.strip("{}"))
                node.param = node.param or _Node()
                node = node.param
            else:
                node = node.literal.setdefault(segment.lower(), _Node())
        if method in node.handlers:
            raise ValueError(f"cannot register {method} {template}: it has a handler")
        node.handlers[method] = handler, tuple(names)
        return handler

    return register


def find(method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
    """Find who answers, and what the `{names}` of its route stand for; None for nobody."""
    segments = path.strip("/").split("/")
    node = _descend(_root, [segment.lower() for segment in segments], 0, method)
    if node is None:
        return None
    found, taken = node
    handler, names = found.handlers[method]
    return handler, dict(zip(names, (segments[at] for at in taken), strict=True))


def _descend(
    node: _Node, segments: list[str], at: int, method: str
) -> tuple[_Node, tuple[int, ...]] | None:
    if at == len(segments):
        return (node, ()) if method in node.handlers else None
    if (literal := node.literal.get(segments[at])) is not None:
        found = _descend(literal, segments, at + 1, method)
        if found is not None:
            return found
    if node.param is not None and segments[at]:
        found = _descend(node.param, segments, at + 1, method)
        if found is not None:
            return found[0], (at, *found[1])
    return None
