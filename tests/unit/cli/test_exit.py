from __future__ import annotations

import pytest

from azpool.cli._exit import Code, Interrupted, NothingMatched, code_of_error, code_of_failures
from azpool.errors import (
    AccessDenied,
    ConnectionFailed,
    LocalFileError,
    NameRefused,
    NotFound,
    UsageError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), Code.USAGE),
        (NothingMatched("x"), Code.NOTHING_MATCHED),
        (AccessDenied("x"), Code.REFUSED),
        (ConnectionFailed("x"), Code.SOME_FAILED),
        (NameRefused("x"), Code.SOME_FAILED),
        (NotFound("x", code="ContainerNotFound"), Code.SOME_FAILED),
        (KeyboardInterrupt(), Code.INTERRUPTED),
        (Interrupted("x"), Code.INTERRUPTED),
        (BrokenPipeError(), Code.BROKEN_PIPE),
        (RuntimeError("x"), Code.SOME_FAILED),
    ],
)
def test_each_error_has_one_exit_code(error: BaseException, code: Code) -> None:
    assert code_of_error(error) is code


def missing() -> LocalFileError:
    return LocalFileError("cannot upload 'x': no such file; check", path="x", code="ENOENT")


def test_codes_of_reports() -> None:
    denied = AccessDenied("x")
    assert code_of_failures(5, []) is Code.DONE
    assert code_of_failures(0, []) is Code.DONE
    assert code_of_failures(0, [denied, denied]) is Code.REFUSED
    assert code_of_failures(1, [denied]) is Code.SOME_FAILED
    assert code_of_failures(0, [denied, ConnectionFailed("x")]) is Code.SOME_FAILED
    assert code_of_failures(0, [NotFound("x", code="BlobNotFound")]) is Code.NOTHING_MATCHED
    assert code_of_failures(0, [NotFound("x", code="ContainerNotFound")]) is Code.SOME_FAILED
    assert code_of_failures(0, [missing(), missing()]) is Code.NOTHING_MATCHED
    assert code_of_failures(3, [NotFound("x", code="BlobNotFound")]) is Code.SOME_FAILED
