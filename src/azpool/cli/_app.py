"""From `sys.argv` to an exit code: which command, and one message for whatever ends it.

Invariants: `main` never raises and no traceback reaches the user unless `--debug` (or AZPOOL_DEBUG)
asks for it; a message never holds a key or a SAS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from azpool.cli._ctrl_c import ignore_ctrl_c
from azpool.cli._exit import Code, Interrupted, PipeClosed, code_of_error
from azpool.cli._help import Group
from azpool.cli._term import Terminal
from azpool.errors import AzpoolError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["app", "main"]

EPILOG = """
azpool cp results/ az://backup/run-7      # up: the folder's contents
azpool cp 'az://backup/run-7/**/*.csv' .  # down: what a pattern matches
azpool ls -lr az://backup
azpool rm --recursive az://backup/run-7/

# Credentials are best set in the environment: AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or
# AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_CONNECTION_STRING
"""

app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from azpool._version import __version__

        Terminal().result(f"azpool {__version__}")
        raise typer.Exit


@app.callback(epilog=EPILOG, invoke_without_command=True)
def azpool(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback prints
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Move many files to and from Azure Blob storage, on a pool of background processes."""
    if ctx.invoked_subcommand is None:
        Terminal().result(ctx.get_help())


def main(argv: Sequence[str] | None = None, *, storage: Any = None) -> int:
    """Run one command and answer its exit code; never raises.

    Args:
        argv: the arguments; those of the process where None.
        storage: what the commands work on instead of `azpool.storage`: a `_remote.Storage`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    terminal = Terminal()
    with _Signals() as signals:
        code = _run(arguments, terminal, storage)
        return Code.TERMINATED if signals.came and code == Code.INTERRUPTED else code


class _Signals:
    """Makes SIGTERM and SIGHUP end a command as Ctrl-C does: cleaned up, and said what was done."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                # What is ignored stays ignored: nohup.
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


def _run(arguments: list[str], terminal: Terminal, storage: Any) -> int:
    try:
        code = app(arguments, prog_name="azpool", standalone_mode=False, obj=storage)
        terminal.flush()
        return int(code or 0)
    except (BrokenPipeError, PipeClosed):
        return _pipe_closed()
    except BaseException as error:
        if "--debug" in arguments or os.environ.get("AZPOOL_DEBUG"):
            import traceback

            traceback.print_exc()
        code = _explain(error, terminal)
        if "--json" in arguments:
            _tell_programs(error, code, terminal)
        return code


def _explain(error: BaseException, terminal: Terminal) -> int:
    """Print the one message that an error ends a command with, and answer the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else Code.SOME_FAILED
    if isinstance(error, (KeyboardInterrupt, Interrupted, typer.Abort)):
        # What is still running ends with the interpreter, within a second: a second Ctrl-C would
        # only break that off in the middle.
        ignore_ctrl_c()
        terminal.error(str(error) or "interrupted before anything was done")
        return Code.INTERRUPTED
    if hasattr(error, "format_message"):  # what typer says of arguments; click's class has no home
        terminal.error(_usage_message(error))
        return Code.USAGE
    if isinstance(error, AzpoolError):
        terminal.error(str(error))
        return code_of_error(error)
    text = " ".join(str(error).split())
    terminal.error(
        f"cannot go on: {type(error).__name__}{': ' if text else ''}{text}; "
        "this is a bug in azpool: --debug shows where"
    )
    return Code.SOME_FAILED


def _tell_programs(error: BaseException, code: int, terminal: Terminal) -> None:
    """Write the error as an event, so that a program that reads standard output has it too."""
    from azpool.cli._events import write_event

    facts = {name: getattr(error, name, None) for name in ("status", "code", "request_id", "job")}
    with contextlib.suppress(OSError, ValueError):
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        write_event(
            terminal,
            "error",
            message=message,
            type=type(error).__name__,
            exit_code=int(code),
            **facts,
        )


def _usage_message(error: Any) -> str:
    """Put what typer says of the arguments into the house's form."""
    said = str(error.format_message()).strip().rstrip(".")
    said = said[:1].lower() + said[1:] if said[1:2].islower() else said
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "azpool"
    return f"cannot run {path!r}: {said}; see {path} --help"


def _pipe_closed() -> int:
    # The interpreter flushes stdout once more at its end: give it somewhere to go.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return Code.BROKEN_PIPE
