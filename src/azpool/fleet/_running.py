"""Runs the procedures of a plan: as many at a time as it says, until they end or are stopped.

    Plan -> procedures, begun as there is room -> _Gathering (budgets, bundles, repeats) -> outcomes

The caller's thread does all of it. Whatever stops it, every instance has an outcome: what was not
sent is skipped or cancelled, what the service may still work on is unknown.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import inspect
import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from azpool.errors import UsageError
from azpool.fleet._clock import Clock
from azpool.fleet._crowds import Crowd, look_over
from azpool.fleet._gathering import _Asked, _Gathering
from azpool.fleet._looking import LIST_SECONDS, Looking
from azpool.fleet.budget import BUCKETS, Budget
from azpool.fleet.calls import Answer, Call, Kind, Pause, Procedure, Stopped
from azpool.fleet.outcome import FleetReport, InstanceOutcome
from azpool.fleet.plan import WITHHELD, Plan, Step, make_plan
from azpool.fleet.polling import is_lost
from azpool.fleet.procedures import Outcomes, outcome_of, procedure_of, resumed
from azpool.fleet.progress import FleetInterrupted, FleetProgress, InstanceProgress, Phase
from azpool.fleet.scripts import NOT_REMOVED
from azpool.report import State

if TYPE_CHECKING:
    from azpool.fleet.journal import Journal, Past
    from azpool.fleet.progress import ProgressCallable
    from azpool.fleet.run import Nodes, Performer
    from azpool.fleet.target import Target

__all__ = ["allowed_failures", "run"]

POLL_SECONDS = 4.0  # 15 polls a minute: Compute's policy for one operation
POLLS_PER_SECOND = BUCKETS[Kind.READ].refill_per_second
TELL_SECONDS = 0.1
GRACE_SECONDS = 10.0  # for answers that are on their way when all is stopped
WORDS = {"timeout": "timeout_seconds had passed", "interrupted": "it was interrupted"}


def run(
    plan: Plan,
    *,
    performer: Performer,
    pool: Nodes,
    timeout_seconds: float | None,
    max_failures: int | str | None,
    progress: ProgressCallable | None,
    budget: Budget | None,
    journal: Journal | None = None,
    past: Past | None = None,
    clock: Clock | None = None,
) -> FleetReport:
    """Do what a plan says, or go on with it; see `run.run` and `run.resume`."""
    allowed = allowed_failures(max_failures, len(plan))
    clock = clock or Clock()
    running = _Running(
        plan, performer, pool, budget or Budget(), clock, allowed, progress, journal, past
    )
    began = clock.now()
    again = functools.partial(
        _again, plan, performer=performer, pool=pool, timeout_seconds=timeout_seconds,
        max_failures=max_failures, progress=progress, budget=budget, clock=clock,
    )  # fmt: skip
    try:
        try:
            running.run(timeout_seconds)
            return running.report(clock.now() - began, again)
        except KeyboardInterrupt:
            running.stop("interrupted")
            report = running.report(clock.now() - began, again)
            raise FleetInterrupted(report, journal=report.journal) from None
    except FleetInterrupted:
        raise
    except KeyboardInterrupt:  # a second one, wherever it came: nothing is waited for any more
        report = _given_up(running, clock, began, again)
        raise FleetInterrupted(report, journal=report.journal) from None
    finally:
        running.close()


def _given_up(running: _Running, clock: Clock, began: float, again: Any) -> FleetReport:
    """Report without waiting for anything, however often Ctrl-C comes meanwhile."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            running.give_up()
            return running.report(clock.now() - began, again)


def _again(plan: Plan, outcomes: Sequence[InstanceOutcome], **how: Any) -> FleetReport:
    """Do it again to the instances of some outcomes."""
    targets = {target.index: target for target in plan.targets}
    some = [targets[one.index] for one in outcomes]
    first = plan.steps[0]
    made = make_plan(
        plan.operation,
        [replace(target, index=index) for index, target in enumerate(some)],
        arguments=first.arguments,
        secrets=first.secrets,
        wait=plan.wait,
        batch=plan.batch,
    )
    return run(made, **how)


def allowed_failures(max_failures: int | str | None, count: int) -> float:
    """Answer how many may end badly: a number, or a share of them, rounded down.

    Raises:
        UsageError: it is neither.
    """
    if max_failures is None:
        return float("inf")
    if isinstance(max_failures, int) and not isinstance(max_failures, bool) and max_failures >= 0:
        return max_failures
    text = str(max_failures).strip()
    with contextlib.suppress(ValueError):
        share = float(text.removesuffix("%"))
        if text.endswith("%") and 0 <= share <= 100:
            return int(count * share / 100)
    raise UsageError(
        f"cannot stop at max_failures={max_failures!r}: give a whole number, or a share as '10%'"
    )


# What counts in `max_failures`: it was sent, and is not known to have gone well.
BAD = frozenset({State.FAILED, State.THROTTLED, State.UNKNOWN})

# What a journal has more to tell of: it may be sent, or asked for, once more.
OPEN = frozenset({State.UNKNOWN, State.CANCELLED, State.THROTTLED})


def _changes(call: Call) -> bool:
    """Whether it matters if it is sent twice."""
    return call.kind is not Kind.READ and not call.repeatable


def _procedure(step: Step, past: Past | None, *, wait: bool) -> Procedure[Outcomes]:
    """Make what does a step, or finds out what became of it."""
    if past is not None and step.place in past.intended:
        return resumed(step, past.accepted.get(step.place), past.intended[step.place])
    if any(value is WITHHELD for value in step.secrets.values()):
        return _withheld(step)
    return procedure_of(step, wait=wait)


def _withheld(step: Step) -> Procedure[Outcomes]:
    yield from ()  # it asks for nothing
    names = ", ".join(sorted(step.secrets))
    words = f"not sent: it needs {names}, which no journal holds"
    return [outcome_of(one, step.operation, State.SKIPPED, message=words) for one in step.targets]


def _place_of(what: _Asked | int) -> int:
    return what.place if isinstance(what, _Asked) else what


class _Running(_Gathering[Outcomes]):
    _most_throttled = math.inf  # what is throttled waits until its time is over, and tells of it

    def __init__(
        self,
        plan: Plan,
        performer: Performer,
        pool: Nodes,
        budget: Budget,
        clock: Clock,
        allowed: float,
        progress: ProgressCallable | None,
        journal: Journal | None,
        past: Past | None,
    ) -> None:
        super().__init__(
            [_procedure(step, past, wait=plan.wait) for step in plan.steps],
            performer, pool, budget, clock,
        )  # fmt: skip
        self._journal = journal
        self._plan, self._allowed, self._progress = plan, allowed, progress
        self._to_begin: deque[Step] = deque(plan.steps)
        self._under_way = 0
        self._ended_badly = 0
        self._begun_at: dict[int, float] = {}
        self._attempts: Counter[int] = Counter()  # by the instance's index
        self._changing: set[int] = set()  # places of which something may be, or have been, done
        self._away: set[int] = set()  # places of what may have left, and has had no answer yet
        self._held: dict[int, float] = {}
        self._held_since: dict[int, float] = {}
        self._last: dict[int, _Asked] = {}
        self._looking = Looking(POLLS_PER_SECOND)
        self._lists: dict[int, tuple[str, Procedure[Crowd]]] = {}  # by places after those of steps
        self._changed: dict[int, InstanceProgress] = {}
        self._news: list[InstanceOutcome] = []
        self._counts = {"calls": 0, "polls": 0, "throttled": 0}
        self._told_at = 0.0
        self._stopping = ""
        self._told: set[int] = set()  # places that were told to stop: what they send cleans up
        if past is not None:
            self._ended.update(past.ended)
            self._changing.update(past.intended)
            self._to_begin = deque(one for one in plan.steps if one.place not in past.ended)

    # --- its course -----------------------------------------------------------------------------

    def run(self, timeout_seconds: float | None) -> None:
        """Go on until every instance has its outcome, or the time is over."""
        ends = None if timeout_seconds is None else self._clock.now() + timeout_seconds
        ready: list[_Asked] = []
        while len(self._ended) < len(self._procedures):
            now = self._clock.now()
            if ends is not None and now >= ends:
                self.stop("timeout")
                break
            ready += self._due(now)
            ready += self._begin(now)
            self._send(ready, now)
            ready = self._wait(None if ends is None else max(0.0, ends - now))
            self._tell()
        self._tell(last=True)

    def _begin(self, now: float) -> list[_Asked]:
        """Begin steps while there is room, and nothing says to begin no more."""
        found: list[_Asked] = []
        if self._ended_badly > self._allowed:
            self._skip()
        while self._to_begin:
            step = self._to_begin[0]
            room = self._plan.batch is None or not self._under_way
            if not room and self._under_way + len(step.targets) > (self._plan.batch or 0):
                break
            self._to_begin.popleft()
            self._under_way += len(step.targets)
            self._begun_at[step.place] = now
            found += self._step(step.place, None)
        return found

    def _skip(self) -> None:
        """Begin no more: also what waits for budget, where nothing of it is done or on its way."""
        flying = {asked.place for bundle in self._flying.values() for asked, _ in bundle}

        def is_held(what: _Asked | int) -> bool:
            return (
                isinstance(what, _Asked)
                and _changes(what.call)
                and what.place not in self._changing
                and what.place not in flying
            )

        held = {one.place for one in self._backlog if is_held(one)}
        held |= {_place_of(what) for _, _, what in self._later if is_held(what)}
        self._backlog = deque(one for one in self._backlog if one.place not in held)
        self._keep_later(lambda each: _place_of(each[2]) not in held)
        steps = [self._plan.steps[place] for place in sorted(held)]
        self._under_way -= sum(len(step.targets) for step in steps)
        words = f"not begun: more than max_failures={self._allowed:g} had ended badly"
        for step in (*steps, *self._to_begin):
            self._stopping = "max_failures"
            self._procedures[step.place].close()
            self._end(step, [self._unsent(step, one, State.SKIPPED, words) for one in step.targets])
        self._to_begin.clear()

    def _step(self, place: int, value: Answer | None) -> list[_Asked]:
        if place in self._lists:
            return self._look_over(place, value)
        found = super()._step(place, value)
        ended = self._ended.get(place)
        if ended is not None:
            self._under_way -= len(self._plan.steps[place].targets)
            if isinstance(ended, Exception):
                raise ended
            self._end(self._plan.steps[place], ended)
            self._bring_forward(place)
        for asked in found:
            self._last[place] = asked
        return found

    def _put_off(self, seconds: float, what: _Asked | int) -> None:
        if isinstance(what, int):  # a procedure that waits for the service
            earliest = self._clock.now() + max(seconds, POLL_SECONDS)
            subscription = self._subscription(what)
            self._look_at(self._looking.put(what, subscription, earliest), what)
            self._note(what, Phase.UNDER_WAY)
            if self._looking.crowded(subscription):
                self._watch(subscription)
            return
        if what.call.poll and what.failures:  # asked for again, and no sooner for that
            seconds = max(seconds, POLL_SECONDS)
        if what.failures == 0 and what.place not in self._lists:
            self._held_since.setdefault(what.place, self._clock.now())
            self._note(what.place, Phase.BUDGET)
        super()._put_off(seconds, what)

    def _bring_forward(self, ended: int) -> None:
        if self._stopping not in WORDS:
            now = self._clock.now()
            for other, due in self._looking.ended(ended, self._subscription(ended), now):
                self._look_at(due, other)

    def _look_at(self, due: float, place: int) -> None:
        heapq.heappush(self._later, (due, next(self._numbers), place))

    def _watch(self, subscription: str) -> None:
        """See to it that the machines of a crowd are listed again and again."""
        if all(subscription != other for other, _ in self._lists.values()):
            place = len(self._plan.steps) + next(self._numbers)
            self._lists[place] = subscription, self._crowd(subscription)
            self._look_at(self._clock.now(), place)

    def _crowd(self, subscription: str) -> Procedure[Crowd]:
        waiting = self._looking.waiting(subscription)
        return (yield from look_over({one: self._plan.steps[one].targets for one in waiting}))

    def _look_over(self, place: int, value: Answer | None) -> list[_Asked]:
        """Go on with a list; at its end some look sooner, and a crowd is listed again."""
        subscription, listing = self._lists[place]
        try:
            asked = listing.send(value)
        except StopIteration as end:
            crowd: Crowd = end.value
        else:
            assert isinstance(asked, Call)
            return [_Asked(place, asked)]
        now = self._clock.now()
        for other, due in self._looking.listed(subscription, crowd.quiet, now, crowd.pages):
            self._look_at(due, other)
        del self._lists[place]
        if self._looking.crowded(subscription):
            self._lists[place] = subscription, self._crowd(subscription)
            self._look_at(now + LIST_SECONDS, place)
        return []

    def _due(self, now: float) -> list[_Asked]:
        found: list[_Asked] = []
        while self._later and self._later[0][0] <= now:
            due, _, what = heapq.heappop(self._later)
            if isinstance(what, _Asked):
                found.append(self._let_go(what))
            elif what in self._lists or self._looking.take(what, self._subscription(what), due):
                found += self._step(what, None)
        return found

    def _subscription(self, place: int) -> str:
        return self._plan.steps[place].targets[0].subscription

    def _send(self, ready: Sequence[_Asked], now: float) -> None:
        before = {id(asked) for bundle in self._flying.values() for asked, _ in bundle}
        super()._send(ready, now)
        for bundle in self._flying.values():
            for asked, _ in bundle:
                if id(asked) not in before:
                    self._sent(asked, now)

    def _before(self, bundle: Sequence[tuple[_Asked, list[Any]]]) -> None:
        if self._journal is not None:
            self._journal.intend(
                [(asked.place, asked.call.note) for asked, _ in bundle if _changes(asked.call)]
            )
        # Before it is given away, as with the journal: whatever Ctrl-C cuts short from here on may
        # have left, and is never told as not sent.
        for asked, _ in bundle:
            if asked.call.kind is not Kind.READ:
                self._away.add(asked.place)
                self._attempts.update(asked.call.about)

    def _sent(self, asked: _Asked, now: float) -> None:
        place = asked.place
        since = self._held_since.pop(place, None)
        if since is not None:
            self._held[place] = self._held.get(place, 0.0) + now - since
        self._counts["polls" if asked.call.poll else "calls"] += 1
        if place not in self._lists:
            self._note(place, Phase.SENDING, asked.call.note)

    def _answered(self, asked: _Asked, taken: list[Any], answer: Answer) -> list[_Asked]:
        self._counts["throttled"] += answer.status == 429
        if _changes(asked.call):
            if answer.ok or is_lost(answer):
                self._changing.add(asked.place)
            if self._journal is not None:
                self._put_down(self._journal, asked, answer)
        if answer.status != 429:
            asked.throttled = 0
        found = super()._answered(asked, taken, answer)
        self._away.discard(asked.place)
        return found

    def _put_down(self, journal: Journal, asked: _Asked, answer: Answer) -> None:
        if answer.ok:
            # How a part's operation ends says nothing of the others: the machines tell of all.
            journal.accepted(
                asked.place, replace(answer, headers={}) if asked.call.part else answer
            )
        elif (answer.status == 429 or not answer.sent) and asked.place not in self._changing:
            journal.withdrawn(asked.place)

    # --- its end --------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Say so, and send nothing new but what cleans up; give everyone who has none an outcome.

        Answers that are on their way, and calls that clean up and wait for budget, have
        `GRACE_SECONDS`; a Ctrl-C meanwhile raises here, and `give_up` does the rest.
        """
        self._stopping = reason
        with contextlib.suppress(Exception):  # what fails to show it must not cost the outcomes
            self._tell(last=True)
        until = self._clock.now() + GRACE_SECONDS
        while self._to_begin:
            step, words = self._to_begin.popleft(), f"not sent: {WORDS[reason]}"
            self._end(
                step, [self._unsent(step, one, State.CANCELLED, words) for one in step.targets]
            )
        self._keep_later(lambda each: self._cleans(each[2]))
        self._backlog = deque(asked for asked in self._backlog if self._cleans(asked))
        busy = {asked.place for bundle in self._flying.values() for asked, _ in bundle}
        busy |= {asked.place for asked in self._backlog}
        busy |= {what.place for _, _, what in self._later if isinstance(what, _Asked)}
        ready: list[_Asked] = []
        for step in self._plan.steps:
            if step.place in self._ended or step.place in busy:
                continue
            if step.place in self._away and not self._is_closed(step):  # Ctrl-C took its answer
                ready += self._step(step.place, self._unanswered(sent=True))
            else:
                ready += self._stopped(step)
        self._clean_up(ready, until)
        self.give_up()

    def _cleans(self, what: _Asked | int) -> bool:
        """Whether a call takes away what a procedure has made, or ends one that knows it must."""
        if isinstance(what, int):
            return False
        call = what.call
        return what.place in self._told or (call.kind is Kind.DELETE and call.repeatable)

    def _clean_up(self, ready: list[_Asked], until: float) -> None:
        while (now := self._clock.now()) < until:
            found: list[_Asked] = []
            for what in (*ready, *self._passed(now)):
                place = what if isinstance(what, int) else what.place
                if place in self._ended or place in self._lists:
                    continue
                if isinstance(what, _Asked) and self._cleans(what):
                    found.append(what)
                else:
                    found += self._stopped(self._plan.steps[place])
            self._send(found, now)
            if not (self._flying or self._later or self._backlog):
                break
            ready = self._wait(until - now)

    def _passed(self, now: float) -> list[_Asked | int]:
        """Take out what is due, and every procedure that waits for the service."""
        found = self._keep_later(lambda each: each[0] > now and isinstance(each[2], _Asked))
        return [what for _, _, what in found]

    def give_up(self) -> None:
        """Give everyone who has none an outcome, and wait for nothing."""
        if self._stopping not in WORDS:  # Ctrl-C came a second time before `stop` had begun
            self._stopping = "interrupted"
        flying = {asked.place for bundle in self._flying.values() for asked, _ in bundle}
        for step in self._plan.steps:
            asked = self._last.get(step.place)
            if self._is_closed(step):
                asked = None
            while step.place not in self._ended and asked is not None and self._cleans(asked):
                # It has nothing left but to clean up: what it was for may be known.
                lost = self._unanswered(sent=step.place in flying or step.place in self._away)
                asked = next(iter(self._step(step.place, lost)), None)
            if step.place not in self._ended:
                self._end(step, [self._left(step, one) for one in step.targets])

    def _is_closed(self, step: Step) -> bool:
        """Whether Ctrl-C came while its procedure was deciding, which ended it."""
        return inspect.getgeneratorstate(self._procedures[step.place]) == inspect.GEN_CLOSED

    def _unanswered(self, *, sent: bool) -> Answer:
        words = f"not answered: {WORDS[self._stopping]}"
        return Answer(status=None, code="Stopped", message=words, sent=sent)

    def _stopped(self, step: Step) -> list[_Asked]:
        """Tell a procedure to end; answer the call by which it cleans up, if it has one."""
        self._told.add(step.place)
        try:
            asked = self._procedures[step.place].throw(Stopped(self._stopping))
        except StopIteration as end:
            self._end(step, end.value)
        except (Stopped, RuntimeError):
            self._end(step, [self._left(step, one) for one in step.targets])
        else:
            if isinstance(asked, Call):
                self._last[step.place] = _Asked(step.place, asked)
                return [self._last[step.place]]
            assert isinstance(asked, Pause)
            self._end(step, [self._left(step, one) for one in step.targets])
        return []

    def _left(self, step: Step, target: Target) -> InstanceOutcome:
        words = WORDS[self._stopping]
        if not self._attempts[target.index]:
            return self._unsent(step, target, State.CANCELLED, f"not sent: {words}")
        asked = self._last.get(step.place)
        refused = asked is not None and asked.throttled and asked.call.kind is not Kind.READ
        if refused and step.place not in self._away:
            return self._unsent(step, target, State.THROTTLED, f"still throttled when {words}")
        return outcome_of(
            target, step.operation, State.UNKNOWN, message=f"still under way: {words}"
        )

    @staticmethod
    def _unsent(step: Step, target: Target, state: State, words: str) -> InstanceOutcome:
        return outcome_of(target, step.operation, state, message=words)

    def _end(self, step: Step, outcomes: Outcomes) -> None:
        now = self._clock.now()
        seconds = now - self._begun_at.get(step.place, now)
        made = [
            replace(
                one,
                attempts=self._attempts[one.index],
                budget_seconds=self._held.get(step.place, 0.0),
                seconds=seconds,
            )
            for one in outcomes
        ]
        self._ended[step.place] = made
        if self._journal is not None and not any(one.state in OPEN for one in made):
            self._journal.ended(step.place, made)
        self._ended_badly += sum(one.state in BAD for one in made)
        self._news += made
        for one in made:
            self._changed[one.index] = InstanceProgress(
                index=one.index, phase=Phase.ENDED, attempts=one.attempts
            )

    def report(self, seconds: float, again: Any) -> FleetReport:
        """Tell what became of all of them."""
        found = {
            one.index: one
            for ended in self._ended.values()
            if not isinstance(ended, Exception)
            for one in ended
        }
        outcomes = [found[target.index] for target in self._plan.targets]
        notes = [f"stopped: {self._stopping}"] if self._stopping else []
        # What went well has no reason that reports would show.
        stay = [one for one in outcomes if one.ok and NOT_REMOVED in one.message]
        if stay:
            notes.append(
                f"{len(stay):,} run commands were left, on {stay[0].name} {stay[0].message}"
            )
        path = ""
        if self._journal is not None:
            left = len(found) < len(self._plan) or any(one.state in OPEN for one in outcomes)
            path = self._journal.path if left else ""
            self._journal.close(keep=left)
        return FleetReport(
            outcomes,
            title=self._plan.operation,
            seconds=seconds,
            notes=notes,
            again=again,
            journal=path,
        )

    # --- told -----------------------------------------------------------------------------------

    def _wait(self, left: float | None) -> list[_Asked]:
        if self._progress is not None:
            left = TELL_SECONDS if left is None else min(left, TELL_SECONDS)
        return super()._wait(left)

    def _note(self, place: int, phase: Phase, note: str = "") -> None:
        for target in self._plan.steps[place].targets:
            self._changed[target.index] = InstanceProgress(
                index=target.index, phase=phase, attempts=self._attempts[target.index], note=note
            )

    def _tell(self, *, last: bool = False) -> None:
        now = self._clock.now()
        if self._progress is None or (not last and now - self._told_at < TELL_SECONDS):
            return
        self._told_at = now
        changed, self._changed = tuple(self._changed.values()), {}
        news, self._news = tuple(self._news), []
        held = [what for _, _, what in self._later if isinstance(what, _Asked)]
        waits = [(self._budget.wait_seconds(now, one.call), one.call) for one in held[:8]]
        seconds, call = min(waits, key=lambda one: one[0], default=(0.0, None))
        self._progress(
            FleetProgress(
                operation=self._plan.operation,
                total=len(self._plan),
                changed=changed,
                ended=news,
                calls=self._counts["calls"] + self._counts["polls"],
                polls=self._counts["polls"],
                in_flight=sum(len(bundle) for bundle in self._flying.values()),
                throttled=self._counts["throttled"],
                budget_seconds=seconds,
                budget="" if call is None or not seconds else self._budget.in_words(call, now),
                stopping=self._stopping,
                journal="" if self._journal is None else self._journal.path,
            )
        )
