"""What holds for all pools of the process: services by which packages are reached, and their end.

Apart from `services`, because a process that has no pool offers them too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.pool.services import Services

Handler = Callable[[Any], Any]

handlers: dict[str, Handler] = {}
opened: weakref.WeakSet[Services] = weakref.WeakSet()
to_call_at_last: list[Callable[[], None]] = []


def serve_everywhere(name: str, handler: Handler) -> None:
    """Answer questions to `name` with `handler(request)` on every pool of this process.

    Those that exist count, and those to come; a pool's own service of that name comes first.
    """
    handlers[name] = handler


def at_last_close(call: Callable[[], None]) -> None:
    """Call `call` whenever the last open pool of this process has closed; given twice, once."""
    if call not in to_call_at_last:
        to_call_at_last.append(call)


def any_open() -> bool:
    """Whether this process has a pool that is not closed."""
    return bool(opened)
