"""When to try a request again and how long to wait before: pure, randomness passed in."""

from __future__ import annotations

from dataclasses import dataclass

from azpool.errors import StorageError, UsageError

__all__ = ["RetryOptions", "delay_before_retry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """How persistent a transfer is.

    Attributes:
        attempts: how often one request is sent at most.
        first_delay_seconds: wait before the second attempt; each later wait is twice as long.
        max_delay_seconds: the longest wait, also where the server asks for a longer one.
    """

    attempts: int = 5
    first_delay_seconds: float = 0.2
    max_delay_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"cannot make {self.attempts} attempts; use 1 or more")
        if self.first_delay_seconds < 0 or self.max_delay_seconds < 0:
            raise UsageError("cannot wait for a negative time between attempts; use 0 or more")


def delay_before_retry(
    error: BaseException, attempt: int, options: RetryOptions, jitter: float
) -> float | None:
    """Answer how long to wait after failed attempt number `attempt` (from 1), or None: give up.

    `jitter` is in [0, 1): a wait is between half and all of its length, so that nodes that were
    refused together do not come back together. What the server asked for is never shortened,
    save to `max_delay_seconds`.
    """
    if attempt >= options.attempts or not isinstance(error, StorageError) or not error.retryable:
        return None
    backoff = options.first_delay_seconds * 2.0 ** (attempt - 1) * (0.5 + jitter / 2)
    return min(options.max_delay_seconds, max(backoff, error.retry_after_seconds or 0.0))
