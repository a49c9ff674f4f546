"""What an account's key may do and a container's SAS may not: nodes ask the master to do it.

Making, removing and looking up a container, and listing the account's. Where the key is, or where
something else signs, it is done here and now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azpool.pool import context, everywhere
from azpool.storage._signing import SharedKey
from azpool.storage._stores import open_account, open_store

if TYPE_CHECKING:
    from azpool.storage._recipe import StoreRecipe

__all__ = [
    "container_exists",
    "create_container",
    "delete_container",
    "is_asked",
    "list_containers",
    "offer",
]

SERVICE = "azpool.storage"


def offer() -> None:
    """Do on all pools of this process what nodes ask for: it has a key that they have not."""
    everywhere.serve_everywhere(SERVICE, _answer)


def create_container(recipe: StoreRecipe) -> None:
    """Make the container: see `Store`."""
    _do("create", recipe)


def delete_container(recipe: StoreRecipe) -> None:
    """Delete the container: see `Store`."""
    _do("delete", recipe)


def container_exists(recipe: StoreRecipe) -> bool:
    """Whether the container is there: see `Store`."""
    return bool(_do("exists", recipe))


def list_containers(recipe: StoreRecipe, prefix: str) -> list[str]:
    """Answer the names of the account's containers."""
    names: list[str] = _do("list", recipe, prefix)
    return names


def is_asked(recipe: StoreRecipe) -> bool:
    """Whether this is a node, and the key is the master's."""
    return isinstance(recipe.auth, SharedKey) and not recipe.auth.key.is_here


def _do(what: str, recipe: StoreRecipe, *arguments: str) -> Any:
    if is_asked(recipe):
        return context.ask(SERVICE, (what, recipe, arguments))
    return _DEEDS[what](recipe, *arguments)


def _answer(request: tuple[str, StoreRecipe, tuple[str, ...]]) -> Any:
    what, recipe, arguments = request
    return _DEEDS[what](recipe, *arguments)


def _list(recipe: StoreRecipe, prefix: str) -> list[str]:
    account = open_account(recipe)
    try:
        return list(account.list_containers(prefix))
    finally:
        account.close()


_DEEDS: dict[str, Callable[..., Any]] = {
    "create": lambda recipe: open_store(recipe).create_container(),
    "delete": lambda recipe: open_store(recipe).delete_container(),
    "exists": lambda recipe: open_store(recipe).container_exists(),
    "list": _list,
}
