"""A few lines at the bottom of a terminal that are drawn again and again, without flicker.

One write a frame, over what stands there: nothing is erased before it is replaced, terminals that
know synchronised updates show it at once, and a frame like the last one is not written at all.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from azpool.cli import _words as words
from azpool.cli._frame import Line, line_text

if TYPE_CHECKING:
    from azpool.cli._term import Terminal

__all__ = ["Screen", "styled"]

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # synchronised updates; unknown to others, and ignored
ERASE_LINE, ERASE_BELOW = "\x1b[K", "\x1b[J"


def styled(line: Line, terminal: Terminal) -> str:
    """Answer a line as standard error can show it."""
    return "".join(
        terminal.paint_err(text, style) if style else terminal.drawable(text)
        for text, style in line
    )


class Screen:
    """The lines that stand on standard error now. Errors of writing are the caller's."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._shown: list[str] = []
        self._widths: list[int] = []
        self._columns = 0
        self._open = False

    def draw(self, lines: list[Line], columns: int) -> None:
        """Put these lines in the place of the last ones."""
        texts = [styled(line, self._terminal) for line in lines]
        if texts == self._shown and columns == self._columns:
            return
        pieces = [BEGIN, "" if self._open else HIDE, self._to_top(columns)]
        pieces.append("\n".join(f"{text}{ERASE_LINE}" for text in texts))
        pieces += [ERASE_BELOW, END]
        self._open = True
        self._shown, self._columns = texts, columns
        self._widths = [words.cells(line_text(line)) for line in lines]
        self._write("".join(pieces))

    def print_above(self, text: str) -> None:
        """Write a line that stays, above those that are drawn."""
        again = "\n".join(self._shown)
        self._write(f"{BEGIN}{self._to_top(self._columns)}{text}{ERASE_LINE}\n"
                    f"{again}{ERASE_BELOW}{END}")  # fmt: skip

    def clear(self) -> None:
        """Take the lines away and show the cursor; twice is harmless."""
        if not self._open:
            return
        pieces = f"{self._to_top(self._columns)}{ERASE_BELOW}{SHOW}"
        self._open = False
        self._shown = []
        self._widths = []
        self._write(pieces)

    def _to_top(self, columns: int) -> str:
        """Move the cursor from the end of what stands there to its beginning."""
        if not self._shown:
            return ""
        up = len(self._shown) - 1
        if columns < self._columns:
            # A terminal that has become narrower has wrapped what was wider.
            up = sum(-(-max(1, width) // columns) for width in self._widths) - 1
        return f"\x1b[{up}A\r" if up else "\r"

    def _write(self, text: str) -> None:
        # A terminal that has gone away must not end the transfer.
        with contextlib.suppress(OSError, ValueError):
            self._terminal.err.write(text)
            self._terminal.err.flush()
