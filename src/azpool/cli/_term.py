"""Where a command writes, and whether in colours.

Results and JSON go to `out`, all that is meant for people to `err`, so `azpool ls | sort` and
`azpool cp --json | jq` see nothing else. Colours by ANSI codes: loading rich takes 40 ms, a quarter
of a whole `azpool cp` of one file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TextIO

__all__ = ["Terminal", "wants_color"]

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}


# Where the encoding has none of these: C and POSIX locales of old, serial consoles.
_ASCII = str.maketrans("↑↓→━─✓✗·…■□▪▒", "^v>=-+x|~#o*%")


def wants_color(stream: TextIO) -> bool:
    """Whether to write colours to a stream: a terminal, unless NO_COLOR or TERM=dumb say no."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal; a closed or replaced one is not."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def paint(text: str, style: str, *, color: bool) -> str:
    """Answer `text` in a style of one or more words (`bold red`), or as it is without colours."""
    if not color:
        return text
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def _shows_symbols(stream: TextIO) -> bool:
    encoding = getattr(stream, "encoding", None) or "utf-8"  # a stream of text has none
    try:
        "━✓".encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


class Terminal:
    """The two streams of one command."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.out_color = wants_color(self.out)
        self.err_color = wants_color(self.err)
        self._unicode = _shows_symbols(self.err)
        for stream in (self.out, self.err):
            # A name may hold what the locale can't show: show its code rather than fail.
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # TextIO of tests

    @property
    def out_is_terminal(self) -> bool:
        return is_terminal(self.out)

    @property
    def err_is_terminal(self) -> bool:
        return is_terminal(self.err)

    @property
    def in_is_terminal(self) -> bool:
        return is_terminal(sys.stdin)

    @property
    def can_move_cursor(self) -> bool:
        """Whether a live view can redraw itself on standard error."""
        return self.err_is_terminal and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of standard error, whatever standard output is."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            columns, rows = os.get_terminal_size(self.err.fileno())
            if columns > 0:
                return columns, rows or 24
        columns, rows = shutil.get_terminal_size((80, 24))
        return columns, rows

    @property
    def out_width(self) -> int:
        """Columns of standard output."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(self.out.fileno()).columns or 80
        return shutil.get_terminal_size((80, 24)).columns

    def drawable(self, text: str) -> str:
        """Answer our own symbols as standard error can show them."""
        return text if self._unicode else text.translate(_ASCII)

    def result(self, text: str) -> None:
        """Write one line of results.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        self.out.write(text + "\n")

    def flush(self) -> None:
        """Hand what `result` wrote to the reader."""
        self.out.flush()

    def say(self, text: str, style: str = "") -> None:
        """Write one line for people; it never fails the command."""
        line = paint(text, style, color=self.err_color) if style else text
        with contextlib.suppress(OSError, ValueError):
            self.err.write(line + "\n")
            self.err.flush()

    def error(self, text: str) -> None:
        """Write the one message that ends a command."""
        self.say(f"{self.paint_err('azpool:', 'bold red')} {text}")

    def paint_out(self, text: str, style: str) -> str:
        return paint(text, style, color=self.out_color)

    def paint_err(self, text: str, style: str) -> str:
        return paint(self.drawable(text), style, color=self.err_color)

    def ask(self, question: str) -> bool:
        """Ask on the terminal; anything but y or yes is no, as is the end of the input."""
        self.err.write(f"{question} [y/N] ")
        self.err.flush()
        try:
            return input().strip().lower() in {"y", "yes"}
        except EOFError:
            self.err.write("\n")
            return False
