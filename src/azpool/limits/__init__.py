"""Limits on what is sent to a server: how much at once, how fast, and when not at all.

    AdaptiveLimit   requests in flight: finds how many the server and the link are good for

All are pure: no clock, no I/O, no thread; the caller passes the time in seconds. It
is for other packages too, and knows nothing of Azure, of the pool or of HTTP.
"""

from azpool.limits.adaptive import AdaptiveLimit
from azpool.limits.options import AdaptiveOptions, AdaptiveStatistics, Phase

__all__ = [
    "AdaptiveLimit",
    "AdaptiveOptions",
    "AdaptiveStatistics",
    "Phase",
]
