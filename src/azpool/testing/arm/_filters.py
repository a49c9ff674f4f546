"""`$filter` of ARM's lists of resources: the part of OData that azure-mgmt-resource documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from azpool.testing.arm._routes import ArmError

__all__ = ["matching"]

Test: TypeAlias = Callable[[Mapping[str, Any]], bool]

_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|([A-Za-z/.]+)|([(),]))")
PROPERTIES = {"location", "resourcetype", "name", "resourcegroup"}
TAGS = {"tagname", "tagvalue"}
MOST_BRACKETS = 50  # each takes three frames of the reader


def matching(text: str) -> tuple[Test, bool]:
    """Read a filter: what it lets pass, and whether it is one by tags.

    `resourceType`, `location`, `name` and `resourceGroup` with `eq` and `ne`, `substringof('x',
    name)`, joined by `and` and `or`; `tagName eq 'a' and tagValue eq 'b'`, `tagName eq 'a'` and
    `startswith(tagName, 'a')`, which go with nothing else.

    Raises:
        ArmError: 400, it is none of these.
    """
    if not text.strip():
        return (lambda _: True), False
    reader = _Reader(text)
    if reader.tokens.count("(") > MOST_BRACKETS:
        raise _invalid(text)
    test = reader.any_of()
    if reader.at < len(reader.tokens):
        raise _invalid(text)
    if reader.names & TAGS:
        if reader.names - TAGS or reader.by_or:
            raise _invalid(text)
        return _by_tags(reader, text), True
    return test, False


class _Reader:
    """Reads tokens into a test, `or` below `and`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.at = 0
        self.names: set[str] = set()
        self.by_or = False
        self.tags: dict[str, str] = {}
        self.tag_prefix: str | None = None
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _invalid(text)
            self.tokens.append(match[1] or match[2] or match[3])
            position = match.end()

    def any_of(self) -> Test:
        tests = [self.all_of()]
        while self._peek() == "or":
            self.at += 1
            self.by_or = True
            tests.append(self.all_of())
        return lambda one: any(test(one) for test in tests)

    def all_of(self) -> Test:
        tests = [self._one()]
        while self._peek() == "and":
            self.at += 1
            tests.append(self._one())
        return lambda one: all(test(one) for test in tests)

    def _one(self) -> Test:
        word = self._take()
        name = word.lower()
        if name == "(":
            inner = self.any_of()
            self._take(")")
            return inner
        if name in ("substringof", "startswith"):
            return self._function(name)
        if name not in PROPERTIES | TAGS:
            raise _invalid(self.text)
        operator, value = self._take().lower(), self._value()
        if operator not in ("eq", "ne") or (name in TAGS and operator == "ne"):
            raise _invalid(self.text)
        self.names.add(name)
        if name in TAGS:
            self.tags[name] = value
            return lambda _: True
        wanted = value.lower()
        return lambda one: (_read(one, name) == wanted) is (operator == "eq")

    def _function(self, name: str) -> Test:
        self._take("(")
        if name == "startswith":
            if self._take().lower() != "tagname":
                raise _invalid(self.text)
            self._take(",")
            self.tag_prefix = self._value()
            self.names.add("tagname")
            self._take(")")
            return lambda _: True
        part = self._value().lower()
        self._take(",")
        about = self._take().lower()
        if about not in ("name", "resourcegroup"):
            raise _invalid(self.text)
        self.names.add(about)
        self._take(")")
        return lambda one: part in _read(one, about)

    def _peek(self) -> str:
        return self.tokens[self.at].lower() if self.at < len(self.tokens) else ""

    def _take(self, wanted: str | None = None) -> str:
        if self.at >= len(self.tokens) or wanted not in (None, self.tokens[self.at]):
            raise _invalid(self.text)
        self.at += 1
        return self.tokens[self.at - 1]

    def _value(self) -> str:
        word = self._take()
        if not word.startswith("'"):
            raise _invalid(self.text)
        return word[1:-1].replace("''", "'")


def _by_tags(reader: _Reader, text: str) -> Test:
    name, value, prefix = reader.tags.get("tagname"), reader.tags.get("tagvalue"), reader.tag_prefix
    if prefix is not None:
        start = prefix.lower()
        return lambda one: any(tag.lower().startswith(start) for tag in one.get("tags", {}))
    if name is None:
        raise _invalid(text)
    wanted = name.lower()

    def test(one: Mapping[str, Any]) -> bool:
        # Names of tags are compared without case, values with it.
        tags = {str(tag).lower(): its for tag, its in one.get("tags", {}).items()}
        return wanted in tags and (value is None or tags[wanted] == value)

    return test


def _read(one: Mapping[str, Any], name: str) -> str:
    if name == "resourcegroup":
        return str(one["id"]).split("/")[4].lower()
    return str(one.get({"resourcetype": "type"}.get(name, name), "")).lower()


def _invalid(text: str) -> ArmError:
    return ArmError(
        400,
        "InvalidFilterInQueryString",
        f"Invalid $filter '{text}' specified in the query string.",
    )
