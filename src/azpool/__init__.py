"""Parallel connections to Azure from a persistent pool of background processes.

    from azpool import init_pool, pool_map          the session's pool and its functions
    from azpool.storage import Container            many files to and from Azure storage
    from azpool.fleet import Fleet                  one call on all machines of a cluster
    from azpool.identity import share               one sign-in for all nodes
    from azpool import errors, events               everything that can be raised, or happen

Names are loaded when they are first used: `import azpool` imports neither Azure's SDK nor an HTTP
library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool._version import __version__

if TYPE_CHECKING:
    from azpool import errors as errors
    from azpool import events as events
    from azpool import identity as identity
    from azpool.pool.namespace import exports as exports
    from azpool.pool.pool import Pool as Pool
    from azpool.pool.randomness import rng as rng
    from azpool.pool.session import delete_pool as delete_pool
    from azpool.pool.session import ensure_pool as ensure_pool
    from azpool.pool.session import get_pool as get_pool
    from azpool.pool.session import init_pool as init_pool
    from azpool.pool.session import pool_call as pool_call
    from azpool.pool.session import pool_evalq as pool_evalq
    from azpool.pool.session import pool_exists as pool_exists
    from azpool.pool.session import pool_export as pool_export
    from azpool.pool.session import pool_lapply as pool_lapply
    from azpool.pool.session import pool_map as pool_map
    from azpool.pool.session import pool_sapply as pool_sapply
    from azpool.pool.session import pool_size as pool_size

__all__ = [
    "Pool",
    "__version__",
    "delete_pool",
    "ensure_pool",
    "errors",
    "events",
    "exports",
    "get_pool",
    "identity",
    "init_pool",
    "pool_call",
    "pool_evalq",
    "pool_exists",
    "pool_export",
    "pool_lapply",
    "pool_map",
    "pool_sapply",
    "pool_size",
    "rng",
]

_HOMES = {
    "Pool": "pool.pool",
    "errors": "errors",
    "events": "events",
    "exports": "pool.namespace",
    "identity": "identity",
    "rng": "pool.randomness",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = _HOMES.get(name, "pool.session")
    module = import_module(f"azpool.{home}")
    value = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
