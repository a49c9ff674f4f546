"""Which exit code an end has. Pure: no printing, no exits."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from azpool.errors import (
    AccessDenied,
    AzpoolError,
    LocalFileError,
    NotFound,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Code",
    "Interrupted",
    "NothingMatched",
    "PipeClosed",
    "code_of_error",
    "code_of_failures",
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
    """Ctrl-C ended a command; its text says what was done and what was not."""


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
    if isinstance(error, (BrokenPipeError, PipeClosed)):
        return Code.BROKEN_PIPE
    return Code.SOME_FAILED


def code_of_failures(done: int, errors: Sequence[BaseException | None]) -> Code:
    """Answer the exit code of a command of which `done` things went well and `errors` did not.

    3 and 4 tell a script that the whole command was in vain: where anything was done, or the
    reasons differ, the code is 1.
    """
    if not errors:
        return Code.DONE
    if done == 0:
        if all(isinstance(error, AccessDenied) for error in errors):
            return Code.REFUSED
        if all(_names_nothing(error) for error in errors):
            return Code.NOTHING_MATCHED
    return Code.SOME_FAILED


def _names_nothing(error: BaseException | None) -> bool:
    if isinstance(error, NothingMatched):
        return True
    if isinstance(error, NotFound):
        return error.code in {None, "BlobNotFound"}
    return isinstance(error, LocalFileError) and error.code == "ENOENT"
