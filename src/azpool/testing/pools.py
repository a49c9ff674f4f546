"""A pool for tests of code that uses the session's: tasks run in the test, without a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azpool.pool.pool import Pool
from azpool.pool.session import delete_pool, init_pool

__all__ = ["inline_pool"]


@contextmanager
def inline_pool(size: int = 2) -> Iterator[Pool]:
    """Have a session's pool with `engine="inline"` while the block runs, and none after it.

    Code that calls `init_pool`, `ensure_pool` or the pool functions gets this pool. As a fixture:

        @pytest.fixture
        def pool():
            with inline_pool() as pool:
                yield pool

    Raises:
        UsageError: the session has a pool of another engine.
    """
    pool = init_pool(size, engine="inline")
    assert isinstance(pool, Pool), "not inside a task"
    try:
        yield pool
    finally:
        delete_pool()
