"""Where a command writes, and whether in colours; only the live view prints elsewhere.

Results and JSON go to `out`, all that is meant for people to `err`, so `azpool ls | sort` and
`azpool cp --json | jq` see nothing else. Colours by ANSI codes: loading rich for one line of text
would double the start-up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

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


class Terminal:
    """The two streams of one command."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.out_color = wants_color(self.out)
        self.err_color = wants_color(self.err)
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
    def width(self) -> int:
        return shutil.get_terminal_size((80, 24)).columns

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
        return paint(text, style, color=self.err_color)

    def console(self) -> Console:
        """Make a rich console on standard error (rich is loaded now)."""
        from rich.console import Console

        return Console(
            file=self.err,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=False,
            force_terminal=True if self.can_move_cursor else None,
            no_color=not self.err_color,
        )

    def ask(self, question: str) -> bool:
        """Ask on the terminal; anything but y or yes is no, as is the end of the input."""
        self.err.write(f"{question} [y/N] ")
        self.err.flush()
        try:
            return input().strip().lower() in {"y", "yes"}
        except EOFError:
            self.err.write("\n")
            return False
