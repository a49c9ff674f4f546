"""Where the journals of fleets are kept, and how one is found again.

    $AZPOOL_STATE_HOME/fleets, else $XDG_STATE_HOME/azpool/fleets, else ~/.local/state/azpool/fleets

Each is a file `ID.fleet` there, which goes when its operation has ended.
"""

from __future__ import annotations

import os
import secrets

from azpool._state_home import state_folder
from azpool.errors import LocalFileError, UsageError

__all__ = ["find_journal", "fleet_folder", "id_of", "new_journal"]

SUFFIX = ".fleet"


def fleet_folder() -> str:
    """Answer the folder of this user's journals of fleets; it need not be there."""
    return state_folder("fleets", named="fleets")


def new_journal() -> str:
    """Answer the path of a journal that is not there yet; its folder is made.

    Raises:
        LocalFileError: none can be kept there.
    """
    folder = fleet_folder()
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise LocalFileError(
            f"cannot keep a journal in {folder!r}: {error.strerror or error}; set "
            "AZPOOL_STATE_HOME to a folder of yours, or give a path",
            path=folder,
        ) from error
    return os.path.join(folder, secrets.token_hex(4) + SUFFIX)


def id_of(path: str) -> str:
    """Answer by what `find_journal` finds it: its id, or the path of one that is elsewhere."""
    if os.path.dirname(path) == fleet_folder():
        return os.path.basename(path).removesuffix(SUFFIX)
    return path


def find_journal(name: str | os.PathLike[str] | None) -> str:
    """Answer the path of a journal: by path, by the beginning of its id, or the newest.

    Raises:
        UsageError: there is none, or several begin so.
    """
    if isinstance(name, os.PathLike):
        return os.fspath(name)
    if name and (os.sep in name or os.path.isfile(name)):
        return name
    folder = fleet_folder()
    try:
        names = [one for one in os.listdir(folder) if one.endswith(SUFFIX)]
    except FileNotFoundError:
        names = []
    found = [os.path.join(folder, one) for one in names if one.startswith(name or "")]
    if not found:
        what = f"{name!r}: no operation begins so" if name else "an operation: none was cut short"
        raise UsageError(f"cannot resume {what}; {folder!r} holds those that can be")
    if name and len(found) > 1:
        raise UsageError(f"cannot resume {name!r}: {len(found)} operations begin so; give more")
    return max(found, key=os.path.getmtime)
