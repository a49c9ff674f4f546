"""What may be given to a pool: every wrong argument is a `UsageError` before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_SIZE = 10


def checked_whole(number: Any, what: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        UsageError: it is none.
    """
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise UsageError(f"cannot use {what}={number!r}: not a whole number; give 1 or more")
    whole = int(number.__index__())
    if whole < 1:
        raise UsageError(f"cannot use {what}={whole}: give 1 or more")
    return whole


def checked_size(size: Any) -> int:
    """Return a number of nodes.

    Raises:
        UsageError: it is no whole number, or less than 1.
    """
    return checked_whole(size, "size")


def checked_index(index: Any, size: int) -> int:
    """Return the index of one of `size` nodes.

    Raises:
        UsageError: there is no such node.
    """
    whole = not isinstance(index, bool) and hasattr(index, "__index__")
    if not whole or not 0 <= index.__index__() < size:
        raise UsageError(f"cannot use node {index!r}: this pool has nodes 0 to {size - 1}")
    return int(index.__index__())


def check_callable(fn: Any) -> None:
    """Refuse what can't be called.

    Raises:
        UsageError: it is no function.
    """
    if not callable(fn):
        raise UsageError(f"cannot call {fn!r}: not a function; give the function before its items")


def check_exports(values: Any) -> None:
    """Refuse exports that no name leads to.

    Raises:
        UsageError: they are not a dict of names.
    """
    if not isinstance(values, dict):
        raise UsageError(f"cannot export a {type(values).__name__}: give a dict, {{name: value}}")
    for name in values:
        if not isinstance(name, str) or not name:
            raise UsageError(f"cannot export {name!r}: names are strings")


def check_service(name: Any, handler: Any) -> None:
    """Refuse a service that can't be asked or can't answer.

    Raises:
        UsageError: the name is no string, or the handler can't be called.
    """
    if not isinstance(name, str) or not callable(handler):
        raise UsageError(f"cannot serve {name!r} with {handler!r}: give a name and a function")


def check_map(
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: Any,
    chunksize: Any,
    buffersize: Any,
    deadline_seconds: Any,
    retries: Any,
    on_emit: Any,
) -> None:
    """Refuse options that a map can't follow.

    Raises:
        UsageError: one of them can't be right.
    """
    if not iterables:
        raise UsageError("cannot map over nothing: give at least one iterable after the function")
    for name, number in (("chunksize", chunksize), ("buffersize", buffersize)):
        if number is not None:
            checked_whole(number, name)
    if timeout is not None and not _is_time(timeout):
        raise UsageError(f"cannot use timeout={timeout!r}: give seconds, or None to wait for ever")
    if deadline_seconds is not None and not (_is_time(deadline_seconds) and deadline_seconds > 0):
        raise UsageError(f"cannot use deadline_seconds={deadline_seconds!r}: give more than 0")
    if isinstance(retries, bool) or not hasattr(retries, "__index__") or retries.__index__() < 0:
        raise UsageError(f"cannot use retries={retries!r}: give a whole number of 0 or more")
    if on_emit is not None and not callable(on_emit):
        raise UsageError(f"cannot call on_emit={on_emit!r}: give a callable(item, value)")


def _is_time(seconds: Any) -> bool:
    """Whether it is a number of seconds; NaN is none."""
    return (
        not isinstance(seconds, bool) and hasattr(seconds, "__float__") and seconds == seconds  # noqa: PLR0124
    )
