"""What a user's type checker sees of azpool; mypy and pyright read this, nothing runs it."""

from typing import assert_type

from azpool.errors import NodeDied, PoolError, SomeFailed, StorageError
from azpool.testing import Azurite, Leaks, Snapshot


def errors_tell_their_facts(died: NodeDied, failed: StorageError) -> None:
    assert_type(died.begun, bool)
    assert_type(died.signal, int | None)
    assert_type(failed.status, int | None)
    assert_type(failed.retryable, bool)
    error: PoolError = died
    raise error


def some_failed_has_its_report(error: SomeFailed) -> None:
    assert error.report is not None


def azurite_is_a_context_manager() -> None:
    with Azurite() as azurite:
        assert_type(azurite, Azurite)
        assert_type(azurite.blob_url, str)


def leaks_are_the_difference_of_snapshots(before: Snapshot) -> None:
    assert_type(Snapshot.take().since(before), Leaks)
    assert_type(Snapshot.take_settled(before), Leaks)
