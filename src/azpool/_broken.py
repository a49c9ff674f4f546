"""`PoolBroken`, apart from the rest of the errors because its base is slow to import.

Reach it as `azpool.errors.PoolBroken`.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

from azpool.errors import PoolError

__all__ = ["PoolBroken"]


class PoolBroken(PoolError, BrokenExecutor):
    """Nodes fail to start; the last failure is the cause. `init_pool(restart=True)` starts anew."""


PoolBroken.__module__ = "azpool.errors"
