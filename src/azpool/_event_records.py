"""The records of `azpool.events`, apart from its hook because they are slow to define.

Reach them as `azpool.events.Event` and so on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = [
    "Event",
    "NodeEnded",
    "NodeStarted",
    "PoolReset",
    "PoolStarted",
    "PoolStopped",
    "StateLost",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events."""

    at: float = field(default_factory=time.time)  # seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStarted(Event):
    """A pool is there and all its nodes have answered."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReset(Event):
    """Every node was replaced by a fresh one."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStopped(Event):
    """The pool and its nodes are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted(Event):
    """A node has answered for the first time."""

    node: int
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnded(Event):
    """A node ended that had not been told to."""

    node: int
    incarnation: int
    pid: int
    exit_code: int  # negative: the number of the signal
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLost(Event):
    """A node that held state outside the log was replaced: that state is gone."""

    node: int


for _record in (Event, PoolStarted, PoolReset, PoolStopped, NodeStarted, NodeEnded, StateLost):
    _record.__module__ = "azpool.events"
