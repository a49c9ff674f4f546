"""The keywords that all operations on a fleet share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from azpool.errors import UsageError
from azpool.fleet.progress import ProgressCallable

if TYPE_CHECKING:
    from azpool.pool.session import AnyPool  # noqa: TC004 - nobody reads these hints at run time

__all__ = ["How", "OperationOptions", "ScriptHow"]


class ScriptHow(TypedDict, total=False):
    """Those keywords of an operation that a script's own do not stand for."""

    wait: bool
    max_failures: int | str | None
    batch: int | None
    progress: ProgressCallable | None
    journal: str | bool | None
    min_pool_size: int
    max_pool_size: int
    pool: AnyPool | None


class How(ScriptHow, total=False):
    """The keywords of an operation; see `OperationOptions`."""

    timeout_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationOptions:
    """How an operation is done.

    Attributes:
        wait: until the machines are done; else an outcome is ok once the service has accepted it.
        timeout_seconds: nothing is sent or waited for after it; None waits as long as it takes.
        max_failures: how many instances may end badly (`failed`, `throttled` or `unknown`), or
            which share (`"10%"`), before nothing new is begun.
        batch: how many instances are under way at once at most; None for no limit.
        progress: called with a `FleetProgress` some ten times a second, in the caller's thread.
        journal: True, or the path of a file: `azpool.fleet.resume` goes on with it if this process
            ends. True is a new one in `$AZPOOL_STATE_HOME/fleets`, else
            `$XDG_STATE_HOME/azpool/fleets`, else `~/.local/state/azpool/fleets`.
        min_pool_size: see `PoolOptions`; None is the fleet's own.
        max_pool_size: the same.
        pool: the same.

    Raises:
        UsageError: a value makes no sense.
    """

    wait: bool = True
    timeout_seconds: float | None = None
    max_failures: int | str | None = None
    batch: int | None = None
    progress: ProgressCallable | None = None
    journal: str | bool | None = None
    min_pool_size: int | None = None
    max_pool_size: int | None = None
    pool: AnyPool | None = None

    def __post_init__(self) -> None:
        if self.timeout_seconds is not None and not self.timeout_seconds > 0:
            raise UsageError(
                f"cannot wait timeout_seconds={self.timeout_seconds!r}: give more than 0, or None"
            )

    @property
    def pool_changes(self) -> dict[str, Any]:
        """What differs from the fleet's own pool options."""
        named = {
            "min_pool_size": self.min_pool_size,
            "max_pool_size": self.max_pool_size,
            "pool": self.pool,
        }
        return {name: value for name, value in named.items() if value is not None}
