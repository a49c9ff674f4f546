from __future__ import annotations

import pytest

from azpool.cli._exit import (
    Code,
    Interrupted,
    NothingMatched,
    code_of_error,
    code_of_failures,
    names_nothing,
)
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


def test_codes_of_reports() -> None:
    assert code_of_failures(5, 0) is Code.DONE
    assert code_of_failures(0, 0) is Code.DONE
    assert code_of_failures(0, 2, refused=2) is Code.REFUSED
    assert code_of_failures(1, 1, refused=1) is Code.SOME_FAILED
    assert code_of_failures(0, 2, refused=1) is Code.SOME_FAILED
    assert code_of_failures(0, 1, missing=1) is Code.NOTHING_MATCHED
    assert code_of_failures(0, 2, missing=1, refused=1) is Code.SOME_FAILED
    assert code_of_failures(3, 1, missing=1) is Code.SOME_FAILED


def test_what_names_nothing_is_told_from_what_can_not_be_had() -> None:
    assert names_nothing(NotFound("x", code="BlobNotFound"))
    assert names_nothing(NothingMatched("x"))
    assert names_nothing(LocalFileError("cannot upload 'x': no such file; check", code="ENOENT"))
    assert not names_nothing(NotFound("x", code="ContainerNotFound"))
    assert not names_nothing(LocalFileError("cannot upload 'x': permission", code="EACCES"))
    assert not names_nothing(None)


def test_an_interrupt_says_which_job_goes_on() -> None:
    assert str(Interrupted("stopped")) == "stopped"
    error = Interrupted("stopped", job="3f2a")
    assert str(error) == "stopped; azpool jobs resume 3f2a goes on from there"
