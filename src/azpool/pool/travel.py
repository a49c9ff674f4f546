"""Whether this thread is pickling something for a frame between the master and a node.

What may travel only there, such as a secret, asks `is_travelling` when it is pickled.
"""

from __future__ import annotations

import threading

_state = threading.local()


class travelling:  # noqa: N801 - used as a `with` statement only
    """Mark this thread as a writer of frames while the block runs."""

    __slots__ = ()

    def __enter__(self) -> None:
        _state.depth = getattr(_state, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        _state.depth -= 1


def is_travelling() -> bool:
    """Whether what is pickled now goes into a frame."""
    return bool(getattr(_state, "depth", 0))
