"""The command line: `azpool cp`, `jobs`, `ls`, `rm`, `mb`, `rb`, `login-check`.

    _main -> _app -> _cp | _jobs | _ls | _rm | _containers | _login
                       |
                     _run -> _watch -> _live (_frame, _screen) | _plain | _events
    _remote: the one seam to azpool.storage and azpool.pool

Nothing is imported before it is used: a start-up that a shell loop can afford is a promise.
Results and JSON go to standard output, everything meant for people to standard error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.cli._main import main

__all__ = ["main"]


def __getattr__(name: str) -> Any:
    # Notebooks import azpool.cli._live for its progress bar: that must not load typer.
    if name == "main":
        from azpool.cli._main import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
