"""The pool: nodes, what runs on them, and the ten functions of the session's shared pool.

This layer knows nothing of Azure. Names are loaded when they are first used, so that a node, which
imports this package too, loads no more than it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.pool.context import ask as ask
    from azpool.pool.context import current_node as current_node
    from azpool.pool.context import emit as emit
    from azpool.pool.pool import Pool as Pool

__all__ = ["Pool", "ask", "current_node", "emit"]

_HOMES = {"Pool": "pool", "ask": "context", "emit": "context", "current_node": "context"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"azpool.pool.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
