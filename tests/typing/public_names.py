"""What a user's type checker sees of azpool; mypy and pyright read this, nothing runs it."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any, assert_type

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenCredential

from azpool import (
    Pool,
    exports,
    pool_call,
    pool_exists,
    pool_lapply,
    pool_map,
    pool_size,
    rng,
)
from azpool.errors import NodeDied, PoolError, SomeFailed, StorageError
from azpool.events import Event, NodeEnded, PoolReset, listen
from azpool.identity import SharedCredential, share
from azpool.pool import current_node
from azpool.report import Report
from azpool.storage import Container, FileOutcome, Plan, jobs
from azpool.testing import Azurite, Leaks, Snapshot, TokenEndpoint, inline_pool


def double(x: int) -> str:
    return str(2 * x)


def results_have_the_type_that_the_function_returns() -> None:
    assert_type(pool_lapply([1, 2], double), list[str])
    assert_type(pool_map(double, [1, 2]), list[str])
    assert_type(pool_call(double, 1), list[str])
    assert_type(pool_exists(), bool)
    assert_type(pool_size(), int)


def pool_is_an_executor(pool: Pool) -> None:
    executor: Executor = pool
    assert_type(pool.submit(double, 1), Future[str])
    assert_type(pool.map(double, [1, 2], ordered=False), Iterator[str])
    failed = pool.map(double, [1, 2], return_exceptions=True)
    assert_type(failed, Iterator[str | BaseException])
    executor.shutdown()


def a_pool_is_addressed_and_watched(pool: Pool) -> None:
    assert_type(pool[0].submit(double, 1), Future[str])
    assert_type(pool.nodes[0].pid, int)
    assert_type(pool.call(double, 1), list[str])
    assert_type(pool.size, int)
    told = pool.statistics()
    assert_type(told.nodes[0].busy_share, float)
    assert_type(told.nodes[0].rss_bytes, int)
    with Pool(2, preload=["json"], max_items_per_node=10) as made:
        assert_type(made, Pool)


def events_are_told_apart(event: Event) -> str:
    match event:
        case NodeEnded(node=node, exit_code=code):
            assert_type(node, int)
            assert_type(code, int)
        case PoolReset(seconds=seconds):
            assert_type(seconds, float)
        case _:
            pass
    with listen(print):
        return type(event).__name__


def exports_are_a_mapping_and_generators_are_numpys() -> None:
    assert_type(exports["x"], Any)
    exports["x"] = 1
    assert_type(rng().random(), float)
    assert_type(current_node(), int | None)


def many_files_answer_with_a_report(container: Container) -> None:
    report = container.upload_many(["a", "b"], "in/", overwrite="if-newer", journal=True)
    assert_type(report, Report[FileOutcome])
    assert_type(container.download_many("a/", "b", verify="md5"), Report[FileOutcome])
    assert_type(container.upload_many("a", dry_run=True), Plan)
    assert_type(jobs.resume("a", check=True), Report[FileOutcome])
    assert_type(jobs.jobs(), list[jobs.JobInfo])
    for outcome in report.failed:
        assert_type(outcome, FileOutcome)
        assert_type(outcome.status, int | None)


def errors_tell_their_facts(died: NodeDied, failed: StorageError) -> None:
    assert_type(died.begun, bool)
    assert_type(died.signal, int | None)
    assert_type(failed.status, int | None)
    assert_type(failed.retryable, bool)
    error: PoolError = died
    raise error


def some_failed_has_its_report(error: SomeFailed) -> None:
    assert error.report is not None


def a_shared_credential_is_a_credential(credential: TokenCredential) -> None:
    shared = share(credential)
    assert_type(shared, SharedCredential)
    assert_type(shared.get_token("scope", claims="c", tenant_id="t", enable_cae=True), AccessToken)
    assert_type(shared.get_token_info("scope", options={"claims": "c"}), AccessTokenInfo)
    again: TokenCredential = shared
    with share(again) as entered:
        assert_type(entered, SharedCredential)
    Container("az://data", credential=shared)


def a_token_endpoint_is_a_context_manager() -> None:
    with TokenEndpoint(life_seconds=3) as endpoint:
        assert_type(endpoint, TokenEndpoint)
        assert_type(endpoint.environ, dict[str, str])


def azurite_is_a_context_manager() -> None:
    with Azurite() as azurite:
        assert_type(azurite, Azurite)
        assert_type(azurite.blob_url, str)


def an_inline_pool_is_a_pool() -> None:
    with inline_pool(size=2) as pool:
        assert_type(pool, Pool)
        assert_type(pool.engine, str)


def leaks_are_the_difference_of_snapshots(before: Snapshot) -> None:
    assert_type(Snapshot.take().since(before), Leaks)
    assert_type(Snapshot.take_settled(before), Leaks)
