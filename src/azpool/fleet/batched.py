"""One call for many instances of a Uniform scale set, and each one's own truth after it. Pure.

    Step -> many(...) -> POST for all -> polls of its operation -> one list of views -> outcomes

Such an operation has one end for all, so each one's truth is its own view. A call that is refused
has done nothing to any: who keeps the others from being served is found, and the rest is done.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from azpool.fleet.calls import Answer, Call, Pause, Procedure, Stopped
from azpool.fleet.operations import Operation
from azpool.fleet.outcome import InstanceOutcome
from azpool.fleet.plan import Step
from azpool.fleet.polling import Ending, Trouble, follow, is_lost
from azpool.fleet.procedures import GONE, LOOKS, LOST, Outcomes, ended_badly, failed, outcome_of
from azpool.fleet.target import Target
from azpool.fleet.views import View, list_views
from azpool.report import State

__all__ = ["many", "truths"]

PROBES = 8  # asked alone before a set that has refused all is left: half refused, 1 in 256 errs


def many(step: Step, known: Operation, *, wait: bool) -> Procedure[Outcomes]:
    """Do it to instances of one Uniform set by one call; each one's truth is its own view.

    A 409 on that call says that a machine is busy or locked, or that the set is, and nothing has
    been done. Then, in this order:

    1. One list of views: who is busy there is left out, and the 409 is its outcome. The others are
       one call again.
    2. Where that is refused too, or nobody was busy, up to `PROBES` of them, spread over all, are
       asked alone until one is accepted. Where none is, the set refuses everything (it is locked,
       or being deleted): all have the 409 for their outcome, after 10 calls and a list at most.
    3. Else the rest is halved until who is refused stands alone, with an answer of its own; at most
       two calls for each of them, about 2 log2(n) for a single one. All that were accepted are
       followed together.

    A 400 or 404 says that one is not there: a list tells who, and the others are asked again. Asked
    again is only after these three answers, which are given before anything is done. What was
    accepted, lost (no answer, or a 500) or refused for another reason is never sent twice.
    """
    work = _Work(step, known)
    refused = yield from work.ask(step.targets, part=False)
    if refused is None:
        if len(work.begun) == 1 and not work.found:
            (one,) = work.begun
            work.found |= yield from _their_ends(known, [one], wait=wait)
        else:
            yield from work.whole(_finished(work, wait=wait))
    else:
        yield from work.whole(_divided(work, refused, wait=wait))
    return [work.found[target.index] for target in step.targets]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A call that was accepted, or whose answer was lost, and for whom it was."""

    targets: Sequence[Target]
    call: Call
    answer: Answer


@dataclass(slots=True)
class _Work:
    """What is known so far of a step's instances: outcomes, and what was begun."""

    step: Step
    known: Operation
    found: dict[int, InstanceOutcome] = field(default_factory=dict)
    begun: list[_Begun] = field(default_factory=list)

    def left(self, targets: Sequence[Target]) -> list[Target]:
        """Answer who has no outcome yet."""
        return [one for one in targets if one.index not in self.found]

    def refuse(self, targets: Sequence[Target], answer: Answer) -> None:
        """Give an answer that refuses to each as its outcome."""
        self.found |= {one.index: failed(one, self.known.name, answer) for one in targets}

    def ask(self, targets: Sequence[Target], *, part: bool = True) -> Procedure[Answer | None]:
        """Send one call for those who have no outcome; answer a 409, which is no outcome yet."""
        while left := self.left(targets):
            call = _call(self.step, self.known, left, part=part)
            answer = yield call
            assert answer is not None
            if answer.ok or is_lost(answer):
                self.begun.append(_Begun(left, call, answer))
                return None
            if answer.status == 409:
                return answer
            missing: list[Target] = []
            if answer.status in {400, 404}:
                # Nothing is done to any while one of them is not there: they are looked for.
                missing = yield from _missing(left)
            if not missing:
                self.refuse(left, answer)
            gone = State.OK if self.known.wanted == "gone" else State.UNKNOWN
            for one in missing:
                self.found[one.index] = outcome_of(one, self.known.name, gone, answer, message=GONE)
        return None

    def whole(self, course: Procedure[None]) -> Procedure[None]:
        """Go through with it; where that is stopped, say of each what is known of it by then."""
        try:
            yield from course
        except Stopped as stopped:
            for one in self.begun:
                words = f"still under way: {stopped.reason}"
                for target in self.left(one.targets):
                    self.found[target.index] = outcome_of(
                        target, self.known.name, State.UNKNOWN, one.answer, message=words
                    )
            for target in self.left(self.step.targets):
                words = f"refused with others (409), and not asked alone: {stopped.reason}"
                self.found[target.index] = outcome_of(
                    target, self.known.name, State.CANCELLED, message=words
                )


def _finished(work: _Work, *, wait: bool) -> Procedure[None]:
    if work.begun:
        work.found |= yield from _their_ends(work.known, work.begun, wait=wait)


def _divided(work: _Work, refused: Answer, *, wait: bool) -> Procedure[None]:
    yield from _without_refused(work, refused)
    yield from _finished(work, wait=wait)


def _without_refused(work: _Work, refused: Answer) -> Procedure[None]:
    """Find who is refused, and begin it for the others; see `many`."""
    left = work.left(work.step.targets)
    listed = yield from list_views(left)
    views = {} if listed.refused is not None else listed.views
    busy = [one for one in left if one.key in views and not views[one.key].settled]
    work.refuse(busy, refused)
    if busy and (left := work.left(left)):
        again = yield from work.ask(left)
        if again is None:
            return
        refused = again
    probes = _spread(work.left(left), PROBES)
    alone = 0
    for one in probes:
        answer = yield from work.ask([one])
        if answer is not None:
            work.refuse([one], answer)
            alone += 1
        elif work.begun:
            break
    begun = {one.index for each in work.begun for one in each.targets}
    rest = [one for one in work.left(left) if one.index not in begun]
    if not begun:
        work.refuse(rest, refused)
        return
    yield from _halved(work, rest, refused=not alone)


def _spread(targets: Sequence[Target], count: int) -> list[Target]:
    """Choose so many of them, from end to end."""
    count = min(count, len(targets))
    return [targets[number * (len(targets) - 1) // max(1, count - 1)] for number in range(count)]


def _halved(
    work: _Work, part: Sequence[Target], *, refused: bool
) -> Generator[Call | Pause, Answer | None, bool]:
    """Begin it for all of a part but who is refused alone; answer whether anyone was.

    Args:
        work: what is known so far.
        part: of them nobody has an outcome.
        refused: it is known that one of them is: then they are not asked for together.
    """
    if not part:
        return False
    if not refused or len(part) == 1:
        answer = yield from work.ask(part)
        if answer is None:
            return False
        part = work.left(part)
        if len(part) == 1:
            work.refuse(part, answer)
            return True
    middle = len(part) // 2
    first = yield from _halved(work, part[:middle], refused=False)
    yield from _halved(work, part[middle:], refused=not first)
    return True


def _call(step: Step, known: Operation, targets: Sequence[Target], *, part: bool) -> Call:
    first = targets[0]
    ids = {"instanceIds": [one.instance_id for one in targets]}
    assert known.many is not None
    return Call(
        subscription=first.subscription,
        method=known.many,
        arguments={
            "resource_group_name": first.group,
            "vm_scale_set_name": first.scale_set,
            known.many_body: {**step.arguments, **ids},
        },
        kind=known.kind,
        policy=(str(first.set_id), known.name),
        repeatable=known.to_model,
        about=tuple(one.index for one in targets),
        note=known.verb,
        part=part,
    )


def _missing(targets: Sequence[Target]) -> Procedure[list[Target]]:
    listed = yield from list_views(targets)
    if listed.refused is not None:
        return []
    return [one for one in targets if one.key not in listed.views]


def _their_ends(
    known: Operation, begun: Sequence[_Begun], *, wait: bool
) -> Procedure[dict[int, InstanceOutcome]]:
    """Follow what was begun to its end, all of it together, and tell what became of each."""
    found: dict[int, InstanceOutcome] = {}
    parts: list[tuple[Sequence[Target], Ending]] = []
    accepted: list[_Begun] = []
    for one in begun:
        if not one.answer.ok:
            parts.append((one.targets, Ending(ok=False, lost=True, answer=one.answer)))
        elif wait:
            accepted.append(one)
        else:
            found |= {
                target.index: outcome_of(target, known.name, State.OK, one.answer)
                for target in one.targets
            }
    endings = yield from _followed(accepted)
    parts += [(one.targets, ending) for one, ending in zip(accepted, endings, strict=True)]
    if parts:
        found |= yield from truths(known, parts, looks=LOOKS if wait else 1)
    return found


def _followed(begun: Sequence[_Begun]) -> Procedure[list[Ending]]:
    """Follow several operations at once: one pause for all of them, and then a poll of each."""
    following = [follow(one.call, one.answer) for one in begun]
    endings: dict[int, Ending] = {}
    while len(endings) < len(following):
        seconds = 0.0
        for place, one in enumerate(following):
            if place in endings:
                continue
            try:
                asked = next(one)
                while isinstance(asked, Call):
                    answer = yield asked
                    asked = one.send(answer)
            except StopIteration as end:
                endings[place] = end.value
            else:
                seconds = max(seconds, asked.seconds)
        if len(endings) < len(following):
            yield Pause(seconds=seconds)
    return [endings[place] for place in range(len(following))]


def truths(
    known: Operation, parts: Sequence[tuple[Sequence[Target], Ending]], *, looks: int
) -> Procedure[dict[int, InstanceOutcome]]:
    """Say what became of each, by one list of views that is read until it decides.

    A view may trail the end of the operation, and where that end was lost the operation may still
    be under way: as long as a machine's view says so, all are listed again, `looks` times at most.
    """
    everyone = [one for targets, _ in parts for one in targets]
    listed = yield from list_views(everyone)
    for _ in range(looks - 1):
        if listed.refused is not None or all(
            _decides(known, ending, listed.views.get(one.key))
            for targets, ending in parts
            for one in targets
        ):
            break
        yield Pause(seconds=0.0)
        listed = yield from list_views(everyone)
    found: dict[int, InstanceOutcome] = {}
    for targets, ending in parts:
        if listed.refused is not None:
            found |= {one.index: _unseen(one, known, ending) for one in targets}
            continue
        views = [listed.views.get(one.key) for one in targets]
        named = _names_culprits(ending, views)
        for one, view in zip(targets, views, strict=True):
            found[one.index] = _truth(one, known, ending, view, named=named)
    return found


def _there(known: Operation, view: View) -> bool:
    """Whether the machine is as the operation leaves it."""
    return not known.wanted or (view.power == known.wanted and known.wanted != "gone")


def _decides(known: Operation, ending: Ending, view: View | None) -> bool:
    """Whether a later look would tell no more."""
    return view is None or view.settled or (ending.ok and _there(known, view))


def _unseen(target: Target, known: Operation, ending: Ending) -> InstanceOutcome:
    """Say of one of many what became of it where no list can be had: how the operation ended."""
    state = State.OK if ending.ok else State.UNKNOWN if ending.lost else State.FAILED
    words = "" if ending.ok else ending.trouble.message or LOST
    return outcome_of(
        target, known.name, state, ending.answer, message=words, code=ending.trouble.code
    )


def _names_culprits(ending: Ending, views: Sequence[View | None]) -> bool:
    """Whether a failure says whose it is: then those that it does not name are well."""
    failing = any(view is not None and view.provisioning == "failed" for view in views)
    return failing or bool(ending.trouble.details)


def _truth(
    target: Target, known: Operation, ending: Ending, view: View | None, *, named: bool
) -> InstanceOutcome:
    """Say of one of many what became of it: by its view, and by how the operation ended."""
    if view is None:
        if known.wanted == "gone":
            return outcome_of(target, known.name, State.OK, ending.answer)
        return outcome_of(target, known.name, State.UNKNOWN, ending.answer, message=GONE)
    if view.provisioning == "failed" and (known.to_model or not ending.ok):
        told = Trouble(code=view.code or ending.trouble.code, message=view.message)
        return ended_badly(target, known.name, ending, told)
    there = _there(known, view)
    if ending.ok:
        if there:
            return outcome_of(target, known.name, State.OK, ending.answer)
        state = State.FAILED if view.settled else State.UNKNOWN
        words = f"the operation succeeded, but the machine is {_doing(view)}"
        return outcome_of(target, known.name, state, ending.answer, message=words)
    if ending.lost:
        told_by_state = known.telling and view.settled and there
        state = State.OK if told_by_state else State.UNKNOWN
        words = "by the machine's state" if told_by_state else LOST
        return outcome_of(target, known.name, state, ending.answer, message=words)
    if there and view.settled:
        if known.telling or named:
            return outcome_of(target, known.name, State.OK, ending.answer)
        # A machine that runs does not tell whether it was restarted.
        return outcome_of(
            target, known.name, State.UNKNOWN, ending.answer,
            message=ending.trouble.message or LOST, code=ending.trouble.code,
        )  # fmt: skip
    if not view.settled:
        words = f"the operation failed, and the machine is {_doing(view)}"
        return outcome_of(target, known.name, State.UNKNOWN, ending.answer, message=words)
    return ended_badly(target, known.name, ending)


def _doing(view: View) -> str:
    if view.settled:
        return view.power or "in no known state"
    words = [word for word in (view.power, view.provisioning) if word not in {"", "succeeded"}]
    return f"still {' and '.join(words)}"
