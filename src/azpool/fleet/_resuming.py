"""Going on with an operation whose process ended: its journal says what, and where."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azpool.fleet import _arm, run
from azpool.fleet._journals import find_journal
from azpool.fleet._link import Link, PoolOptions, shared
from azpool.fleet._scripts import hidden

if TYPE_CHECKING:
    from azpool.fleet.outcome import FleetReport
    from azpool.fleet.progress import ProgressCallable
    from azpool.fleet.run import Performer
    from azpool.pool.session import AnyPool

__all__ = ["resume"]


def resume(
    journal: str | os.PathLike[str] | None = None,
    *,
    credential: Any = None,
    secrets: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    max_failures: int | str | None = None,
    progress: ProgressCallable | None = None,
    min_pool_size: int = 2,
    max_pool_size: int = 10,
    pool: AnyPool | None = None,
) -> FleetReport:
    """Go on with an operation whose process ended, and report on each instance; blocks.

    What ended keeps its outcome; what is under way is asked for where the service said; what was
    never sent is sent. What may have been sent is judged by the machine's state, and never sent
    again: where the state can't tell, its outcome is unknown. Scripts are waited for and read, and
    their commands removed; a resize that was cut off after its stop is finished.

    Args:
        journal: the path that the operation was given as `journal` (`report.journal` tells it);
            where that was True also how its file's name begins, and None is the newest of those.
        credential: any of azure-identity; None is DefaultAzureCredential.
        secrets: those of the operation, which no journal holds, by the name of its keyword:
            `{"protected_parameters": {"password": ...}}`.
        timeout_seconds: nothing is sent or waited for after it.
        max_failures: how many instances may fail, or which share.
        progress: called with a `FleetProgress` as it goes on.
        min_pool_size: nodes that the session's pool has at least.
        max_pool_size: 0 is serial, without a pool.
        pool: another pool than the session's.

    Raises:
        UsageError: there is no such journal, or several begin so.
        LocalFileError: it is damaged, of another version, or another process works on it.
    """
    path = find_journal(journal)
    held = shared(credential)

    def performer(client: Mapping[str, Any]) -> Performer:
        return functools.partial(_arm.perform, _arm.ClientRecipe.from_dict(client, held))

    options = PoolOptions(min_pool_size=min_pool_size, max_pool_size=max_pool_size, pool=pool)
    link = Link(recipe=_arm.ClientRecipe(credential=held), options=options)
    with link.nodes(max_pool_size * _arm.THREADS) as nodes:
        return run.resume(
            path,
            performer=performer,
            pool=nodes,
            secrets={name: hidden(value) for name, value in (secrets or {}).items()},
            timeout_seconds=timeout_seconds,
            max_failures=max_failures,
            progress=progress,
            budget=link.budget,
        )
