import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import NotFound, UsageError
from azpool.storage import plan
from azpool.storage._task import Action, Result, pack, unpack
from azpool.storage.plan import GiB, Job, MiB, TiB, Transfer


@given(st.integers(plan.SMALL_FILE_BYTES + 1, 190 * TiB))
def test_part_size_fits_azures_limits(size):
    step = plan.part_bytes_for(size)
    assert step <= plan.MAX_PART_BYTES
    assert -(-size // step) <= plan.MAX_PARTS
    assert step >= plan.PART_BYTES


@given(st.integers(1, 3 * GiB))
def test_parts_cover_the_file_exactly_once(size):
    cut = list(plan.parts(Transfer(0, "s", "t", size)))
    assert cut[0].offset == 0
    for one, two in itertools.pairwise(cut):
        assert one.offset + one.length == two.offset
    assert cut[-1].offset + cut[-1].length == size
    assert [part.number for part in cut] == list(range(len(cut)))
    assert all(part.length > 0 for part in cut)


def test_a_4_tib_file_has_few_enough_parts():
    cut = list(plan.parts(Transfer(0, "s", "t", 4 * TiB)))
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


COUNTS = st.integers(1, 40)
SECONDS = st.floats(1e-6, 100)


@given(st.integers(1, 100_000), COUNTS, st.integers(1, 16), st.integers(1, 8), SECONDS)
def test_a_job_is_never_empty_and_at_most_half_a_share_of_what_is_left(
    left, nodes, threads, least, seconds
):
    pacer = plan.Pacer(nodes)
    pacer.note(10, 10 * seconds)
    units = pacer.units(left, threads, least=least, most=2048)
    share = -(-left // nodes)
    assert 1 <= units <= left
    assert units <= max(least, min(threads, share), -(-share // 2))
    assert units <= max(2048, least, threads)


@given(st.floats(1e-4, 0.2), st.integers(1, 16))
def test_a_job_takes_about_as_long_as_it_should(seconds, threads):
    pacer = plan.Pacer(10)
    pacer.note(100, 100 * seconds)
    units = pacer.units(1_000_000, threads, least=4, most=10**9)
    assert units * seconds / threads == pytest.approx(
        plan.BATCH_SECONDS, abs=max(4, threads) * seconds
    )


def test_the_pace_follows_what_has_become_of_it():
    pacer = plan.Pacer(1)
    for _ in range(100):
        pacer.note(100, 1.0)
    fast = pacer.units(10**6, 1, least=1, most=10**6)
    for _ in range(100):
        pacer.note(100, 100.0)
    assert pacer.units(10**6, 1, least=1, most=10**6) <= fast / 20


def test_every_node_begins_at_once_with_a_few_files():
    pacer = plan.Pacer(10)
    sizes = [pacer.units(2000 - 40 * n, 4, least=4, most=2048) for n in range(20)]
    assert sizes == [4] * 10 + [8] * 10


def test_few_parts_are_spread_over_all_nodes():
    pacer = plan.Pacer(4)
    assert pacer.units(3, 10, least=1, most=64) == 1


@pytest.mark.parametrize(("nodes", "threads"), [(1, 16), (2, 16), (4, 10), (10, 4), (64, 1)])
def test_threads_keep_about_40_requests_in_flight(nodes, threads):
    assert plan.threads_for(nodes) == threads


@pytest.mark.parametrize(("nodes", "threads"), [(1, 10), (2, 5), (10, 1), (64, 1)])
def test_a_server_without_latency_gets_about_10_requests_at_once(nodes, threads):
    assert plan.threads_for(nodes, local=True) == threads


def test_a_file_whose_md5_is_wanted_stays_whole_for_longer():
    assert plan.small_bytes(verify=False) < plan.small_bytes(verify=True) == 64 * 2**20


def test_a_job_arrives_as_it_was_sent():
    files = tuple(Transfer(n, f"s{n}", f"t{n}", n, "e", 5, b"m" * n) for n in range(3))
    big = Transfer(3, "s", "t", 3 * plan.PART_BYTES)
    for job in (
        Job(),
        Job(files=files, threads=3, requests_per_second=2.0),
        Job(parts=tuple(plan.parts(big)), digests=(big,), bytes_per_second=5.0),
    ):
        arrived = pickle.loads(pickle.dumps(job))
        assert arrived == job and all(type(file) is Transfer for file in arrived.files)


def test_results_arrive_as_they_were_sent():
    failed = NotFound("cannot download 'a': it does not exist")
    results = [
        Result(0, -1, Action.DONE, 5, 0.5, 1, None, md5=b"m"),
        Result(1, 2, Action.FAILED, 0, 0.5, 3, failed, 2),
    ]
    assert unpack(pack(results)) == results
    assert unpack(pack([])) == []
