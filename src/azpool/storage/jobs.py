"""The transfers that have a journal: list them, go on with one, forget one.

    from azpool.storage import jobs
    for job in jobs.jobs(): print(job)
    report = jobs.resume(job.id, key=...)

A job is here from its first moment until everything of it is done; then nothing of it is left.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azpool.errors import LocalFileError, UsageError
from azpool.report import Report
from azpool.storage import _files, journal
from azpool.storage._batch import Direction
from azpool.storage._http import ClientOptions
from azpool.storage._ledger import Kind, Ledger, Totals
from azpool.storage._outcomes import LedgerOutcomes
from azpool.storage._resume import bring_up_to_date
from azpool.storage._retry import RetryOptions
from azpool.storage.container import Container, Order, watched
from azpool.storage.journal import Journal, find_journal, run_of
from azpool.storage.options import TransferOptions
from azpool.storage.plan import part_bytes_for
from azpool.storage.transfer import Call, begun_before, plan_call, run_planned

if TYPE_CHECKING:
    from azpool.pool.session import AnyPool
    from azpool.storage.container import ProgressOption
    from azpool.storage.outcome import FileOutcome

__all__ = ["JobInfo", "JobState", "job", "jobs", "remove", "report", "resume"]


NEVER_BEGAN = "its process ended before anything was planned; remove it"


class JobState(enum.Enum):
    """What can be said of a job from outside."""

    RUNNING = "running"  # a process works on it
    INTERRUPTED = "interrupted"  # it can go on
    FAILED = "failed"  # it came to its end, and some of it failed; resuming tries those again
    UNREADABLE = "unreadable"  # damaged, or of another version


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """One job as its journal tells it.

    Attributes:
        id: names it; a beginning that no other has will do.
        path: of its journal.
        state: see `JobState`.
        direction: "upload" or "download".
        url: the container's address.
        sources: as the call named them.
        dest: as the call named it.
        cwd: what relative paths are relative to.
        started: when it began, UTC.
        planned: whether all its files are known.
        files_total: all files.
        files_done: those that have an outcome, whichever.
        files_failed: those of them that failed.
        files_skipped: those of them that were skipped.
        bytes_total: all bytes.
        bytes_done: bytes that have arrived, parts of unfinished files included.
        options: how it is done, as `TransferOptions.to_dict` has it.
        problem: why it is unreadable, or "".
    """

    id: str
    path: str
    state: JobState
    direction: str = ""
    url: str = ""
    sources: tuple[str, ...] = ()
    dest: str = ""
    cwd: str = ""
    started: datetime | None = None
    planned: bool = False
    files_total: int = 0
    files_done: int = 0
    files_failed: int = 0
    files_skipped: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def jobs() -> list[JobInfo]:
    """Answer all jobs in the state folder, the oldest first; one that can't be read is among them.

    Raises:
        LocalFileError: the folder can't be read.
    """
    found = [_look(path) for path in journal.journal_paths()]
    epoch = datetime.fromtimestamp(0, UTC)
    return sorted(
        (info for info in found if info is not None), key=lambda info: info.started or epoch
    )


def job(job_id: str) -> JobInfo:
    """Answer one job, by its id or its journal's path.

    Raises:
        UsageError: there is none.
    """
    info = _look(find_journal(job_id))
    if info is None:
        raise UsageError(f"cannot find the job {job_id!r}: it has just come to its end")
    return info


def report(job_id: str) -> Report[FileOutcome]:
    """Answer what has become of each thing of a job so far, read when it is asked for.

    What is not done yet is `unknown`. Nothing is changed, and a process that works on the job goes
    on meanwhile.

    Raises:
        UsageError: there is no such job.
        LocalFileError: its journal can't be read.
    """
    ledger = Ledger(find_journal(job_id), new=False)
    facts = ledger.facts()
    notes = json.loads(facts.get("notes", "[]"))
    return Report(LedgerOutcomes(ledger), title=facts.get("direction", ""), notes=notes)


def _look(path: str) -> JobInfo | None:
    name = os.path.basename(path).removesuffix(journal.SUFFIX)
    held = journal.is_held(path)
    try:
        ledger = Ledger(path, new=False)
        try:
            facts, totals = ledger.facts(), _with_parts(ledger, ledger.totals())
        finally:
            ledger.close()
    except LocalFileError as error:
        if not os.path.exists(path):
            return None
        # One that begins at this moment has no tables yet.
        state = JobState.RUNNING if held else JobState.UNREADABLE
        return JobInfo(id=name, path=path, state=state, problem="" if held else str(error))
    return _told(path, facts, totals, held=held)


def _with_parts(ledger: Ledger, totals: Totals) -> Totals:
    """Count the parts that are done of files that are not."""
    rows = ledger.rows(
        "SELECT size, count(*) FROM parts JOIN things USING (place) WHERE state = 0 GROUP BY place"
    )
    moved = sum(min(size, count * part_bytes_for(size)) for size, count in rows)
    return totals._replace(moved=totals.moved + moved)


def _told(path: str, facts: dict[str, str], totals: Totals, *, held: bool) -> JobInfo:
    if not facts.get("order"):  # killed in its first milliseconds
        state = JobState.RUNNING if held else JobState.UNREADABLE
        name = os.path.basename(path).removesuffix(journal.SUFFIX)
        return JobInfo(id=name, path=path, state=state, problem="" if held else NEVER_BEGAN)
    order = json.loads(facts["order"])
    planned = facts.get("planned") == "1"
    state = JobState.INTERRUPTED
    if held:
        state = JobState.RUNNING
    elif planned and totals.done == totals.files:
        state = JobState.FAILED
    return JobInfo(
        id=facts.get("id", ""),
        path=path,
        state=state,
        direction=facts.get("direction", ""),
        url=f"{facts.get('account_url', '')}/{facts.get('container', '')}",
        sources=tuple(order.get("sources", ())),
        dest=order.get("dest", ""),
        cwd=json.loads(facts.get("cwd", '""')),
        started=datetime.fromtimestamp(float(facts.get("started", 0)), UTC),
        planned=planned,
        files_total=totals.files,
        files_done=totals.done,
        files_failed=totals.failed,
        files_skipped=totals.skipped,
        bytes_total=totals.size_bytes,
        bytes_done=totals.moved,
        options=json.loads(facts.get("options", "{}")),
    )


def resume(
    job_id: str,
    *,
    check: bool = False,
    pool: AnyPool | None = None,
    progress: ProgressOption = None,
    container: Container | None = None,
    **signing: Any,
) -> Report[FileOutcome]:
    """Go on with a job until all of it is done; blocks, and answers with a report of the whole job.

    What the journal holds as done is not moved again; what failed is tried again. Sources that have
    changed are moved as they are now.

    Args:
        job_id: its id, or its journal's path.
        check: first look whether all that is done is still there, and move again what is not.
        pool: whose nodes; the session's own if None.
        progress: as for `Container.upload_many`.
        container: the container to go on with, where it is at hand; its address must be the job's.
        signing: else how to sign in: `credential`, `key`, `sas`, `connection_string`, `anonymous`,
            `account`, as for `Container`; without any the environment counts.

    Raises:
        UsageError: there is no such job, or nothing says how to sign in.
        LocalFileError: another process works on it, or its journal can't be read.
        StorageError: the container can't be asked what it holds.
    """
    kept = Journal.open(find_journal(job_id))
    try:
        facts = kept.ledger.facts()
        if not facts.get("order"):
            raise UsageError(f"cannot go on with the job {job_id!r}: {NEVER_BEGAN}")
        place = _container(facts, container, signing)
        call = _call(facts, place)
    except BaseException:
        kept.close()
        raise
    with watched(call.direction.value, progress) as told:
        try:
            if facts.get("planned") != "1":  # nothing had moved
                kept.ledger.clear()
                with contextlib.chdir(call.cwd):
                    selection = place.select(
                        Order(**json.loads(facts["order"])), encoded=call.options.encode_names
                    )
                    plan_call(call, kept.ledger, selection, told, job_id=kept.id)
            else:
                started = float(facts["started"])
                run = run_of(kept.id)
                bring_up_to_date(call, kept.ledger, run, started=started, check=check)
                call = begun_before(call)
        except BaseException:
            kept.close()
            raise
        return run_planned(call, kept.ledger, pool=pool, progress=told, journal=kept)


def _container(
    facts: dict[str, str], given: Container | None, signing: dict[str, Any]
) -> Container:
    url = f"{facts['account_url']}/{facts['container']}"
    if given is None:
        if facts["signed"] == "Anonymous" and not signing:
            signing = {"anonymous": True}
        given = Container(
            url,
            options=ClientOptions(**json.loads(facts["client"])),
            retry=RetryOptions(**json.loads(facts["retry"])),
            **signing,
        )
    elif given.url != url:
        raise UsageError(
            f"cannot go on with {given.url!r}: the job is of {url!r}; give a container of that"
        )
    return given.at(json.loads(facts.get("path", '""')))


def _call(facts: dict[str, str], place: Container) -> Call:
    return place.call(
        Direction(facts["direction"]),
        TransferOptions.from_dict(json.loads(facts["options"])),
        cwd=json.loads(facts["cwd"]),
    )


def remove(job_id: str) -> None:
    """Forget a job: its journal goes, and unfinished downloads with it; what is done stays.

    Blocks of unfinished uploads the service itself forgets after a week.

    Raises:
        UsageError: there is no such job.
        LocalFileError: a process works on it.
    """
    path = find_journal(job_id)
    try:
        kept = Journal.open(path)
    except LocalFileError as error:
        if error.code == "EBUSY":
            raise
        journal.remove_files(path)
        return
    try:
        facts = kept.ledger.facts()
        if facts.get("direction") == Direction.DOWNLOAD.value:
            cwd, run = json.loads(facts["cwd"]), run_of(kept.id)
            for thing in kept.ledger.things(f"state IN (0, 2) AND kind != {Kind.FOLDER}"):
                _files.drop_part(os.path.join(cwd, thing.target), run)
    finally:
        kept.close(remove=True)
