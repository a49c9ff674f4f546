"""What a script does on a simulated machine: a callable that users pass, or this tiny default.

    run command -> scripts(machine, source, parameters) -> exit code, stdout, stderr, seconds

No shell and no process is ever started: the default reads a handful of commands line by line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from azpool.testing.arm._world import Machine

__all__ = ["Script", "Scripts", "tiny_shell"]


class Script(NamedTuple):
    """What a script came to: `seconds` are simulated ones, from its start to its end."""

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0


Scripts: TypeAlias = Callable[["Machine", str, Mapping[str, str]], tuple[int, str, str, float]]
"""Says what a script does: machine, text of the script (or its URI, or the id of a built-in one),
parameters by name (those without a name by their position: `1`, `2`, ...). It is called once when
a run command begins, under the world's lock: it takes no real time and calls no server."""

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_NOT_FOUND = 127


def tiny_shell(machine: Machine, source: str, parameters: Mapping[str, str]) -> Script:
    """Interpret `echo` (also `>&2`), `exit N`, `sleep N`, `hostname`, `uptime`, `true`, `false`.

    Lines run in order; `$NAME` is a parameter; the exit code is that of `exit`, else of the last
    line, as in sh; any other command is not found (127).
    """
    code, seconds = 0, 0.0
    out: list[str] = []
    err: list[str] = []
    for number, line in enumerate(source.splitlines(), 1):
        words = _words(line, parameters)
        if not words:
            continue
        name, rest = words[0], words[1:]
        if name == "exit":
            code = _whole(rest[0]) if rest else code
            break
        code = 0
        if name == "echo":
            to_stderr = bool(rest) and rest[-1] in (">&2", "1>&2")
            (err if to_stderr else out).append(" ".join(rest[:-1] if to_stderr else rest))
        elif name == "sleep":
            seconds += _seconds(rest)
        elif name == "hostname":
            out.append(machine.computer_name)
        elif name == "uptime":
            out.append(" 12:00:00 up 1 day,  0:00,  0 users,  load average: 0.00, 0.00, 0.00")
        elif name in ("true", "false"):
            code = int(name == "false")
        else:
            code = _NOT_FOUND
            err.append(f"script.sh: line {number}: {name}: command not found")
    return Script(code, _text(out), _text(err), seconds)


def _words(line: str, parameters: Mapping[str, str]) -> list[str]:
    def value(match: re.Match[str]) -> str:
        return parameters.get(match[1] or match[2], "")

    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quote that is not closed
        words = line.split()
    return [_VARIABLE.sub(value, word) for word in words]


def _whole(word: str) -> int:
    return int(word) % 256 if word.lstrip("-").isdecimal() else 2


def _seconds(words: list[str]) -> float:
    try:
        return max(float(words[0]), 0.0)
    except (IndexError, ValueError):
        return 0.0


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
