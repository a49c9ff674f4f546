"""How a fleet reaches Azure: the recipe of its clients, and whose nodes send the calls.

    Fleet -> Link.reading(procedures) | Link.nodes(calls) -> run.gather, run.run

A link pickles without its pool: on a node, or in another process, it uses what is there.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from azpool.errors import UsageError
from azpool.fleet import _arm, run
from azpool.fleet.budget import Budget
from azpool.identity import share

if TYPE_CHECKING:
    from azpool.fleet.calls import Procedure
    from azpool.fleet.run import Nodes, Performer
    from azpool.pool.session import AnyPool  # noqa: TC004 - nobody reads these hints at run time

__all__ = ["Link", "PoolOptions", "link_to", "shared"]

T = TypeVar("T")

_budgets: dict[_arm.ClientRecipe, Budget] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Whose nodes send the calls.

    Attributes:
        min_pool_size: nodes that the session's pool has at least, once a fleet uses it.
        max_pool_size: it is grown up to this, by the number of calls; 0: no pool, all calls are
            sent one after another from this process.
        pool: another pool than the session's, or None.

    Raises:
        UsageError: the numbers make no sense.
    """

    min_pool_size: int = 2
    max_pool_size: int = 10
    pool: AnyPool | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("min_pool_size", "max_pool_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise UsageError(f"cannot use {name}={value!r}: give a whole number from 0")
        if 0 < self.max_pool_size < self.min_pool_size:
            raise UsageError(
                f"cannot use min_pool_size={self.min_pool_size} with "
                f"max_pool_size={self.max_pool_size}: the least is more than the most"
            )

    def size_for(self, calls: int) -> int:
        """How many nodes that many calls are worth: each has several on their way at once."""
        worth = math.ceil(calls / _arm.THREADS)
        return max(1, min(self.max_pool_size, max(self.min_pool_size, worth)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """See the module.

    Attributes:
        recipe: of the clients.
        options: whose nodes.
    """

    recipe: _arm.ClientRecipe
    options: PoolOptions = field(default_factory=PoolOptions)

    @property
    def performer(self) -> Performer:
        return functools.partial(_arm.perform, self.recipe)

    @property
    def budget(self) -> Budget:
        """What is known of the principal's budgets: kept as long as this process."""
        return _budgets.setdefault(self.recipe, Budget(str(hash(self.recipe.credential))))

    def using(self, **changes: Any) -> Link:
        """Answer a link with other pool options."""
        return replace(self, options=replace(self.options, **changes)) if changes else self

    @contextlib.contextmanager
    def nodes(self, calls: int) -> Iterator[Nodes]:
        """Have what sends that many calls."""
        with self.pool(calls) as pool:
            yield pool

    @contextlib.contextmanager
    def pool(self, calls: int) -> Iterator[AnyPool]:
        """Have the pool that runs that many calls: given, the session's, or none."""
        from azpool.pool import context
        from azpool.pool.engines.inline import InlinePool
        from azpool.pool.session import ensure_pool

        if self.options.pool is not None:
            yield self.options.pool
        elif self.options.max_pool_size == 0 or context.on_node():
            try:
                yield InlinePool()
            finally:
                if not context.on_node():
                    _arm.close_clients()  # a node keeps them; a user's process has other uses
        else:
            size = self.options.size_for(calls)
            yield ensure_pool(size, preload=_arm.NODE_MODULES)

    def gather(
        self, procedures: Sequence[Procedure[T]], *, timeout_seconds: float | None = None
    ) -> list[T]:
        """Run procedures that read, all at once, and answer what each returned."""
        if not procedures:
            return []
        with self.nodes(len(procedures)) as nodes:
            return run.gather(
                procedures,
                performer=self.performer,
                pool=nodes,
                timeout_seconds=timeout_seconds,
                budget=self.budget,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A pool stays in its process.
        return _arrive, (self.recipe, self.options.min_pool_size, self.options.max_pool_size)


def _arrive(recipe: _arm.ClientRecipe, least: int, most: int) -> Link:
    return Link(recipe=recipe, options=PoolOptions(min_pool_size=least, max_pool_size=most))


def link_to(
    credential: Any = None,
    *,
    base_url: str | None = None,
    ca_file: str | None = None,
    scopes: Sequence[str] = (),
    options: PoolOptions | None = None,
) -> Link:
    """Make a link; nothing is sent.

    Args:
        credential: any of azure-identity, or what has its `get_token`; None is
            DefaultAzureCredential, which asks the environment, a managed identity, `az login`, ...
        base_url: Azure Resource Manager's address; None is the public cloud's.
        ca_file: certificates to trust instead of the system's, for a simulator or a proxy.
        scopes: what tokens are for; () is what the cloud takes.
        options: whose nodes.

    Raises:
        UsageError: an argument makes no sense, or azure-identity is not installed.
    """
    if isinstance(scopes, str):
        scopes = (scopes,)
    recipe = _arm.ClientRecipe(
        credential=shared(credential),
        base_url=(base_url or _arm.PUBLIC_CLOUD).rstrip("/"),
        ca_file=None if ca_file is None else os.path.abspath(ca_file),
        scopes=tuple(scopes),
    )
    return Link(recipe=recipe, options=options or PoolOptions())


def shared(credential: Any) -> Any:
    """Make a credential usable on all nodes; None is DefaultAzureCredential.

    Raises:
        UsageError: it is none, or azure-identity is not installed.
    """
    return share(_default_credential() if credential is None else credential)


@functools.cache
def _default_credential() -> Any:
    # One for all fleets of a process: it keeps the token that it has.
    from azpool.identity.sources import default_credential

    return default_credential()
