"""Lists of machines' states in the place of polls, where too many operations are under way. Pure.

look_over({place: its machines, of all that wait}) -> Procedure -> who is quiet, and the pages read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azpool.fleet.calls import Call, Procedure
from azpool.fleet.views import Listed, list_views

if TYPE_CHECKING:
    from azpool.fleet.target import Target

__all__ = ["Crowd", "look_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What lists told of operations under way.

    Attributes:
        quiet: places on whose machines nothing is under way, or of which the lists say nothing.
        pages: how many calls it took.
    """

    quiet: frozenset[int]
    pages: int


def look_over(waiting: Mapping[int, Sequence[Target]]) -> Procedure[Crowd]:
    """List the states of all machines that are waited for, and say on which nothing is under way.

    One list for what is kept together: a scale set, or a subscription's machines. A machine that a
    list does not have, or whose list is refused, is asked for itself, as if it were quiet.

    Args:
        waiting: the machines of each operation, by its place.
    """
    together: dict[str, list[Target]] = {}
    for targets in waiting.values():
        for one in targets:
            together.setdefault(one.set_id or one.subscription, []).append(one)
    pages = 0
    busy: set[str] = set()
    for targets in together.values():
        listing = list_views(targets)
        try:
            asked = next(listing)
            while True:
                pages += isinstance(asked, Call)
                answer = yield asked
                asked = listing.send(answer)
        except StopIteration as end:
            listed: Listed = end.value
            busy |= {key for key, view in listed.views.items() if not view.settled}
    quiet = [
        place for place, targets in waiting.items() if not any(one.key in busy for one in targets)
    ]
    return Crowd(quiet=frozenset(quiet), pages=pages)
