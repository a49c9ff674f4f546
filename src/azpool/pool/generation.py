"""One generation: the nodes of one reset, what they were sent, and what a replacement must be sent.

Plain bookkeeping for the supervisor's thread: no I/O but closing descriptors of messages.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from azpool.pool import namespace, wire
from azpool.pool.engines.base import NodeKey
from azpool.pool.jobs import Job
from azpool.pool.namespace import ExportedNames
from azpool.pool.scheduler import Scheduler
from azpool.pool.wire import Kind, Message

if TYPE_CHECKING:
    from azpool.pool.arguments import Arguments
    from azpool.pool.sinks import Sink

SMALL_BYTES = 4096  # a pickle that is its own digest: OpenSSL, which hashlib loads, takes 4 ms
FUNCTIONS_KEPT = 256  # shipped functions that no job uses are forgotten beyond this, oldest first


class Shipment:
    """A function, pickled in the caller's thread."""

    __slots__ = ("buffers", "by_value", "digest", "modules", "payload")

    def __init__(self, function: Callable[..., Any], exported: ExportedNames) -> None:
        what = f"the function {getattr(function, '__qualname__', type(function).__qualname__)}"
        dumped = namespace.dump(function, exported, what=what)
        self.payload, self.buffers, self.by_value, self.modules = dumped
        # Large captured buffers are not worth hashing: such a function is shipped once a call.
        self.digest = object() if self.buffers else _digest(self.payload)


def _digest(payload: bytes) -> bytes:
    if len(payload) <= SMALL_BYTES:
        return payload
    import hashlib

    return hashlib.blake2b(payload, digest_size=20).digest()


_by_reference: WeakKeyDictionary[Callable[..., Any], Shipment] = WeakKeyDictionary()


def ship(function: Callable[..., Any], exported: ExportedNames) -> Shipment:
    """Pickle a function; one that travels by reference is pickled once in its life.

    Raises:
        CannotPickle: it can't travel.
    """
    plain = type(function) is FunctionType or type(function) is BuiltinFunctionType
    found = _by_reference.get(function) if plain else None
    if found is None:
        found = Shipment(function, exported)
        if plain and not found.by_value and not found.buffers:
            _by_reference[function] = found
    return found


class FunctionRecord:
    """A function as this generation knows it."""

    __slots__ = ("digest", "mean_seconds", "message", "number", "uses")

    def __init__(self, number: int, shipment: Shipment) -> None:
        self.number = number
        self.digest = shipment.digest
        self.uses = 0
        self.mean_seconds: float | None = None  # of an item, in the last job that ran it
        self.message = wire.encode(
            Kind.FUNCTION, number, shipment.payload, shipment.buffers, share=True
        )


class Work(Job):
    """A job with its arguments and the place for its answers."""

    __slots__ = ("arguments", "generation", "record", "seed", "sink")

    def __init__(
        self, arguments: Arguments, sink: Sink, size: int, seed: int | None = None, **options: Any
    ) -> None:
        super().__init__(0, size, item_bytes=arguments.item_bytes, **options)
        self.seed = seed
        self.arguments = arguments
        self.sink = sink
        self.record: FunctionRecord | None = None
        self.generation: Generation | None = None


@dataclass(slots=True)
class Setup:
    """One entry of the log: exports or a call, as the message that sends them."""

    number: int
    names: tuple[str, ...]  # of exports; empty for a call
    message: Message


@dataclass(slots=True)
class ExportCall:
    """A step of the log on its way: it reaches every node or is taken back."""

    setup: Setup
    values: dict[str, Any]
    waiting: set[NodeKey]
    done: Future[None]


@dataclass
class Generation:
    """See the module."""

    number: int
    size: int = 0
    scheduler: Scheduler = field(default_factory=Scheduler)
    exported: ExportedNames = field(default_factory=ExportedNames)
    keys: dict[int, NodeKey] = field(default_factory=dict)
    pids: dict[NodeKey, int] = field(default_factory=dict)
    log: list[Setup] = field(default_factory=list)
    exports: dict[int, ExportCall] = field(default_factory=dict)
    said_hello: set[NodeKey] = field(default_factory=set)
    setting_up: dict[NodeKey, set[int]] = field(default_factory=dict)  # steps not answered yet
    waiting: list[tuple[int, Future[None]]] = field(default_factory=list)  # for so many to answer
    failure: str = ""  # why a node did not start
    failure_cause: BaseException | None = None
    pristine: bool = True  # its nodes ran the log at most: they may be replaced unseen
    held: list[tuple[Work | None, Callable[[], None]]] | None = None  # that wait for a preload
    modules: frozenset[str] = frozenset()  # that its functions needed
    retired: bool = False

    def __post_init__(self) -> None:
        self._functions: OrderedDict[Any, FunctionRecord] = OrderedDict()
        self._known: dict[NodeKey, set[int]] = {}
        self._latest: FunctionRecord | None = None
        self._numbers = 0

    def function(self, shipment: Shipment) -> FunctionRecord:
        """Return the record of a function, made when it is new."""
        record = self._latest
        if record is not None and record.digest == shipment.digest:
            return record
        record = self._functions.get(shipment.digest)
        if record is None:
            self._numbers += 1
            record = self._functions[shipment.digest] = FunctionRecord(self._numbers, shipment)
            self.modules |= shipment.modules
        else:
            self._functions.move_to_end(shipment.digest)
        self._latest = record
        return record

    def is_news(self, key: NodeKey, function: int) -> bool:
        """Whether a node has not been sent a function yet; it counts as sent from now on."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = set()
        if function in known:
            return False
        known.add(function)
        return True

    @property
    def crowded(self) -> bool:
        """Whether so many functions are known that unused ones are to be dropped."""
        return len(self._functions) > FUNCTIONS_KEPT

    def unused_functions(self) -> list[tuple[FunctionRecord, list[NodeKey]]]:
        """Drop functions beyond the limit that no job uses; returns them and who knows them."""
        dropped: list[tuple[FunctionRecord, list[NodeKey]]] = []
        if self._latest is not None and not self._latest.uses:
            self._latest = None
        for digest, record in list(self._functions.items()):
            if len(self._functions) <= FUNCTIONS_KEPT // 2:
                break
            if record.uses == 0:
                del self._functions[digest]
                knowing = [key for key, known in self._known.items() if record.number in known]
                for key in knowing:
                    self._known[key].discard(record.number)
                dropped.append((record, knowing))
                wire.release(record.message)
        return dropped

    def hold(self, work: Work, step: Callable[[], None]) -> bool:
        """Let a step wait too, if its job waits for a preload; False where it does not."""
        if self.held is None or not any(held is work for held, _ in self.held):
            return False
        self.held.append((work, step))
        return True

    def held_jobs(self) -> set[Work]:
        """Return the jobs that wait for a preload; the scheduler does not know them yet."""
        return {work for work, _ in self.held or () if work is not None}

    def drop_held(self, work: Work) -> bool:
        """Forget a job that waits for a preload; False where it does not."""
        before = self.held or []
        kept = [step for step in before if step[0] is not work]
        if len(kept) == len(before):
            return False
        self.held = kept
        return True

    def forget_node(self, key: NodeKey) -> None:
        """A node is gone."""
        self._known.pop(key, None)
        self.pids.pop(key, None)
        self.said_hello.discard(key)
        self.setting_up.pop(key, None)

    def refuse(self, error: BaseException) -> None:
        """Tell those who wait for nodes that they will not come."""
        for _, done in self.waiting:
            done.set_exception(error)
        self.waiting.clear()

    def accept(self, call: ExportCall) -> None:
        """An export reached every node: older entries that it covers whole are let go."""
        names = set(call.setup.names)
        position = self.log.index(call.setup)
        older = [entry for entry in self.log[:position] if entry.names]
        for old in [entry for entry in older if names.issuperset(entry.names)]:
            self.log.remove(old)
            wire.release(old.message)
        self.exported.add(call.values)

    def take_back(self, call: ExportCall) -> list[Message]:
        """An export failed somewhere: returns what restores the nodes that have it."""
        self.log.remove(call.setup)
        gone = pickle.dumps(list(call.setup.names), protocol=5)
        undo = [wire.encode(Kind.UNEXPORT, call.setup.number, gone)]
        names = set(call.setup.names)
        undo += [entry.message for entry in self.log if names.intersection(entry.names)]
        return undo

    def release(self, error: BaseException | None = None) -> None:
        """Close the descriptors of everything that was kept for later; no node is left.

        Exports on their way have reached every node that was there, unless an error says otherwise.
        """
        for call in self.exports.values():
            if error is None:
                call.done.set_result(None)
            else:
                call.done.set_exception(error)
        self.exports.clear()
        for entry in self.log:
            wire.release(entry.message)
        for record in self._functions.values():
            wire.release(record.message)
        self.log.clear()
        self._functions.clear()
