"""Help texts: grouped, coloured on a terminal, and quick (rich's rendering takes 100 ms to load).

Typer is told not to use rich for help and errors; `Command` and `Group` render their own.
"""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from azpool.cli._ctrl_c import ended_by_one
from azpool.cli._exit import Interrupted, PipeClosed
from azpool.cli._term import paint, wants_color

__all__ = ["COMMANDS", "Command", "Group", "SubGroup", "new_app"]

# Name -> (module, what it does). A module is imported when its command is called.
COMMANDS = {
    "cp": ("azpool.cli._cp", "Copy files to or from Azure Blob storage."),
    "jobs": ("azpool.cli._jobs", "List, show, resume and remove transfers that are not done."),
    "ls": ("azpool.cli._ls", "List containers, or what is in one."),
    "rm": ("azpool.cli._rm", "Delete blobs."),
    "mb": ("azpool.cli._containers", "Make containers."),
    "rb": ("azpool.cli._containers", "Remove containers."),
    "fleet": ("azpool.cli._fleet", "Work with a cluster of virtual machines."),
    "login-check": ("azpool.cli._login", "Tell who --login signs in as."),
}
MAX_WIDTH = 100  # longer lines are hard to read
MIN_WIDTH = 40


def new_app(cls: type[TyperGroup] | None = None) -> typer.Typer:
    """Make the typer application of one command module."""
    return typer.Typer(
        cls=cls, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )


class Command(TyperCommand):
    """One command, whose help is ours and whose ends are not typer's to explain."""

    def invoke(self, ctx: Any) -> Any:
        # Typer's main would turn both of these into exits without a word.
        try:
            with ended_by_one():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted before anything was done") from None
        except BrokenPipeError:
            raise PipeClosed from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_Help(ctx).text())


class Group(TyperGroup):
    """All commands; loads the module of the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        found = typer.main.get_command(importlib.import_module(COMMANDS[cmd_name][0]).app)
        inner = getattr(found, "commands", None)
        if inner is None or isinstance(found, SubGroup):
            return found
        return inner[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_Help(ctx).text())


class SubGroup(TyperGroup):
    """A command that has commands of its own."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_Help(ctx).text())


class _Help:
    """The help of one command, as text."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.command = ctx.command
        self.color = wants_color(sys.stdout)
        columns = int(os.environ.get("COLUMNS") or 0) or _columns()
        self.width = max(MIN_WIDTH, min(MAX_WIDTH, columns))

    def text(self) -> str:
        parts = [self._about(), f"{self._heading('Usage')} {self._usage()}"]
        if isinstance(self.command, Group):
            rows = [(name, about) for name, (_, about) in COMMANDS.items()]
            parts.append(self._table("Commands", rows))
        if isinstance(self.command, SubGroup):
            mine = [(name, one.help or "") for name, one in self.command.commands.items()]
            rows = [(name, about.strip().partition("\n\n")[0]) for name, about in mine]
            parts.append(self._table("Commands", rows))
        for title, rows in self._panels().items():
            parts.append(self._table(title, rows))
        if self.command.epilog:
            parts.append(self._examples(self.command.epilog))
        return "\n\n".join(part for part in parts if part) + "\n"

    def _heading(self, text: str) -> str:
        return paint(f"{text}:", "bold green", color=self.color)

    def _about(self) -> str:
        paragraphs = (self.command.help or "").strip().split("\n\n")
        filled = [textwrap.fill(" ".join(p.split()), self.width) for p in paragraphs]
        return "\n\n".join(filled)

    def _usage(self) -> str:
        pieces = [p.metavar for p in self.command.params if _is_argument(p) and p.metavar]
        if isinstance(self.command, Group | SubGroup):
            pieces = ["COMMAND", "..."]
        return " ".join([self.ctx.command_path, "[OPTIONS]", *pieces])

    def _panels(self) -> dict[str, list[tuple[str, str]]]:
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.command.get_params(self.ctx):
            if getattr(param, "hidden", False):
                continue
            if _is_argument(param):
                rows = panels.setdefault("Arguments", [])
            else:
                rows = panels.setdefault(getattr(param, "rich_help_panel", None) or "Options", [])
            rows.append((_option_names(param), getattr(param, "help", None) or ""))
        # What a command does differently comes before what all of them have.
        first = [title for title in ("Arguments", "Options") if title in panels]
        return {title: panels[title] for title in [*first, *panels]}

    def _table(self, title: str, rows: list[tuple[str, str]]) -> str:
        # The names of all panels stand in one column, unless they would take most of the line.
        indent = min(30, max(len(name) for name, _ in rows) + 4)
        lines = [self._heading(title)]
        for name, about in rows:
            shown = paint(name, "cyan", color=self.color)
            room = max(20, self.width - indent)
            wrapped = textwrap.wrap(" ".join(about.split()), room) or [""]
            if len(name) + 4 > indent:
                lines.append(f"  {shown}")
            else:
                lines.append(f"  {shown}{' ' * (indent - len(name) - 2)}{wrapped.pop(0)}".rstrip())
            lines += [" " * indent + text for text in wrapped]
        return "\n".join(lines)

    def _examples(self, text: str) -> str:
        lines = [self._heading("Examples")]
        for line in textwrap.dedent(text).strip().splitlines():
            comment = line.lstrip().startswith("#")
            lines.append("  " + (paint(line, "dim", color=self.color) if comment else line))
        return "\n".join(lines)


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 80


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _option_names(param: Any) -> str:
    if _is_argument(param):
        return str(param.metavar or param.name.upper())
    # Short names first, as everywhere.
    names = ", ".join(sorted(param.opts, key=lambda name: (name.startswith("--"), len(name))))
    if param.secondary_opts:
        names += " / " + ", ".join(param.secondary_opts)
    if not (param.is_flag or param.count) and param.metavar:
        names += f" {param.metavar}"
    return names
