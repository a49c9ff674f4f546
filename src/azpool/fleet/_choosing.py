"""Which instances `Fleet.where` keeps. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from azpool.errors import UsageError
from azpool.fleet._sources import has_tags
from azpool.fleet.instance import Instance, Power

__all__ = ["OFF", "Test", "tests"]

Test: TypeAlias = Callable[[Instance], bool]

OFF = "off"  # stopped or deallocated: what `start` is for
POWERS: dict[str, frozenset[Power]] = {
    **{power.value: frozenset({power}) for power in Power},
    OFF: frozenset({Power.STOPPED, Power.DEALLOCATED}),
}


def tests(
    *,
    power: str | Iterable[str] | None,
    zone: str | int | Iterable[str | int] | None,
    name: str | Iterable[str] | None,
    tags: Mapping[str, str | None] | None,
    size: str | Iterable[str] | None,
    provisioning: str | Iterable[str] | None,
    predicate: Test | None,
) -> list[Test]:
    """Make the tests that an instance must pass, all of them; None tests nothing.

    Raises:
        UsageError: a power state that Azure does not have, or a predicate that can't be called.
    """
    made: list[Test] = []
    if power is not None:
        wanted = frozenset().union(*(_powers(word) for word in _several(power)))
        made.append(lambda one: one.power in wanted)
    if zone is not None:
        zones = {str(each) for each in _several(zone)}
        made.append(lambda one: one.zone in zones)
    if name is not None:
        names = _several(name)
        made.append(lambda one: _like(one.name, names) or _like(one.instance_id, names))
    if tags is not None:
        pairs = tuple(tags.items())
        made.append(lambda one: has_tags(one.tags, pairs))
    if size is not None:
        sizes = _several(size)
        made.append(lambda one: _like(one.size, sizes))
    if provisioning is not None:
        words = _several(provisioning)
        made.append(lambda one: _like(one.provisioning, words))
    if predicate is not None:
        if not callable(predicate):
            raise UsageError(f"cannot call {predicate!r}: a predicate takes an instance")
        made.append(predicate)
    return made


def _powers(word: str) -> frozenset[Power]:
    found = POWERS.get(str(word).lower())
    if found is None:
        raise UsageError(
            f"cannot choose by the power state {word!r}: there is none; name one of "
            + ", ".join(POWERS)
        )
    return found


def _several(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int) else tuple(value)


def _like(text: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(text.lower(), glob.lower()) for glob in globs)
