"""What the options of this package have in common: numbers that make sense."""

from __future__ import annotations

import math
from typing import Any

from azpool.errors import UsageError

__all__ = ["ROUNDING_SECONDS", "check_count", "check_number"]

# A wait that is shorter is over: who waited exactly as long as told must not be told of a rest.
ROUNDING_SECONDS = 1e-6


def check_count(name: str, value: Any) -> None:
    """Refuse all but whole numbers from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"cannot use {name}={value!r}: give a whole number from 1 on")


def check_number(name: str, value: Any, *, zero: bool = False) -> None:
    """Refuse all but finite numbers above 0, or from 0 on."""
    if (
        not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value < 0
        or (value == 0 and not zero)
    ):
        raise UsageError(
            f"cannot use {name}={value!r}: give a number {'from' if zero else 'above'} 0"
        )
