"""The open stores of this process: one for each recipe, made on first use and kept for all jobs.

A child of `os.fork` starts with none: its parent's connections are not its own.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azpool.storage._recipe import StoreRecipe
    from azpool.storage.store import Account, Store

__all__ = ["close_stores", "open_account", "open_store"]

# More than this only where somebody makes containers by the dozen; the eldest is dropped then, and
# closed by the last call that still uses it letting go of it.
MAX_STORES = 32

_lock = threading.Lock()
_stores: OrderedDict[object, Store] = OrderedDict()
_abandoned: list[object] = []


def open_store(recipe: StoreRecipe) -> Store:
    """Answer this process's store for the recipe; the same one each time. Thread-safe."""
    store = _stores.get(recipe.key)
    if store is not None:
        return store
    from azpool.storage import _rest  # not above: `import azpool.storage` stays light

    with _lock:
        if recipe.key not in _stores:
            _stores[recipe.key] = _rest.open_store(
                recipe.account_url, recipe.container, recipe.auth, recipe.options
            )
            if len(_stores) > MAX_STORES:
                _stores.popitem(last=False)
        return _stores[recipe.key]


def open_account(recipe: StoreRecipe) -> Account:
    """Open the account itself; the caller closes it."""
    from azpool.storage import _rest  # as above

    return _rest.open_account(recipe.account_url, recipe.auth, recipe.options)


def close_stores() -> None:
    """Close all connections of this process; the next use opens them again."""
    with _lock:
        stores = list(_stores.values())
        _stores.clear()
    for store in stores:
        store.close()


def _forget_after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    # Kept, not closed: closing would speak on the parent's connections.
    _abandoned.extend(_stores.values())
    _stores.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
