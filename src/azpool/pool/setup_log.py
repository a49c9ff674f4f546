"""The log of what set the nodes up: initializers, exports, and calls that are replayed, in order.

    export, initializer -> every node that is there -> each answers -> accepted, or taken back
    the log -> a node that starts, before anything else

A step reaches every node or is taken back from all. Each generation has a log; initializers outlive
it. All of it runs on the supervisor's thread.
"""

from __future__ import annotations

import pickle
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from azpool.errors import PoolError
from azpool.pool import losses, node, outcome, wire
from azpool.pool.generation import ExportCall, Generation, Setup
from azpool.pool.jobs import NodeState
from azpool.pool.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from azpool.pool.engines.base import Death, Engine, NodeKey
    from azpool.pool.namespace import Dumped
    from azpool.pool.wire import Frame

ABSENT = (NodeState.GONE, NodeState.STOPPING, NodeState.WAITING)  # these are sent nothing


class SetupLog:
    """See the module. `on_done` is told when a node that starts has done one step less."""

    def __init__(self, engine: Engine, on_done: Callable[[Generation, NodeKey], None]) -> None:
        self._engine = engine
        self._on_done = on_done
        self._sequence = 0
        self._initializers: list[Dumped] = []

    # -- the log -------------------------------------------------------------------------------

    def add_initializer(self, dumped: Dumped, done: Future[None]) -> bool:
        """Keep a call for every generation, unless `done` fails; False where it is known."""
        if any(known.payload == dumped.payload for known in self._initializers):
            return False
        self._initializers.append(dumped)
        done.add_done_callback(partial(self._initializer_ran, dumped))
        return True

    def _initializer_ran(self, dumped: Dumped, done: Future[None]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._initializers.remove(dumped)

    def begin(self, generation: Generation) -> None:
        """Write the initializers into the log of a new generation.

        Raises:
            PoolError: there are no descriptors, or no memory, for what they need.
        """
        try:
            for dumped in self._initializers:
                self.append(generation, dumped)
        except PoolError:
            generation.release()
            raise

    def append(self, generation: Generation, dumped: Dumped) -> None:
        """Add a call that the nodes have made already; those that start from now on make it too."""
        generation.log.append(self._setup(Kind.SETUP, dumped))

    def _setup(self, kind: int, dumped: Dumped, names: tuple[str, ...] = ()) -> Setup:
        self._sequence += 1
        try:
            message = wire.encode(kind, self._sequence, dumped.payload, dumped.buffers, share=True)
        except OSError as error:
            raise PoolError(
                f"cannot set up the nodes: {error}; free memory or descriptors"
            ) from error
        return Setup(self._sequence, names, message)

    def replay(self, generation: Generation, key: NodeKey) -> None:
        """Send the whole log to a node that starts."""
        generation.setting_up[key] = {setup.number for setup in generation.log}
        for setup in generation.log:
            self._engine.send(key, setup.message)

    # -- a step for all nodes ------------------------------------------------------------------

    def broadcast(
        self,
        generation: Generation,
        kind: int,
        dumped: Dumped,
        values: dict[str, Any],
        done: Future[None],
    ) -> None:
        """Send a step to every node that is there; `done` is set when all have it, or none has.

        Raises:
            PoolError: it can't be sent, or no node starts; nothing was sent.
        """
        if done.cancelled():  # while it was held back
            return
        if generation.scheduler.broken:
            raise losses.pool_broken(generation.failure, generation.failure_cause, -1)
        setup = self._setup(kind, dumped, tuple(values))
        slots = generation.scheduler.nodes
        there = {key for index, key in generation.keys.items() if slots[index].state not in ABSENT}
        generation.log.append(setup)  # a node that starts meanwhile gets it too
        generation.exports[setup.number] = ExportCall(setup, values, there, done)
        for key in there:
            self._engine.send(key, setup.message)
            generation.scheduler.owes(key.node, time.monotonic())
        self._maybe_accept(generation, setup.number)

    def answered(self, generation: Generation, key: NodeKey, frame: Frame) -> None:
        """A node says how a step went."""
        answer = pickle.loads(frame.body)
        error = None
        if answer is not None:
            error = outcome.arrived(*answer).load(item=None, node=key.node)
        call = generation.exports.get(frame.seq)
        if call is not None:
            if error is not None:
                self._take_back(generation, frame.seq, error)
                return
            call.waiting.discard(key)
            self._maybe_accept(generation, frame.seq)
        if not any(key in call.waiting for call in generation.exports.values()):
            generation.scheduler.answered(key.node)
        steps = generation.setting_up.get(key)
        if steps is not None and frame.seq in steps:
            if error is None:
                steps.discard(frame.seq)
                self._on_done(generation, key)
            else:
                generation.failure = f"its set-up failed: {type(error).__name__}: {error}"
                generation.failure_cause = error
                self._engine.kill(key)

    def died(self, generation: Generation, key: NodeKey, death: Death) -> None:
        """A node is gone; the step that it was at is taken back. `goes_on_without` follows."""
        if death.chunk == node.Status.SETTING_UP and death.item in generation.exports:
            self._take_back(generation, death.item, losses.setup_died(key.node, death))

    def goes_on_without(self, generation: Generation, key: NodeKey) -> None:
        """No step waits any more for a node that is gone: what replaces it gets the log."""
        for number in list(generation.exports):
            generation.exports[number].waiting.discard(key)
            self._maybe_accept(generation, number)

    def withdraw(self, generation: Generation, done: Future[None]) -> None:
        """Take a step back for which nobody waits any more, and interrupt nodes that are at it."""
        for number, call in list(generation.exports.items()):
            if call.done is not done:
                continue
            for key in call.waiting:
                # Whoever has not come to it finds it interrupted, and is given no time to end it.
                self._engine.interrupt(key, node.Status.STEP | number)
                chunk, running, _ = self._engine.began(key)
                if (chunk, running) == (node.Status.SETTING_UP, number):
                    generation.scheduler.interrupted(key.node, time.monotonic())
            self._take_back(generation, number, KeyboardInterrupt())

    def _maybe_accept(self, generation: Generation, number: int) -> None:
        call = generation.exports.get(number)
        if call is not None and not call.waiting:
            del generation.exports[number]
            generation.accept(call)
            call.done.set_result(None)

    def _take_back(self, generation: Generation, number: int, error: BaseException) -> None:
        """Take a step back from every node at once, so that no new one is sent it."""
        call = generation.exports.pop(number)
        undo = generation.take_back(call)
        for key in generation.keys.values():
            for message in undo:
                self._engine.send(key, message)
        wire.release(call.setup.message)
        call.done.set_exception(error)
        for key, steps in list(generation.setting_up.items()):
            if number in steps:
                steps.discard(number)
                self._on_done(generation, key)
