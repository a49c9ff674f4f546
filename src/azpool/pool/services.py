"""Services: named handlers in the master that nodes may ask.

Each question is answered on a thread of its own, so a slow answer holds up nobody else, and inside
a handler the pool functions run inline: nodes that wait for an answer can't starve it. A handler
that has to wait returns a `Future`: then no thread waits with it. Besides what `pool.serve` adds,
every pool has the services of the process, by which packages are reached on pools of others.

A thread that has answered waits a little for another question: starting one takes as long as all
the rest of an answer (50 of 100 us on 2 cores, and milliseconds where the cores are busy).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from azpool.errors import PoolError
from azpool.pool import context, everywhere, namespace, outcome, wire

if TYPE_CHECKING:
    from azpool.pool.everywhere import Handler
    from azpool.pool.wire import Frame

__all__ = ["Question", "Reply", "Services", "in_master"]

KEPT = 4  # threads that wait for a question, at most
KEPT_SECONDS = 5.0  # and how long

Reply = Callable[[bytes, list[memoryview]], None]
Question: TypeAlias = "tuple[Frame, Reply]"


class _HandlerRunner:
    """The pool functions of a handler run inline in the master."""

    index = -1
    home = None

    def __init__(self, services: Services | None) -> None:
        self._services = services

    def emit(self, value: Any) -> None:
        raise PoolError("cannot emit a value: a service's handler is not a task")

    def ask(self, name: str, request: Any) -> Any:
        value = (self._services or _NONE).handler(name)(request)
        return value.result() if isinstance(value, Future) else value


def in_master() -> context.running_inline:
    """Run a block as a handler runs: pool functions in it run inline and wait for no node."""
    return context.running_inline(_HandlerRunner(None))


class Services:
    """The handlers of one pool."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handlers: dict[str, Handler] = {}
        self._closed = False
        # As many threads wait as there are idle ones and questions in the queue.
        self._lock = threading.Lock()
        self._idle = 0
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()

    def open(self) -> None:
        """Count as open until `close`."""
        everywhere.opened.add(self)

    def serve(self, name: str, handler: Handler) -> None:
        """Answer questions to `name` with `handler(request)`, from now on."""
        self._handlers[name] = handler

    def handler(self, name: str) -> Handler:
        """Return the handler of a service.

        Raises:
            PoolError: there is none.
        """
        found = self._handlers.get(name) or everywhere.handlers.get(name)
        if found is None:
            raise PoolError(
                f"cannot ask {name!r}: the pool has no such service; pool.serve adds one"
            )
        return found

    def answer(self, frame: Frame, reply: Reply) -> None:
        """Answer a question on a thread that has nothing else to do; returns at once."""
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._questions.put((frame, reply))
                return
        thread = threading.Thread(
            target=self._work, args=((frame, reply),), name=f"{self._name}-service", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads are to be had
            wire.release_fds(frame.fds)
            refusal = PoolError(f"cannot answer: {error}; free memory or threads")
            reply(*outcome.encode_refusal(refusal))

    def _work(self, question: Question | None) -> None:
        while question is not None:
            self.answer_here(*question, wait=False)
            question = None  # nothing is kept alive while the thread waits
            with self._lock:
                if self._closed or self._idle >= KEPT:
                    return
                self._idle += 1
            question = self._next()

    def _next(self) -> Question | None:
        try:
            return self._questions.get(timeout=KEPT_SECONDS)
        except queue.Empty:
            with self._lock:
                if not self._questions.empty():
                    return self._questions.get()
                self._idle -= 1
                return None

    def answer_here(self, frame: Frame, reply: Reply, *, wait: bool = True) -> None:
        """Answer a question in this thread; what a handler puts off is waited for, or not.

        Raises:
            KeyboardInterrupt: Ctrl-C came, in the main thread; there is no answer then.
        """
        try:
            name, request = wire.decode(frame)
            with context.running_inline(_HandlerRunner(self)):
                value = self.handler(name)(request)
            if isinstance(value, Future) and wait:
                value = value.result()
            if isinstance(value, Future):
                value.add_done_callback(partial(self._answer_later, reply))
                return
            payload, buffers = namespace.dumps_plain((True, value))
        except BaseException as error:
            outcome.raise_ctrl_c(error)
            payload, buffers = outcome.encode_refusal(error)
        self._reply(reply, payload, buffers)

    def _answer_later(self, reply: Reply, future: Future[Any]) -> None:
        try:
            payload, buffers = namespace.dumps_plain((True, future.result()))
        except BaseException as error:
            payload, buffers = outcome.encode_refusal(error)
        self._reply(reply, payload, buffers)

    def _reply(self, reply: Reply, payload: bytes, buffers: list[memoryview]) -> None:
        if not self._closed:
            reply(payload, buffers)

    def close(self) -> list[Callable[[], None]]:
        """Answer no more; gives what is to be called now, where this was the last open pool."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._questions.put(None)
            self._idle = 0
        everywhere.opened.discard(self)
        return [] if everywhere.any_open() else list(everywhere.to_call_at_last)


_NONE = Services("azpool")  # of code that runs for no pool in particular
