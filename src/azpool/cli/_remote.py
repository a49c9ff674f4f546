"""The one seam between the commands and `azpool.storage`: tests put a fake `Storage` here.

Everything of azpool.storage and azpool.pool that the CLI uses goes through this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import typer

    from azpool.cli._options import Auth
    from azpool.report import Report
    from azpool.storage.outcome import ProgressCallable

__all__ = ["AzureStorage", "Container", "Endpoint", "Listed", "Storage", "storage_of"]


# What every node would import for its first file: 10 imports on 2 cores take a second, one and
# its 10 forks a tenth of that.
PRELOAD = ("azpool.storage._batch", "azpool.storage._rest")


class Listed(Protocol):
    """A blob (which has `size_bytes`) or a folder."""

    @property
    def name(self) -> str: ...


class Container(Protocol):
    """What the commands need of `azpool.storage.Container`."""

    def upload_many(
        self,
        sources: Any,
        dest: str = "",
        *,
        overwrite: bool,
        pool: Any,
        progress: ProgressCallable,
    ) -> Report[Any]: ...

    def download_many(
        self, sources: Any, dest: str, *, overwrite: bool, pool: Any, progress: ProgressCallable
    ) -> Report[Any]: ...

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[Listed]: ...

    def delete(self, names: Sequence[str], *, progress: ProgressCallable) -> Report[Any] | None: ...

    def create(self) -> None: ...

    def remove(self) -> None: ...


class Endpoint(Protocol):
    """What the commands need of `azpool.storage.Endpoint`."""

    def list_containers(self) -> Iterator[str]: ...


class Storage(Protocol):
    """How the commands reach containers, accounts and nodes."""

    def container(self, url: str, auth: Auth) -> Container: ...

    def endpoint(self, url: str | None, auth: Auth) -> Endpoint: ...

    def pool(self, nodes: int) -> Any: ...


class AzureStorage:
    """The real one."""

    def container(self, url: str, auth: Auth) -> Container:
        from azpool.storage import Container

        return Container(url, **auth.arguments())

    def endpoint(self, url: str | None, auth: Auth) -> Endpoint:
        from azpool.storage import Endpoint

        return Endpoint(url, **auth.arguments())

    def pool(self, nodes: int) -> Any:
        from azpool import init_pool

        return init_pool(nodes, preload=list(PRELOAD))


def storage_of(ctx: typer.Context) -> Storage:
    """Answer what this command works on: the caller's of `main`, else the real one."""
    storage: Storage = ctx.obj if ctx.obj is not None else AzureStorage()
    return storage
