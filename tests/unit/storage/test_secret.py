"""Secrets show nothing and travel only where they are allowed to."""

from __future__ import annotations

import copy
import pickle

import pytest

from azpool.errors import CannotPickle
from azpool.storage.secret import Secret, travelling


def test_a_secret_never_shows_itself():
    secret = Secret("hush")
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret])):
        assert "hush" not in text and "***" in text
    assert secret.reveal() == "hush"
    with pytest.raises(AttributeError):
        secret._value = "other"


def test_a_secret_pickles_only_inside_travelling():
    secret = Secret("hush")
    with pytest.raises(CannotPickle):
        pickle.dumps(secret)
    with travelling():
        data = pickle.dumps(secret)
        with travelling():
            pass
        assert pickle.loads(pickle.dumps(secret)) == secret
    assert pickle.loads(data) == secret
    with pytest.raises(CannotPickle):
        pickle.dumps(secret)


def test_a_secret_is_a_value():
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != "a"
    assert copy.deepcopy(Secret("a")) == Secret("a")
