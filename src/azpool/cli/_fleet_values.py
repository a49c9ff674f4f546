"""What the values of the options of `azpool fleet` mean: times, shares, scripts, functions.

Nothing is sent and nothing is asked of Azure; what can't be meant is a `UsageError` before either.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from azpool.errors import UsageError

__all__ = ["failures_allowed", "from_environment", "load_function", "read_script", "seconds"]

BIG_SCRIPT_BYTES = 1024 * 1024
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def seconds(option: str, text: str | None) -> float | None:
    """Read a time: `90`, `90s`, `15m`, `2h`.

    Raises:
        UsageError: it is none, or nothing.
    """
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip().lower())
    value = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if value <= 0:
        raise UsageError(f"cannot use {option}={text!r}: it is no time; give {option} 15m")
    return value


def failures_allowed(text: str | None) -> int | str | None:
    """Read a number or a share: `5`, `10%`.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,2}(\.[0-9]+)?%|100%", text):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise UsageError(f"cannot use --max-failures={text!r}: give a number, or a share as 10%")


def from_environment(names: Sequence[str] | None) -> dict[str, str]:
    """Read protected parameters, each from the environment variable of its name.

    Raises:
        UsageError: it is not set, or a value was given where others can see it.
    """
    found = {}
    for name in names or ():
        if "=" in name:
            raise UsageError(
                f"cannot use --protected-param with a value: others see arguments; set the "
                f"environment variable {name.partition('=')[0]} and give its name"
            )
        if name not in os.environ:
            raise UsageError(
                f"cannot use --protected-param {name}: no environment variable {name}; set it"
            )
        found[name] = os.environ[name]
    return found


def read_script(place: str, others: Sequence[str]) -> str:
    """Read a script from a file, or standard input where it is `-`.

    Raises:
        UsageError: it can't be read, or holds no text.
    """
    if place == "-":
        if "-" in others:
            raise UsageError("cannot read ids and the script from standard input: give a file")
        return sys.stdin.read()
    try:
        with open(place, "rb") as file:
            data = file.read(BIG_SCRIPT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the script {place!r}: {error.strerror or error}; the last argument is "
            "its file, -c gives it as text"
        ) from None
    if len(data) > BIG_SCRIPT_BYTES:
        raise UsageError(
            f"cannot run the script {place!r}: more than 1 MiB; have it fetch the rest"
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"cannot run the script {place!r}: it is no text in UTF-8") from None


def load_function(place: str) -> Callable[[Any], Any]:
    """Load `FILE.py:FUNCTION`.

    Raises:
        UsageError: there is none.
    """
    import runpy

    path, _, name = place.rpartition(":")
    if not path or not name:
        raise UsageError(f"cannot call {place!r}: name it FILE.py:FUNCTION, as the last argument")
    if not os.path.isfile(path):
        raise UsageError(f"cannot call {place!r}: no file {path!r}")
    # As `__main__`'s name for itself would be: what it defines travels by value.
    function = runpy.run_path(path, run_name="__azpool_map__").get(name)
    if not callable(function):
        raise UsageError(f"cannot call {place!r}: {path!r} defines no function {name!r}")
    found: Callable[[Any], Any] = function
    return found
