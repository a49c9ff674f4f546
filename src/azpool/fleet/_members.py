"""`Members`: a fleet as a frozen sequence of instances; chosen from, compared and shown.

What is read and done is `Fleet`'s.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, overload

from azpool.errors import UsageError
from azpool.fleet import _choosing

if TYPE_CHECKING:
    from azpool.fleet._link import Link
    from azpool.fleet._sources import Source
    from azpool.fleet.instance import Instance

__all__ = ["Members"]

ROWS_SHOWN = 20
COLUMNS = ("name", "power", "provisioning", "zone", "size", "location")


class Members:
    """Instances in an order, how they are reached, and what they were read from."""

    __slots__ = ("_instances", "_link", "_source")

    def __init__(
        self, instances: Iterable[Instance], link: Link, source: Source | None = None
    ) -> None:
        self._instances = tuple(instances)
        self._link = link
        self._source = source  # what `sync` reads; None for a part of a fleet

    @property
    def instances(self) -> tuple[Instance, ...]:
        return self._instances

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances)

    def __contains__(self, one: object) -> bool:
        return one in self._instances

    @overload
    def __getitem__(self, index: int) -> Instance: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Instance | Self:
        if isinstance(index, slice):
            return type(self)(self._instances[index], self._link)
        return self._instances[index]

    def get(self, instance_id: str) -> Instance:
        """Answer one instance: by its instance id, its name or its resource id, in any case.

        Raises:
            UsageError: there is none, or several scale sets have one of that id.
        """
        wanted = str(instance_id).lower()
        found = [one for one in self._instances if wanted in (one.instance_id.lower(), one.key)]
        found = found or [one for one in self._instances if one.name.lower() == wanted]
        if len(found) != 1:
            many = f"{len(found)} instances have that id" if found else "this fleet has none"
            raise UsageError(f"cannot get the instance {instance_id!r}: {many}")
        return found[0]

    def where(
        self,
        predicate: Callable[[Instance], bool] | None = None,
        *,
        power: str | Iterable[str] | None = None,
        zone: str | int | Iterable[str | int] | None = None,
        name: str | Iterable[str] | None = None,
        tags: Mapping[str, str | None] | None = None,
        size: str | Iterable[str] | None = None,
        provisioning: str | Iterable[str] | None = None,
    ) -> Self:
        """Answer the fleet of those that pass all tests, in the same order; sends nothing.

        Args:
            predicate: called with each instance.
            power: one of `Power`, or several; `"off"` is stopped or deallocated.
            zone: of one zone, or several.
            name: globs of names or instance ids, in any case.
            tags: which it must have; values are globs, None is any.
            size: globs, as `Standard_D*`.
            provisioning: globs, as `failed`, in any case.

        Raises:
            UsageError: Azure has no such power state.
        """
        made = _choosing.tests(
            power=power, zone=zone, name=name, tags=tags, size=size,
            provisioning=provisioning, predicate=predicate,
        )  # fmt: skip
        kept = (one for one in self._instances if all(test(one) for test in made))
        return type(self)(kept, self._link)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Members) and other._instances == self._instances

    def __hash__(self) -> int:
        return hash(self._instances)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._instances, self._link, self._source)

    def __repr__(self) -> str:
        rows = [_row(one) for one in self._instances[:ROWS_SHOWN]]
        table = [COLUMNS, *rows]
        widths = [max(len(row[at]) for row in table) for at in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                 for row in table] if rows else []  # fmt: skip
        more = len(self) - len(rows)
        return "\n".join([
            self._headline(),
            *(f"  {line}" for line in lines),
            *([f"  and {more:,} more"] if more else []),
        ])  # fmt: skip

    def _headline(self) -> str:
        counts = Counter(one.power.value for one in self._instances)
        powers = ", ".join(f"{count:,} {power}" for power, count in counts.most_common())
        of = f" of {self._source}" if self._source is not None else ""
        plural = "" if len(self) == 1 else "s"
        return f"Fleet: {len(self):,} instance{plural}{of}{f': {powers}' if powers else ''}"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _row(one)) + "</tr>"
            for one in self._instances[:ROWS_SHOWN]
        )
        more = len(self) - ROWS_SHOWN
        last = f"<tr><td colspan='{len(COLUMNS)}'>and {more:,} more</td></tr>" if more > 0 else ""
        return (
            f"<table><caption>{html.escape(self._headline())}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}{last}</tbody></table>"
        )


def _row(one: Instance) -> tuple[str, ...]:
    provisioning = f"unread: {one.unread}" if one.unread else one.provisioning
    shown = provisioning if len(provisioning) <= 40 else provisioning[:39] + "…"
    # Names come from the service: a terminal obeys control characters.
    cells = (one.name, one.power.value, shown, one.zone or "", one.size, one.location)
    return tuple(repr(cell)[1:-1] for cell in cells)
