"""The broker: gives this process's tokens to its nodes and to itself, and signs in for them.

    node -> service "azpool.identity" -> answer -> Book (decides) -> a grant, or a future of one
                                                        |
                                                   one thread a credential that signs in

No question holds a thread while it waits. Only threads of azpool's own touch the book, so Ctrl-C,
which interrupts the main thread, never finds it half changed. Sources are asked inside a runner, so
a credential that uses the pool functions runs them inline and waits for no node.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias

from azpool import _waits
from azpool.errors import NotShared, PoolError
from azpool.identity import registry
from azpool.identity.book import Book, Give, Refuse, Wait
from azpool.identity.failures import portable, retry_after_seconds
from azpool.identity.tokens import Ask, Grant
from azpool.pool import services

if TYPE_CHECKING:
    from azpool.identity.registry import Registration

__all__ = ["Broker", "answer", "ask_here"]

Key: TypeAlias = tuple[str, Ask]


class Broker:
    """The shell around one `Book`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._start()

    def _start(self) -> None:
        # Re-entrant: the collector may run anybody's code in the middle of ours.
        self._lock = threading.RLock()
        self._waiting: dict[tuple[Key, str | None], list[Future[Grant]]] = {}
        self._book = Book()

    def after_fork(self) -> None:
        """In a child: nobody waits, and nobody signs in."""
        book = self._book
        self._start()
        self._book = book
        book.forget_under_way()

    def ask(
        self, registration: Registration, ask: Ask, claims: str | None, had: int
    ) -> Grant | Future[Grant]:
        """Answer at once, or with what will be the answer; never on the main thread.

        Raises:
            Exception: why there is no token, where that is known already.
        """
        key: Key = (registration.handle, ask)
        future: Future[Grant] | None = None
        with self._lock:
            self._forget_the_dead()
            answer = self._book.ask(
                key,
                self._clock(),
                claims=claims,
                had=had,
                lease_seconds=registration.source.lease_seconds,
            )
            if isinstance(answer, Wait):
                future = Future()
                self._waiting.setdefault((key, claims), []).append(future)
        if isinstance(answer, Refuse):
            raise _fresh(answer.error)
        if answer.fetch:
            self._fetch(registration, ask, claims)
        if isinstance(answer, Give):
            return answer.grant
        assert future is not None
        return future.result() if future.done() else future

    def _forget_the_dead(self) -> None:
        while registry.dead_handles:
            self._book.forget(registry.dead_handles.popleft())

    def _fetch(self, registration: Registration, ask: Ask, claims: str | None) -> None:
        """Sign in, on the one thread of this credential if that takes time."""
        if registration.source.immediate:
            self._sign_in(registration, ask, claims)
            return
        with self._lock:
            registration.todo.append((ask, claims))
            if registration.working:
                return
            registration.working = True
        try:
            threading.Thread(
                target=self._work, args=(registration,), name="azpool-sign-in", daemon=True
            ).start()
        except RuntimeError as error:  # no more threads, or the interpreter is on its way out
            self._give_up(registration, error)

    def _work(self, registration: Registration) -> None:
        while True:
            with self._lock:
                if not registration.todo:
                    registration.working = False
                    return
                ask, claims = registration.todo.popleft()
            self._sign_in(registration, ask, claims)

    def _give_up(self, registration: Registration, error: RuntimeError) -> None:
        with self._lock:
            todo = list(registration.todo)
            registration.todo.clear()
            registration.working = False
        for ask, claims in todo:
            failure = PoolError(f"cannot sign in: {error}; try again")
            self._settle(registration, ask, claims, failure, None)

    def _sign_in(self, registration: Registration, ask: Ask, claims: str | None) -> None:
        try:
            with services.in_master():
                token = registration.source.fetch(ask, claims)
        except BaseException as error:
            retry_after = retry_after_seconds(error, self._clock())
            self._settle(registration, ask, claims, portable(error), retry_after)
            return
        key: Key = (registration.handle, ask)
        with self._lock:
            answer = self._book.done(
                key,
                claims,
                token,
                self._clock(),
                lease_seconds=registration.source.lease_seconds,
            )
            waiting = self._waiting.pop((key, claims), ())
        for future in waiting:
            future.set_result(answer.grant)

    def _settle(
        self,
        registration: Registration,
        ask: Ask,
        claims: str | None,
        error: Exception,
        retry_after: float | None,
    ) -> None:
        key: Key = (registration.handle, ask)
        with self._lock:
            answer = self._book.failed(
                key,
                claims,
                error,
                self._clock(),
                retry_after_seconds=retry_after,
                lease_seconds=registration.source.lease_seconds,
            )
            waiting = self._waiting.pop((key, claims), ())
        for future in waiting:
            if isinstance(answer, Give):
                future.set_result(answer.grant)
            else:
                future.set_exception(_fresh(answer.error))

    def answer(self, request: Any) -> Grant | Future[Grant]:
        """Answer a node: the handler of the service."""
        handle, scopes, tenant, cae, claims, had = request
        registration = registry.find(handle)
        if registration is None:
            raise NotShared(
                "cannot use this credential: the master shares it no longer, or it was shared on "
                "another node; share it in the master and keep it there"
            )
        return self.ask(registration, Ask(scopes, tenant, cae), claims, had)


def _fresh(error: BaseException) -> BaseException:
    # Raising adds a traceback to an exception: each who waits gets one of its own.
    return copy.copy(error)


_broker = Broker()
answer = _broker.answer  # the handler of the service
os.register_at_fork(after_in_child=_broker.after_fork)


def ask_here(registration: Registration, ask: Ask, claims: str | None, had: int) -> Grant:
    """Ask this process's own broker and wait for the answer; Ctrl-C ends the wait, nothing else.

    Raises:
        Exception: why there is no token.
    """
    if threading.current_thread() is not threading.main_thread():
        answer = _broker.ask(registration, ask, claims, had)
        return answer.result() if isinstance(answer, Future) else answer
    reply: Future[Grant | Future[Grant]] = Future()

    def work() -> None:
        try:
            reply.set_result(_broker.ask(registration, ask, claims, had))
        except BaseException as error:
            reply.set_exception(error)

    threading.Thread(target=work, name="azpool-ask", daemon=True).start()
    answer = _waits.result(reply)
    return _waits.result(answer) if isinstance(answer, Future) else answer
