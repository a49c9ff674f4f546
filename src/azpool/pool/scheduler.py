"""The scheduler of one generation of nodes: a pure state machine, events in, instructions out.

No I/O, no clock, no threads: every event that needs the time is given it, and `wake_at` says when
`tick` wants to be called. An item is always in exactly one place: pending in its job, in a chunk
on a node, or answered. Nothing that has begun is run again unless the job allows retries; what a
dead node had not begun goes back to the front of its job.
"""

from __future__ import annotations

import math
from collections import deque

from azpool.pool import watch
from azpool.pool.instructions import (
    Broken,
    Check,
    Finished,
    Instruction,
    Interrupt,
    Kill,
    Lost,
    Refused,
    Revoke,
    Send,
    Start,
    Stop,
)
from azpool.pool.jobs import Chunk, Job, NodeSlot, NodeState, Why

TARGET_SECONDS = 0.05  # work in one chunk: a round trip costs 0.1 ms, so 0.2 % is lost
LEAST_SECONDS = 0.0005  # below this the round trip shows, whatever fairness says
TRIPS = 5  # and of instant items a chunk takes as many round trips, as they are seen to take here
MOST_LEAST_SECONDS = 0.0025  # cores that are busy make trips long: chunks stay smaller than that
TRIP_ITEMS = 16  # round trips are seen where so few items are neither long to pickle nor to send
INSTANT_SECONDS = 20e-6  # an item this short has waited for nothing: it needs a core, not a node
NODES_PER_CORE = 2  # for such items: more would only take turns, each with cold caches
PIPELINE_SECONDS = 0.005  # a chunk this short gets a second one queued behind it
QUEUE_SECONDS = 0.0005  # and more of them, up to so much work: a round trip takes a fifth of it
QUEUED_CHUNKS = 8  # at most, the one that runs included
STEAL_SECONDS = 0.005  # how long a queued chunk waits behind a running one before it is taken back
GRACE_SECONDS = 2.0  # between the interruption of a running item and the death of its node
START_FAILURES = 3  # as many in a row break the pool
RETRY_SECONDS = 0.1  # after the first try that could not start a node; each wait doubles, up to
MOST_RETRY_SECONDS = 5.0
UNBEGUN_DEATHS = 5  # of nodes that had an item to begin next: it is what ends them
SILENCE_SECONDS = 5.0  # a node that does not begin what it was sent for this long is stuck
SETUP = (1 << 64) - 1  # on a node's page in the place of a chunk: it loads exports
CHUNK_BYTES = 8 << 20  # arguments in one chunk: a frame stays small beside a node's memory


class Scheduler:
    """See the module. Methods append to `out`; the supervisor takes it with `take`."""

    def __init__(self) -> None:
        self.nodes: dict[int, NodeSlot] = {}
        self.out: list[Instruction] = []
        self.wake_at: float = math.inf
        self.closing = False
        self.broken = False
        self.jobs: dict[Job, None] = {}  # unfinished ones, in order of arrival
        self._ready: deque[Job] = deque()
        self._idle: dict[int, NodeSlot] = {}  # READY, no chunk; in order of arrival
        self._deep: dict[int, NodeSlot] = {}  # two chunks or more
        self._room: dict[int, NodeSlot] = {}  # would take one more behind short ones
        self._seq = 0
        self._size = 0  # nodes that there should be
        self._established = 0  # nodes that have all been there: these are replaced, not given up
        self._failed_starts = 0
        self._starved = False  # no node is there, and none could be started
        self.max_items_per_node: int | None = None
        self.cores = 1
        self._single_seconds: float | None = None
        self._trip_seconds: float | None = None  # there and back, besides the work

    def take(self) -> list[Instruction]:
        """Return the instructions since the last call."""
        out, self.out = self.out, []
        return out

    # -- nodes ---------------------------------------------------------------------------------

    def resize(self, size: int, now: float) -> None:
        """Have nodes 0..size-1; the others finish what they have begun and stop.

        Nodes to be added that fail to start are given up: `Refused` says so.
        """
        self._size = size
        self._established = min(self._established, size)
        for index in range(size):
            slot = self.nodes.get(index)
            if slot is None:
                slot = self.nodes[index] = NodeSlot(index)
                self._start(slot, now)
            elif slot.state is NodeState.GONE:
                self._restart(slot, now)
            elif slot.state is NodeState.WAITING:
                if size > self._established:
                    self._try_again(slot, now)
            elif slot.state is NodeState.DRAINING and not slot.revive:
                slot.state = NodeState.READY
                self._fill(slot, now)
            elif slot.state is NodeState.STOPPING:
                slot.revive = True
        for index, slot in self.nodes.items():
            if index >= size:
                slot.revive = False
                if slot.state is NodeState.STARTING:
                    slot.state = NodeState.STOPPING
                    self.out.append(Kill(index))
                elif slot.state is NodeState.WAITING:
                    self._give_up(slot, Why.GONE)
                elif slot.state is NodeState.READY:
                    self._drain(slot, now)
        self._note_established()

    def _note_established(self) -> None:
        if self.ready(self._size):
            self._established = self._size

    def take_back_growth(self, now: float) -> None:
        """Be content with the nodes that have all been there before."""
        self._failed_starts = 0
        self.out.append(Refused(self._established))
        self.resize(self._established, now)

    def recycle(self, index: int, now: float) -> None:
        """Replace a node by a fresh one when it has finished what it has begun."""
        slot = self.nodes[index]
        if slot.state is NodeState.READY:
            slot.revive = True
            self._drain(slot, now)

    def ready(self, size: int) -> bool:
        """Whether nodes 0..size-1 all answer."""
        nodes = self.nodes
        return all(i in nodes and nodes[i].state is NodeState.READY for i in range(size))

    def _drain(self, slot: NodeSlot, now: float) -> None:
        slot.state = NodeState.DRAINING
        self._idle.pop(slot.index, None)
        for chunk in self._revocable(slot):
            self._revoke(slot, chunk)
        self._fill(slot, now)

    def hello(self, index: int, now: float) -> None:
        """A node has started and answers."""
        slot = self.nodes[index]
        self._failed_starts = 0
        self._starved = False
        slot.tries = 0
        slot.hello_by = math.inf
        slot.look_at = slot.look_at if slot.owes else math.inf  # until it has something to do
        if slot.state is NodeState.STARTING:
            slot.state = NodeState.READY
            self._note_established()
            if self.ready(self._size):  # nothing is owed: no look may wake an idle pool
                self.tick(now)
            self._fill(slot, now)

    def born(self, index: int, incarnation: int, now: float) -> None:
        """A node's process is there; `hello` follows."""
        slot = self.nodes[index]
        if slot.incarnation == incarnation and slot.state is NodeState.STARTING:
            watch.born(slot, now)
            self._wake(slot.hello_by)

    def greeted(self, index: int) -> None:
        """A node answers, and has steps of the log to do before `hello`."""
        self.nodes[index].hello_by = math.inf

    def owes(self, index: int, now: float) -> None:
        """A node was sent a step of the log."""
        slot = self.nodes[index]
        watch.owes(slot, now)
        self._wake(slot.look_at)

    def answered(self, index: int) -> None:
        """A node has done every step of the log that it was sent."""
        watch.answered(self.nodes[index])

    def interrupted(self, index: int, now: float) -> None:
        """What a node does for the log was interrupted: it has the grace to end it."""
        slot = self.nodes[index]
        slot.owes_by = now + GRACE_SECONDS
        self._wake(slot.owes_by)

    def looked(self, index: int, chunk: int, now: float, *, stopped: bool) -> None:
        """Answer to `Look`: the chunk on the node's page, and whether a signal has stopped it."""
        slot = self.nodes[index]
        step = watch.looked(slot, chunk, now, stopped=stopped)
        if step is not None:
            self.out.append(step)
        self._wake(watch.due(slot))

    def unborn(self, index: int, incarnation: int, now: float) -> None:
        """A node could not be started for want of something: descriptors, memory, processes.

        One of those that there have been is tried again, later or when it is asked for. What only
        it could run is lost; so is everything where no other node is there.
        """
        slot = self.nodes[index]
        if slot.incarnation != incarnation:
            return
        wanted = slot.state is NodeState.STARTING and not self._done() and not self.broken
        if not wanted or index >= self._established:
            self.died(index, incarnation, now, lacking=True)
            return
        slot.state = NodeState.WAITING
        watch.clear(slot)
        slot.retry_at = now + min(RETRY_SECONDS * 2**slot.tries, MOST_RETRY_SECONDS)
        slot.tries += 1
        self._wake(slot.retry_at)
        if slot.tries < START_FAILURES:
            return
        self._lose_pinned(slot, Why.BROKEN)
        if self._size > self._established:
            self.take_back_growth(now)
        else:
            self.out.append(Refused(self._size))
        absent = (NodeState.WAITING, NodeState.GONE)
        self._starved = all(other.state in absent for other in self.nodes.values())
        if self._starved:
            for job in list(self.jobs):
                self.drop(job, Why.BROKEN)

    def died(
        self,
        index: int,
        incarnation: int,
        now: float,
        running: int = 0,
        item: int = -1,
        *,
        lacking: bool = False,
    ) -> None:
        """A node is gone; its page said that `item` of chunk `running` had begun.

        Results that it sent before must have been reported already. `lacking`: it never was there.
        """
        slot = self.nodes[index]
        if slot.incarnation != incarnation or slot.state is NodeState.GONE:
            return
        was = slot.state
        slot.state = NodeState.GONE
        watch.clear(slot)
        self._idle.pop(index, None)
        self._deep.pop(index, None)
        self._room.pop(index, None)
        slot.queue_seconds = 0.0
        chunks, slot.chunks = slot.chunks, deque()
        for chunk in reversed(chunks):
            if not chunk.revoked:
                begun = chunk.seq == running
                chunk.job.chunks -= 1
                if chunk is chunks[0] and not begun and self._is_deadly(chunk):
                    chunk.why = Why.UNBEGUN
                    item, begun = chunk.start, True
                self._return_chunk(chunk, index, item + 1 if begun else chunk.start)
        if was is NodeState.STARTING:
            self._failed_starts += 1
            often = self._failed_starts >= START_FAILURES
            if index >= self._established > 0 and (lacking or often):
                self._lose_pinned(slot, Why.BROKEN)
                self.take_back_growth(now)
                return
            if often:
                self._break()
                return
        unwanted = was in (NodeState.STOPPING, NodeState.DRAINING) and not slot.revive
        if not unwanted and not self._done() and not self.broken:
            self._restart(slot, now)
        else:
            self._lose_pinned(slot, Why.GONE)
        self._feed(now)

    def _is_deadly(self, chunk: Chunk) -> bool:
        """Whether so many nodes died before they could begin a chunk that it must be the cause."""
        deaths = chunk.job.unbegun_deaths
        if chunk.received or chunk.why is not None:
            return False
        count = deaths[chunk.start] = deaths.get(chunk.start, 0) + 1
        return count >= UNBEGUN_DEATHS

    def _lose_pinned(self, slot: NodeSlot, why: Why) -> None:
        while slot.pinned:
            self._lose_pending(slot.pinned.popleft(), why, slot.index)

    def _restart(self, slot: NodeSlot, now: float) -> None:
        slot.incarnation += 1
        slot.revive = False
        slot.items_before += slot.items
        slot.items = 0
        self._start(slot, now)

    def _start(self, slot: NodeSlot, now: float) -> None:
        slot.state = NodeState.STARTING
        slot.retry_at = math.inf
        watch.started(slot, now)
        self._wake(slot.look_at)
        self.out.append(Start(slot.index, slot.incarnation))

    def _try_again(self, slot: NodeSlot, now: float) -> None:
        if slot.state is NodeState.WAITING:
            self._restart(slot, now)

    def _give_up(self, slot: NodeSlot, why: Why) -> None:
        """A node that could not be started is not wanted any more."""
        slot.state = NodeState.GONE
        slot.retry_at = math.inf
        self._lose_pinned(slot, why)

    def _return_chunk(self, chunk: Chunk, index: int, unbegun: int) -> None:
        """Lose what had begun and was not answered; the rest is pending again."""
        job = chunk.job
        answered = chunk.start + chunk.received
        unbegun = min(max(unbegun, answered), chunk.stop)
        job.outstanding -= chunk.stop - answered
        if job.cancelled:
            self._maybe_finish(job)
            return
        if unbegun < chunk.stop:
            self._put_back(job, unbegun, chunk.stop)
        if chunk.why is Why.DEADLINE:  # one item was late; those before it only had not left
            late = max(answered, unbegun - 1)
            self._lose_or_retry(job, answered, late, Why.DIED, index)
            self._lose_or_retry(job, late, unbegun, Why.DEADLINE, index)
        else:
            self._lose_or_retry(job, answered, unbegun, chunk.why or Why.DIED, index)
        self._maybe_finish(job)

    def _lose_or_retry(self, job: Job, start: int, stop: int, why: Why, index: int) -> None:
        lost_from = start
        for item in range(start, stop) if job.retries else ():
            if self._retried(job, item):
                self._lose(job, lost_from, item, why, index)
                lost_from = item + 1
        self._lose(job, lost_from, stop, why, index)

    def _break(self) -> None:
        self.broken = True
        self.out.append(Broken())
        for slot in self.nodes.values():
            if slot.state is NodeState.WAITING:
                self._give_up(slot, Why.BROKEN)
            elif slot.state not in (NodeState.GONE, NodeState.STOPPING):
                slot.state = NodeState.STOPPING
                self.out.append(Kill(slot.index))
        for job in list(self.jobs):
            self.drop(job, Why.BROKEN)

    # -- jobs ----------------------------------------------------------------------------------

    def submit(self, job: Job, now: float) -> None:
        """Take a job; its chunks go out as nodes have room."""
        self.jobs[job] = None
        if self.broken:
            self.drop(job, Why.BROKEN)
        elif job.pinned is not None:
            slot = self.nodes[job.pinned]
            if (
                slot.state in (NodeState.STARTING, NodeState.WAITING, NodeState.READY)
                or slot.revive
            ):
                slot.pinned.append(job)
                self._try_again(slot, now)
                if slot.index in self._idle:
                    self._fill(slot, now)
            else:
                self.drop(job, Why.GONE)
        else:
            self._enqueue(job)
            self._feed(now)
            if self._starved:
                for slot in self.nodes.values():
                    self._try_again(slot, now)
        self._maybe_finish(job)

    def extend(self, job: Job, count: int, now: float, *, seal: bool = False) -> None:
        """Add items to a job over a stream, or say that there are no more.

        A job that was sealed meanwhile (cancelled, dropped, its pool closed) takes none.
        """
        if job.sealed:
            return
        if count:
            job.pending.append((job.size, job.size + count))
            job.waiting += count
            job.size += count
            self._enqueue(job)
            self._feed(now)
        job.sealed = seal
        self._maybe_finish(job)

    def retry(self, job: Job, item: int, now: float) -> bool:
        """Put an item that raised back, if its job allows; False where it stays failed."""
        if job.cancelled or not self._retried(job, item):
            return False
        self._feed(now)
        return True

    def cancel(self, job: Job, now: float) -> None:
        """Drop what is pending, take back what is queued, interrupt what runs."""
        if job.finished or job.cancelled:
            return
        job.cancelled = True
        job.sealed = True
        job.pending.clear()
        job.waiting = 0
        self._unpin(job)
        for slot in self.nodes.values():
            for chunk in slot.chunks:
                if chunk.job is not job:
                    continue
                if not chunk.queued or chunk is slot.chunks[0]:
                    self._interrupt(slot.index, chunk, now)
            for chunk in self._revocable(slot):
                if chunk.job is not job:  # what is queued before it runs, and is not heard
                    break
                self._revoke(slot, chunk)
        self._maybe_finish(job)

    def drop(self, job: Job, why: Why) -> None:
        """Lose what has not begun of a job; what runs goes on."""
        if job.dropped is not None:
            return
        job.dropped = why
        job.sealed = True
        self._unpin(job)
        for slot in self.nodes.values():
            for chunk in self._revocable(slot):
                if chunk.job is not job:
                    break
                self._revoke(slot, chunk)
        self._lose_pending(job, why, -1 if job.pinned is None else job.pinned)

    def seal(self) -> None:
        """Let no job grow any more: the pool closes."""
        for job in list(self.jobs):
            job.sealed = True
            self._maybe_finish(job)

    def hurry(self, job: Job) -> None:
        """Kill the nodes that still run items of a cancelled job."""
        for slot in self.nodes.values():
            if slot.chunks and slot.chunks[0].job is job:
                self.out.append(Kill(slot.index))

    def close(self) -> None:
        """Take no more jobs; nodes stop when the ones there are are done."""
        self.closing = True
        self._maybe_done()

    # -- what nodes say ------------------------------------------------------------------------

    def results(
        self, index: int, seq: int, count: int, *, last: bool, seconds: float
    ) -> Chunk | None:
        """Count more items of a chunk as answered; returns the chunk, None if it is unknown.

        When the answers are delivered, `settle` must follow.
        """
        slot = self.nodes.get(index)
        if slot is None or not slot.chunks or slot.chunks[0].seq != seq:
            return None
        chunk = slot.chunks[0]
        chunk.received += count
        slot.items += count
        slot.busy_seconds += seconds
        job = chunk.job
        job.outstanding -= count
        if last:
            self._learn(job, seconds, chunk.stop - chunk.start)
            chunk.seconds = seconds
        return chunk

    def settle(self, index: int, chunk: Chunk, now: float, *, last: bool) -> None:
        """The answers of `results` are delivered: the node may have more."""
        if last:
            slot = self.nodes[index]
            self._learn_trip(chunk, now)
            slot.chunks.popleft()
            chunk.job.chunks -= 1
            self._note_depth(slot)
            limit = self.max_items_per_node
            if limit is not None and slot.items >= limit:
                self.recycle(index, now)
            if slot.chunks:
                following = slot.chunks[0]
                following.sent_at = now
                if following.job.cancelled and not following.revoked:
                    self._interrupt(index, following, now)
                if following.job.deadline_seconds is not None:
                    self._wake(now + following.job.deadline_seconds)
            self._fill(slot, now)
        else:
            self._learn_meanwhile(chunk, now)
        self._maybe_finish(chunk.job)

    def unsent(self, index: int, chunk: Chunk, now: float) -> None:
        """A chunk of `Send` can't go out, or nobody wants it any more: its job ends with it."""
        slot = self.nodes[index]
        slot.chunks.remove(chunk)
        chunk.job.chunks -= 1
        self._note_depth(slot)
        chunk.job.outstanding -= chunk.stop - chunk.start
        self.cancel(chunk.job, now)
        self._maybe_finish(chunk.job)
        self._fill(slot, now)

    def skipped(self, index: int, seq: int, now: float) -> None:
        """A node has seen that a chunk was taken back."""
        slot = self.nodes[index]
        slot.chunks = deque(chunk for chunk in slot.chunks if chunk.seq != seq)
        self._note_depth(slot)
        self._fill(slot, now)

    def revoked(self, index: int, chunk: Chunk, now: float, *, done: bool) -> None:
        """Answer to `Revoke`: whether the chunk was taken back before it began."""
        chunk.revoked = done
        chunk.asked = False
        job = chunk.job
        if not done:
            if job.cancelled:
                self._interrupt(index, chunk, now)
            return
        job.chunks -= 1
        job.outstanding -= chunk.stop - chunk.start
        if not job.cancelled:
            self._put_back(job, chunk.start, chunk.stop)
            self._feed(now)
        self._maybe_finish(job)

    def began(self, index: int, seq: int, item: int, at: float, now: float) -> None:
        """Answer to `Check`: the item that runs, and when it began."""
        slot = self.nodes[index]
        if not slot.chunks:
            return
        chunk = slot.chunks[0]
        limit = chunk.job.deadline_seconds
        if limit is None or chunk.kill_at is not None:
            return
        if seq == SETUP:  # an export takes the time that it takes
            due = now + limit
        elif chunk.seq == seq and item < chunk.stop:
            due = at + limit
            chunk.why = Why.DEADLINE if due <= now else None
        else:  # not begun, or done and on its way
            due = max(chunk.sent_at, at if chunk.seq == seq else 0.0)
            due += max(limit, SILENCE_SECONDS)
        if due <= now:
            chunk.kill_at = math.inf
            self.out.append(Kill(index))
        else:
            self._wake(due)

    def tick(self, now: float) -> None:
        """Do what is due: deadlines, the end of grace, chunks that wait too long."""
        self.wake_at = math.inf
        for slot in self.nodes.values():
            if slot.state is NodeState.STOPPING:
                self._tick_stop(slot, now)
            elif slot.state is NodeState.WAITING and slot.retry_at <= now:
                self._try_again(slot, now)
            else:
                if (step := watch.check(slot, now)) is not None:
                    self.out.append(step)
                self._wake(min(watch.due(slot), slot.retry_at))
            for chunk in slot.chunks:
                if chunk.kill_at is not None:
                    self._tick_kill(slot, chunk, now)
                elif chunk.job.deadline_seconds is not None and chunk is slot.chunks[0]:
                    if chunk.sent_at + chunk.job.deadline_seconds <= now:
                        self.out.append(Check(slot.index))
                    else:
                        self._wake(chunk.sent_at + chunk.job.deadline_seconds)
        self._steal(now)

    def rest(self, now: float) -> None:
        """Nothing happens for now: without jobs, nodes that had only items to run need no look."""
        if self.jobs or self.wake_at == math.inf:
            return
        for slot in self.nodes.values():
            if slot.state is NodeState.READY and not slot.chunks and not slot.owes:
                slot.look_at = math.inf
        self.tick(now)

    def _tick_stop(self, slot: NodeSlot, now: float) -> None:
        """A node that does not stop when it is told to is ended."""
        if slot.stop_by is None:
            slot.stop_by = now + GRACE_SECONDS
        if slot.stop_by <= now:
            slot.stop_by = math.inf
            self.out.append(Kill(slot.index))
        else:
            self._wake(slot.stop_by)

    def _tick_kill(self, slot: NodeSlot, chunk: Chunk, now: float) -> None:
        assert chunk.kill_at is not None
        if chunk.kill_at <= now:
            chunk.kill_at = math.inf
            self.out.append(Kill(slot.index))
        else:
            self._wake(chunk.kill_at)

    # -- inside --------------------------------------------------------------------------------

    def _wake(self, at: float) -> None:
        self.wake_at = min(self.wake_at, at)

    def _enqueue(self, job: Job) -> None:
        if not job.queued and job.pending:
            job.queued = True
            self._ready.append(job)

    def _put_back(self, job: Job, start: int, stop: int) -> None:
        if job.dropped is not None:
            self._lose(job, start, stop, job.dropped, -1)
            return
        job.pending.appendleft((start, stop))
        job.waiting += stop - start
        if job.pinned is not None:
            slot = self.nodes[job.pinned]
            if job not in slot.pinned:
                slot.pinned.appendleft(job)
        elif not job.queued:
            job.queued = True
            self._ready.appendleft(job)

    def _retried(self, job: Job, item: int) -> bool:
        used = job.attempts.get(item, 0)
        if used >= job.retries or job.dropped is not None:
            return False
        job.attempts[item] = used + 1
        self._put_back(job, item, item + 1)
        return True

    def _lose(self, job: Job, start: int, stop: int, why: Why, index: int) -> None:
        if start < stop:
            self.out.append(Lost(job, start, stop, why, index))

    def _lose_pending(self, job: Job, why: Why, index: int) -> None:
        for start, stop in job.pending:
            self._lose(job, start, stop, why, index)
        job.pending.clear()
        job.waiting = 0
        self._maybe_finish(job)

    def _maybe_finish(self, job: Job) -> None:
        if job.sealed and not job.waiting and not job.outstanding and not job.finished:
            job.finished = True
            del self.jobs[job]
            self.out.append(Finished(job))
            self._maybe_done()

    def _done(self) -> bool:
        return self.closing and not self.jobs

    def _maybe_done(self) -> None:
        if self._done():
            for slot in self.nodes.values():
                if slot.state is NodeState.READY:
                    slot.state = NodeState.DRAINING
                    self._idle.pop(slot.index, None)
                    self._maybe_stop(slot)
                elif slot.state is NodeState.STARTING:
                    slot.state = NodeState.STOPPING
                    self.out.append(Kill(slot.index))
                elif slot.state is NodeState.WAITING:
                    self._give_up(slot, Why.GONE)

    def _maybe_stop(self, slot: NodeSlot) -> None:
        if slot.state is NodeState.DRAINING and all(chunk.revoked for chunk in slot.chunks):
            slot.state = NodeState.STOPPING
            slot.stop_by = None
            self._wake(0.0)  # the next tick knows the time
            self.out.append(Stop(slot.index))

    def _learn(self, job: Job, seconds: float, count: int) -> None:
        # Recent chunks count more; a long chunk counts more than a short one.
        job.seen_seconds = 0.8 * job.seen_seconds + seconds
        job.seen_items = 0.8 * job.seen_items + count
        job.mean_seconds = mean = max(job.seen_seconds / job.seen_items, 1e-9)
        if job.single:
            known = self._single_seconds
            self._single_seconds = mean if known is None else 0.7 * known + 0.3 * mean

    def _learn_trip(self, chunk: Chunk, now: float) -> None:
        # The quickest of the last ones: most of what others took, they waited for a core.
        if not chunk.queued and chunk.stop - chunk.start <= TRIP_ITEMS:
            seen = max(1e-6, now - chunk.sent_at - chunk.seconds)
            known = self._trip_seconds
            self._trip_seconds = seen if known is None else min(seen, 1.1 * known)

    def _learn_meanwhile(self, chunk: Chunk, now: float) -> None:
        """A chunk that still runs is slower than was thought: its job needs more nodes."""
        job = chunk.job
        seen = (now - chunk.sent_at) / chunk.received if chunk.received else 0.0
        if job.mean_seconds is not None and seen > 2 * job.mean_seconds:
            job.mean_seconds = seen
            self._feed(now)

    def _feed(self, now: float) -> None:
        """Give waiting jobs to idle nodes, then a second chunk where chunks are short."""
        while self._ready and self._idle:
            _, slot = self._idle.popitem()  # the last one that worked: its caches are warm
            self._fill(slot, now)
            if slot.index in self._idle:
                break
        for slot in list(self._room.values()):
            if not self._ready:
                break
            self._fill_behind(slot, now)

    def _fill(self, slot: NodeSlot, now: float) -> None:
        """Give a node that has room what it should have."""
        if slot.state is not NodeState.READY:
            last_calls = slot.state is NodeState.DRAINING and slot.pinned and not slot.chunks
            if last_calls and not slot.revive:  # else they wait for the one that follows
                self._send(slot, slot.pinned.popleft(), now)
            self._maybe_stop(slot)
            return
        if not slot.chunks:
            job = self._next_job(slot)
            if job is None:
                self._idle[slot.index] = slot
                self._steal(now)
                return
            self._idle.pop(slot.index, None)
            self._send(slot, job, now)
        self._fill_behind(slot, now)

    def _fill_behind(self, slot: NodeSlot, now: float) -> None:
        """Queue short chunks behind the one that runs, so that the node need not wait for more."""
        self._room.pop(slot.index, None)
        if slot.state is not NodeState.READY or self.max_items_per_node is not None:
            return  # with a limit, items are counted one chunk at a time
        while slot.chunks and len(slot.chunks) < QUEUED_CHUNKS and not slot.pinned:
            first, last = slot.chunks[0], slot.chunks[-1]
            if last.revoked or self._seconds(first.job, first.stop - first.start) is None:
                return
            while self._ready and not self._ready[0].pending:
                self._ready.popleft().queued = False
            if not self._ready:
                self._room[slot.index] = slot
                return
            job = self._ready[0]
            seconds = self._seconds(job, self._chunk_items(job))
            if seconds is None or (len(slot.chunks) > 1 and slot.queue_seconds > QUEUE_SECONDS):
                return
            self._ready.popleft()
            job.queued = False
            slot.queue_seconds += seconds
            self._send(slot, job, now)
            self._deep[slot.index] = slot

    def _seconds(self, job: Job, count: int) -> float | None:
        """Return what a short chunk takes, None for one that is long or not known."""
        mean = self._single_seconds if job.single else job.mean_seconds
        return mean * count if mean is not None and mean * count < PIPELINE_SECONDS else None

    def _note_depth(self, slot: NodeSlot) -> None:
        depth = len(slot.chunks)
        if depth < 2:
            self._deep.pop(slot.index, None)
            slot.queue_seconds = 0.0
        else:
            slot.queue_seconds *= (depth - 1) / depth

    def _revocable(self, slot: NodeSlot) -> list[Chunk]:
        """Return the queued chunks, last first: the order in which tokens can be taken back."""
        queued = [chunk for chunk in list(slot.chunks)[1:] if not chunk.revoked]
        queued.reverse()
        return [chunk for chunk in queued if chunk.queued]

    def _next_job(self, slot: NodeSlot) -> Job | None:
        if slot.pinned:
            return slot.pinned.popleft()
        kept: list[Job] = []
        found = None
        while self._ready and found is None:
            job = self._ready.popleft()
            if job.pending and self._has_enough(job):
                kept.append(job)
                continue
            job.queued = False
            found = job if job.pending else None
        self._ready.extendleft(reversed(kept))
        return found

    def _has_enough(self, job: Job) -> bool:
        """Whether a job of instant items is on as many nodes as the cores can do with."""
        mean = job.mean_seconds
        enough = NODES_PER_CORE * self.cores
        if mean is None or mean >= INSTANT_SECONDS or job.chunks < enough:
            return False
        slots = self.nodes.values()
        return sum(bool(slot.chunks) and slot.chunks[0].job is job for slot in slots) >= enough

    def _send(self, slot: NodeSlot, job: Job, now: float) -> None:
        if not job.pending:
            return
        start, stop = job.pending.popleft()
        cut = min(stop, start + self._chunk_items(job))
        if self.max_items_per_node is not None:
            cut = min(cut, start + max(1, self.max_items_per_node - slot.items))
        if cut < stop:
            job.pending.appendleft((cut, stop))
        job.waiting -= cut - start
        job.outstanding += cut - start
        job.chunks += 1
        self._seq += 1
        chunk = Chunk(self._seq, job, start, cut, now, queued=bool(slot.chunks))
        slot.chunks.append(chunk)
        self.out.append(Send(slot.index, chunk, chunk.queued))
        if slot.look_at == math.inf:
            slot.look_at = now + watch.WORK_LOOK_SECONDS
            self._wake(slot.look_at)
        if job.deadline_seconds is not None:
            self._wake(now + job.deadline_seconds)
        if job.pinned is None:
            self._enqueue(job)
        elif job.pending:
            slot.pinned.appendleft(job)

    def _chunk_items(self, job: Job) -> int:
        """Return how many items to send together: more as they prove short, few at the end."""
        if job.chunksize is not None:
            return job.chunksize
        if job.mean_seconds is None or job.waiting <= 1:
            return 1
        nodes = len(self.nodes)
        least_seconds = LEAST_SECONDS
        if job.mean_seconds < INSTANT_SECONDS:
            nodes = min(nodes, NODES_PER_CORE * self.cores)
            trips_seconds = TRIPS * (self._trip_seconds or 0.0)
            least_seconds = max(least_seconds, min(trips_seconds, MOST_LEAST_SECONDS))
        share = math.ceil(job.waiting / (2 * nodes))
        items = least = least_seconds / job.mean_seconds
        if job.seen_items:
            items = max(min(TARGET_SECONDS / job.mean_seconds, share), least)
        else:  # how long its items took in another job: not to be trusted with much
            items = min(least, share)
        if job.item_bytes:
            items = min(items, CHUNK_BYTES / job.item_bytes)
        return max(1, int(items))

    def _revoke(self, slot: NodeSlot, chunk: Chunk) -> None:
        if not chunk.revoked and not chunk.asked:  # a second one would take another chunk's token
            chunk.asked = True
            self.out.append(Revoke(slot.index, chunk))

    def _interrupt(self, index: int, chunk: Chunk, now: float) -> None:
        if chunk.kill_at is None:
            chunk.kill_at = now + GRACE_SECONDS
            chunk.why = Why.CANCELLED
            self._wake(chunk.kill_at)
            self.out.append(Interrupt(index, chunk.seq))

    def _unpin(self, job: Job) -> None:
        if job.pinned is not None:
            slot = self.nodes[job.pinned]
            if job in slot.pinned:
                slot.pinned.remove(job)

    def _steal(self, now: float) -> None:
        """Take a chunk that waits behind a slow one for a node that has nothing to do."""
        if not self._idle or not all(map(self._has_enough, self._ready)):
            return
        wanted = len(self._idle)
        for slot in self._deep.values():
            chunks = self._revocable(slot)
            if not chunks:
                continue
            due = slot.chunks[0].sent_at + STEAL_SECONDS
            if due > now:
                self._wake(due)
                continue
            for chunk in chunks:
                if wanted == 0 or chunk.asked or chunk.job.pinned is not None:
                    break
                self._revoke(slot, chunk)
                wanted -= 1
