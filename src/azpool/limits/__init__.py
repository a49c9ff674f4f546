"""Limits on what is sent to a server: how much at once, how fast, and when not at all.

    AdaptiveLimit   requests in flight: finds how many the server and the link are good for
    RateLimit       requests or bytes a second
    Gate, Gates     closed until Retry-After, or until a budget refills; one for each bucket
    share_out       gives each node its Allowance
    Limiter         all of it for the threads of one process: `with limiter: ...`

All but `Limiter` are pure: no clock, no I/O, no thread; the caller passes the time in seconds. It
is for other packages too, and knows nothing of Azure, of the pool or of HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool.limits.adaptive import AdaptiveLimit
from azpool.limits.allowance import Allowance, share_out
from azpool.limits.gate import Gate, GateOptions, Gates
from azpool.limits.limiter import Answer, Limiter, Permit
from azpool.limits.options import AdaptiveOptions, Phase
from azpool.limits.rate import RateLimit

if TYPE_CHECKING:
    from azpool.limits._statistics import AdaptiveStatistics as AdaptiveStatistics
    from azpool.limits._statistics import GateStatistics as GateStatistics
    from azpool.limits._statistics import LimiterStatistics as LimiterStatistics
    from azpool.limits._statistics import RateStatistics as RateStatistics

__all__ = [
    "AdaptiveLimit",
    "AdaptiveOptions",
    "AdaptiveStatistics",
    "Allowance",
    "Answer",
    "Gate",
    "GateOptions",
    "GateStatistics",
    "Gates",
    "Limiter",
    "LimiterStatistics",
    "Permit",
    "Phase",
    "RateLimit",
    "RateStatistics",
    "share_out",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from azpool.limits import _statistics

    value = getattr(_statistics, name)
    globals()[name] = value
    return value
