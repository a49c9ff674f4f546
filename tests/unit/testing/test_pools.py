"""`inline_pool`: the session's pool for the time of a test, in the test's own thread."""

from __future__ import annotations

import os
import threading

import pytest

import azpool
from azpool.errors import UsageError
from azpool.testing import inline_pool


def test_code_that_uses_the_sessions_pool_runs_in_the_test() -> None:
    with inline_pool(3) as pool:
        assert azpool.get_pool() is pool
        assert azpool.ensure_pool(2) is pool
        assert azpool.pool_size() == 3
        assert azpool.pool_call(os.getpid) == [os.getpid()] * 3
        assert azpool.pool_lapply([0], lambda n: threading.get_ident()) == [threading.get_ident()]
    assert not azpool.pool_exists()
    assert pool.closed


def test_a_failing_block_ends_the_pool_too() -> None:
    with pytest.raises(ZeroDivisionError), inline_pool():
        azpool.pool_export(x=1)
        azpool.pool_lapply([0], lambda n: 1 / n)
    assert not azpool.pool_exists()


def test_a_pool_of_processes_is_not_touched() -> None:
    azpool.init_pool(1)
    try:
        with pytest.raises(UsageError, match=r"engine='inline'.*call delete_pool\(\) first"):
            inline_pool().__enter__()
        assert azpool.pool_call(os.getpid) != [os.getpid()]
    finally:
        azpool.delete_pool()
