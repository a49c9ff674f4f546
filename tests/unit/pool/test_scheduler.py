"""The scheduler: a machine for Hypothesis against pretended nodes, and its rules one by one."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from azpool.pool import instructions as s
from azpool.pool import scheduler as scheduler_module
from azpool.pool.jobs import Job, NodeState, Why
from azpool.pool.node import Status
from azpool.pool.scheduler import NODES_PER_CORE, QUEUED_CHUNKS, Scheduler

SECONDS_OF = {1: 1e-3, 2: 1e-6}  # an item of each function takes so long


class PretendedNode:
    """One incarnation of a node: an inbox, the page it shares, and messages on their way back."""

    def __init__(self, index: int, incarnation: int) -> None:
        self.index = index
        self.incarnation = incarnation
        self.started = False
        self.killed = False
        self.stopped = False
        self.told_to_stop = False
        self.inbox: deque[tuple[Chunk, bool]] = deque()
        self.tokens = 0
        self.messages: deque[tuple[Any, ...]] = deque()
        self.chunk: Chunk | None = None  # what runs
        self.item = 0  # the next of it to begin, or the one that has begun
        self.begun = False
        self.made = 0  # results of it that have not left
        self.page = (0, 0, 0.0)

    def step(self, now: float, ran: Counter[tuple[Job, int]]) -> bool:
        """Do the next thing that a node does; False where there is none."""
        if self.killed or self.stopped or not self.started:
            return False
        if self.chunk is None:
            if not self.inbox:
                return False
            chunk, queued = self.inbox.popleft()
            if queued and not self.tokens:
                self.messages.append(("skipped", chunk.seq))
                return True
            self.tokens -= queued
            self.chunk, self.item, self.made = chunk, chunk.start, 0
            self.page = (chunk.seq, chunk.start, now)
            ran[chunk.job, chunk.start] += 1
            return True
        self.item += 1
        self.made += 1
        self.page = (self.chunk.seq, self.item, now)
        if self.item < self.chunk.stop:
            ran[self.chunk.job, self.item] += 1
        else:
            self.flush(last=True)
        return True

    def flush(self, *, last: bool = False) -> None:
        """Let results leave, as they do within some milliseconds."""
        if self.chunk is None:
            return
        if self.made or last:
            self.messages.append(("results", self.chunk, self.made, last))
            self.made = 0
        if last:
            self.chunk = None  # the page says so a little later


class World(RuleBasedStateMachine):
    """Jobs, nodes and deaths in any order; what the supervisor promises is checked throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.now = 100.0
        self.nodes: dict[int, PretendedNode] = {}
        self.jobs: list[Job] = []
        self.ran: Counter[tuple[Job, int]] = Counter()
        self.answers: Counter[tuple[Job, int]] = Counter()
        self.lost: dict[tuple[Job, int], Why] = {}
        self.finished: Counter[Job] = Counter()
        self.broken = 0
        self.size = 0  # nodes that there should be

    # -- the supervisor ------------------------------------------------------------------------

    def perform(self) -> None:
        """Do what the scheduler says, as the supervisor does."""
        while self.scheduler.out:
            for step in self.scheduler.take():
                self.perform_one(step)

    def perform_one(self, step: s.Instruction) -> None:
        node = self.nodes.get(getattr(step, "node", -1))
        match step:
            case s.Start(index, incarnation):
                assert node is None, "a node is started once"
                self.nodes[index] = PretendedNode(index, incarnation)
            case s.Send(index, chunk, queued):
                assert node is not None
                state = self.scheduler.nodes[index].state
                # A node that drains still makes the calls that are its own.
                assert state is NodeState.READY or (
                    state is NodeState.DRAINING and chunk.job.pinned == index
                )
                assert not self.finished[chunk.job]
                assert queued == chunk.queued
                node.tokens += queued
                if not node.killed:
                    node.inbox.append((chunk, queued))
            case s.Revoke(index, chunk):
                assert node is not None
                done = node.tokens > 0
                node.tokens -= done
                waits = any(waiting is chunk for waiting, _ in node.inbox)
                # Which of a killed node's tokens is taken makes no difference: none is used.
                assert waits or node.killed or not done, "not its token"
                self.scheduler.revoked(index, chunk, self.now, done=done)
            case s.Check(index):
                assert node is not None
                self.scheduler.began(index, *node.page, self.now)
            case s.Kill():
                if node is not None:
                    node.killed = True
            case s.Look(index):
                assert node is not None
                self.scheduler.looked(index, node.page[0], self.now, stopped=node.stopped)
            case s.Refused(size):
                self.size = size
            case s.Stop():
                assert node is not None
                assert node.killed or all(chunk.revoked for chunk, _ in node.inbox)
                node.told_to_stop = True
            case s.Lost(job, start, stop, why):
                assert start < stop
                assert not self.finished[job]
                for item in range(start, stop):
                    assert (job, item) not in self.lost
                    self.lost[job, item] = why
            case s.Finished(job):
                self.finished[job] += 1
            case s.Broken():
                self.broken += 1

    def hear(self, node: PretendedNode, failing: frozenset[int] = frozenset()) -> None:
        """The master reads the next message of a node."""
        message = node.messages.popleft()
        if message[0] == "skipped":
            self.scheduler.skipped(node.index, message[1], self.now)
        elif message[0] == "hello":
            self.scheduler.hello(node.index, self.now)
        else:
            _, chunk, count, last = message
            first = chunk.start + chunk.received
            found = self.scheduler.results(
                *(node.index, chunk.seq, count),
                last=last,
                seconds=SECONDS_OF[chunk.job.function] * (chunk.stop - chunk.start),
            )
            assert found is chunk
            job = chunk.job
            for item in range(first, first + count):
                if job.cancelled:
                    continue
                if item % 7 in failing and self.scheduler.retry(job, item, self.now):
                    continue
                self.answers[job, item] += 1
            self.scheduler.settle(node.index, chunk, self.now, last=last)
        self.perform()

    def bury(self, node: PretendedNode) -> None:
        """A node is gone: the master reads what it had sent, then learns of its death."""
        node.killed = True
        while node.messages:
            self.hear(node)
        seq, item, _ = node.page
        del self.nodes[node.index]
        self.scheduler.died(node.index, node.incarnation, self.now, seq, item)
        self.perform()

    # -- rules ---------------------------------------------------------------------------------

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.size = count
        self.scheduler.cores = 1  # so two nodes are enough for instant items
        self.scheduler.resize(count, self.now)
        self.perform()

    @precondition(lambda self: not self.scheduler.closing)
    @rule(
        size=st.integers(0, 12),
        chunksize=st.sampled_from([None, None, 1, 3, 50]),
        deadline=st.sampled_from([None, None, 0.5]),
        retries=st.sampled_from([0, 0, 2]),
        sealed=st.sampled_from([True, True, False]),
        single=st.booleans(),
        function=st.sampled_from([*SECONDS_OF]),
        known=st.sampled_from([None, 1e-6, 0.01]),
    )
    def submit(
        self,
        *,
        single: bool,
        size: int,
        deadline: float | None,
        function: int,
        known: float | None,
        **options: Any,
    ) -> None:
        if single:
            job = Job(function, 1, single=True, deadline_seconds=deadline)
        else:
            job = Job(function, size, deadline_seconds=deadline, **options)
            job.mean_seconds = known
        self.add(job)

    @precondition(lambda self: not self.scheduler.closing)
    @rule(data=st.data())
    def submit_to_one(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(self.scheduler.nodes)))
        self.add(Job(1, 1, pinned=index, single=True))

    def add(self, job: Job) -> None:
        self.jobs.append(job)
        self.scheduler.submit(job, self.now)
        self.perform()

    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if not job.finished]

    def open_streams(self) -> list[Job]:
        return [job for job in self.jobs if not job.sealed]

    @precondition(open_streams)
    @rule(data=st.data(), count=st.integers(0, 5), seal=st.booleans())
    def extend(self, data: st.DataObject, count: int, *, seal: bool) -> None:
        job = data.draw(st.sampled_from(self.open_streams()))
        self.scheduler.extend(job, count, self.now, seal=seal)
        self.perform()

    @precondition(unfinished)
    @rule(data=st.data(), hurry=st.booleans())
    def cancel(self, data: st.DataObject, *, hurry: bool) -> None:
        job = data.draw(st.sampled_from(self.unfinished()))
        self.scheduler.cancel(job, self.now)
        if hurry:
            self.scheduler.hurry(job)
        self.perform()

    @rule(seed=st.integers(0, 1 << 16), steps=st.integers(1, 60))
    def progress(self, seed: int, steps: int) -> None:
        """Nodes start, run and send; the master reads; in any order."""
        draw = random.Random(seed)
        for _ in range(steps):
            if not self.nodes:
                return
            node = self.nodes[draw.choice(sorted(self.nodes))]
            what = draw.random()
            if not node.started and not node.killed and not node.stopped:
                node.started = True
                node.messages.append(("hello",))
            elif what < 0.5:
                node.step(self.now, self.ran)
            elif what < 0.6 and not node.killed:
                node.flush()
            elif node.messages:
                self.hear(node, frozenset({1, 3}))
            elif node.killed or node.told_to_stop:
                self.bury(node)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), starting=st.integers(0, 5))
    def die(self, data: st.DataObject, starting: int) -> None:
        """A node dies, now and then before it has started."""
        mortal = [i for i, node in self.nodes.items() if node.started or not starting]
        if mortal:
            self.bury(self.nodes[data.draw(st.sampled_from(sorted(mortal)))])

    @precondition(lambda self: any(not node.started for node in self.nodes.values()))
    @rule(data=st.data())
    def be_unborn(self, data: st.DataObject) -> None:
        """A node can't be started, for want of descriptors."""
        unborn = sorted(i for i, node in self.nodes.items() if not node.started)
        node = self.nodes.pop(data.draw(st.sampled_from(unborn)))
        self.scheduler.unborn(node.index, node.incarnation, self.now)
        self.perform()

    @rule(data=st.data())
    def stop_or_go_on(self, data: st.DataObject) -> None:
        """A signal stops a node, or wakes it."""
        if self.nodes:
            node = self.nodes[data.draw(st.sampled_from(sorted(self.nodes)))]
            node.stopped = not node.stopped

    @rule(data=st.data())
    def owe(self, data: st.DataObject) -> None:
        """A step of the log is sent to a node."""
        if self.nodes:
            index = data.draw(st.sampled_from(sorted(self.nodes)))
            self.scheduler.owes(index, self.now)

    @rule(seconds=st.sampled_from([0.001, 0.004, 0.1, 0.6, 2.5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.scheduler.wake_at <= self.now:
            self.scheduler.tick(self.now)
            self.perform()
            assert self.scheduler.wake_at > self.now, "the loop would spin"

    @precondition(lambda self: not self.scheduler.broken and not self.scheduler.closing)
    @rule(size=st.integers(1, 5))
    def resize(self, size: int) -> None:
        self.scheduler.resize(size, self.now)
        self.size = size
        self.perform()

    @rule(data=st.data())
    def recycle(self, data: st.DataObject) -> None:
        self.scheduler.recycle(data.draw(st.sampled_from(sorted(self.scheduler.nodes))), self.now)
        self.perform()

    @precondition(lambda self: len(self.jobs) > 3 and not self.scheduler.closing)
    @rule(cancel=st.booleans())
    def close(self, *, cancel: bool) -> None:
        """As the supervisor does: many events, then their instructions."""
        if cancel:
            for job in list(self.scheduler.jobs):
                if job.outstanding:
                    self.scheduler.drop(job, Why.CANCELLED)
                else:
                    self.scheduler.cancel(job, self.now)
        self.scheduler.seal()
        self.scheduler.close()
        self.perform()

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def items_are_counted(self) -> None:
        on_nodes: Counter[Job] = Counter()
        chunks: Counter[Job] = Counter()
        for slot in self.scheduler.nodes.values():
            assert len(slot.chunks) <= QUEUED_CHUNKS
            for chunk in slot.chunks:
                if not chunk.revoked:
                    chunks[chunk.job] += 1
                    on_nodes[chunk.job] += chunk.stop - chunk.start - chunk.received
        for job in self.jobs:
            assert job.waiting == sum(stop - start for start, stop in job.pending)
            assert job.outstanding == on_nodes[job]
            assert job.chunks == chunks[job]
        assert list(self.scheduler.jobs) == self.unfinished()

    @invariant()
    def nothing_is_answered_or_run_twice(self) -> None:
        for (job, item), count in self.answers.items():
            assert count == 1
            assert (job, item) not in self.lost
        for (job, _), count in self.ran.items():
            assert count <= 1 + job.retries
        for job, count in self.finished.items():
            assert count == 1
            assert job.finished
            if not job.cancelled:
                assert all(self.answered_or_lost(job, item) for item in range(job.size))

    def answered_or_lost(self, job: Job, item: int) -> bool:
        return bool(self.answers[job, item]) != ((job, item) in self.lost)

    @invariant()
    def an_idle_node_means_that_nothing_waits(self) -> None:
        slots = self.scheduler.nodes.values()
        if any(slot.state is NodeState.READY and not slot.chunks for slot in slots):
            running = Counter(slot.chunks[0].job for slot in slots if slot.chunks)
            for job in self.jobs:
                if job.waiting and job.pinned is None:
                    assert running[job] >= NODES_PER_CORE, "but for instant items on enough nodes"

    def teardown(self) -> None:
        """From here all goes well, and all of it ends."""
        for job in self.open_streams():
            self.scheduler.extend(job, 0, self.now, seal=True)
            self.perform()
        self.run_to_the_end()
        assert not self.unfinished()
        if not self.scheduler.broken and not self.scheduler.closing:
            assert self.scheduler.ready(self.size)
            states = [slot.state for slot in self.scheduler.nodes.values()]
            assert states.count(NodeState.READY) == self.size
        self.scheduler.close()
        self.perform()
        self.run_to_the_end()
        assert {slot.state for slot in self.scheduler.nodes.values()} == {NodeState.GONE}
        assert self.broken <= 1

    def run_to_the_end(self) -> None:
        for _ in range(1000):
            busy = False
            for node in list(self.nodes.values()):
                if node.killed or (node.told_to_stop and not node.messages):
                    self.bury(node)
                    busy = True
                    continue
                self.scheduler.answered(node.index)
                node.stopped = False
                if not node.started:
                    node.started = True
                    node.messages.append(("hello",))
                while node.step(self.now, self.ran):
                    busy = True
                while node.messages:
                    self.hear(node)
                    busy = True
            self.wait(0.01)
            coming = (NodeState.WAITING, NodeState.STARTING)
            slots = self.scheduler.nodes.values()
            if not busy and not any(slot.state in coming for slot in slots):
                return
        raise AssertionError("it never ends")


TestWorld = World.TestCase
# Explaining a failure takes longer than all the rest.
TestWorld.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


# -- rules one by one ----------------------------------------------------------------------------


class Rig:
    """A scheduler with nodes that have started, and the instructions it gave."""

    def __init__(self, nodes: int) -> None:
        self.scheduler = Scheduler()
        self.scheduler.resize(nodes, 0.0)
        for index in range(nodes):
            self.scheduler.hello(index, 0.0)
        self.scheduler.take()
        self.scheduler.tick(0.0)

    def submit(self, size: int, **options: Any) -> Job:
        job = Job(1, size, **options)
        self.scheduler.submit(job, 0.0)
        return job

    def taken(self, kind: type[Any]) -> list[Any]:
        return [step for step in self.scheduler.take() if isinstance(step, kind)]

    def answer(self, index: int, now: float, seconds: float) -> Chunk:
        """The first chunk of a node is done, and took that long."""
        chunk = self.scheduler.nodes[index].chunks[0]
        count = chunk.stop - chunk.start - chunk.received
        self.scheduler.results(index, chunk.seq, count, last=True, seconds=seconds)
        self.scheduler.settle(index, chunk, now, last=True)
        return chunk


def sizes_of_chunks(rig: Rig, job: Job, seconds_per_item: float) -> list[int]:
    """Answer a job's chunks in the order in which they were sent, and return how large they are."""
    sizes = []
    while not job.finished:
        first = [slot.chunks[0] for slot in rig.scheduler.nodes.values() if slot.chunks]
        chunk = min(first, key=lambda chunk: chunk.seq)
        (index,) = (i for i, slot in rig.scheduler.nodes.items() if chunk in slot.chunks)
        sizes.append(chunk.stop - chunk.start)
        rig.answer(index, 0.0, sizes[-1] * seconds_per_item)
    return sizes


def test_chunks_grow_to_the_measured_size_and_shrink_towards_the_end() -> None:
    rig = Rig(2)
    sizes = sizes_of_chunks(rig, rig.submit(100_000), 1e-5)
    assert sizes[:2] == [1, 1]
    assert max(sizes) * 1e-5 <= 1.0001 * scheduler_module.TARGET_SECONDS
    assert max(sizes[:5]) > 1000
    assert sizes[-1] < max(sizes) / 4
    assert sizes[-1] * 1e-5 < 2 * scheduler_module.LEAST_SECONDS


@pytest.mark.parametrize(
    ("trip_seconds", "seconds"), [(0.00001, 0.0005), (0.0003, 0.00165), (0.01, 0.0025)]
)
def test_chunks_of_instant_items_are_as_long_as_some_round_trips(
    trip_seconds: float, seconds: float
) -> None:
    item_seconds = 1e-7
    rig = Rig(2)
    rig.scheduler.cores = 2
    for _ in range(2):  # one that waited for a core adds a tenth at most
        job = rig.submit(1)
        index = 0 if rig.scheduler.nodes[0].chunks else 1
        rig.answer(index, trip_seconds + item_seconds, item_seconds)
        trip_seconds += 0.1
        assert job.finished
    job = Job(1, 100_000)
    job.mean_seconds = item_seconds  # as an earlier job has shown
    rig.scheduler.submit(job, 0.0)
    sent = [step.chunk for step in rig.taken(s.Send) if step.chunk.job is job]
    chunk = sent[0]
    assert chunk.stop - chunk.start == pytest.approx(seconds / item_seconds, rel=0.01)


def test_slow_items_travel_alone() -> None:
    rig = Rig(2)
    assert set(sizes_of_chunks(rig, rig.submit(50), 0.2)) == {1}


def test_a_chunksize_is_kept_to_the_item() -> None:
    rig = Rig(1)
    assert sizes_of_chunks(rig, rig.submit(10, chunksize=4), 1e-6) == [4, 4, 2]


def test_large_arguments_keep_chunks_small() -> None:
    rig = Rig(1)
    job = rig.submit(1000, item_bytes=1 << 20)
    assert max(sizes_of_chunks(rig, job, 1e-6)) == 8


def nodes_of(rig: Rig, job: Job) -> set[int]:
    slots = rig.scheduler.nodes.values()
    return {slot.index for slot in slots if any(chunk.job is job for chunk in slot.chunks)}


def test_instant_items_wait_for_a_warm_node_and_slow_ones_take_every_node() -> None:
    rig = Rig(10)
    rig.scheduler.cores = 2
    instant, slow = rig.submit(100_000), rig.submit(100)
    assert len(nodes_of(rig, instant)) == 10, "until they are known, they go everywhere"
    for index in range(10):
        rig.answer(index, 0.0, 1e-6)
    assert 1 <= len(nodes_of(rig, instant)) <= 2 * NODES_PER_CORE
    assert nodes_of(rig, instant) | nodes_of(rig, slow) == set(range(10)), "no node is idle"
    rig.scheduler.cancel(slow, 0.0)
    for index in nodes_of(rig, slow):
        rig.answer(index, 0.0, 1e-2)
    assert len(nodes_of(rig, instant)) == 2 * NODES_PER_CORE


def test_how_long_items_took_before_is_trusted_with_half_a_millisecond() -> None:
    rig = Rig(4)
    job = Job(1, 100_000)
    job.mean_seconds = 1e-6
    rig.scheduler.submit(job, 0.0)
    sent = [step.chunk for step in rig.taken(s.Send)]
    assert {chunk.stop - chunk.start for chunk in sent} == {500}
    few = Job(1, 100)
    few.mean_seconds = 1e-6
    rig = Rig(4)
    rig.scheduler.submit(few, 0.0)
    assert max(step.chunk.stop - step.chunk.start for step in rig.taken(s.Send)) <= 100 / 4


def test_items_that_are_slow_this_time_get_the_other_nodes_before_their_chunks_end() -> None:
    rig = Rig(4)
    job = Job(1, 100_000)
    job.mean_seconds = 1e-6
    rig.scheduler.submit(job, 0.0)
    assert len(nodes_of(rig, job)) == NODES_PER_CORE
    chunk = rig.scheduler.nodes[min(nodes_of(rig, job))].chunks[0]
    index = min(nodes_of(rig, job))
    rig.scheduler.results(index, chunk.seq, 2, last=False, seconds=0.0)
    rig.scheduler.settle(index, chunk, 0.02, last=False)
    assert len(nodes_of(rig, job)) == 4
    assert job.mean_seconds == pytest.approx(0.01)


def test_a_node_with_a_slow_chunk_gets_no_second_one() -> None:
    rig = Rig(1)
    rig.submit(100, chunksize=1)
    rig.answer(0, 0.0, 0.5)
    assert len(rig.scheduler.nodes[0].chunks) == 1
    rig.answer(0, 0.0, 1e-4)
    rig.answer(0, 0.0, 1e-4)
    for _ in range(30):
        rig.answer(0, 0.0, 1e-4)
    assert len(rig.scheduler.nodes[0].chunks) > 1
    assert [step.queued for step in rig.taken(s.Send)][-1]


def rig_with_a_chunk_to_steal() -> tuple[Rig, Job]:
    """Node 1 is idle; node 0 has one chunk that runs and one behind it."""
    rig = Rig(2)
    job = rig.submit(5, chunksize=1)
    rig.answer(0, 0.0, 1e-3)
    assert [len(slot.chunks) for slot in rig.scheduler.nodes.values()] == [2, 1]
    rig.answer(1, 0.0, 1e-3)
    if rig.scheduler.nodes[1].chunks:
        rig.answer(1, 0.0, 1e-3)
    assert [len(slot.chunks) for slot in rig.scheduler.nodes.values()] == [2, 0]
    rig.scheduler.take()
    return rig, job


def test_what_waits_behind_a_slow_chunk_is_stolen_by_an_idle_node() -> None:
    rig, _ = rig_with_a_chunk_to_steal()
    due = rig.scheduler.wake_at
    assert due == pytest.approx(scheduler_module.STEAL_SECONDS)
    rig.scheduler.tick(due - 0.001)
    assert not rig.taken(s.Revoke)
    rig.scheduler.tick(due)
    rig.scheduler.tick(due)
    (revoke,) = rig.taken(s.Revoke)  # asked once, however often it is looked at
    rig.scheduler.revoked(0, revoke.chunk, due, done=True)
    (send,) = rig.taken(s.Send)
    assert (send.node, send.chunk.start) == (1, revoke.chunk.start)
    assert not send.queued


def test_a_chunk_that_began_meanwhile_stays_where_it_is() -> None:
    rig, _ = rig_with_a_chunk_to_steal()
    rig.scheduler.tick(rig.scheduler.wake_at)
    (revoke,) = rig.taken(s.Revoke)
    rig.scheduler.revoked(0, revoke.chunk, 1.0, done=False)
    assert not rig.taken(s.Send)
    assert len(rig.scheduler.nodes[0].chunks) > 1


def test_the_last_of_several_queued_chunks_is_taken_back_first() -> None:
    rig = Rig(2)
    rig.submit(9, chunksize=1)
    rig.answer(0, 0.0, 1e-4)
    waiting = [chunk.seq for chunk in list(rig.scheduler.nodes[0].chunks)[1:]]
    assert len(waiting) > 1
    for _ in range(8):
        if rig.scheduler.nodes[1].chunks:
            rig.answer(1, 0.0, 1e-4)
    rig.taken(s.Send)
    rig.scheduler.tick(rig.scheduler.wake_at)
    (revoke,) = rig.taken(s.Revoke)
    assert revoke.chunk.seq == waiting[-1]


def test_nothing_wakes_an_idle_scheduler() -> None:
    rig = Rig(3)
    assert rig.scheduler.wake_at == math.inf
    job = rig.submit(3)
    for index in range(3):
        rig.answer(index, 1.0, 1e-4)
    assert job.finished
    rig.scheduler.take()
    assert rig.scheduler.wake_at < math.inf
    rig.scheduler.rest(1.0)  # no look at what has no work
    assert not rig.scheduler.take()
    assert rig.scheduler.wake_at == math.inf


def test_a_deadline_counts_from_the_beginning_of_its_item() -> None:
    rig = Rig(1)
    rig.submit(3, chunksize=3, deadline_seconds=1.0)
    chunk = rig.scheduler.nodes[0].chunks[0]
    assert rig.scheduler.wake_at == 1.0
    rig.scheduler.take()
    rig.scheduler.tick(1.0)
    assert rig.taken(s.Check) == [s.Check(0)]
    rig.scheduler.began(0, chunk.seq, 1, 0.6, 1.0)
    assert rig.scheduler.wake_at == 1.6
    assert not rig.taken(s.Kill)
    rig.scheduler.began(0, chunk.seq, 1, 0.6, 1.6)
    assert rig.taken(s.Kill) == [s.Kill(0)]
    rig.scheduler.died(0, 0, 1.7, chunk.seq, 1)
    assert [(lost.start, lost.stop, lost.why) for lost in rig.taken(s.Lost)] == [
        (0, 1, Why.DIED),  # it was done, but its result had not left
        (1, 2, Why.DEADLINE),
    ]


def test_a_node_that_never_begins_is_killed_and_its_items_run_elsewhere() -> None:
    rig = Rig(2)
    job = rig.submit(1, deadline_seconds=1.0)
    (send,) = rig.taken(s.Send)
    now = 0.0
    while now < scheduler_module.SILENCE_SECONDS:
        now = rig.scheduler.wake_at
        rig.scheduler.tick(now)
        for _ in rig.taken(s.Check):
            rig.scheduler.began(send.node, 0, 0, 0.0, now)
    assert rig.taken(s.Kill) == [s.Kill(send.node)]
    rig.scheduler.died(send.node, 0, now)
    (again,) = rig.taken(s.Send)
    assert again.node != send.node
    assert not job.finished


def test_a_node_that_is_setting_up_has_all_the_time() -> None:
    rig = Rig(1)
    rig.submit(1, deadline_seconds=1.0)
    rig.scheduler.take()
    for now in range(1, 200):
        rig.scheduler.began(0, Status.SETTING_UP, 3, 0.0, float(now))
    assert not rig.taken(s.Kill)


def test_a_broken_pool_loses_what_a_dying_node_had_not_begun() -> None:
    rig = Rig(2)
    job = rig.submit(4, chunksize=4)
    (send,) = rig.taken(s.Send)
    other = 1 - send.node
    for incarnation in range(4):
        rig.scheduler.died(other, incarnation, 1.0)
    assert rig.taken(s.Broken)
    assert not job.finished
    rig.scheduler.died(send.node, 0, 2.0, send.chunk.seq, 1)
    lost = {(step.start, step.stop, step.why) for step in rig.taken(s.Lost)}
    assert lost == {(0, 2, Why.DIED), (2, 4, Why.BROKEN)}
    assert job.finished


def test_a_job_that_is_dropped_lets_what_runs_go_on() -> None:
    rig = Rig(1)
    job = rig.submit(3, chunksize=1)
    rig.scheduler.take()
    rig.scheduler.drop(job, Why.CANCELLED)
    (lost,) = rig.taken(s.Lost)
    assert (lost.start, lost.stop, lost.why) == (1, 3, Why.CANCELLED)
    assert not job.finished
    rig.answer(0, 1.0, 0.1)
    assert job.finished


def test_closing_ends_a_stream_that_nobody_reads_on() -> None:
    rig = Rig(1)
    job = rig.submit(0, sealed=False)
    rig.scheduler.close()
    assert not rig.taken(s.Stop)
    rig.scheduler.seal()
    assert job.finished
    assert rig.taken(s.Stop) == [s.Stop(0)]
    rig.scheduler.extend(job, 5, 0.0)
    assert job.size == 0


def test_a_call_for_a_node_that_goes_is_lost_at_once() -> None:
    rig = Rig(2)
    rig.scheduler.resize(1, 0.0)
    job = rig.submit(1, pinned=1)
    assert job.finished
    assert rig.taken(s.Lost)


def test_a_node_that_does_not_stop_is_killed_after_the_grace() -> None:
    rig = Rig(1)
    rig.scheduler.close()
    assert rig.taken(s.Stop) == [s.Stop(0)]
    rig.scheduler.tick(5.0)
    assert rig.scheduler.wake_at == 5.0 + scheduler_module.GRACE_SECONDS
    assert not rig.taken(s.Kill)
    rig.scheduler.tick(rig.scheduler.wake_at)
    assert rig.taken(s.Kill) == [s.Kill(0)]
    assert rig.scheduler.wake_at == math.inf
