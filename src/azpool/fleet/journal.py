"""What a fleet's operation writes down before it acts, so that another process can go on with it.

    run    -> Journal.create(plan) -> intend, before a call that changes something leaves
                                   -> answered, with where to ask how far it is
                                   -> ended, with the outcome of each instance
    resume -> Journal.open -> Past: what ended, is under way, is not known, is left

One JSON value a line, in a file of mode 0600 that one process at a time holds. A line is whole or
was never written: the master may be killed at any byte. No secret stands in it: of bodies and
parameters nothing, of secrets their names alone (`Plan.to_dict`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from azpool.errors import FleetError, LocalFileError, UsageError
from azpool.fleet.outcome import InstanceOutcome
from azpool.report import State

if TYPE_CHECKING:
    from azpool.fleet.calls import Answer, Call

__all__ = ["Intent", "Journal", "Past", "StepPast"]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A call that changes something, which was about to be sent.

    Attributes:
        method: the client's name of it.
        at: seconds since the epoch.
        answered: whether an answer came; without one nobody knows whether it was done.
        status: HTTP status of the answer; None where none came from the service.
        url: where to ask how far what it began is; None where the answer named no place.
        headers: those of the answer that polls need.
        request_id: the service's id of the request.
    """

    method: str
    at: float
    answered: bool = False
    status: int | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(slots=True)
class StepPast:
    """What became of one step: its intents in order, and what it noted for whoever goes on."""

    intents: list[Intent] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever about to be sent for it: it may be begun as new."""
        return not self.intents

    @property
    def unsure(self) -> bool:
        """Whether its last call may have been sent, and nobody knows: never send it again."""
        return bool(self.intents) and not self.intents[-1].answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a journal tells.

    Attributes:
        plan: as `Plan.to_dict` wrote it.
        client: what was given of the client.
        steps: by their place in the plan; those of which nothing is told are not in it.
        outcomes: of the instances that ended, by index.
        began_at: seconds since the epoch.
    """

    plan: Mapping[str, Any]
    client: Mapping[str, Any]
    steps: Mapping[int, StepPast]
    outcomes: Mapping[int, InstanceOutcome]
    began_at: float

    def step(self, place: int) -> StepPast:
        return self.steps.get(place) or StepPast()


# What `polling.follow` reads of an answer.
_KEPT = ("azure-asyncoperation", "location", "retry-after", "date")


class Journal:
    """A journal that is open and held; use `create` or `open`.

    Writes go to the system at once, so that they outlive this process; after a loss of power the
    last ones may be missing.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def create(cls, path: str, plan: Mapping[str, Any], client: Mapping[str, Any]) -> Self:
        """Make the file and write down what is going to be done.

        Raises:
            UsageError: the file is there.
            LocalFileError: it can't be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            raise UsageError(
                f"cannot write the journal {path!r}: it is there; resume it, or name another file"
            ) from None
        except OSError as error:
            raise LocalFileError(f"cannot write the journal {path!r}: {error.strerror}") from error
        journal = cls(path, descriptor)
        journal._hold()
        journal._write(
            {"journal": VERSION, "at": time.time(), "plan": dict(plan), "client": dict(client)}
        )
        return journal

    @classmethod
    def open(cls, path: str) -> tuple[Self, Past]:
        """Hold a journal that is there, and read what it tells.

        Raises:
            UsageError: there is none.
            LocalFileError: it is damaged, of another version, can't be read, or another process
                works on it.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageError(
                f"cannot resume {path!r}: there is no such journal; it ended, or look at the path"
            ) from None
        except OSError as error:
            raise LocalFileError(f"cannot read the journal {path!r}: {error.strerror}") from error
        journal = cls(path, descriptor)
        try:
            journal._hold()
            return journal, journal._read()
        except BaseException:
            journal.close()
            raise

    def intend(self, place: int, call: Call) -> int:
        """Write down that a call of a step is about to be sent, and answer its number."""
        number = time.monotonic_ns()
        self._write({"intend": place, "number": number, "method": call.method, "at": time.time()})
        return number

    def answered(self, place: int, number: int, answer: Answer) -> None:
        """Write down what came back; an answer that never came (`sent`, no status) is not one."""
        if answer.status is None and answer.sent:
            return
        headers = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
        self._write(
            {
                "answered": place,
                "number": number,
                "status": answer.status,
                "headers": headers,
                "request_id": answer.request_id,
            }
        )

    def note(self, place: int, **notes: Any) -> None:
        """Write down what whoever goes on with a step has to know: a name that it has chosen."""
        self._write({"note": place, "notes": notes})

    def ended(self, outcome: InstanceOutcome) -> None:
        """Write down the outcome of an instance."""
        self._write({"ended": outcome.to_dict()})

    def remove(self) -> None:
        """Remove the file: nothing is left to be told. Harmless when it is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Let go of the file and keep it; twice is harmless."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child just forked may still have its copy
            os.close(descriptor)

    def _hold(self) -> None:
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LocalFileError(
                f"cannot use the journal {self.path!r}: another process works on it"
            ) from None

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._descriptor is None:
            return  # an answer that comes after the end tells nobody anything
        data = (json.dumps(row, separators=(",", ":"), default=str) + "\n").encode()
        try:
            # O_APPEND, and one write for a line: it is there whole, or its end is missing.
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise LocalFileError(
                f"cannot write the journal {self.path!r}: {error.strerror}"
            ) from error

    def _read(self) -> Past:
        assert self._descriptor is not None
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            lines = file.read().split(b"\n")
        torn = lines.pop()
        if torn:
            # Killed within a line: it was never written. What follows begins on a line of its own.
            os.ftruncate(self._descriptor, sum(len(line) + 1 for line in lines))
        rows = [self._row(number, line) for number, line in enumerate(lines, 1)]
        if not rows or rows[0].get("journal") != VERSION:
            found = rows[0].get("journal") if rows else None
            raise LocalFileError(
                f"cannot resume {self.path!r}: it is no journal of version {VERSION}"
                + (f" but of {found!r}" if found is not None else "")
            )
        try:
            return _past(rows)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise self._damaged(f"line {number} is no JSON") from None
        if not isinstance(row, dict):
            raise self._damaged(f"line {number} is no object")
        return row

    def _damaged(self, cause: str) -> LocalFileError:
        return LocalFileError(
            f"cannot resume {self.path!r}: it is damaged ({cause}); look at the machines' states"
        )


def _past(rows: list[dict[str, Any]]) -> Past:
    head, *others = rows
    steps: dict[int, StepPast] = {}
    numbers: dict[tuple[int, int], int] = {}
    outcomes: dict[int, InstanceOutcome] = {}
    for row in others:
        if "intend" in row:
            step = steps.setdefault(row["intend"], StepPast())
            numbers[row["intend"], row["number"]] = len(step.intents)
            step.intents.append(Intent(method=row["method"], at=row["at"]))
        elif "answered" in row:
            step = steps[row["answered"]]
            place = numbers[row["answered"], row["number"]]
            headers = dict(row["headers"])
            known = step.intents[place]
            step.intents[place] = Intent(
                method=known.method,
                at=known.at,
                answered=True,
                status=row["status"],
                url=headers.get("azure-asyncoperation") or headers.get("location"),
                headers=headers,
                request_id=row["request_id"],
            )
        elif "note" in row:
            steps.setdefault(row["note"], StepPast()).notes.update(row["notes"])
        elif "ended" in row:
            outcome = _outcome(row["ended"])
            outcomes[outcome.index] = outcome
    return Past(
        plan=head["plan"],
        client=head["client"],
        steps=steps,
        outcomes=outcomes,
        began_at=float(head["at"]),
    )


def _outcome(row: Mapping[str, Any]) -> InstanceOutcome:
    values = {name: row[name] for name in InstanceOutcome.__dataclass_fields__ if name in row}
    text = values.pop("error", None)
    values["state"] = State(values["state"])
    if text is not None:
        values["error"] = FleetError(
            str(text),
            status=row.get("status"),
            code=row.get("code"),
            resource_id=row.get("resource_id"),
            request_id=row.get("request_id"),
            correlation_id=row.get("correlation_id"),
        )
    return InstanceOutcome(**values)
