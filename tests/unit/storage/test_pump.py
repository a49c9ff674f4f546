"""Open rows become jobs: all of them, once, big ones begun early and small ones in between."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azpool.errors import NotFound
from azpool.storage import _allowance
from azpool.storage._allowance import Allowance
from azpool.storage._batch import Action, Direction, Result, Task
from azpool.storage._books import Books
from azpool.storage._http import ClientOptions
from azpool.storage._ledger import Ledger
from azpool.storage._pump import PARTS_PER_JOB, Pump
from azpool.storage._recipe import StoreRecipe
from azpool.storage._signing import Anonymous
from azpool.storage._sources import Planned
from azpool.storage.options import TransferOptions
from azpool.storage.plan import (
    BATCH_SECONDS,
    MAX_BATCH_BYTES,
    MAX_BATCH_FILES,
    PART_BYTES,
    SMALL_FILE_BYTES,
    MiB,
    TiB,
    part_count,
)

RECIPE = StoreRecipe(
    account_url="http://memory.invalid/dev",
    container="data",
    auth=Anonymous(),
    options=ClientOptions(),
)


def pumped(sizes, *, nodes=4, direction=Direction.UPLOAD, done=(), **options):
    options = TransferOptions(**options)
    ledger = Ledger()
    ledger.add(0, [Planned(f"s{n}", f"t{n}", s) for n, s in enumerate(sizes)], [""] * len(sizes))
    ledger.settle([], done)
    task = Task(recipe=RECIPE, direction=direction, cwd="/", run="r" * 16, options=options)
    allowance = Allowance(nodes, options, local=False)
    books = Books(task, ledger, allowance, nodes)
    return Pump(ledger, books, allowance), books


def answer(books, job):
    """Report files as done and parts as failed, each in 10 ms."""
    books.take(
        [Result(t.place, -1, Action.DONE, t.size_bytes, 0.01, 1, None) for t in job.files]
        + [
            Result(p.transfer.place, p.number, Action.FAILED, 0, 0.01, 1, NotFound())
            for p in job.parts
        ]
    )


SIZES = st.lists(
    st.one_of(
        st.integers(0, 64 * 1024), st.integers(0, 80 * MiB), st.integers(1, 2000).map(MiB.__mul__)
    ),
    max_size=60,
)


@settings(max_examples=50)
@given(SIZES, st.integers(1, 20))
def test_everything_is_given_out_exactly_once(sizes, nodes):
    pump, _ = pumped(sizes, nodes=nodes)
    files, parts = [], []
    for job in pump.jobs():
        assert job.files or job.parts
        assert job.threads >= 1
        files += [transfer.place for transfer in job.files]
        parts += [(part.transfer.place, part.number) for part in job.parts]
    assert files == [n for n, size in enumerate(sizes) if size <= SMALL_FILE_BYTES]
    assert sorted(parts) == [
        (n, number)
        for n, size in enumerate(sizes)
        if size > SMALL_FILE_BYTES
        for number in range(part_count(size))
    ]
    assert len(parts) == len(set(parts))


def test_the_biggest_file_is_begun_first_and_small_ones_go_in_between():
    pump, _ = pumped([4096] * 2000 + [100 * MiB, 900 * MiB, 200 * MiB])
    jobs = list(pump.jobs())
    assert jobs[0].parts[0].transfer.size_bytes == 900 * MiB
    begun = [*dict.fromkeys(part.transfer.size_bytes for job in jobs for part in job.parts)]
    assert begun == [900 * MiB, 200 * MiB, 100 * MiB]
    kinds = "".join("p" if job.parts else "f" for job in jobs)
    assert kinds.find("f") < 3
    assert len(kinds.rstrip("p")) > len(kinds) * 0.9  # the last files go with the last parts
    assert len(kinds.rstrip("f")) > len(kinds) * 0.9


def test_parts_of_downloads_are_of_as_many_files_as_are_in_flight():
    pump, _ = pumped([64 * MiB] * 300, nodes=4, direction=Direction.DOWNLOAD)
    order = [part.transfer.place for job in pump.jobs() for part in job.parts]
    for n in range(0, len(order) // 2, 16):
        assert len(set(order[n : n + 16])) >= 15  # one writer for each, but where a file ends
    pump, _ = pumped([64 * MiB] * 300, nodes=4, direction=Direction.DOWNLOAD, max_concurrency=2)
    order = [part.transfer.place for job in pump.jobs() for part in job.parts]
    assert len(set(order[:16])) == 2  # no more half files than that needs


@pytest.mark.parametrize(
    ("direction", "verify"), [(Direction.DOWNLOAD, "md5"), (Direction.UPLOAD, None)]
)
def test_big_files_that_are_read_are_moved_one_after_the_other(direction, verify):
    pump, _ = pumped([640 * MiB, 320 * MiB], direction=direction, verify=verify)
    order = [part.transfer.place for job in pump.jobs() for part in job.parts]
    assert order == sorted(order)


def test_a_batch_is_bounded_in_files_and_bytes():
    pump, _ = pumped([10 * MiB] * 200, nodes=1)
    for job in pump.jobs():
        assert sum(t.size_bytes for t in job.files) < MAX_BATCH_BYTES + 10 * MiB
    pump, books = pumped([1] * 30_000, nodes=1)
    longest = 0
    for job in pump.jobs():
        longest = max(longest, len(job.files))
        books.take([Result(t.place, -1, Action.DONE, 1, 1e-5, 1, None) for t in job.files])
    assert longest == MAX_BATCH_FILES


def test_batches_follow_the_measured_pace(monkeypatch):
    monkeypatch.setattr(_allowance, "TRYING_BATCH_SECONDS", BATCH_SECONDS)
    pump, books = pumped([1] * 20_000, nodes=2, max_concurrency=2)
    sizes = []
    for job in pump.jobs():
        sizes.append(len(job.files))
        answer(books, job)
    assert sizes[0] == 4
    assert 25 <= sorted(sizes)[len(sizes) // 2] <= 31  # 0.3 s of 10 ms each, on one thread


def test_what_is_done_of_a_big_file_is_not_given_out_again():
    size = 5 * PART_BYTES
    pump, _ = pumped([size], done=[(0, 0), (0, 3)])
    numbers = [part.number for job in pump.jobs() for part in job.parts]
    assert numbers == [1, 2, 4]


def test_no_more_parts_of_a_file_that_has_failed():
    pump, books = pumped([100 * PART_BYTES, 3 * PART_BYTES], nodes=1, max_concurrency=1)
    given = []
    for job in pump.jobs():
        given += job.parts
        answer(books, job)
    assert len([p for p in given if p.transfer.place == 0]) == 1
    assert [o.place for o in pump._ledger.open_things()] == [0, 1]  # settled, not yet written


def test_digests_go_out_beside_the_first_parts_of_an_upload():
    pump, _ = pumped([10 * PART_BYTES, 1], verify="md5")
    jobs = list(pump.jobs())
    assert [bool(job.digests) for job in jobs].index(True) == 1
    assert sum(len(job.digests) for job in jobs) == 1


@pytest.mark.parametrize("size", [4 * TiB, 50_000 * PART_BYTES])
def test_a_file_of_as_many_parts_as_there_can_be(size):
    pump, _ = pumped([size], nodes=10)
    seen, end = 0, 0
    for job in pump.jobs():
        assert len(job.parts) <= PARTS_PER_JOB
        for part in job.parts:
            assert part.offset == end
            end += part.length
            seen += 1
    assert end == size
    assert seen <= 50_000


def test_a_call_that_is_to_stop_gives_nothing_more():
    pump, books = pumped([1] * 1000, nodes=1, max_failures=2)
    jobs = pump.jobs()
    job = next(jobs)
    books.take([Result(t.place, -1, Action.FAILED, 0, 0.01, 1, None) for t in job.files[:2]])
    assert list(jobs) == []


def test_what_is_given_up_is_no_longer_in_flight():
    pump, books = pumped([1] * 20 + [40 * MiB], nodes=1)
    for job in pump.jobs():
        assert books.allowance.in_flight > 0
        books.fail_rest(job, NotFound())
        assert books.allowance.in_flight == 0
