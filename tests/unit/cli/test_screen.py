"""What stands on the terminal after each frame, by a small terminal of our own."""

from __future__ import annotations

import io
import re

import pytest

from azpool.cli._screen import Screen
from azpool.cli._term import Terminal


class Pretended(io.StringIO):
    """A terminal that understands what the screen writes, and nothing else."""

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]
        self.row = 0
        self.column = 0
        self.visible = True
        self.frames: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.frames.append(text)
        for piece in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", text):
            self._take(piece)
        return len(text)

    def wrap(self, columns: int) -> None:
        """Do what terminals do that become narrower, the cursor at the end."""
        self.lines = [
            line[at : at + columns]
            for line in self.lines
            for at in range(0, max(1, len(line)), columns)
        ]
        self.row = len(self.lines) - 1

    def _take(self, piece: str) -> None:
        if piece == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif piece == "\r":
            self.column = 0
        elif piece == "\x1b[K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif piece == "\x1b[J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif piece in {"\x1b[?25l", "\x1b[?25h"}:
            self.visible = piece.endswith("h")
        elif piece.endswith("A"):
            self.row -= int(piece[2:-1])
            assert self.row >= 0
        elif not piece.startswith("\x1b"):
            line = self.lines[self.row]
            self.lines[self.row] = line[: self.column] + piece + line[self.column + len(piece) :]
            self.column += len(piece)
        else:
            assert piece in {"\x1b[?2026h", "\x1b[?2026l"}, piece


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> tuple[Screen, Pretended]:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Pretended()
    return Screen(Terminal(out=io.StringIO(), err=terminal)), terminal


def frame(*texts: str) -> list[list[tuple[str, str]]]:
    return [[(text, "")] for text in texts]


def test_a_frame_takes_the_place_of_the_last_one(screen) -> None:
    drawer, terminal = screen
    drawer.draw(frame("one long line", "two", "three"), 80)
    drawer.draw(frame("1", "2"), 80)
    assert terminal.lines == ["1", "2"]
    drawer.draw(frame("a", "b", "c", "d"), 80)
    assert terminal.lines == ["a", "b", "c", "d"]


def test_nothing_is_erased_before_what_takes_its_place(screen) -> None:
    """A line that is erased first is seen as empty: it flickers."""
    drawer, terminal = screen
    drawer.draw(frame("one", "two"), 80)
    drawer.draw(frame("ONE", "TWO"), 80)
    assert len(terminal.frames) == 2  # one write a frame
    assert terminal.frames[-1] == "\x1b[?2026h\x1b[1A\rONE\x1b[K\nTWO\x1b[K\x1b[J\x1b[?2026l"


def test_a_frame_like_the_last_is_not_written(screen) -> None:
    drawer, terminal = screen
    drawer.draw(frame("one"), 80)
    drawer.draw(frame("one"), 80)
    assert len(terminal.frames) == 1


def test_lines_that_stay_are_written_above(screen) -> None:
    drawer, terminal = screen
    drawer.draw(frame("heading", "bar"), 80)
    drawer.print_above("uploaded a")
    drawer.print_above("uploaded b, which has a longer name")
    assert terminal.lines == [
        "uploaded a", "uploaded b, which has a longer name", "heading", "bar",
    ]  # fmt: skip
    drawer.draw(frame("HEADING", "BAR"), 80)
    assert terminal.lines[2:] == ["HEADING", "BAR"]


def test_a_line_before_the_first_frame_stays_too(screen) -> None:
    drawer, terminal = screen
    drawer.print_above("uploaded a")
    drawer.draw(frame("bar"), 80)
    assert terminal.lines == ["uploaded a", "bar"]


def test_the_end_leaves_nothing_and_shows_the_cursor(screen) -> None:
    drawer, terminal = screen
    drawer.draw(frame("heading", "bar"), 80)
    assert not terminal.visible
    drawer.clear()
    drawer.clear()
    assert terminal.visible
    assert terminal.lines == [""]


def test_a_window_made_narrower_has_wrapped_what_stands_there(screen) -> None:
    drawer, terminal = screen
    drawer.draw(frame("x" * 100, "y" * 30), 120)
    terminal.wrap(60)
    drawer.draw(frame("x"), 60)
    assert terminal.lines == ["x"]


def test_a_terminal_without_unicode_gets_plain_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    terminal = Terminal(out=io.StringIO(), err=stream)
    terminal.say(terminal.paint_err("✓ ━─ · …", "bold"))
    stream.flush()
    assert stream.buffer.getvalue() == b"+ =- | ~\n"
