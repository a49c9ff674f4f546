"""What code says on a node by logging and warnings, and where that comes out in the master.

    node: logging, warnings -> one frame each, sent before the call returns -> supervisor
    master, on the courier: the logger of the same name, `warnings.warn_explicit`, or standard error

What was said before a node died has left it. Levels of loggers are the master's of the moment when
the node starts. A node filters warnings as its interpreter was told to (-W, PYTHONWARNINGS) and
sends each location's first; the master's filters then decide, and where they show a location once
they show it once for all nodes. A filter that makes errors of warnings has no call to raise them
in: they are shown.
"""

from __future__ import annotations

import contextlib
import linecache
import logging
import os
import pickle
import sys
import warnings
from typing import TYPE_CHECKING, Any, TextIO

from azpool.pool.wire import ATOMIC, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Levels", "install", "levels", "print_lines", "receive", "take_levels"]

Levels = tuple[int, dict[str, int]]  # what logging.disable holds back; loggers' levels, "" the root

# -- levels, on their way to a node ----------------------------------------------------------------


def levels() -> Levels:
    """Return the levels of this process's loggers where they were set."""
    root = logging.root
    known = list(root.manager.loggerDict.items())
    named = {name: log.level for name, log in known if isinstance(log, logging.Logger)}
    set_here = {name: level for name, level in named.items() if level != logging.NOTSET}
    return root.manager.disable, {"": root.level, **set_here}


def take_levels(given: Levels) -> None:
    """Give this process's loggers the levels of the master's, where they differ."""
    if logging.root.manager.disable != given[0]:
        logging.disable(given[0])
    for name, level in given[1].items():
        logger = logging.getLogger(name or None)
        if logger.level != level:
            logger.setLevel(level)


# -- on a node -------------------------------------------------------------------------------------


def install(index: int, tell: Callable[[int, bytes], None]) -> None:
    """Send all that is logged or warned of in this process from now on."""
    logging.root.addHandler(_Sending(index, tell))

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None or os.getpid() != pid:
            text = warnings.formatwarning(message, category, filename, lineno, line)
            (file or sys.stderr).write(text)
            return
        names = [(c.__module__, c.__qualname__) for c in category.__mro__ if c is not object]
        where = (filename, lineno, _module_of(filename))
        tell(Kind.WARNED, pickle.dumps((names, str(message), *where), protocol=5))

    pid = os.getpid()
    warnings.showwarning = show


def _module_of(filename: str) -> str | None:
    """Return the name of the module that warns: filters know modules, not files."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != filename:  # type: ignore[redundant-expr]
        frame = frame.f_back  # type: ignore[assignment]
    name = frame.f_globals.get("__name__") if frame is not None else None  # type: ignore[redundant-expr]
    return name if isinstance(name, str) else None


class _Sending(logging.Handler):
    """Sends each record to the master before the call that logged it returns."""

    def __init__(self, index: int, tell: Callable[[int, bytes], None]) -> None:
        super().__init__()
        self._name = f"azpool-node-{index}"
        self._tell = tell
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if os.getpid() == self._pid:
                self._tell(Kind.LOGGED, _encode(record, self._name))
            else:  # a process that a task forked has no channel
                sys.stderr.write(f"{self.format(record)}\n")
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)


_formatter = logging.Formatter()


def _encode(record: logging.LogRecord, process_name: str) -> bytes:
    """Pickle a record: what is plain as it is, what else it holds one by one, or in words."""
    facts = dict(record.__dict__)
    if not _is_plain(record):
        facts["msg"], facts["args"] = record.getMessage(), None
    if record.exc_info and not record.exc_text:
        facts["exc_text"] = _formatter.formatException(record.exc_info)
    facts["exc_info"] = None
    facts["processName"] = process_name
    args = facts.pop("args")
    extra: dict[str, bytes | str] = {}
    for name in [name for name, value in facts.items() if type(value) not in ATOMIC]:
        value = facts.pop(name)
        try:
            extra[name] = pickle.dumps(value, protocol=5)
        except Exception:
            extra[name] = repr(value)
    return pickle.dumps((facts, args, extra), protocol=5)


def _is_plain(record: logging.LogRecord) -> bool:
    """Whether template and arguments can stay apart: tools group records by their template."""
    args: Any = record.args
    values = args.values() if type(args) is dict else args if type(args) is tuple else ()
    return type(record.msg) is str and (
        args is None or (type(args) in (dict, tuple) and ATOMIC.issuperset(map(type, values)))
    )


# -- in the master, on the courier -----------------------------------------------------------------


def receive(node: int, kind: int, body: bytes | memoryview) -> None:
    """Do in this process what a node did: log, or warn."""
    if kind == Kind.LOGGED:
        _log(node, *pickle.loads(body))
    else:
        _warn(node, *pickle.loads(body))


def print_lines(node: int, stream: int, text: str) -> None:
    """Print a node's output, every line tagged."""
    print_tagged(f"node {node}", stream, text)


def print_tagged(tag: str, stream: int, text: str) -> None:
    """Print the output of a process of the pool, every line tagged."""
    target = sys.stdout if stream == 1 else sys.stderr
    if target is not None:
        for line in text.splitlines():
            target.write(f"[{tag}] {line}\n")
        target.flush()


def _log(node: int, facts: dict[str, Any], args: Any, extra: dict[str, bytes | str]) -> None:
    record = logging.makeLogRecord({**facts, "args": args})
    for name, value in extra.items():
        record.__dict__[name] = _loaded(value)
    record.azpool_node = node
    logger = logging.getLogger(record.name)
    if not logger.isEnabledFor(record.levelno):
        return
    last = logging.lastResort
    if logger.hasHandlers() or last is None:
        logger.handle(record)
    elif record.levelno >= last.level:  # what logging does where nobody set it up, and tagged
        print_lines(node, 2, last.format(record))


def _loaded(value: bytes | str) -> Any:
    if isinstance(value, str):
        return value
    try:
        return pickle.loads(value)
    except Exception as error:
        return f"(can't be loaded here: {type(error).__name__}: {error})"


_registries: dict[str, dict[Any, Any]] = {}  # by file: what warnings has shown already


def _warn(
    node: int,
    names: list[tuple[str, str]],
    text: str,
    filename: str,
    lineno: int,
    module: str | None,
) -> None:
    message = _warning(names, text)
    with contextlib.suppress(AttributeError):
        message.azpool_node = node  # type: ignore[attr-defined]
    # The tag is in the place, not in the text: filters and "once" go by the text.
    place = f"[node {node}] {filename}"
    lines = linecache.getlines(filename)
    linecache.cache[place] = (sum(map(len, lines)), None, lines, place)
    module = module or filename.removesuffix(".py")
    registry = _registries.setdefault(filename, {})
    try:
        warnings.warn_explicit(message, type(message), place, lineno, module, registry)
    except Warning:
        shown = warnings.formatwarning(message, type(message), filename, lineno)
        print_lines(node, 2, shown)


def _warning(names: list[tuple[str, str]], text: str) -> Warning:
    """Make the warning by the first of its classes that is loaded here; importing is not for us."""
    for module, qualname in names:
        found: Any = sys.modules.get(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, Warning):
            with contextlib.suppress(Exception):
                made = found(text)
                if str(made) == text:
                    return made
    return UserWarning(text)
