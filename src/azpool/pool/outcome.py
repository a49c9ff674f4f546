"""Values and errors of items on their way back: encoded on a node, decoded in the master.

Values of atomic types travel in one pickle for many items; every other value is pickled by itself,
at the moment it is made, so one that can't travel fails its own item and later changes don't reach
back.
"""

from __future__ import annotations

import pickle
import threading
import traceback
from typing import TYPE_CHECKING, Any

from azpool.errors import CannotPickle, RemoteError
from azpool.pool import namespace
from azpool.pool.wire import SHARE_BYTES, out_of_band

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "Failure",
    "MadeHere",
    "Pickled",
    "RemoteTraceback",
    "arrived",
    "decode_batch",
    "encode_batch",
    "encode_error",
    "encode_refusal",
    "encode_value",
    "forget_traces",
    "keep_trace",
    "load",
    "raise_ctrl_c",
]


class RemoteTraceback(Exception):
    """The traceback of a node, as the cause of the error that it explains."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Pickled:
    """A value that was pickled on the node; loaded where it is wanted."""

    __slots__ = ("buffers", "payload")

    def __init__(self, payload: bytes, buffers: list[memoryview]) -> None:
        self.payload = payload
        self.buffers = buffers


class Failure:
    """The error of one item, still encoded."""

    __slots__ = ("payload", "text", "trace", "traceback", "type_name")

    def __init__(self, payload: bytes | None, type_name: str, text: str, traceback: str) -> None:
        self.payload = payload
        self.type_name = type_name
        self.text = text
        self.traceback = traceback
        self.trace: TracebackType | None = None  # where the node is in this process

    def load(self, *, item: int | None, node: int) -> BaseException:
        """Rebuild the exception: its remote traceback as cause, a note naming item and node."""
        error: BaseException | None = None
        if self.payload is not None:
            try:
                loaded = pickle.loads(self.payload)
                error = loaded if isinstance(loaded, Exception) else None
            except BaseException as failed:
                raise_ctrl_c(failed)
        if error is None:
            error = RemoteError(type_name=self.type_name, text=self.text, traceback=self.traceback)
        error.__cause__ = RemoteTraceback(self.traceback)
        if self.trace is not None:
            error.__traceback__ = self.trace
        where = f"on node {node}" if item is None else f"item {item}, on node {node}"
        error.add_note(f"azpool: {where}")
        return error


class MadeHere:
    """An error that the master made itself, among answers that came from nodes."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def encode_value(value: Any) -> Pickled:
    """Pickle one value on the node.

    Raises:
        CannotPickle: it can't be pickled.
    """
    try:
        return Pickled(*namespace.dumps_plain(value))
    except Exception as error:
        raise CannotPickle(
            f"cannot return a {type(value).__qualname__}: {' '.join(str(error).split())};"
            " return plain data, or keep the object on the node (azpool.exports)"
        ) from error


def encode_error(error: BaseException, *, skip_frames: int = 0) -> Failure:
    """Put an exception of a node into words, and into a pickle where it can be pickled."""
    trace = error.__traceback__
    for _ in range(skip_frames):
        trace = trace.tb_next if trace is not None else None
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # a broken __str__ must not hide that the item failed
        text = f"{type(error).__qualname__}: (its text could not be made)\n"
    payload = None
    if isinstance(error, Exception):  # SystemExit and KeyboardInterrupt must not end the master
        try:
            payload = _dumps_error(error)
        except Exception:
            payload = None
    return Failure(payload, _qualified_name(type(error)), _text(error), text)


def encode_refusal(error: BaseException) -> tuple[bytes, list[memoryview]]:
    """Encode the answer to a question that failed."""
    failed = encode_error(error, skip_frames=1)
    words = (failed.payload, failed.type_name, failed.text, failed.traceback)
    return namespace.dumps_plain((False, words))


def _dumps_error(error: Exception) -> bytes:
    payload, buffers = namespace.dumps_plain(error)
    if buffers:
        payload = pickle.dumps(error, protocol=5)
    return payload


def _qualified_name(cls: type) -> str:
    name = cls.__qualname__
    return name if cls.__module__ == "builtins" else f"{cls.__module__}.{name}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text could not be made)"


def is_large(results: list[Any]) -> bool:
    """Whether the only result is bytes that are not to be copied into a pickle."""
    return len(results) == 1 and type(results[0]) is bytes and len(results[0]) >= SHARE_BYTES


def encode_batch(results: list[Any], *, plain: bool) -> tuple[bytes, list[memoryview]]:
    """Encode a run of results: atomic values as they are, the others beside them.

    `plain` says that all are atomic; then the pickle is the list itself.
    """
    if plain:
        return pickle.dumps(results, protocol=5), []
    extra: dict[int, tuple[Any, ...]] = {}
    buffers: list[memoryview] = []
    for offset, value in enumerate(results):
        kind = type(value)
        if kind is bytes and len(value) >= SHARE_BYTES:
            value = Pickled(*namespace.dumps_plain(out_of_band(value)))  # noqa: PLW2901 - the same
            kind = Pickled
        if kind is Pickled:
            extra[offset] = (value.payload, len(value.buffers))
            buffers += value.buffers
        elif kind is Failure:
            extra[offset] = (value.payload, value.type_name, value.text, value.traceback)
    if extra:
        results = [None if offset in extra else value for offset, value in enumerate(results)]
        return pickle.dumps((results, extra), protocol=5), buffers
    return pickle.dumps((results, None), protocol=5), buffers


def decode_batch(
    payload: bytes | memoryview, buffers: list[memoryview], *, plain: bool
) -> list[Any]:
    """Undo `encode_batch`; `Pickled` and `Failure` entries stay encoded for `load`."""
    results: list[Any]
    if plain:
        results = pickle.loads(payload)
        return results
    results, extra = pickle.loads(payload)
    if extra:
        position = 0
        for offset, entry in extra.items():
            if len(entry) == 2:
                results[offset] = Pickled(entry[0], buffers[position : position + entry[1]])
                position += entry[1]
            else:
                results[offset] = arrived(*entry)
    return results


_traces: dict[str, TracebackType] = {}  # of nodes in this process, by the text, until it arrives


def keep_trace(failure: Failure, error: BaseException, *, skip_frames: int) -> None:
    """Let the error keep its frames when it arrives in this process, for debuggers to look at."""
    trace = error.__traceback__
    for _ in range(skip_frames):
        trace = trace.tb_next if trace is not None else None
    if trace is not None:
        _traces[failure.traceback] = trace


def forget_traces() -> None:
    """Let go of what did not arrive, because nobody wants it any more."""
    _traces.clear()


def arrived(payload: bytes | None, type_name: str, text: str, traceback: str) -> Failure:
    """Return a failure as it came from a node."""
    failure = Failure(payload, type_name, text, traceback)
    if _traces:
        failure.trace = _traces.pop(traceback, None)
    return failure


def load(value: Any, *, item: int | None, node: int) -> tuple[bool, Any]:
    """Decode one entry of a batch: (True, value) or (False, exception)."""
    kind = type(value)
    if kind is Pickled:
        try:
            return True, pickle.loads(value.payload, buffers=value.buffers)
        except BaseException as error:
            raise_ctrl_c(error)
            failed = CannotPickle(
                f"cannot load the result of {'the call' if item is None else f'item {item}'}:"
                f" {type(error).__name__}: {error}; return plain data"
            )
            failed.__cause__ = error
            failed.add_note(f"azpool: item {item}, on node {node}")
            return False, failed
    if kind is Failure:
        return False, value.load(item=item, node=node)
    if kind is MadeHere:
        return False, value.error
    return True, value


def raise_ctrl_c(error: BaseException) -> None:
    """Let a Ctrl-C through; anything else that loading raises (SystemExit too) is an item's."""
    is_main = threading.current_thread() is threading.main_thread()
    if isinstance(error, KeyboardInterrupt) and is_main:
        raise error
