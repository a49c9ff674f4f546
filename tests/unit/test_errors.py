"""Every error of azpool survives pickling, with its attributes."""

import copy
import pickle

import pytest

from azpool import errors
from azpool.errors import AzpoolError

ERRORS = sorted(errors.__all__)


def make(name):
    """An error as it is raised, with a note, and with an attribute that someone added later."""
    error = getattr(errors, name)(f"cannot do {name}: no reason; try again")
    for attribute, value in vars(error).items():
        if value is None:
            setattr(error, attribute, f"a {attribute}")
    error.added_later = [1, 2]
    error.add_note("a note")
    return error


def tree(cls):
    yield cls
    for subclass in cls.__subclasses__():
        yield from tree(subclass)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ERRORS)
def test_error_survives_pickling(name, protocol):
    error = make(name)
    copied = pickle.loads(pickle.dumps(error, protocol))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert copied.args == error.args
    assert vars(copied) == vars(error)


@pytest.mark.parametrize("name", ERRORS)
def test_error_can_be_copied(name):
    error = make(name)
    copied = copy.copy(error)
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("name", ERRORS)
def test_error_needs_no_arguments(name):
    assert isinstance(getattr(errors, name)(), AzpoolError)


def test_every_error_of_the_tree_is_exported():
    for name in ERRORS:
        getattr(errors, name)
    made_here = {cls.__name__ for cls in tree(AzpoolError) if cls.__module__ == "azpool.errors"}
    assert made_here <= set(ERRORS)


def test_every_error_of_the_tree_stands_in_the_docstring():
    assert [name for name in ERRORS if name not in errors.__doc__] == []


def test_errors_are_also_what_python_programs_expect():
    from concurrent.futures import BrokenExecutor

    assert issubclass(errors.UsageError, ValueError)
    assert issubclass(errors.NoPool, RuntimeError)
    assert issubclass(errors.PoolClosed, RuntimeError)
    assert issubclass(errors.PoolBroken, BrokenExecutor)
    assert issubclass(errors.TaskTimeout, TimeoutError)
    assert issubclass(errors.CannotPickle, TypeError)
    assert issubclass(errors.NameRefused, ValueError)


def test_a_name_that_is_no_error_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Nonsense"):
        errors.Nonsense
