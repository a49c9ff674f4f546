"""Which exit code an end has. Pure: no printing, no exits."""

from __future__ import annotations

from enum import IntEnum

from azpool.errors import (
    AccessDenied,
    AzpoolError,
    FleetError,
    LocalFileError,
    NotFound,
    UsageError,
)

__all__ = [
    "Code",
    "Interrupted",
    "NothingMatched",
    "PipeClosed",
    "code_of_error",
    "code_of_failures",
    "names_nothing",
]


class Code(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    NOTHING_MATCHED = 3
    REFUSED = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """As if SIGPIPE had ended the command: what it wrote to was closed (`azpool ls | head`)."""
    TERMINATED = 143
    """SIGTERM or SIGHUP ended the command, which cleaned up first."""


class NothingMatched(AzpoolError):
    """The sources, the prefix or the pattern name nothing."""


class Interrupted(Exception):
    """Ctrl-C ended a command; its text says what was done and what was not.

    Attributes:
        job: the id of the job to resume, or "".
    """

    def __init__(self, text: str = "", *, job: str = "") -> None:
        super().__init__(text)
        self.job = job

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}; azpool jobs resume {self.job} goes on from there" if self.job else text


class PipeClosed(Exception):
    """Nobody reads standard output any more."""


def code_of_error(error: BaseException) -> Code:
    """Answer the exit code of a command that an error ended."""
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        return Code.INTERRUPTED
    if isinstance(error, NothingMatched):
        return Code.NOTHING_MATCHED
    if isinstance(error, UsageError):
        return Code.USAGE
    if isinstance(error, AccessDenied):
        return Code.REFUSED
    if isinstance(error, FleetError) and error.status in {401, 403}:
        return Code.REFUSED
    if isinstance(error, FleetError) and error.status == 404:
        return Code.NOTHING_MATCHED
    if isinstance(error, (BrokenPipeError, PipeClosed)):
        return Code.BROKEN_PIPE
    return Code.SOME_FAILED


def code_of_failures(done: int, failed: int, *, refused: int = 0, missing: int = 0) -> Code:
    """Answer the exit code of a command of which `done` things went well and `failed` did not.

    3 and 4 tell a script that the whole command was in vain: where anything was done, or the
    reasons differ, the code is 1.

    Args:
        done: things that went well, or were skipped on purpose.
        failed: things that did not.
        refused: those of them whose credentials were refused.
        missing: those of them that named nothing.
    """
    if not failed:
        return Code.DONE
    if done == 0:
        if refused == failed:
            return Code.REFUSED
        if missing == failed:
            return Code.NOTHING_MATCHED
    return Code.SOME_FAILED


def names_nothing(error: BaseException | None) -> bool:
    """Whether an error says that what was named is not there."""
    if isinstance(error, NothingMatched):
        return True
    if isinstance(error, NotFound):
        return error.code in {None, "BlobNotFound"}
    return isinstance(error, LocalFileError) and error.code == "ENOENT"
