"""The thread that other people's code runs on: all is done, also where none can be started."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from azpool.pool.courier import Courier

PATIENCE_SECONDS = 10.0


@pytest.fixture
def no_threads() -> Iterator[pytest.MonkeyPatch]:
    """No thread can be started until this is undone."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield patched


class Told:
    """What was done, in order, and in which threads."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.threads: set[threading.Thread] = set()

    def note(self, number: int) -> None:
        self.numbers.append(number)
        self.threads.add(threading.current_thread())


def test_errands_that_had_no_thread_get_one_at_the_end(no_threads: pytest.MonkeyPatch) -> None:
    courier, told = Courier("test-courier"), Told()
    for number in range(3):
        courier.run(told.note, number)
    no_threads.undo()
    courier.close(PATIENCE_SECONDS)
    assert told.numbers == [0, 1, 2]
    assert threading.current_thread() not in told.threads


def test_where_there_is_none_then_either_they_are_done_by_who_closes(
    no_threads: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    courier, told = Courier("test-courier"), Told()
    courier.run(told.note, 0)
    courier.run(divmod, 1, 0)
    courier.run(told.note, 1)
    courier.close(0.0)  # as the I/O thread does, which runs nothing of the users'
    assert told.numbers == []
    courier.close(PATIENCE_SECONDS)
    assert told.numbers == [0, 1]
    assert told.threads == {threading.current_thread()}
    assert "a callback of the pool failed" in caplog.text


def test_a_courier_that_has_nothing_to_do_starts_no_thread_to_end(
    no_threads: pytest.MonkeyPatch,
) -> None:
    courier = Courier("test-courier")
    courier.close(PATIENCE_SECONDS)
    courier.close(0.0)
