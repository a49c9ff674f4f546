"""Exports, and how functions that travel by value see them.

In the master `_Pickler` leaves out of a function the globals that are exported, and notes
which globals it uses. On a node those notes (`Links`) let `link` put the exported names into the
function's globals, a plain dict, before each chunk: an exported name where there is one, else what
was captured, else nothing, so that builtins or a NameError answer. What the function wrote itself
stays its own.
"""

from __future__ import annotations

import dis
import io
import pickle
import threading
import warnings
import weakref
from collections.abc import Iterator, MutableMapping
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

import cloudpickle

from azpool.errors import CannotPickle

_MISSING = object()
SET_BY_PYTHON = ("__name__", "__builtins__")  # class bodies read the first
CO_OPTIMIZED = 1  # inspect's, whose import a node is spared; class bodies alone lack it
GENERATORS = ("Random", "RandomState")  # types of which a module holds one that all share


def used_names(code: CodeType) -> frozenset[str]:
    """Names that a function's code may look up in its globals, nested functions included.

    A superset (attribute names are among them), which costs nothing: a name that is never looked up
    is never seen.
    """
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= used_names(constant)
    return frozenset(names)


def names_in_class_bodies(code: CodeType) -> frozenset[str]:
    """Names that class bodies inside a function read; cloudpickle does not capture them."""
    names: set[str] = set()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= names_in_class_bodies(constant)
            if not constant.co_flags & CO_OPTIMIZED:
                names.update(
                    step.argval
                    for step in dis.get_instructions(constant)
                    if step.opname in {"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
                )
    return frozenset(names)


class Links:
    """What `link` has to do for one shipped object: a globals dict for each function by value."""

    __slots__ = ("_entries",)

    def __init__(self, entries: list[tuple[dict[str, Any], frozenset[str]]]) -> None:
        merged: dict[int, tuple[dict[str, Any], set[str]]] = {}
        for namespace, names in entries:
            merged.setdefault(id(namespace), (namespace, set()))[1].update(names)
        self._entries = [
            (
                namespace,
                tuple(names),
                {n: namespace[n] for n in names if n in namespace},
                set[str](),
            )
            for namespace, names in merged.values()
        ]

    def link(self, exports: dict[str, Any]) -> None:
        """Let the functions see `exports` as they are now."""
        for namespace, names, captured, linked in self._entries:
            for name in names:
                if name in exports:
                    namespace[name] = exports[name]
                    linked.add(name)
                elif name in linked:
                    linked.discard(name)
                    if name in captured:
                        namespace[name] = captured[name]
                    else:
                        namespace.pop(name, None)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it ships no types
    """cloudpickle that leaves exported names out of functions and notes what each one uses."""

    def __init__(
        self, file: io.BytesIO, exported: ExportedNames, buffers: list[pickle.PickleBuffer]
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffers.append)
        self.links: list[tuple[dict[str, Any], frozenset[str]]] = []
        self.modules: set[str] = set()  # what the nodes will import to load this
        self._exported = exported

    def reducer_override(self, obj: Any) -> Any:
        reduced = super().reducer_override(obj)
        if isinstance(obj, ModuleType):
            self.modules.add(obj.__name__)
        elif reduced is NotImplemented and isinstance(obj, FunctionType | type):
            self.modules.add(obj.__module__)
        if type(obj) is FunctionType and isinstance(reduced, tuple) and len(reduced) == 6:
            # cloudpickle's own shape: make, (code, base_globals, ...), (dict, slots), ..., setstate
            captured: dict[str, Any] = reduced[2][1]["__globals__"]
            names = used_names(obj.__code__)
            for name in names_in_class_bodies(obj.__code__) & obj.__globals__.keys():
                if name not in SET_BY_PYTHON:
                    captured.setdefault(name, obj.__globals__[name])
            for name in self._exported.names & names:
                if name in captured:
                    self._exported.check(name, captured.pop(name))
            self.links.append((reduced[1][1], names))
        elif type(obj).__name__ in GENERATORS:
            from azpool.pool.randomness import by_reference

            return by_reference(obj) or reduced
        return reduced


class ExportedNames:
    """The master's memory of what is exported: the names, and enough to notice a changed global."""

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}
        self._warned: set[str] = set()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._objects)

    def add(self, values: dict[str, Any]) -> None:
        """Remember exports without keeping large objects alive where that can be had."""
        for name, value in values.items():
            self._warned.discard(name)
            try:
                self._objects[name] = weakref.ref(value)
            except TypeError:
                self._objects[name] = (id(value), type(value))

    def discard(self, names: Iterator[str] | list[str]) -> None:
        for name in names:
            self._objects.pop(name, None)

    def check(self, name: str, value: Any) -> None:
        """Warn once where the master's global is no longer the object that was exported."""
        known = self._objects[name]
        same = known() is value if isinstance(known, weakref.ref) else known[0] == id(value)
        if not same and name not in self._warned:
            self._warned.add(name)
            warnings.warn(
                f"a function sent to the nodes uses {name!r}, which is exported: it sees the"
                f" exported object, not the one that {name!r} is now; export it again to send"
                " the new one",
                RuntimeWarning,
                stacklevel=8,
            )


NOTHING_EXPORTED = ExportedNames()


class Dumped(NamedTuple):
    """A pickle and its out-of-band buffers, which are views of the objects' own memory."""

    payload: bytes
    buffers: list[memoryview]
    by_value: bool  # a function in it travels by value
    modules: frozenset[str]  # which the node will import to load it


def dump(value: Any, exported: ExportedNames = NOTHING_EXPORTED, *, what: str) -> Dumped:
    """Pickle anything that the master sends, functions by value included.

    Raises:
        CannotPickle: it can't be pickled; the message begins with `what` and names the culprit.
    """
    file = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    pickler = _Pickler(file, exported, buffers)
    try:
        # The list is filled while `value` is pickled, and pickled after it.
        pickler.dump((value, pickler.links))
    except Warning:  # whoever makes warnings errors gets the warning
        raise
    except Exception as error:
        raise CannotPickle(
            f"cannot send {what}: {_reason(error)}; open such things inside the function,"
            " on the node"
        ) from error
    return Dumped(
        file.getvalue(),
        [buffer.raw() for buffer in buffers],
        bool(pickler.links),
        frozenset(pickler.modules),
    )


def dumps(
    value: Any, exported: ExportedNames = NOTHING_EXPORTED, *, what: str
) -> tuple[bytes, list[memoryview]]:
    """Do as `dump`, for those who need only the pickle and its buffers."""
    dumped = dump(value, exported, what=what)
    return dumped.payload, dumped.buffers


def dumps_plain(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value with the C pickler, or by cloudpickle where it refuses."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        payload = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception:
        buffers.clear()
        payload = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return payload, [buffer.raw() for buffer in buffers]


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Exports(MutableMapping[str, Any]):
    """`azpool.exports`: on a node, the variables that were exported to it, by name.

    Assigning changes them on this node alone, for every later job on it. In the master the mapping
    is empty: exports live on the nodes.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self.touched = False  # something was set here that no replay would set again

    @property
    def namespace(self) -> dict[str, Any]:
        """The plain dict behind the mapping, in which `pool_evalq` runs its code."""
        return self._values

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise KeyError(
                f"{name} (not exported to this process; pool_export sends it to the nodes)"
            ) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value
        self.touched = True

    def __delitem__(self, name: str) -> None:
        del self._values[name]
        self.touched = True

    def __iter__(self) -> Iterator[str]:
        return (name for name in list(self._values) if name != "__builtins__")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def swap(self, others: tuple[dict[str, Any], bool]) -> tuple[dict[str, Any], bool]:
        """Hold other variables from now on, and return those before; `touched` goes with them.

        It is how nodes share a process.
        """
        before = self._values, self.touched
        self._values, self.touched = others
        return before

    def __reduce__(self) -> str:
        return "exports"  # it travels by name: wherever it arrives, it is that process's own

    def __repr__(self) -> str:
        return f"<azpool.exports: {', '.join(self) or 'empty'}>"


exports = Exports()


def value_in(frame: FrameType, name: str) -> Any:
    """Look `name` up in the locals, then the globals, of a caller's frame.

    Raises:
        NameError: it is in neither.
    """
    value = frame.f_locals.get(name, frame.f_globals.get(name, _MISSING))
    if value is _MISSING:
        raise NameError(
            f"cannot export {name!r}: the caller has no variable of that name;"
            f" define it first or give the value: pool_export({name}=...)"
        )
    return value


# -- classes that travel by value, where nodes share a process -------------------------------------


class Classes:
    """The classes that one node was sent by value: copies of the master's, or made there.

    cloudpickle knows them by the process: a node in the master's would be given the master's own
    class, with its attributes replaced by copies.
    """

    def __init__(self) -> None:
        self.by_class: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
        self.by_id: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()


_of_thread = threading.local()


def swap_classes(others: Classes | None) -> Classes | None:
    """Let this thread use `others` from now on, None the process's; returns those before."""
    before: Classes | None = getattr(_of_thread, "classes", None)
    _of_thread.classes = others
    return before


class _ByThread:
    """One of cloudpickle's tables of classes: that of this thread's node, or the process's."""

    def __init__(self, name: str, shared: Any) -> None:
        self._name = name
        self._shared = shared

    def _table(self) -> Any:
        classes = getattr(_of_thread, "classes", None)
        return self._shared if classes is None else getattr(classes, self._name)

    def get(self, key: Any, default: Any = None) -> Any:
        return self._table().get(key, default)

    def setdefault(self, key: Any, value: Any) -> Any:
        return self._table().setdefault(key, value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._table()[key] = value


def keep_classes_apart() -> None:
    """Let `Classes` have effect in this process, from now on."""
    module = cloudpickle.cloudpickle
    for name in ("by_class", "by_id"):
        table = f"_DYNAMIC_CLASS_TRACKER_{name.upper()}"
        known = getattr(module, table, None)  # private, so it may go: then classes are shared
        if known is not None and not isinstance(known, _ByThread):
            setattr(module, table, _ByThread(name, known))
