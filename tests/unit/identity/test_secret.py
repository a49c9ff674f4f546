"""Secrets show nothing and pickle as handles."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from dataclasses import dataclass

import pytest

from azpool.errors import NotShared, UsageError
from azpool.identity import registry
from azpool.identity.secret import Secret
from azpool.identity.tokens import Token


def test_a_secret_never_shows_itself():
    secret = Secret("hush")
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret])):
        assert "hush" not in text and "***" in text
    assert secret.reveal() == "hush"
    with pytest.raises(AttributeError):
        secret._holder = None
    with pytest.raises(AttributeError):
        del secret._holder


def test_a_secret_pickles_as_a_handle_that_means_something_here_alone():
    secret = Secret("hush")
    data = pickle.dumps(secret)
    assert b"hush" not in data and len(data) < 100
    assert pickle.loads(data) == secret and pickle.loads(data).reveal() == "hush"
    code = f"import pickle; pickle.loads({data!r}).reveal()"
    command = [sys.executable, "-c", code]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "NotShared: cannot use this" in elsewhere.stderr


def test_a_secret_is_a_value():
    secrets = Secret("a"), Secret("a"), Secret("b")
    assert secrets[0] == secrets[1] != secrets[2]
    assert hash(secrets[0]) == hash(secrets[1])
    assert secrets[0] != "a"
    assert copy.deepcopy(secrets[0]) is secrets[0] is copy.copy(secrets[0])


@dataclass(frozen=True)
class Lender:
    ends: float = 1e12

    def lend(self, secret, purpose, now):
        return Token(value=f"{secret}-for-{purpose[0]}", expires_on=self.ends)


def test_what_is_lent_is_not_the_secret():
    secret = Secret("hush", Lender())
    assert secret.borrow("x").value == "hush-for-x"
    assert secret.borrow("x") is secret.borrow("x")
    assert Secret("hush", Lender()) == secret != Secret("hush")
    assert secret.reveal() == "hush"


def test_what_has_a_lender_is_given_to_no_node():
    from azpool.identity.broker import answer

    secret = Secret("hush", Lender())
    pickle.dumps(secret)
    handle = secret._holder.handle
    assert answer((handle, ("x",), None, False, None, 0)).value == "hush-for-x"
    with pytest.raises(UsageError, match="stays in its process"):
        answer((handle, (), None, False, None, 0))


def test_a_secret_lives_as_long_as_it_is_held():
    secret = Secret("short-lived")
    handle, life = secret._holder.handle, weakref.ref(secret._registration)
    assert registry.find(handle) is not None
    del secret
    gc.collect()
    assert life() is None and registry.find(handle) is None
    gone = pickle.dumps(Secret("pinned"))
    gc.collect()
    assert pickle.loads(gone).reveal() == "pinned"
    registry._unpin()
    gc.collect()
    with pytest.raises(NotShared):
        pickle.loads(gone).reveal()


def test_what_was_refused_is_lent_anew_but_not_for_everyone_who_says_so():
    lent = iter(range(100))

    class Counting:
        def lend(self, secret, purpose, now):
            return Token(value=f"{purpose[0]}-{next(lent)}", expires_on=now + 3600)

    secret = Secret("hush", Counting())
    assert secret.borrow("x").value == "x-0"
    assert secret.borrow("x", refused=True).value == "x-1"
    assert secret.borrow("x").value == "x-1"
    assert secret.borrow("x", refused=True).value == "x-1"  # within 30 s the same
