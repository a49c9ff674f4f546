import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import UsageError
from azpool.storage import plan
from azpool.storage.plan import GiB, KiB, MiB, TiB, Transfer


def transfers(sizes):
    return [Transfer(n, f"s{n}", f"t{n}", size) for n, size in enumerate(sizes)]


SIZES = st.lists(
    st.one_of(st.integers(0, 64 * KiB), st.integers(0, 80 * MiB), st.integers(0, 2 * GiB)),
    max_size=80,
)


@given(st.integers(plan.SMALL_FILE_BYTES + 1, 190 * TiB))
def test_part_size_fits_azures_limits(size):
    step = plan.part_bytes_for(size)
    assert step <= plan.MAX_PART_BYTES
    assert -(-size // step) <= plan.MAX_PARTS
    assert step >= plan.PART_BYTES


@given(st.integers(1, 3 * GiB))
def test_parts_cover_the_file_exactly_once(size):
    cut = plan.parts(Transfer(0, "s", "t", size))
    assert cut[0].offset == 0
    for one, two in itertools.pairwise(cut):
        assert one.offset + one.length == two.offset
    assert cut[-1].offset + cut[-1].length == size
    assert [part.number for part in cut] == list(range(len(cut)))
    assert all(part.length > 0 for part in cut)


def test_a_4_tib_file_has_few_enough_parts():
    cut = plan.parts(Transfer(0, "s", "t", 4 * TiB))
    assert len(cut) <= 50_000
    assert cut[0].length == 84 * MiB
    assert sum(part.length for part in cut) == 4 * TiB


def test_a_file_that_no_blob_can_hold_is_refused():
    with pytest.raises(UsageError, match="cannot cut"):
        plan.part_bytes_for(200 * TiB)


@given(st.text("0123456789abcdef", min_size=0, max_size=32), st.integers(0, 50_000))
def test_block_ids_have_32_characters(run, number):
    assert len(plan.block_id(run, number)) == 32


def test_block_ids_differ_by_run_and_number():
    ids = {plan.block_id(run, n) for run in ("0" * 16, "1" * 16) for n in range(1000)}
    assert len(ids) == 2000


@given(SIZES, st.integers(1, 40), st.integers(1, 16))
def test_every_file_is_in_exactly_one_job(sizes, nodes, threads):
    work = transfers(sizes)
    jobs = plan.plan_jobs(work, nodes=nodes, threads=threads)
    whole = [t for job in jobs for t in job.files]
    parts = [p for job in jobs for p in job.parts]
    assert sorted(whole) == [t for t in work if not plan.is_big(t.size_bytes)]
    for t in work:
        if plan.is_big(t.size_bytes):
            mine = sorted(p for p in parts if p.transfer == t)
            assert mine == plan.parts(t)
    assert len(parts) == sum(len(plan.parts(t)) for t in work if plan.is_big(t.size_bytes))
    assert all(job.files or job.parts for job in jobs)


@given(st.integers(0, 20_000), st.integers(1, 40), st.integers(1, 16))
def test_batches_are_never_more_than_a_share_of_what_is_left(count, nodes, threads):
    left = count
    for batch in plan.batches(transfers([4096] * count), nodes=nodes, threads=threads):
        least = max(threads, plan.MIN_BATCH_FILES)
        assert 0 < len(batch) <= max(least, -(-left // (2 * nodes)))
        assert len(batch) <= plan.MAX_BATCH_FILES
        left -= len(batch)
    assert left == 0


def test_every_node_begins_at_once_with_a_few_files():
    sizes = [len(b) for b in plan.batches(transfers([4096] * 2000), nodes=10, threads=4)]
    assert sizes[:10] == [4] * 10
    assert sizes[10:20] == [8] * 10
    assert max(sizes) > 50
    assert sizes[-1] <= 8


def test_a_batch_does_not_hold_more_bytes_than_its_limit_and_one_file():
    for batch in plan.batches(transfers([10 * MiB] * 500), nodes=2, threads=8):
        assert sum(t.size_bytes for t in batch) < plan.MAX_BATCH_BYTES + 10 * MiB


def test_the_biggest_file_is_begun_first_and_small_ones_go_in_between():
    work = transfers([4096] * 200 + [100 * MiB, 900 * MiB])
    jobs = plan.plan_jobs(work, nodes=4, threads=4)
    assert jobs[0].parts[0].transfer.size_bytes == 900 * MiB
    assert any(job.files for job in jobs[:3])
    kinds = [bool(job.parts) for job in jobs]
    assert kinds.index(False) < len(kinds) - kinds[::-1].index(True)


@pytest.mark.parametrize(("nodes", "threads"), [(1, 16), (2, 16), (4, 10), (10, 4), (64, 1)])
def test_threads_keep_about_40_requests_in_flight(nodes, threads):
    assert plan.threads_for(nodes) == threads


@pytest.mark.parametrize(("nodes", "threads"), [(1, 10), (2, 5), (10, 1), (64, 1)])
def test_a_server_without_latency_gets_about_10_requests_at_once(nodes, threads):
    assert plan.threads_for(nodes, local=True) == threads
