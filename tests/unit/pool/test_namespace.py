"""What a shipped function sees: the design's table; and what it rests on of cloudpickle."""

from __future__ import annotations

import io
import pickle
import textwrap
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import cloudpickle
import pytest

from azpool.errors import CannotPickle
from azpool.pool import namespace
from azpool.pool.namespace import ExportedNames, Exports, Links, used_names


class Shipped:
    """A function as it arrives on a node, called with the node's exports of the moment."""

    def __init__(self, value: Any, exported: ExportedNames | None = None) -> None:
        dumped = namespace.dump(value, exported or ExportedNames(), what="the function")
        self.size = len(dumped.payload) + sum(buffer.nbytes for buffer in dumped.buffers)
        self.value, entries = pickle.loads(dumped.payload, buffers=dumped.buffers)
        self.links = Links(entries)

    def __call__(self, *args: Any, **exports: Any) -> Any:
        self.links.link(exports)
        return self.value(*args)


def by_value(source: str, name: str = "f", **variables: Any) -> Any:
    """Define a function as a user's script does: its globals are those of `__main__`."""
    variables["__name__"] = "__main__"
    exec(textwrap.dedent(source), variables)
    return variables[name]


def exported(**values: Any) -> ExportedNames:
    names = ExportedNames()
    names.add(values)
    return names


# -- the rules -----------------------------------------------------------------------------------


def test_an_exported_name_goes_before_a_captured_one() -> None:
    f = Shipped(by_value("def f(): return x", x="captured"))
    assert f() == "captured"
    assert f(x="exported") == "exported"
    assert f() == "captured"


def test_a_later_export_is_seen_by_the_next_job() -> None:
    f = Shipped(by_value("def f(): return x"))
    assert f(x=1) == 1
    assert f(x=2) == 2


def test_a_name_that_is_nowhere_is_a_name_error_on_the_node() -> None:
    f = Shipped(by_value("def f(): return x"))
    with pytest.raises(NameError, match="'x' is not defined"):
        f()
    assert f(x=1) == 1
    with pytest.raises(NameError):
        f()


def test_builtins_answer_where_nothing_else_does_and_may_be_exported_over() -> None:
    f = Shipped(by_value("def f(v): return len(v)"))
    assert f("abc") == 3
    assert f("abc", len=lambda v: "mine") == "mine"
    assert f("abc") == 3


def test_what_is_exported_does_not_travel_with_the_function() -> None:
    big = list(range(100_000))
    f = by_value("def f(): return big[-1]", big=big)
    assert Shipped(f).size > 100_000
    small = Shipped(f, exported(big=big))
    assert small.size < 2000
    assert small(big=[5]) == 5


def test_only_names_that_the_function_uses_are_put_into_its_globals() -> None:
    f = Shipped(by_value("def f(): return sorted(n for n in globals() if n in ('used', 'unused'))"))
    assert f(used=1, unused=2) == []
    g = Shipped(by_value("def f(): used; return sorted({'used', 'unused'} & set(globals()))"))
    assert g(used=1, unused=2) == ["used"]


def test_closures_and_defaults_travel_and_are_never_replaced() -> None:
    source = """
        def outer(x):
            def f(y=[2]):
                return x, y[0]
            return f
        f = outer(1)
    """
    f = Shipped(by_value(source), exported(x=9, y=9))
    assert f(x="exported", y="exported") == (1, 2)


def test_a_write_stays_with_the_function_until_its_name_is_exported() -> None:
    f = Shipped(by_value("def f():\n    global n\n    n = n + 1\n    return n", n=0))
    assert [f(), f(), f()] == [1, 2, 3]
    assert [f(n=10), f(n=10)] == [11, 11]
    assert f() == 1  # the captured one again
    other = Shipped(by_value("def f(): return 'n' in globals()"))
    assert not other()


def test_a_write_to_a_name_that_was_never_exported_is_kept() -> None:
    f = Shipped(by_value("def f():\n    global n\n    n = globals().get('n', 0) + 1\n    return n"))
    assert [f(unrelated=1), f(), f(unrelated=2)] == [1, 2, 3]


# -- where names hide ------------------------------------------------------------------------------


HIDING_PLACES = {
    "function": """
        def f():
            def inner(): return x
            return inner()
    """,
    "lambda": "f = lambda: x",
    "lambdas": "def f(): return (lambda: (lambda: x)())()",
    "comprehension": "def f(): return [x for _ in range(1)][0]",
    "generator": "def f(): return next(x for _ in range(1))",
    "class body": """
        def f():
            class A:
                y = x
            return A.y
    """,
    "class in class": """
        def f():
            class A:
                class B:
                    y = [x][0]
            return A.B.y
    """,
    "method": """
        def f():
            class A:
                def method(self): return x
            return A().method()
    """,
    "eval": """
        def f():
            x
            return eval("x")
    """,
    "exec": """
        def f():
            x
            found = {}
            exec("y = x", globals(), found)
            return found["y"]
    """,
    "coroutine": """
        def f():
            async def g(): return x
            try:
                g().send(None)
            except StopIteration as stop:
                return stop.value
    """,
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_names_are_found_wherever_they_are_used(place: str) -> None:
    captured = Shipped(by_value(HIDING_PLACES[place], x="captured"))
    assert captured() == "captured"
    assert captured(x="exported") == "exported"
    assert captured() == "captured"
    sent = "of the export"
    left_out = Shipped(by_value(HIDING_PLACES[place], x=sent), exported(x=sent))
    assert left_out(x="exported") == "exported"


def test_a_class_body_captures_no_more_than_it_reads() -> None:
    source = """
        def f():
            class A:
                def big(self): return self.large
                huge = 1
            return A.huge
    """
    big = bytes(100_000)
    f = Shipped(by_value(source, big=big, large=big, huge=big))
    assert f.size < 2000
    assert f() == 1


def test_functions_that_call_each_other_share_their_globals() -> None:
    source = """
        def g(): return x
        def h(n): return h(n - 1) if n else g()
        def f(): return h(3)
    """
    f = Shipped(by_value(source, x="captured"))
    assert f() == "captured"
    assert f(x="exported") == "exported"


def test_an_exported_function_replaces_one_that_the_function_calls() -> None:
    f = Shipped(by_value("def g(): return 1\ndef f(): return g()"))
    assert f() == 1
    assert f(g=lambda: 2) == 2


def test_methods_of_classes_by_value_see_exports() -> None:
    source = """
        class A:
            def method(self): return x
            @staticmethod
            def static(): return x
            @property
            def prop(self): return x
        def f(): return A().method(), A.static(), A().prop
    """
    f = Shipped(by_value(source, x="captured"))
    assert f() == ("captured",) * 3
    assert f(x=1) == (1, 1, 1)


def test_functions_inside_arguments_are_linked_too() -> None:
    class Holder:
        def __init__(self, function: Callable[[], Any]) -> None:
            self.function = function

    args = Shipped(([by_value("def f(): return x", x=0)], {"k": by_value("f = lambda: y")}))
    args.links.link({"x": 1, "y": 2})
    (functions, named) = args.value
    assert (functions[0](), named["k"]()) == (1, 2)


def test_a_function_by_reference_keeps_its_modules_globals() -> None:
    dumped = namespace.dump(textwrap.dedent, exported(re="other"), what="the function")
    value, entries = pickle.loads(dumped.payload)
    assert value is textwrap.dedent
    assert entries == []
    assert dumped.modules == {"textwrap"}
    assert not dumped.by_value


def test_globals_are_a_plain_dict() -> None:
    # Subclasses of dict make each global access slower, and fail in class bodies, eval and exec.
    f = Shipped(by_value("def f(): return x", x=1))
    assert type(f.value.__globals__) is dict


def test_used_names_are_those_of_all_nested_code() -> None:
    f = by_value("def f():\n    def g():\n        class A:\n            y = x\n    return z")
    assert {"x", "z"} <= used_names(f.__code__)


# -- the warning ---------------------------------------------------------------------------------


def test_a_global_that_changed_since_its_export_warns_once() -> None:
    class Thing:
        pass

    first = Thing()
    names = exported(x=first)
    f = by_value("def f(): return x", x=first)
    Shipped(f, names)  # the same object: nothing to say
    f.__globals__["x"] = Thing()
    with pytest.warns(RuntimeWarning, match="uses 'x', which is exported: it sees the exported"):
        Shipped(f, names)
    Shipped(f, names)  # a warning would be an error here
    names.add({"x": first})
    with pytest.warns(RuntimeWarning):
        Shipped(f, names)


def test_exports_are_not_kept_alive_in_the_master() -> None:
    import weakref

    class Big:
        pass

    big = Big()
    names = exported(big=big)
    seen = weakref.ref(big)
    del big
    assert seen() is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Shipped(by_value("def f(): return big", big=Big()), names)
    assert len(caught) == 1


# -- what can't travel ---------------------------------------------------------------------------


def test_an_object_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(CannotPickle, match=r"cannot send the job: .*generator.*on the node"):
        namespace.dump((n for n in ()), what="the job")


def test_a_failed_pickle_leaves_the_master_as_it_was() -> None:
    f = by_value("def f(): return bad, big", bad=(n for n in ()), big=[1])
    before = dict(f.__globals__)
    with pytest.raises(CannotPickle):
        namespace.dump(f, exported(big=f.__globals__["big"]), what="the function")
    assert f.__globals__ == before


# -- the mapping ---------------------------------------------------------------------------------


def test_exports_are_a_mapping_that_says_what_is_missing() -> None:
    exports = Exports()
    exports["a"] = 1
    exec("b = a + 1", exports.namespace)  # as pool_evalq does, which leaves __builtins__ there
    assert dict(exports) == {"a": 1, "b": 2}
    assert len(exports) == 2
    assert repr(exports) == "<azpool.exports: a, b>"
    with pytest.raises(KeyError, match="pool_export sends it to the nodes"):
        exports["c"]
    del exports["a"]
    assert list(exports) == ["b"]


# -- cloudpickle ---------------------------------------------------------------------------------


def test_cloudpickle_still_reduces_functions_as_this_package_expects() -> None:
    """`_Pickler` reaches into this shape; should it change, that has to be looked at again."""
    f = by_value("def f(): return x", x=1)
    reduced = cloudpickle.Pickler(io.BytesIO(), protocol=5).reducer_override(f)
    assert type(f) is FunctionType
    assert isinstance(reduced, tuple)
    assert len(reduced) == 6, "make, its arguments, state, None, None, the setter of the state"
    make_arguments, (attributes, slots) = reduced[1], reduced[2]
    assert type(make_arguments[1]) is dict, "the globals of the function to be made"
    assert slots["__globals__"] == {"x": 1}, "what was captured"
    assert isinstance(attributes, dict)
    assert callable(reduced[5])
    functions = by_value("def g(): return 1\ndef f(): return g()").__globals__
    pickler = cloudpickle.Pickler(io.BytesIO(), protocol=5)
    made = [pickler.reducer_override(functions[name])[1][1] for name in "fg"]
    assert made[0] is made[1], "functions of one module share one dict"
