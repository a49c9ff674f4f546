"""Does what a plan says, on the nodes of a pool.

    Plan -> procedures -> the loop (_running, _gathering) -> bundles -> nodes -> answers -> report

The caller's thread does all of it: it sleeps until a bundle is answered or something is due. No
thread of a node waits for anything but answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from azpool.fleet import _gathering, _running
from azpool.fleet.calls import Answer, Call, Procedure
from azpool.fleet.journal import Journal

if TYPE_CHECKING:
    from azpool.fleet.budget import Budget
    from azpool.fleet.outcome import FleetReport
    from azpool.fleet.plan import Plan
    from azpool.fleet.progress import ProgressCallable

__all__ = ["Nodes", "Performer", "gather", "resume", "run"]

T = TypeVar("T")

Performer: TypeAlias = Callable[[list[Call]], list[Answer]]
"""Sends a bundle of calls at once and answers each, in order; runs on a node, so it pickles."""


class Nodes(Protocol):
    """What is needed of whatever runs the bundles: a `Pool`, or what looks like one."""

    @property
    def size(self) -> int: ...

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]: ...


def run(
    plan: Plan,
    *,
    performer: Performer,
    pool: Nodes,
    timeout_seconds: float | None = None,
    max_failures: int | str | None = None,
    progress: ProgressCallable | None = None,
    journal: str | None = None,
    client: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
) -> FleetReport:
    """Do what a plan says and report on each instance; blocks.

    Args:
        plan: of `make_plan`; it says whether to wait for the end, and how many at a time.
        performer: sends calls, on a node: `functools.partial(_arm.perform, recipe)`.
        pool: whose nodes; `Pool(1, engine="inline")` is serial.
        timeout_seconds: nothing is sent or waited for after it; None waits as long as it takes.
        max_failures: how many instances may end badly (`failed`, `throttled` or `unknown`), or
            which share (`"10%"`) of them, before nothing new is begun; what is under way is seen to
            its end, the rest is `skipped`.
        progress: called with a `FleetProgress` some ten times a second, in this thread.
        journal: the path of the file that `resume` goes on with, kept while something is left to
            be told; None writes none.
        client: what the journal has to keep of the client, plain and without secrets, for `resume`
            to give back.
        budget: what is known of the budgets; operations of one principal share it.

    Raises:
        FleetInterrupted: Ctrl-C; it has the report.
        UsageError: an argument makes no sense; nothing was sent.
        PoolError: the pool itself failed; the journal is kept.
    """
    _running.allowed_failures(max_failures, len(plan))  # refused before there is a journal
    book = None if journal is None else Journal.begin(journal, plan, client or {})
    try:
        return _running.run(
            plan,
            performer=performer,
            pool=pool,
            timeout_seconds=timeout_seconds,
            max_failures=max_failures,
            progress=progress,
            budget=budget,
            journal=book,
        )
    finally:
        if book is not None:
            book.close(keep=True)


def resume(
    journal: str,
    *,
    performer: Callable[[Mapping[str, Any]], Performer],
    pool: Nodes,
    secrets: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    max_failures: int | str | None = None,
    progress: ProgressCallable | None = None,
    budget: Budget | None = None,
) -> FleetReport:
    """Go on with an operation whose master ended, and report on each instance; blocks.

    What ended keeps its outcome; what is under way is asked for where the service said; what was
    never intended is sent. What was intended but not answered is judged by the machine's state, and
    nothing is sent for it again.

    Args:
        journal: the path of its file.
        performer: given what `run` was given as `client`, makes what sends calls.
        pool: as of `run`.
        secrets: those of the operation, which no journal holds, by name: protected parameters. What
            would need one that isn't given is `skipped`.
        timeout_seconds: as of `run`, as what follows.
        max_failures: as of `run`, of those that end badly from now on.
        progress: called as it goes on.
        budget: what is known of the budgets.

    Raises:
        UsageError: there is no such journal.
        LocalFileError: it is damaged, of another version, or another process works on it.
    """
    book, past = Journal.open(journal, secrets)
    try:
        return _running.run(
            past.plan,
            performer=performer(past.client),
            pool=pool,
            timeout_seconds=timeout_seconds,
            max_failures=max_failures,
            progress=progress,
            budget=budget,
            journal=book,
            past=past,
        )
    finally:
        book.close(keep=True)


def gather(
    procedures: Sequence[Procedure[T]],
    *,
    performer: Performer,
    pool: Nodes,
    timeout_seconds: float | None = None,
    budget: Budget | None = None,
) -> list[T]:
    """Run procedures that only read, at once, and answer what each returned, in order; blocks.

    Budgets, Retry-After and repeats are as in `run`.

    Raises:
        FleetError: not all ended within `timeout_seconds`.
        Exception: what a procedure raised, the first in order.
        KeyboardInterrupt: Ctrl-C.
    """
    return _gathering.gather(
        procedures,
        performer=performer,
        pool=pool,
        timeout_seconds=timeout_seconds,
        budget=budget,
    )
