"""Services: named handlers in the master that nodes may ask.

Each question is answered on a thread of its own, so a slow answer holds up nobody else, and inside
a handler the pool functions run inline: nodes that wait for an answer can't starve it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azpool.errors import PoolError
from azpool.pool import context, namespace, outcome, wire

if TYPE_CHECKING:
    from azpool.pool.wire import Frame

Handler = Callable[[Any], Any]
Reply = Callable[[bytes, list[memoryview]], None]


class _HandlerRunner:
    """The pool functions of a handler run inline in the master."""

    index = -1

    def __init__(self, services: Services) -> None:
        self._services = services

    def emit(self, value: Any) -> None:
        raise PoolError("cannot emit a value: a service's handler is not a task")

    def ask(self, name: str, request: Any) -> Any:
        return self._services.handler(name)(request)


class Services:
    """The handlers of one pool."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handlers: dict[str, Handler] = {}
        self._closed = False

    def serve(self, name: str, handler: Handler) -> None:
        """Answer questions to `name` with `handler(request)`, from now on."""
        self._handlers[name] = handler

    def handler(self, name: str) -> Handler:
        """Return the handler of a service.

        Raises:
            PoolError: there is none.
        """
        try:
            return self._handlers[name]
        except KeyError:
            raise PoolError(
                f"cannot ask {name!r}: the pool has no such service; pool.serve adds one"
            ) from None

    def answer(self, frame: Frame, reply: Reply) -> None:
        """Answer a question on a new thread; returns at once."""
        thread = threading.Thread(
            target=self._answer, args=(frame, reply), name=f"{self._name}-service", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads are to be had
            reply(*_failed(PoolError(f"cannot answer: {error}; free memory or threads")))

    def _answer(self, frame: Frame, reply: Reply) -> None:
        try:
            name, request = wire.decode(frame)
            with context.running_inline(_HandlerRunner(self)):
                value = self.handler(name)(request)
            payload, buffers = namespace.dumps_plain((True, value))
        except BaseException as error:
            payload, buffers = _failed(error)
        if not self._closed:
            reply(payload, buffers)

    def close(self) -> None:
        """Answer no more."""
        self._closed = True


def _failed(error: BaseException) -> tuple[bytes, list[memoryview]]:
    failed = outcome.encode_error(error, skip_frames=1)
    words = (failed.payload, failed.type_name, failed.text, failed.traceback)
    return namespace.dumps_plain((False, words))
