"""What happened, as frozen records, and the one hook that gets them.

    with azpool.events.listen(print):
        ...

Hooks are called on azpool's courier thread, one event at a time, in order; an exception that a hook
raises is logged and ends nothing. Records hold no arguments, no results and no secrets.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from azpool.errors import UsageError

if TYPE_CHECKING:
    from azpool._event_records import (
        Event,
        NodeEnded,
        NodeStarted,
        PoolReset,
        PoolStarted,
        PoolStopped,
        StateLost,
    )

    Hook = Callable[[Event], None]

__all__ = [
    "Event",
    "Hook",
    "NodeEnded",
    "NodeStarted",
    "PoolReset",
    "PoolStarted",
    "PoolStopped",
    "StateLost",
    "listen",
]

_log = logging.getLogger("azpool.events")

_hooks: list[Hook] = []


def active() -> bool:
    """Whether anybody listens."""
    return bool(_hooks)


def publish(event: Event) -> None:
    """Give an event to every hook, in the calling thread."""
    for hook in tuple(_hooks):
        try:
            hook(event)
        except Exception:
            _log.exception("a hook failed on %s", type(event).__name__)


@contextlib.contextmanager
def listen(hook: Hook) -> Iterator[None]:
    """Call `hook` with every event of every pool of this process while the block runs.

    Events that are on their way when the block ends are not given to it any more.

    Raises:
        UsageError: `hook` can't be called.
    """
    if not callable(hook):
        raise UsageError(f"cannot call {hook!r}: give a callable(event)")
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from azpool import _event_records

    value = (
        Callable[[_event_records.Event], None] if name == "Hook" else getattr(_event_records, name)
    )
    globals()[name] = value
    return value
