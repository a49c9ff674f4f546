"""The inline engine: nodes that are objects of the master's process, for debugging.

They are sent the frames that a process would be sent and answer with the same, so all that
travels is pickled. Each has exports, functions and classes of its own, which stand in their places
while it works. It works when the loop lets it (`step`), in the thread of who waits for the pool.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from azpool.errors import PoolError
from azpool.pool import context, ctrl_c, namespace, node, outcome, wire
from azpool.pool.engines.base import Death, Listener, NodeKey
from azpool.pool.namespace import Classes, exports
from azpool.pool.node import Status
from azpool.pool.randomness import kept
from azpool.pool.wire import Flag, Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpool.pool.services import Services
    from azpool.pool.turns import InlineLoop
    from azpool.pool.wire import Message


class InlineNode(node.Node):
    """One node in the master's process."""

    home: InlineEngine
    _is_running = False

    def __init__(self, key: NodeKey, engine: InlineEngine) -> None:
        super().__init__(key.node, memoryview(bytearray(8 * Status.WORDS)).cast("Q"))
        self.key = key
        self.home = engine
        self.inbox: deque[Frame] = deque()
        self.outbox: list[Message] = []
        self.tokens = 0
        self.dead = False
        self.works = False  # it is on the stack of some thread
        self.ctrl_c: KeyboardInterrupt | None = None
        self.sent_bytes = self.received_bytes = 0
        self._exports: tuple[dict[str, Any], bool] = ({}, False)
        self._classes: Classes | None = Classes()
        self._thread = 0
        self._began_ns = 0
        self._random = kept()

    def work(self, frame: Frame) -> bool:
        """Do what a frame says, as a node does it; False where it was the last one."""
        self._thread = threading.get_ident()
        self._began_ns = time.monotonic_ns()
        with kept() as self._random, context.running_inline(self):
            self._swap()
            try:
                return self.handle(frame)
            finally:
                ctrl_c.hold()  # where a second one ended what the first had interrupted
                self._swap()

    def _swap(self) -> None:
        """Change places: the node's exports and classes with those of the code around it."""
        self._exports = exports.swap(self._exports)
        self._classes = namespace.swap_classes(self._classes)

    def _stand_aside(self) -> None:
        """Give the master its own back while it answers, or take it again.

        Threads of a task can't: the task goes on.
        """
        if threading.get_ident() == self._thread:
            self._random.swap()
            self._swap()

    # -- what a process has of its own ---------------------------------------------------------

    @property
    def _running(self) -> bool:
        return self._is_running

    @_running.setter
    def _running(self, running: bool) -> None:
        """User code begins, or has ended: Ctrl-C is let through to it alone."""
        was, self._is_running = self._is_running, running
        if running and not was:
            ctrl_c.let_go()
        elif was and not running:
            ctrl_c.hold()

    def _set_up(self, frame: Frame, step: Callable[[Any], None]) -> None:
        self._running = True
        try:
            super()._set_up(frame, step)
            self._running = False
        finally:
            self._running = False

    def _send(self, message: Message) -> None:
        if message.parts[0][0] == Kind.RESULT:  # an item that was late is late, though it has ended
            self._status[Status.ITEM] = self._first
            self._status[Status.BEGAN] = self._began_ns
            self.home.check_time()
        self.outbox.append(message)

    def _take_token(self) -> bool:
        if not self.tokens:
            return False
        self.tokens -= 1
        return True

    def _failure(self, error: BaseException, *, skip_frames: int) -> outcome.Failure:
        is_main = threading.current_thread() is threading.main_thread()
        wanted = self._status[Status.INTERRUPT] == self._chunk != 0
        if isinstance(error, KeyboardInterrupt) and is_main and not wanted:
            self.ctrl_c = error
        failure = super()._failure(error, skip_frames=skip_frames)
        outcome.keep_trace(failure, error, skip_frames=skip_frames)
        return failure

    def ask(self, name: str, request: Any) -> Any:
        """Put a question to the master, which answers it in this thread."""
        self._check_not_forked("ask the master")
        payload, buffers = namespace.dumps_plain((name, request))
        question = wire.frame_of(wire.encode(Kind.ASK, 0, payload, buffers))
        answers: list[tuple[bytes, list[memoryview]]] = []
        held = ctrl_c.hold()
        self._stand_aside()
        try:
            ctrl_c.let_go()
            self.home.services.answer_here(question, lambda *answer: answers.append(answer))
            ctrl_c.hold()
        finally:
            ctrl_c.hold()
            self._stand_aside()
            if held:
                ctrl_c.let_go()
        if not answers:
            raise PoolError(f"cannot ask {name!r}: the pool is closed")
        ok, value = wire.decode(wire.frame_of(wire.encode(Kind.REPLY, 0, *answers[0])))
        if not ok:
            raise outcome.Failure(*value).load(item=None, node=self.index)
        return value

    # -- what its engine asks of it ------------------------------------------------------------

    def next_chunk(self) -> Frame | None:
        """Return the first chunk that it was sent and has not begun."""
        return next((frame for frame in list(self.inbox) if frame.kind == Kind.RUN), None)

    def refusal(self, chunk: int) -> list[Message]:
        """Answer a chunk that nobody wants any more, unless it has begun."""
        frame = self.next_chunk()
        if frame is None or frame.seq != chunk:
            return []
        try:
            self.inbox.remove(frame)
        except ValueError:  # another thread was quicker
            return []
        if frame.flags & Flag.QUEUED and not self._take_token():  # the master took it back before
            close_fds(frame)
            return [wire.encode(Kind.SKIPPED, frame.seq, b"")]
        payload, buffers = wire.buffers_of(frame)
        _, mode, first, data, *_ = pickle.loads(payload, buffers=buffers)
        close_fds(frame)
        count = len(data[0]) if mode == node.COLUMNS else len(data)
        head = node.RESULT_HEAD.pack(first, count, 0.0)
        return [wire.encode(Kind.RESULT, frame.seq, head, flags=Flag.LAST)]

    def skip(self, step: int) -> None:
        """Never do a step of the log that was taken back, if it has not begun."""
        for frame in list(self.inbox):
            if frame.kind in (Kind.EXPORT, Kind.SETUP) and frame.seq == step:
                with contextlib.suppress(ValueError):
                    self.inbox.remove(frame)
                    close_fds(frame)

    def end(self) -> None:
        """Take and do nothing more."""
        self.dead = True
        with contextlib.suppress(IndexError):
            while True:
                close_fds(self.inbox.popleft())

    def death(self, exit_code: int, words: str = "", *, verdict: str = "") -> Death:
        """Say how it ends, from its status page."""
        return Death(
            exit_code=exit_code,
            pid=os.getpid(),
            stderr=words,
            chunk=self._status[Status.CHUNK],
            item=self._status[Status.ITEM],
            had_state=bool(self._status[Status.STATE]),
            verdict=verdict,
        )

    def began(self) -> tuple[int, int, float]:
        """Read its status page; a chunk that waits to be asked for begins at this moment."""
        status = self._status
        waiting = None if self.works else self.next_chunk()
        if waiting is not None:
            return waiting.seq, 0, time.monotonic()
        return status[Status.CHUNK], status[Status.ITEM], status[Status.BEGAN] / 1e9

    def interrupt(self, chunk: int) -> None:
        """Write to its status page which chunk is not wanted any more."""
        self._status[Status.INTERRUPT] = chunk

    def forked(self) -> None:
        """In a fork of the master: a task that goes on there ends with its item."""
        self._on_fork()


def close_fds(frame: Frame) -> None:
    """Close the descriptors of a frame that nobody will read."""
    for fd in frame.fds:
        os.close(fd)


class InlineEngine:
    """See the module and `engines.base.Engine`. All but `step` is called while state changes."""

    def __init__(self, loop: InlineLoop, listener: Listener, services: Services) -> None:
        self._loop = loop
        self._listener = listener
        self.services = services
        self._nodes: dict[NodeKey, InlineNode] = {}
        self._order: deque[InlineNode] = deque()  # one entry for each frame that was sent
        loop.step = self.step
        context.inherit()
        namespace.keep_classes_apart()

    # -- the work ------------------------------------------------------------------------------

    def step(self) -> bool:
        """Let one node do one frame, the oldest first; False where none has any.

        Raises:
            KeyboardInterrupt: it came while user code ran; what ran has failed of it.
        """
        found, frame = self._next()
        if found is None or frame is None:
            return False
        code, words = 0, ""
        interrupt: KeyboardInterrupt | None = None
        try:
            alive = found.work(frame)
        except BaseException as error:  # nothing of a task's comes here but a second Ctrl-C
            ctrl_c.hold()
            alive, code, words = False, 1, traceback.format_exc()
            interrupt = error if isinstance(error, KeyboardInterrupt) else None
        found.works = False
        sent, found.outbox = found.outbox, []
        self._loop.call(self._deliver, found, sent)
        outcome.forget_traces()
        if not alive:
            self._loop.call(self._end, found, found.death(code, words))
        interrupt, found.ctrl_c = interrupt or found.ctrl_c, None
        if interrupt is not None:
            raise interrupt
        return True

    def check_time(self) -> None:
        """Do what is due, such as to kill a node whose item passes its deadline."""
        self._loop.call(self._loop.check_time)

    def _next(self) -> tuple[InlineNode | None, Frame | None]:
        passed = []
        try:
            while self._order:
                candidate = self._order.popleft()
                if candidate.works:  # further down on this stack
                    passed.append(candidate)
                    continue
                candidate.works = True
                with contextlib.suppress(IndexError):  # it was taken back
                    return candidate, candidate.inbox.popleft()
                candidate.works = False
        finally:
            self._order.extendleft(reversed(passed))
        return None, None

    def _deliver(self, sender: InlineNode, messages: list[Message]) -> None:
        for message in messages:
            if not sender.dead:
                sender.received_bytes += message.size
                self._listener.on_frame(sender.key, wire.frame_of(message, own=True))

    def _end(self, ended: InlineNode, death: Death) -> None:
        if ended.dead:
            return
        ended.end()
        self._nodes.pop(ended.key, None)
        self._loop.call(self._listener.on_death, ended.key, death)

    # -- the contract --------------------------------------------------------------------------

    def start(self, keys: list[NodeKey]) -> None:
        for key in keys:
            self._nodes[key] = InlineNode(key, self)
            hello = Frame(Kind.HELLO, 0, os.getpid(), b"", 0, ())
            self._loop.call(self._listener.on_frame, key, hello)

    def send(self, key: NodeKey, message: Message, *, own: bool = False) -> None:
        found = self._nodes.get(key)
        if found is None:
            if own:
                wire.release(message)
            return
        try:
            frame = wire.frame_of(message, own=own)
        except OSError as error:  # descriptors have run out
            verdict = f"it could not be sent to: {error}"
            self._end(found, found.death(-signal.SIGKILL, verdict=verdict))
            return
        if frame.kind == Kind.UNEXPORT:
            found.skip(frame.seq)
        found.sent_bytes += message.size
        found.inbox.append(frame)
        self._order.append(found)

    def grant(self, key: NodeKey) -> None:
        found = self._nodes.get(key)
        if found is not None:
            found.tokens += 1

    def revoke(self, key: NodeKey) -> bool:
        found = self._nodes.get(key)
        return found is not None and found._take_token()

    def interrupt(self, key: NodeKey, chunk: int) -> None:
        found = self._nodes.get(key)
        if found is not None:
            found.interrupt(chunk)
            self._loop.call(self._deliver, found, found.refusal(chunk))

    def began(self, key: NodeKey) -> tuple[int, int, float]:
        found = self._nodes.get(key)
        return (0, 0, 0.0) if found is None else found.began()

    def preload(self, modules: list[str]) -> bool:
        return False

    def renew(self) -> None:
        return None

    def is_stale(self) -> bool:
        return False

    def kill(self, key: NodeKey, verdict: str = "") -> None:
        found = self._nodes.get(key)
        if found is not None:
            self._end(found, found.death(-signal.SIGKILL, verdict=verdict))

    def is_stopped(self, key: NodeKey) -> bool:
        return False

    def traffic(self, key: NodeKey) -> tuple[int, int]:
        found = self._nodes.get(key)
        return (0, 0) if found is None else (found.sent_bytes, found.received_bytes)

    def close(self) -> None:
        for found in list(self._nodes.values()):
            found.end()
        self._nodes.clear()
        self._order.clear()

    def forget(self) -> None:
        for found in self._nodes.values():
            found.forked()
