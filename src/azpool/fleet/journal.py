"""The journal of an operation: what was meant to be sent, what was answered, what has ended.

    run -> Journal.intend (before a call leaves) -> answered -> ended;  read(path) -> Past -> resume

JSON lines in a file of mode 0600, without secrets. What is intended is on the disk before the call
is given to a node, so a call that may have been sent is always known of; a line that a killed
process left half written is no line. One process at a time: the file is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TextIO

from azpool._version import __version__
from azpool.errors import LocalFileError, UsageError
from azpool.fleet.calls import Answer
from azpool.fleet.outcome import InstanceOutcome
from azpool.fleet.plan import Plan
from azpool.fleet.procedures import with_error
from azpool.report import State

__all__ = ["Journal", "Past"]

VERSION = 2  # 2 has the names of run commands
KEPT_HEADERS = ("azure-asyncoperation", "location", "retry-after")


@dataclass(slots=True)
class Past:
    """What a journal tells.

    Attributes:
        plan: of the operation.
        client: how its service is reached.
        intended: steps of which a call may have been sent, and the note of the last such call.
        accepted: of them those whose last call was answered, with the answer.
        ended: outcomes of the steps that ended.
    """

    plan: Plan
    client: Mapping[str, Any]
    intended: dict[int, str] = field(default_factory=dict)
    accepted: dict[int, Answer] = field(default_factory=dict)
    ended: dict[int, list[InstanceOutcome]] = field(default_factory=dict)


class Journal:
    """A journal that is written to, and locked meanwhile."""

    def __init__(self, path: str, file: TextIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    def begin(cls, path: str, plan: Plan, client: Mapping[str, Any]) -> Journal:
        """Make the file of an operation that begins.

        Raises:
            UsageError: there is one already; it may be another operation's.
            LocalFileError: it can't be written there.
        """
        path = os.path.abspath(path)
        try:
            made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise UsageError(
                f"cannot begin the journal {path!r}: it is there already; resume it, or remove it"
            ) from None
        except OSError as error:
            raise LocalFileError(
                f"cannot write the journal {path!r}: {error.strerror}", path=path
            ) from error
        journal = cls(path, _locked(made, path))
        head = {"version": VERSION, "azpool": __version__}
        journal._write({**head, "plan": plan.to_dict(), "client": dict(client)})
        return journal

    @classmethod
    def open(cls, path: str, secrets: Mapping[str, Any] | None) -> tuple[Journal, Past]:
        """Read the file of an operation whose process ended, to go on with it.

        Raises:
            UsageError: there is none.
            LocalFileError: it is damaged, of another version, or another process works on it.
        """
        path = os.path.abspath(path)
        try:
            made = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageError(f"cannot resume {path!r}: there is no such journal") from None
        except OSError as error:
            raise LocalFileError(
                f"cannot read the journal {path!r}: {error.strerror}", path=path
            ) from error
        file = _locked(made, path)
        try:
            past = _read(file, secrets)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            file.close()
            raise LocalFileError(
                f"cannot read the journal {path!r}: it is damaged; look at the machines, and remove"
                " it",
                path=path,
            ) from error
        except _OtherVersion as error:
            file.close()
            raise LocalFileError(f"cannot read the journal {path!r}: {error}", path=path) from None
        return cls(path, file), past

    def intend(self, calls: Sequence[tuple[int, str]]) -> None:
        """Put down, on the disk, that these steps' calls are sent now; (place, note) of each."""
        for place, note in calls:
            self._write({"intended": place, "note": note}, flush=False)
        self._flush()

    def withdrawn(self, place: int) -> None:
        """Put down that the call was certainly not done: it was refused, or never left."""
        self._write({"withdrawn": place})

    def accepted(self, place: int, answer: Answer) -> None:
        """Put down that the service took a call, and where it says how far it is."""
        headers = {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
        self._write({"accepted": place, "status": answer.status, "headers": headers})

    def ended(self, place: int, outcomes: Sequence[InstanceOutcome]) -> None:
        """Put down what became of a step."""
        self._write({"ended": place, "outcomes": [_row(one) for one in outcomes]})

    def close(self, *, keep: bool) -> None:
        """Close it; without `keep` nothing is left to be told, and it is removed."""
        if self._file.closed:
            return
        if not keep:
            with contextlib.suppress(FileNotFoundError):  # Ctrl-C came here once before
                os.unlink(self.path)
        self._file.close()

    def _write(self, row: Mapping[str, Any], *, flush: bool = True) -> None:
        self._file.write(json.dumps(row, default=str) + "\n")
        if flush:
            self._flush()

    def _flush(self) -> None:
        self._file.flush()
        os.fdatasync(self._file.fileno())


class _OtherVersion(Exception):
    """A journal is whole, but of another version than what is read here."""


def _locked(descriptor: int, path: str) -> TextIO:
    file = os.fdopen(descriptor, "r+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LocalFileError(
            f"cannot use the journal {path!r}: another process works on it", path=path
        ) from None
    return file


def _read(file: TextIO, secrets: Mapping[str, Any] | None) -> Past:
    text = file.read()
    whole, _, half = text.rpartition("\n")
    if half:
        # Written halfway when its process ended: what it would have said never happened.
        file.seek(0)
        file.truncate(len((whole + "\n").encode()) if whole else 0)
        file.seek(0, os.SEEK_END)
    head, *rows = (json.loads(line) for line in whole.split("\n"))
    if int(head["version"]) != VERSION:
        writer = f"azpool {head['azpool']}" if "azpool" in head else "the azpool that wrote it"
        raise _OtherVersion(
            f"it is of version {head['version']}, and this azpool, {__version__}, reads version"
            f" {VERSION}; resume it with {writer}"
        )
    past = Past(plan=Plan.from_dict(head["plan"], secrets), client=head["client"])
    # Of each step its calls one after the other: what one of them came to still holds where the
    # next was withdrawn.
    calls: dict[int, list[tuple[str, Answer | None]]] = {}
    for row in rows:
        if "intended" in row:
            calls.setdefault(row["intended"], []).append((row["note"], None))
        elif "withdrawn" in row:
            del calls[row["withdrawn"]][-1:]
        elif "accepted" in row:
            note, _ = calls[row["accepted"]].pop()
            answer = Answer(status=row["status"], headers=row["headers"])
            calls[row["accepted"]].append((note, answer))
        elif "ended" in row:
            past.ended[row["ended"]] = [_outcome(one) for one in row["outcomes"]]
    for place, (*_, (note, accepted)) in ((one, each) for one, each in calls.items() if each):
        past.intended[place] = note
        if accepted is not None:
            past.accepted[place] = accepted
    return past


_FIELDS = [one.name for one in fields(InstanceOutcome) if one.name not in {"error", "state"}]


def _row(outcome: InstanceOutcome) -> dict[str, Any]:
    row = {name: getattr(outcome, name) for name in _FIELDS}
    return {**row, "state": outcome.state.value}


def _outcome(row: Mapping[str, Any]) -> InstanceOutcome:
    made = InstanceOutcome(**{**row, "state": State(row["state"])})
    return made if made.ok else with_error(made)
