"""Where azpool keeps what outlives a process: journals of transfers and of fleets."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["state_folder"]


def state_folder(kind: str, environ: Mapping[str, str] | None = None, *, named: str = "") -> str:
    """Answer the folder of what is of one kind; it need not be there.

    Args:
        kind: its folder in `$XDG_STATE_HOME/azpool`, else in `~/.local/state/azpool`.
        environ: the environment; None is this process's.
        named: its folder in `$AZPOOL_STATE_HOME`, which comes first; "" is that itself.
    """
    environ = os.environ if environ is None else environ
    if home := environ.get("AZPOOL_STATE_HOME"):
        return os.path.join(home, named) if named else home
    home = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # the XDG specification: relative paths are ignored
        home = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "azpool", kind)
