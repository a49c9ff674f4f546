"""The supervisor: the one thread that performs what schedulers decide.

    caller's thread -> Loop.call -> Scheduler (decides) -> here (acts) -> Engine -> nodes
    nodes -> Engine -> here -> Scheduler, Sink -> caller's thread

All state is touched on the loop's thread alone, so Ctrl-C, which reaches the main thread only,
never finds it half changed. Users' code does not run here: it runs in callers' threads, on the
courier, or on the threads of services.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from azpool import _waits, events
from azpool.errors import PoolClosed, PoolError
from azpool.pool import capture, instructions, losses, namespace, node, outcome, wire
from azpool.pool.courier import Courier
from azpool.pool.engines.base import Death, Engine, NodeKey
from azpool.pool.generation import Generation, Shipment, Work
from azpool.pool.guard import Guard, rss_bytes
from azpool.pool.jobs import Job, NodeState, Why
from azpool.pool.loop import Loop
from azpool.pool.preloading import Preloading
from azpool.pool.services import Services
from azpool.pool.setup_log import SetupLog
from azpool.pool.wire import Flag, Frame, Kind

if TYPE_CHECKING:
    from azpool.pool.statistics import NodeFacts
    from azpool.pool.turns import InlineCourier, InlineLoop

_log = logging.getLogger("azpool.pool")

ABORT_SECONDS = 1.0  # the exit of the process waits no longer for its pools
LAST_WORDS_SECONDS = 0.5  # and so long for what nodes said to be shown

MakeEngine = Callable[["Supervisor"], Engine]


class Supervisor:
    """See the module. Public methods may be called from any thread unless they say otherwise."""

    def __init__(
        self, make_engine: MakeEngine, name: str, guard: Guard, loop: Loop | InlineLoop
    ) -> None:
        self.name = name
        self.pid = os.getpid()
        self._loop = loop
        self.courier: Courier | InlineCourier
        self.courier = Courier(f"{name}-courier") if isinstance(loop, Loop) else loop.errands
        self.services = Services(name)
        self.services.open()
        self.closed = threading.Event()
        self.closing = False
        self._stopped_jobs = 0  # by the exit of the process
        self.current: Generation | None = None
        self._generations: dict[int, Generation] = {}
        self._numbers = 0
        self.guard = guard
        try:
            self.engine = self._engine = make_engine(self)
        except BaseException:  # its import found no descriptors
            self._loop.forget()
            raise
        self._log = SetupLog(self._engine, self._maybe_ready)
        self._preloading = Preloading(self._engine, self._replace_all)
        self._loop.due = self._due
        self._loop.is_calm = self._is_calm
        self._loop.is_idle = self._is_idle
        self._loop.light = frozenset((self._submit,))
        self._loop.on_due = self._tick
        self._loop.on_rest = self._rest
        self._loop.on_crash = self._crashed
        self._loop.start(name)

    # -- commands ------------------------------------------------------------------------------

    def on_io_thread(self) -> bool:
        """Whether the caller is the I/O thread, which must never wait for the pool."""
        return self._loop.in_thread

    def command(
        self, function: Callable[..., None], *args: Any, done: Future[Any] | None = None
    ) -> Future[Any]:
        """Run `function(done, *args)` on the loop's thread; it sets the future `done`.

        Who gives one can withdraw the command wherever Ctrl-C comes, also before this returns.
        """
        if self.on_io_thread():
            raise PoolError("cannot wait for the pool on its own I/O thread; use another thread")
        done = done or Future()
        self._loop.call(self._guarded, function, done, args)
        self._loop.run_until(done.done)
        return done

    def _guarded(
        self, function: Callable[..., None], done: Future[Any], args: tuple[Any, ...]
    ) -> None:
        if done.cancelled():  # nobody waits any more
            return
        try:
            if self.closing:
                raise PoolClosed("cannot use this pool: it is closed; make another")
            function(done, *args)
        except Exception as error:
            done.set_exception(error)

    def submit(self, work: Work, shipment: Shipment) -> None:
        """Queue a job; its sink gets the answers."""
        self._loop.call(self._submit, work, shipment)

    def run_until(self, condition: Callable[[], object], ends_at: float | None = None) -> bool:
        """Where no thread does it, do the pool's work until `condition()` holds; see the loop's.

        To be called before each wait. True where the work took longer than until `ends_at`.
        """
        return self._loop.lead_until(condition, ends_at)

    def extend(self, work: Work, count: int, *, seal: bool) -> None:
        """Add items to a job over a stream; its arguments have them by now."""
        self._loop.call(partial(self._extend, work, count, seal=seal))

    def cancel(self, work: Work) -> None:
        """Drop what has not begun of a job and interrupt the rest."""
        self._loop.call(self._cancel, work)

    def hurry(self, work: Work) -> None:
        """Kill what still runs of a cancelled job."""
        self._loop.call(self._hurry, work)

    def reset(self, size: int, *, done: Future[None] | None = None) -> Future[None]:
        """Make a new generation; done when all its nodes have answered and new calls go to it."""
        return self.command(self._reset, size, done=done)

    def resize(self, size: int, *, done: Future[None] | None = None) -> Future[None]:
        """Have `size` nodes; done when new ones have answered, before others have drained."""
        return self.command(self._resize, size, done=done)

    def export(
        self,
        values: dict[str, Any],
        dumped: namespace.Dumped,
        *,
        done: Future[None] | None = None,
    ) -> Future[None]:
        """Send variables to every node, or to none: done when every node has them."""
        return self.command(self._export, values, dumped, done=done)

    def add_initializer(
        self, dumped: namespace.Dumped, *, done: Future[None] | None = None
    ) -> Future[None]:
        """Run a call on every node, now and whenever one starts; the same one is added once."""
        return self.command(self._add_initializer, dumped, done=done)

    def log_call(self, dumped: namespace.Dumped) -> Future[None]:
        """Run a call on every node that starts from now on, until the next reset."""
        return self.command(self._log_call, dumped)

    def facts(self) -> Future[list[NodeFacts]]:
        """Take down what is known of each node."""
        return self.command(self._facts)

    def withdraw(self, done: Future[None]) -> None:
        """Take back a reset, a resize or an export that has not come about: nobody waits for it."""
        self._loop.call(self._withdraw, done)

    def renew(self) -> Future[None]:
        """Start the nodes to come from a new zygote."""
        return self.command(self._renew)

    def close(self, *, cancel_pending: bool = False, cancel_running: bool = False) -> None:
        """Begin to close: no new work; `closed` is set when the last node is gone."""
        self._loop.call(
            partial(self._close, cancel_pending=cancel_pending, cancel_running=cancel_running)
        )

    def wait_closed(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the last node is gone; False when the time has passed."""
        ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._loop.run_until(self.closed.is_set, ends_at)
        return _waits.wait(self.closed.wait, timeout_seconds)

    def join(self) -> None:
        """Wait until the last node, the zygote and the I/O thread are gone."""
        self.wait_closed()
        thread = self._loop.thread
        if thread is not None:
            _waits.wait(partial(_ends, thread))
        self.courier.close(1.0)

    def abort(self) -> int:
        """Kill everything, at the exit of the process; returns how many jobs were unfinished."""
        stopped: Future[int] = Future()
        self._loop.call(self._abort, stopped)
        try:
            return stopped.result(ABORT_SECONDS)
        except TimeoutError:  # what ends with the process anyway may take longer to end
            return self._stopped_jobs
        finally:
            self.courier.close(LAST_WORDS_SECONDS)

    def forget(self) -> None:
        """In a fork of the master: free the copies of the parent's descriptors."""
        self.closing = True
        self.closed.set()
        self._generations.clear()
        self._loop.forget()
        self._engine.forget()

    # -- performing ----------------------------------------------------------------------------

    def _due(self) -> float:
        generations = self._generations.values()
        return min((g.scheduler.wake_at for g in generations), default=math.inf)

    def _is_calm(self) -> bool:
        """Whether one call at a time goes to the nodes and back; the next may be about to come."""
        current = self.current
        if current is None:
            return False
        jobs = current.scheduler.jobs
        return not jobs or (len(jobs) == 1 and next(iter(jobs)).size == 1)

    def _is_idle(self) -> bool:
        return not any(each.scheduler.jobs for each in self._generations.values())

    def _tick(self) -> None:
        now = time.monotonic()
        for generation in list(self._generations.values()):
            if generation.scheduler.wake_at <= now:
                generation.scheduler.tick(now)
                self._perform(generation)

    def _rest(self) -> None:
        now = time.monotonic()
        for generation in list(self._generations.values()):
            generation.scheduler.rest(now)
            if generation.scheduler.out:
                self._perform(generation)

    def _perform(self, generation: Generation, death: Death | None = None) -> None:
        """Do what the scheduler says until it says nothing more."""
        engine = self._engine
        starting: list[NodeKey] = []
        while generation.scheduler.out:
            for step in generation.scheduler.take():
                if type(step) is instructions.Send:
                    self._send(generation, step)
                    continue
                match step:
                    case instructions.Finished():
                        self._finished(generation, step.job)
                    case instructions.Start():
                        key = NodeKey(generation.number, step.node, step.incarnation)
                        generation.keys[step.node] = key
                        starting.append(key)
                    case instructions.Lost():
                        self._lose(generation, step, death)
                    case instructions.Revoke():
                        done = engine.revoke(generation.keys[step.node])
                        now = time.monotonic()
                        generation.scheduler.revoked(step.node, step.chunk, now, done=done)
                    case instructions.Check():
                        chunk, item, at = engine.began(generation.keys[step.node])
                        now = time.monotonic()
                        generation.scheduler.began(step.node, chunk, item, at, now)
                    case instructions.Interrupt():
                        engine.interrupt(generation.keys[step.node], step.seq)
                    case instructions.Kill():
                        engine.kill(generation.keys[step.node], step.reason)
                    case instructions.Look():
                        key = generation.keys[step.node]
                        chunk, _, _ = engine.began(key)
                        stopped = engine.is_stopped(key)
                        now = time.monotonic()
                        generation.scheduler.looked(step.node, chunk, now, stopped=stopped)
                    case instructions.Stop():
                        engine.send(generation.keys[step.node], wire.encode(Kind.BYE, 0, b""))
                    case instructions.Broken():
                        self._broken(generation)
                    case instructions.Refused():
                        self._refused(generation, step.size)
        if starting:
            self._loop.on_thread(self._start, generation, starting)
        if generation.scheduler.closing or generation.retired:
            self._maybe_gone(generation)

    def _start(self, generation: Generation, keys: list[NodeKey]) -> None:
        # On the I/O thread: what starts nodes dies with the thread that started it.
        self._engine.start(keys)
        for key in keys:
            self._log.replay(generation, key)

    def _send(self, generation: Generation, step: instructions.Send) -> None:
        chunk = step.chunk
        work = chunk.job
        assert isinstance(work, Work)
        assert work.record is not None
        if not work.sink.begin():
            generation.scheduler.unsent(step.node, chunk, time.monotonic())
            return
        key = generation.keys[step.node]
        if generation.is_news(key, work.function):
            self._engine.send(key, work.record.message)
        data, buffers = work.arguments.chunk(chunk.start, chunk.stop)
        timed = work.deadline_seconds is not None
        head = (work.function, work.arguments.mode, chunk.start, data, timed, work.seed)
        try:
            payload = pickle.dumps(head, protocol=5)
            flags = Flag.QUEUED if step.queued else 0
            message = wire.encode(Kind.RUN, chunk.seq, payload, buffers, flags=flags, share=True)
        except OSError as error:
            generation.scheduler.unsent(step.node, chunk, time.monotonic())
            failed = PoolError(f"cannot send arguments: {error}; free memory or descriptors")
            failed.__cause__ = error
            work.sink.lose(chunk.start, chunk.stop, lambda item: failed)
            return
        if step.queued:
            self._engine.grant(key)
        self._engine.send(key, message, own=True)

    def _finished(self, generation: Generation, job: Job) -> None:
        assert isinstance(job, Work)
        if job.record is not None:
            job.record.uses -= 1
            job.record.mean_seconds = job.mean_seconds
            for record, knowing in generation.unused_functions() if generation.crowded else ():
                for key in knowing:
                    self._engine.send(key, wire.encode(Kind.FORGET, record.number, b""))
        job.sink.finish()

    def _lose(self, generation: Generation, lost: instructions.Lost, death: Death | None) -> None:
        assert isinstance(lost.job, Work)
        lost.job.arguments.forget(lost.start, lost.stop)
        if lost.why is Why.DIED and death is not None:
            make: Callable[[int], BaseException] = partial(losses.node_died, lost.node, death)
        elif lost.why is Why.UNBEGUN and death is not None:
            make = partial(losses.never_begun, lost.node, death)
        elif lost.why is Why.DEADLINE:
            make = partial(losses.timed_out, lost.node, lost.job.deadline_seconds or 0.0)
        elif lost.why is Why.BROKEN:
            broken = generation.scheduler.broken
            make_error = losses.pool_broken if broken else losses.no_node_starts
            make = partial(make_error, generation.failure, generation.failure_cause)
        elif lost.why is Why.GONE:
            make = partial(losses.no_node, lost.node)
        else:
            make = losses.cancelled
        lost.job.sink.lose(lost.start, lost.stop, make)
        self._loop.at_end(lost.job.sink.notify)

    def _broken(self, generation: Generation) -> None:
        reason, cause = generation.failure, generation.failure_cause
        replaces = self.current is not None and generation is not self.current
        error = (
            losses.not_reset(reason, cause) if replaces else losses.pool_broken(reason, cause, -1)
        )
        generation.refuse(error)
        if generation is not self.current:
            self._retire(generation)

    def _refused(self, generation: Generation, size: int) -> None:
        """The nodes to be added do not start, or are not wanted any more."""
        generation.size = size
        generation.refuse(losses.not_added(generation.failure, generation.failure_cause, size))

    def _maybe_gone(self, generation: Generation) -> None:
        slots = generation.scheduler.nodes.values()
        if any(slot.state is not NodeState.GONE for slot in slots):
            return
        if self._generations.pop(generation.number, None) is None:
            return
        generation.release(losses.closed_meanwhile() if self.closing else None)
        if self.closing and not self._generations:
            self._finish_closing()

    # -- commands, on the loop's thread --------------------------------------------------------

    def _submit(self, work: Work, shipment: Shipment) -> None:
        generation = self.current
        if work.cancelled:
            return
        if self.closing or generation is None:
            work.sink.lose(0, work.size, losses.closed)
            work.sink.finish()
            return
        if generation.pristine or generation.held is not None:
            modules = shipment.modules | work.arguments.modules
            admit = partial(self._admit, generation, work, shipment)
            if self._preloading.holds(generation, modules, work, admit):
                return
        self._admit(generation, work, shipment)

    def _admit(self, generation: Generation, work: Work, shipment: Shipment) -> None:
        if work.pinned is not None and work.pinned not in generation.keys:
            work.sink.lose(0, work.size, partial(losses.no_node, work.pinned))
            work.sink.finish()
            return
        try:
            work.record = generation.function(shipment)
        except OSError as error:
            text = f"cannot send the function: {error}; free memory or descriptors"
            work.sink.lose(0, work.size, lambda item: PoolError(text))
            work.sink.finish()
            return
        work.function = work.record.number
        work.record.uses += 1
        work.mean_seconds = work.record.mean_seconds
        work.generation = generation
        generation.scheduler.submit(work, time.monotonic())
        self._perform(generation)

    def _extend(self, work: Work, count: int, *, seal: bool) -> None:
        for generation in self._generations.values():
            if generation.hold(work, partial(self._extend, work, count, seal=seal)):
                return
        if work.generation is not None:
            work.item_bytes = work.arguments.item_bytes
            work.generation.scheduler.extend(work, count, time.monotonic(), seal=seal)
            self._perform(work.generation)

    def _cancel(self, work: Work) -> None:
        for generation in self._generations.values():
            if generation.drop_held(work):
                work.cancelled = True
                work.sink.finish()
                return
        if work.generation is None:  # it has not come yet: it comes to nothing
            work.cancelled = True
            work.sink.finish()
        else:
            work.generation.scheduler.cancel(work, time.monotonic())
            self._perform(work.generation)

    def _hurry(self, work: Work) -> None:
        if work.generation is not None and not work.finished:
            work.generation.scheduler.hurry(work)
            self._perform(work.generation)

    def _reset(self, done: Future[None], size: int) -> None:
        if self._engine.is_stale():
            self._engine.renew()
        self._numbers += 1
        generation = Generation(self._numbers)
        generation.scheduler.max_items_per_node = self.guard.max_items_per_node
        generation.scheduler.cores = len(os.sched_getaffinity(0))
        self._log.begin(generation)
        self._generations[generation.number] = generation
        self._set_size(generation, size, done)

    def _resize(self, done: Future[None], size: int) -> None:
        generation = self.current
        assert generation is not None
        self._set_size(generation, size, done)

    def _set_size(self, generation: Generation, size: int, done: Future[None]) -> None:
        generation.size = size
        generation.waiting.append((size, done))
        generation.scheduler.resize(size, time.monotonic())
        self._perform(generation)
        self._check_waiting(generation)

    def _check_waiting(self, generation: Generation) -> None:
        """Tell those who wait for nodes to answer; a new generation takes over then."""
        for size, done in list(generation.waiting):
            if generation.scheduler.ready(min(size, generation.size)):
                generation.waiting.remove((size, done))
                self._switch_to(generation)
                done.set_result(None)

    def _withdraw(self, done: Future[None]) -> None:
        now = time.monotonic()
        for generation in list(self._generations.values()):
            if any(waiting is done for _, waiting in generation.waiting):
                generation.failure, generation.failure_cause = "it was interrupted", None
                if generation is self.current:
                    generation.scheduler.take_back_growth(now)
                    self._perform(generation)
                else:
                    generation.refuse(KeyboardInterrupt())
                    self._retire(generation)
            self._log.withdraw(generation, done)
        if not done.done():
            done.cancel()  # it is held back until modules are imported: then it comes to nothing

    def _renew(self, done: Future[None]) -> None:
        self._engine.renew()
        done.set_result(None)

    def _export(self, done: Future[None], values: dict[str, Any], dumped: namespace.Dumped) -> None:
        self._log_step(done, Kind.EXPORT, dumped, values)

    def _add_initializer(self, done: Future[None], dumped: namespace.Dumped) -> None:
        if not self._log.add_initializer(dumped, done):
            done.set_result(None)
        elif self.current is None:  # no node is there yet: they start with what it imports
            self._preloading.ahead(dumped.modules)
            done.set_result(None)
        else:
            self._log_step(done, Kind.SETUP, dumped, {})

    def _log_call(self, done: Future[None], dumped: namespace.Dumped) -> None:
        assert self.current is not None
        self._log.append(self.current, dumped)
        done.set_result(None)

    def _log_step(
        self, done: Future[None], kind: int, dumped: namespace.Dumped, values: dict[str, Any]
    ) -> None:
        """Have every node do a step of the log, after what the first calls import is there."""
        generation = self.current
        assert generation is not None
        step = partial(self._log.broadcast, generation, kind, dumped, values)
        if generation.pristine or generation.held is not None:
            later = partial(self._guarded, step, done, ())
            if self._preloading.holds(generation, dumped.modules, None, later):
                return
        step(done)

    def _retire(self, generation: Generation) -> None:
        self._preloading.retire(generation)
        generation.retired = True
        generation.scheduler.close()
        self._perform(generation)

    def _close(self, *, cancel_pending: bool, cancel_running: bool) -> None:
        now = time.monotonic()
        self.closing = True
        for generation in list(self._generations.values()):
            self._preloading.release(generation)
            for job in list(generation.scheduler.jobs):
                if cancel_running or (cancel_pending and not job.outstanding):
                    assert isinstance(job, Work)
                    generation.scheduler.cancel(job, now)
                    job.sink.finish()
                elif cancel_pending:
                    generation.scheduler.drop(job, Why.CANCELLED)
            generation.refuse(PoolClosed("the pool was closed while it started"))
            generation.scheduler.seal()
            generation.scheduler.close()
            self._perform(generation)
        if not self._generations:
            self._finish_closing()

    def _abort(self, stopped: Future[int]) -> None:
        generations = self._generations.values()
        jobs = sum(not job.cancelled for each in generations for job in each.scheduler.jobs)
        jobs += sum(len(each.held_jobs()) for each in generations)
        self._stopped_jobs = jobs  # closing waits for the zygote, and who waits here may tire of it
        self._finish_closing()
        stopped.set_result(jobs)

    def _crashed(self) -> None:
        """The I/O thread failed: whoever waits gets an error, and no process stays behind."""
        self.closing = True
        for generation in self._generations.values():
            generation.refuse(PoolClosed("the pool's I/O thread failed; see the log"))
        self._finish_closing()

    def _finish_closing(self) -> None:
        if self.closed.is_set():
            return
        self.closing = True
        self._engine.close()
        for generation in self._generations.values():
            for job in list(generation.scheduler.jobs):
                assert isinstance(job, Work)
                if not job.finished:
                    job.sink.lose(0, job.size, losses.closed)
                    job.sink.finish()
            for work, step in generation.held or ():
                if work is None:
                    step()  # it says that the pool is closed
                else:
                    work.sink.lose(0, work.size, losses.closed)
                    work.sink.finish()
            generation.refuse(losses.closed(-1))
            generation.release(losses.closed_meanwhile())
        self._generations.clear()
        for call in self.services.close():  # may let go of users' objects: not on this thread
            self.courier.run(call)
        self.courier.run(events.publish, events.PoolStopped()) if events.active() else None
        self.courier.close(0.0)  # it ends when its errands are done: nobody may come to wait for it
        self._loop.stop()
        self.closed.set()

    # -- what engines say ----------------------------------------------------------------------

    def on_frame(self, key: NodeKey, frame: Frame) -> None:
        """Handle one frame of one node."""
        generation = self._generations.get(key.generation)
        if generation is None or generation.keys.get(key.node) != key:
            return
        kind = frame.kind
        if kind == Kind.RESULT:
            self._on_result(generation, key, frame)
        elif kind == Kind.HELLO:
            self._on_hello(generation, key, frame.seq)
        elif kind == Kind.EMIT:
            self._on_emit(generation, key, frame)
        elif kind == Kind.ASK:
            reply = partial(self._loop.call, self._reply, key, frame.seq)
            self.services.answer(frame, reply)
        elif kind == Kind.OUTPUT:
            text = bytes(frame.body).decode("utf-8", "replace")
            self.courier.run(capture.print_lines, key.node, frame.seq, text)
        elif kind in (Kind.LOGGED, Kind.WARNED):
            self.courier.run(capture.receive, key.node, kind, frame.body)
        elif kind == Kind.SKIPPED:
            generation.scheduler.skipped(key.node, frame.seq, time.monotonic())
            self._perform(generation)
        elif kind == Kind.EXPORTED:
            self._log.answered(generation, key, frame)

    def _on_result(self, generation: Generation, key: NodeKey, frame: Frame) -> None:
        payload, buffers = wire.buffers_of(frame)
        first, count, seconds = node.RESULT_HEAD.unpack_from(payload)
        last = bool(frame.flags & Flag.LAST)
        now = time.monotonic()
        chunk = generation.scheduler.results(key.node, frame.seq, count, last=last, seconds=seconds)
        if chunk is None:
            return
        work = chunk.job
        assert isinstance(work, Work)
        if not work.cancelled and count:
            plain = bool(frame.flags & Flag.PLAIN)
            values = outcome.decode_batch(payload[node.RESULT_HEAD.size :], buffers, plain=plain)
            if work.retries and any(type(value) is outcome.Failure for value in values):
                self._deliver_some(generation, work, first, values, key.node, now)
            else:
                work.sink.deliver(first, values, key.node, plain=plain)
                self._loop.at_end(work.sink.notify)
                work.arguments.forget(first, first + count)
        generation.scheduler.settle(key.node, chunk, now, last=last)
        limit = self.guard.max_node_rss_bytes
        if last and limit is not None and rss_bytes(generation.pids.get(key, 0)) > limit:
            generation.scheduler.recycle(key.node, now)
        self._perform(generation)

    def _facts(self, done: Future[list[NodeFacts]]) -> None:
        from azpool.pool.statistics import NodeFacts

        generation = self.current
        assert generation is not None
        facts = []
        for index in range(generation.size):
            slot, key = generation.scheduler.nodes[index], generation.keys[index]
            running = slot.chunks[0].seq if slot.chunks else 0
            chunk, _, since = self._engine.began(key) if running else (0, 0, 0.0)
            now_busy = time.monotonic() - since if chunk == running and since else 0.0
            facts.append(
                NodeFacts(
                    index=index,
                    pid=generation.pids.get(key, 0),
                    incarnation=slot.incarnation,
                    state="busy" if running and slot.state is NodeState.READY else slot.state.value,
                    items=slot.items + slot.items_before,
                    busy_seconds=slot.busy_seconds + now_busy,
                    traffic=self._engine.traffic(key),
                )
            )
        done.set_result(facts)

    def _deliver_some(
        self,
        generation: Generation,
        work: Work,
        first: int,
        values: list[Any],
        index: int,
        now: float,
    ) -> None:
        """Deliver answers one by one, but not those of items that are tried again."""
        for offset, value in enumerate(values):
            item = first + offset
            if type(value) is outcome.Failure and generation.scheduler.retry(work, item, now):
                continue
            work.sink.deliver(item, [value], index)
            self._loop.at_end(work.sink.notify)
            work.arguments.forget(item, item + 1)

    def _on_hello(self, generation: Generation, key: NodeKey, pid: int) -> None:
        generation.pids[key] = pid
        generation.said_hello.add(key)
        generation.scheduler.greeted(key.node)
        if events.active():
            self._publish(events.NodeStarted(node=key.node, incarnation=key.incarnation, pid=pid))
        self._maybe_ready(generation, key)

    def _maybe_ready(self, generation: Generation, key: NodeKey) -> None:
        """A node takes part when it has answered and has done every step of the log."""
        if key in generation.said_hello and not generation.setting_up.get(key):
            generation.setting_up.pop(key, None)
            generation.scheduler.hello(key.node, time.monotonic())
            self._check_waiting(generation)
            self._perform(generation)

    def _switch_to(self, generation: Generation) -> None:
        old = self.current
        if old is generation:
            return
        if old is not None and old.number > generation.number:  # a later reset was quicker
            self._retire(generation)
            return
        self.current = generation
        if old is not None:
            for size, done in old.waiting:  # they wait for nodes of the pool's, whichever
                self._loop.call(self._guarded, self._resize, done, (size,))
            old.waiting.clear()
            self._retire(old)

    def _on_emit(self, generation: Generation, key: NodeKey, frame: Frame) -> None:
        slot = generation.scheduler.nodes[key.node]
        if slot.chunks and slot.chunks[0].seq == frame.seq:
            payload, buffers = wire.buffers_of(frame)
            (item,) = node.EMIT_HEAD.unpack_from(payload)
            work = slot.chunks[0].job
            assert isinstance(work, Work)
            rest = payload[node.EMIT_HEAD.size :]
            work.sink.emitted(item, lambda: pickle.loads(rest, buffers=buffers))
            self._loop.at_end(work.sink.notify)

    def _reply(self, key: NodeKey, number: int, payload: bytes, buffers: list[memoryview]) -> None:
        try:
            message = wire.encode(Kind.REPLY, number, payload, buffers, share=True)
        except OSError as error:
            failed = PoolError(f"cannot send the answer: {error}; free memory or descriptors")
            message = wire.encode(Kind.REPLY, number, *outcome.encode_refusal(failed))
        self._engine.send(key, message, own=True)

    def on_preloaded(self, seconds: float, said: str) -> None:
        """Modules are there for the nodes to come: nodes that held nothing are replaced by such."""
        if said:
            self.courier.run(capture.print_tagged, "zygote", 2, said)
        for generation in list(self._generations.values()):
            self._preloading.preloaded(generation, seconds)

    def _replace_all(self, generation: Generation, then: Callable[[], None]) -> None:
        """Replace every node by a fresh one, and make a call when they are there."""
        for index in list(generation.scheduler.nodes):
            generation.scheduler.recycle(index, time.monotonic())
        self._perform(generation)
        replaced: Future[None] = Future()
        replaced.add_done_callback(lambda _: None if self.closing else then())
        generation.waiting.append((generation.size, replaced))
        self._check_waiting(generation)

    def on_output(self, key: NodeKey, text: str) -> None:
        """Show what was written below Python, by C code or a subprocess."""
        self.courier.run(capture.print_lines, key.node, 2, text)

    def on_born(self, key: NodeKey) -> None:
        """A node's process is there."""
        generation = self._generations.get(key.generation)
        if generation is not None and generation.keys.get(key.node) == key:
            generation.scheduler.born(key.node, key.incarnation, time.monotonic())

    def on_unborn(self, key: NodeKey, reason: str) -> None:
        """A node could not be started."""
        generation = self._generations.get(key.generation)
        if generation is not None and generation.keys.get(key.node) == key:
            generation.failure, generation.failure_cause = reason, None
            generation.forget_node(key)
            generation.scheduler.unborn(key.node, key.incarnation, time.monotonic())
            slot = generation.scheduler.nodes[key.node]
            if slot.state is NodeState.WAITING and slot.tries == 1:
                text = "cannot start node %d: %s; it is tried again until it can be"
                self.courier.run(_log.warning, text, key.node, reason)
            self._perform(generation)
            self._log.goes_on_without(generation, key)

    def on_death(self, key: NodeKey, death: Death) -> None:
        """A node is gone."""
        generation = self._generations.get(key.generation)
        if generation is None or generation.keys.get(key.node) != key:
            return
        slot = generation.scheduler.nodes[key.node]
        if slot.state is NodeState.STARTING and generation.failure_cause is None:
            generation.failure = (
                f"a node ended at its start ({losses.how_it_ended(death)}) {death.stderr}"
            )
        if events.active() and slot.state is not NodeState.STOPPING:
            self._publish(
                events.NodeEnded(
                    node=key.node,
                    incarnation=key.incarnation,
                    pid=death.pid,
                    exit_code=death.exit_code,
                    stderr=death.stderr,
                )
            )
        if death.had_state and (slot.state is NodeState.READY or slot.revive):
            self.courier.run(_tell_state_lost, key.node)
        generation.forget_node(key)
        self._log.died(generation, key, death)
        now = time.monotonic()
        generation.scheduler.died(key.node, key.incarnation, now, death.chunk, death.item)
        self._perform(generation, death)
        self._log.goes_on_without(generation, key)

    def _publish(self, event: events.Event) -> None:
        self.courier.run(events.publish, event)


def _ends(thread: threading.Thread, seconds: float | None) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


def _tell_state_lost(node_index: int) -> None:
    events.publish(events.StateLost(node=node_index))
    try:
        warnings.warn(
            f"node {node_index} was replaced and had state that was not exported: what pool_evalq"
            " or azpool.exports had set there is gone; replay=True brings such state back",
            RuntimeWarning,
            stacklevel=1,
        )
    except RuntimeWarning as warning:  # a filter makes errors of warnings; nobody could catch it
        _log.warning("%s", warning)
