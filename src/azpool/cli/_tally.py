"""Failures grouped by reason: 84 failures are seldom 84 stories. Pure.

A reason is a message without the name it speaks of: `cannot upload 'a.nc': key rejected (403);
check AZURE_STORAGE_KEY` and the same of 'b.nc' are one reason, `key rejected (403); check ...`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpool.cli._exit import names_nothing
from azpool.errors import AccessDenied, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Group", "Tally", "cause_of", "reason_of"]

NAMES_KEPT = 3
GROUPS_KEPT = 200  # a server that puts a number into each message must not fill the memory
OTHER = "other reasons"


@dataclass(slots=True)
class Group:
    """The failures that have one reason."""

    reason: str
    count: int = 0
    names: list[str] = field(default_factory=list)
    status: int | None = None
    request_id: str | None = None


class Tally:
    """Counts failures by reason, keeping the first names of each and nothing of the others.

    Attributes:
        count: all failures.
        refused: those whose credentials were refused.
        missing: those that named nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        self.refused = 0
        self.missing = 0
        self._groups: dict[str, Group] = {}

    def add(self, name: str, error: BaseException | None) -> Group:
        """Count one failure and answer its group (whose `count` is 1 where the reason is new)."""
        known = error if isinstance(error, StorageError) else None
        return self.add_reason(
            name,
            reason_of(error, name),
            status=known.status if known else None,
            request_id=known.request_id if known else None,
            refused=isinstance(error, AccessDenied),
            missing=names_nothing(error),
        )

    def add_reason(
        self,
        name: str,
        reason: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        refused: bool = False,
        missing: bool = False,
    ) -> Group:
        """Count one failure whose reason and facts are known, as `add` does."""
        if reason not in self._groups and len(self._groups) >= GROUPS_KEPT:
            reason = OTHER
        group = self._groups.setdefault(reason, Group(reason))
        group.count += 1
        self.count += 1
        self.refused += refused
        self.missing += missing
        if len(group.names) < NAMES_KEPT:
            group.names.append(name)
        group.status = group.status or status
        group.request_id = group.request_id or request_id
        return group

    def groups(self) -> list[Group]:
        """Answer the groups, the largest first, then in the order they were met."""
        return sorted(self._groups.values(), key=lambda group: -group.count)

    @classmethod
    def of(cls, failures: Iterable[tuple[str, BaseException | None]]) -> Tally:
        """Tally the failures of a whole report."""
        tally = cls()
        for name, error in failures:
            tally.add(name, error)
        return tally


def reason_of(error: BaseException | None, name: str = "") -> str:
    """Answer an error's cause and remedy, without what it was about.

    The house's messages are `cannot <verb> <thing>: <cause>; <remedy>`; of any other exception the
    type and its text are the reason.
    """
    if error is None:
        return "unknown"
    text = " ".join(str(error).split())
    if not isinstance(error, StorageError):
        label = type(error).__name__
        return f"{label}: {text}" if text and not text.startswith("cannot ") else text or label
    return cause_of(text, name, error.path or "")


def cause_of(text: str, *things: str) -> str:
    """Answer a message of the house without what it was about: `cannot <verb> <thing>: ` goes."""
    if not text.startswith("cannot "):
        return text
    for thing in things:
        # The name itself may contain ": ": cut behind it where it is quoted in full.
        marker = f"{thing!r}: "
        if thing and marker in text:
            return text.split(marker, 1)[1]
    return text.split(": ", 1)[-1]
