"""A closed queueing network in simulated time: a client with N slots, a network, a server.

Requests travel for half the latency, wait in one queue for one of `servers`, are worked on for
`service_seconds` (plus their bytes at `bytes_per_second`, which one pipe moves one after another),
and travel back. All randomness comes from one seed; nothing reads a clock.
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Server:
    """What answers.

    Attributes:
        latency_seconds: there and back; each request's own differs by up to `jitter` of it.
        service_seconds: what one request takes of one server.
        servers: how many requests are worked on at once.
        bytes_per_second: of the one pipe that all bodies go through.
        congestion: share by which a request gets slower for each other one that waits.
        requests_per_second: a bucket; requests beyond it get 503.
        burst: what the bucket holds.
        retry_after_seconds: what a 503 asks for.
        noise: the speed of everything changes by up to this share, each way, every 0.1 s.
        storms: (from, until): everything is refused.
        refused_share: of the requests, whatever the load.
    """

    latency_seconds: float = 0.0
    jitter: float = 0.1
    service_seconds: float = 0.001
    servers: int = 1
    bytes_per_second: float = float("inf")
    congestion: float = 0.0
    requests_per_second: float = float("inf")
    burst: float = 50.0
    retry_after_seconds: float | None = 1.0
    noise: float = 0.0
    storms: tuple[tuple[float, float], ...] = ()
    refused_share: float = 0.0
    changes: tuple = ()  # (from, Server): what it is from then on


class Fixed:
    """A limit that stays."""

    def __init__(self, limit):
        self.limit = limit

    def observe(self, now, **facts):
        return self.limit


class Simulation:
    """One run; `run(seconds)` may be called again and goes on."""

    def __init__(self, server, limit, *, sizes=(0,), seed=1, items=10**9):
        self.server = server
        self.limit = limit
        self.sizes = sizes
        self.random = random.Random(seed)
        self.items = items
        self.now = 0.0
        self.in_flight = 0
        self.gate = 0.0  # closed until
        self.events = []
        self.count = 0
        self.queue = deque()
        self.busy = 0
        self.pipe_free_at = 0.0
        self.tokens = server.burst
        self.tokens_at = 0.0
        self.speed = 1.0
        self.speed_until = 0.0
        self.done = []  # (time, bytes)
        self.history = []  # (time, limit)
        self.throttled = 0

    def at(self, when, what, *about):
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, about))

    def run(self, seconds):
        """Go on for so long; answers requests/s."""
        begin, first = self.now, len(self.done)
        end = self.now + seconds
        self.fill()
        while self.events and self.events[0][0] <= end:
            self.now, _, what, about = heapq.heappop(self.events)
            what(*about)
        self.now = end
        return (len(self.done) - first) / (end - begin)

    def rate(self, begin, end):
        """Requests/s between two times."""
        return self.work_rate(begin, end, float("inf"))

    def work_rate(self, begin, end, request_bytes):
        work = sum(1 + size / request_bytes for when, size in self.done if begin <= when < end)
        return work / (end - begin)

    # --- client ---------------------------------------------------------------------------------

    def fill(self):
        while self.in_flight < self.limit.limit and self.items > 0 and self.now >= self.gate:
            self.in_flight += 1
            self.items -= 1
            self.at(self.now + self.half(), self.arrive, self.random.choice(self.sizes))

    def half(self):
        latency = self.server.latency_seconds / 2
        return latency * (1 + self.server.jitter * (2 * self.random.random() - 1))

    def answered(self, size):
        self.in_flight -= 1
        self.done.append((self.now, size))
        self.fill()
        self.tell(requests=1, bytes_moved=size)

    def refused(self, size):
        self.in_flight -= 1
        self.items += 1
        self.throttled += 1
        if self.server.retry_after_seconds is not None:
            self.gate = max(self.gate, self.now + self.server.retry_after_seconds)
            self.at(self.gate, self.fill)
        self.fill()
        self.tell(throttled=1, closed_seconds=max(0.0, self.gate - self.now))

    def tell(self, **facts):
        before = self.limit.limit
        self.limit.observe(self.now, in_flight=self.in_flight, **facts)
        if self.limit.limit != before:
            self.history.append((self.now, self.limit.limit))
            self.fill()

    # --- server ---------------------------------------------------------------------------------

    def arrive(self, size):
        server = self.server
        while server.changes and self.now >= server.changes[0][0]:
            self.server = server = server.changes[0][1]
        gain = (self.now - self.tokens_at) * server.requests_per_second
        self.tokens = min(server.burst, self.tokens + gain)
        self.tokens_at = self.now
        storm = any(begin <= self.now < end for begin, end in server.storms)
        if storm or self.tokens < 1 or self.random.random() < server.refused_share:
            self.at(self.now + self.half(), self.refused, size)
            return
        self.tokens -= 1
        self.queue.append(size)
        self.work()

    def work(self):
        while self.queue and self.busy < self.server.servers:
            self.busy += 1
            size = self.queue.popleft()
            seconds = self.server.service_seconds * (1 + self.server.congestion * len(self.queue))
            self.at(self.now + seconds / self.pace(), self.worked, size)

    def worked(self, size):
        self.busy -= 1
        sent = self.now
        if size:
            begin = max(self.now, self.pipe_free_at)
            sent = self.pipe_free_at = begin + size / self.server.bytes_per_second / self.pace()
        self.at(sent + self.half(), self.answered, size)
        self.work()

    def pace(self):
        if self.server.noise and self.now >= self.speed_until:
            self.speed = 1 + self.server.noise * (2 * self.random.random() - 1)
            self.speed_until = self.now + 0.1
        return self.speed


class Batches(Simulation):
    """The same with a client as the pool is one: nodes that run batches, on threads for a batch.

    A node gets its share of the limit with each batch and keeps it until the batch ends; batches
    are as long as `batch_seconds` at the rate of the last one. What was answered is told when the
    batch ends, in one lump, or (`streamed`) one by one.
    """

    def __init__(self, *args, nodes=10, batch_seconds=0.3, streamed=False, **options):
        super().__init__(*args, **options)
        self.batch_seconds = batch_seconds
        self.streamed = streamed
        self.shares = [0] * nodes  # threads of each node's batch, 0 without one
        self.batches = [[0, 0, 0.0, 0] for _ in range(nodes)]  # to begin, to end, begun at, size
        self.per_thread = [1.0] * nodes  # requests one thread answered in a batch

    def fill(self):
        nodes = len(self.shares)
        for node in range(nodes):
            if self.shares[node] or self.items <= 0:
                continue
            free = self.limit.limit - sum(self.shares)
            share = (self.limit.limit + nodes - 1 - node) // nodes
            threads = min(share, free)
            if threads <= 0:
                continue
            size = min(self.items, max(threads, round(threads * self.per_thread[node])))
            self.items -= size
            self.shares[node] = threads
            self.batches[node] = [size, size, self.now, size]
            for _ in range(min(threads, size)):
                self.send(node)

    def send(self, node):
        self.batches[node][0] -= 1
        size = self.random.choice(self.sizes)
        self.at(self.now + self.half(), self.arrive, (node, size))

    def answered(self, about):
        node, size = about
        self.done.append((self.now, size))
        batch = self.batches[node]
        batch[1] -= 1
        if batch[0]:
            self.send(node)
        if batch[1] == 0:
            seconds = max(1e-6, self.now - batch[2])
            rate = batch[3] / self.shares[node] / seconds
            # Batches grow at most twofold, as the pool's chunks do.
            self.per_thread[node] = min(2 * self.per_thread[node], rate * self.batch_seconds)
            self.shares[node] = 0
            self.fill()
        if self.streamed or batch[1] == 0:
            count = 1 if self.streamed else batch[3]
            self.in_flight = sum(self.shares)
            self.tell(requests=count)

    def worked(self, about):
        # Bodies are none here: the pipe is not used.
        self.busy -= 1
        self.at(self.now + self.half(), self.answered, about)
        self.work()
