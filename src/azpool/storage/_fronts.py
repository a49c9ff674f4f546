"""How far big downloads are whole from their beginning, for the digests that read behind.

    Books (master) --done--> Front <--ask-- md5_of (node)

A digest that waits holds a node. So it gives up where nothing comes: the nodes may be others', or
the part that is missing may have died with its node. The file is then read when it is whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from azpool.pool import context, everywhere

__all__ = ["GIVEN_UP", "Front", "ask"]

SERVICE = "azpool.storage.front"
GIVEN_UP = -1
GIVE_UP_SECONDS = 2.0  # a node is not kept from others' work for longer

_fronts: dict[tuple[str, int], Front] = {}


def ask(run: str, place: int, number: int) -> int:
    """On a node: answer how many parts are there without a gap, when it is more than `number`.

    GIVEN_UP where it will not be, or takes too long.
    """
    count: int = context.ask(SERVICE, (run, place, number))
    return count


def _answer(request: tuple[str, int, int]) -> int:
    run, place, number = request
    front = _fronts.get((run, place))
    return GIVEN_UP if front is None else front.beyond(number)


class Front:
    """Of one file: told by the caller's thread, asked by those of the pool's services."""

    def __init__(self, run: str, place: int, done: Iterable[int]) -> None:
        self._key = run, place
        self._changed = threading.Condition()
        self._early = set(done)
        self._count = 0
        self._ended = False
        self._pass_early()
        _fronts[self._key] = self
        everywhere.serve_everywhere(SERVICE, _answer)

    def done(self, number: int) -> None:
        """Note that a part is there."""
        with self._changed:
            self._early.add(number)
            self._pass_early()
            self._changed.notify_all()

    def _pass_early(self) -> None:
        while self._count in self._early:
            self._early.remove(self._count)
            self._count += 1

    def end(self) -> None:
        """Let nobody wait any more."""
        _fronts.pop(self._key, None)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def beyond(self, number: int) -> int:
        """Answer how many parts are there from the first on, as soon as they are more."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > number or self._ended, GIVE_UP_SECONDS)
            return self._count if self._count > number else GIVEN_UP
