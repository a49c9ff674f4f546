"""Jobs, chunks and nodes as the scheduler sees them: plain state that it alone changes."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum


class NodeState(Enum):
    """Where a node is in its life."""

    STARTING = "starting"
    WAITING = "waiting"  # it could not be started for want of something; it is tried again
    READY = "ready"
    DRAINING = "draining"  # finishes what it has, then stops
    STOPPING = "stopping"
    GONE = "gone"


class Why(Enum):
    """Why items are lost."""

    DIED = "died"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    GONE = "gone"  # they were bound to a node that was taken away
    UNBEGUN = "unbegun"  # its nodes died again and again before it could begin


class Job:
    """One call: its items are numbered 0..size-1; a map over a stream grows until it is sealed."""

    __slots__ = (
        "attempts",
        "cancelled",
        "chunks",
        "chunksize",
        "deadline_seconds",
        "dropped",
        "finished",
        "function",
        "item_bytes",
        "mean_seconds",
        "outstanding",
        "pending",
        "pinned",
        "queued",
        "retries",
        "sealed",
        "seen_items",
        "seen_seconds",
        "single",
        "size",
        "unbegun_deaths",
        "waiting",
    )

    def __init__(
        self,
        function: int,
        size: int,
        *,
        pinned: int | None = None,
        chunksize: int | None = None,
        deadline_seconds: float | None = None,
        retries: int = 0,
        item_bytes: float = 0.0,
        sealed: bool = True,
        single: bool = False,
    ) -> None:
        self.function = function
        self.size = size
        self.pinned = pinned
        self.chunksize = chunksize
        self.deadline_seconds = deadline_seconds
        self.retries = retries
        self.item_bytes = item_bytes
        self.sealed = sealed
        self.single = single
        self.pending: deque[tuple[int, int]] = deque([(0, size)] if size else [])
        self.waiting = size  # items in `pending`
        self.outstanding = 0  # items in chunks on nodes
        self.chunks = 0  # those chunks
        self.mean_seconds: float | None = None  # of an item; may come from an earlier job
        self.seen_seconds = 0.0
        self.seen_items = 0.0
        self.attempts: dict[int, int] = {}
        self.unbegun_deaths: dict[int, int] = {}  # of nodes that were to begin an item next
        self.queued = False
        self.cancelled = False
        self.dropped: Why | None = None  # what has not begun never will, for this reason
        self.finished = False


class Chunk:
    """Items start..stop-1 of a job, on their way; `received` of them are answered."""

    __slots__ = (
        "asked",
        "job",
        "kill_at",
        "queued",
        "received",
        "revoked",
        "seconds",
        "sent_at",
        "seq",
        "start",
        "stop",
        "why",
    )

    def __init__(
        self, seq: int, job: Job, start: int, stop: int, sent_at: float, *, queued: bool
    ) -> None:
        self.seq = seq
        self.job = job
        self.start = start
        self.stop = stop
        self.sent_at = sent_at
        self.received = 0
        self.seconds = 0.0  # as the node says, when it has ended
        self.queued = queued  # sent behind another one: it may be revoked until it begins
        self.asked = False  # a Revoke is on its way
        self.revoked = False
        self.kill_at: float | None = None
        self.why: Why | None = None


class NodeSlot:
    """One node as the scheduler sees it."""

    __slots__ = (
        "busy_seconds",
        "chunks",
        "hello_by",
        "incarnation",
        "index",
        "items",
        "items_before",
        "look_at",
        "owes",
        "owes_by",
        "pinned",
        "queue_seconds",
        "retry_at",
        "revive",
        "state",
        "stop_by",
        "stopped_looks",
        "tries",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.incarnation = 0
        self.state = NodeState.STARTING
        self.chunks: deque[Chunk] = deque()
        self.pinned: deque[Job] = deque()
        self.stop_by: float | None = math.inf  # then one that was told to stop is killed
        self.revive = False  # another one follows when this one has stopped
        self.items = 0  # answered by this incarnation
        self.items_before = 0  # answered by the ones before it
        self.busy_seconds = 0.0
        self.queue_seconds = 0.0  # work in the chunks behind the first
        self.hello_by = math.inf  # then one that has not said hello is killed
        self.owes = False  # an answer to a step of the log
        self.owes_by = math.inf  # then one that still does what was interrupted is killed
        self.look_at = math.inf  # when to look next whether a signal has stopped it
        self.stopped_looks = 0  # looks in a row that found it so
        self.tries = 0  # in a row that could not start it
        self.retry_at = math.inf
