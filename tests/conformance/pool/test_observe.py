"""Seeds, progress, and what nodes say by logging and warnings: with real nodes."""

# ruff: noqa: NPY002 - numpy's legacy global is among what is tested

from __future__ import annotations

import contextlib
import io
import logging
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import pytest

import azpool
from azpool import Pool
from azpool.errors import NodeDied, UsageError
from azpool.pool.progress import PLAIN_SECONDS, Lines, Meter

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")


@pytest.fixture(scope="module")
def pool(starter: str) -> Iterator[Pool]:
    with Pool(3) as made:
        yield made


# -- seeds ---------------------------------------------------------------------------------------


def draw(n: int) -> tuple[float, ...]:
    legacy, own = np.random.standard_normal(2), azpool.rng().random(2)
    return random.random(), random.gauss(0, 1), *legacy.tolist(), *own.tolist()


@pytest.fixture(scope="module")
def drawn(pool: Pool) -> list[tuple[float, ...]]:
    return list(pool.map(draw, range(30), seed=7))


@pytest.mark.parametrize("size", [1, 4])
def test_a_seeded_map_draws_the_same_on_any_pool(drawn: list[tuple[float, ...]], size: int) -> None:
    with Pool(size) as other:
        for options in ({}, {"chunksize": 1}, {"chunksize": 30}, {"deadline_seconds": 30}):
            assert list(other.map(draw, range(30), seed=7, **options)) == drawn  # type: ignore[arg-type]
        disordered = other.map(draw, range(30), seed=7, chunksize=4, ordered=False)
        assert sorted(disordered) == sorted(drawn)


def test_items_and_seeds_draw_apart(pool: Pool, drawn: list[tuple[float, ...]]) -> None:
    numbers = [number for row in drawn for number in row]
    numbers += [number for row in pool.map(draw, range(30), seed=8) for number in row]
    assert len(set(numbers)) == 2 * 30 * 6


def test_a_seeded_stream_draws_as_a_seeded_list(pool: Pool, drawn: list[Any]) -> None:
    assert list(pool.map(draw, iter(range(30)), seed=7)) == drawn


def test_items_that_fail_or_are_tried_again_shift_no_other(
    pool: Pool, drawn: list[Any], tmp_path: Any
) -> None:
    def stumble(n: int) -> Any:
        found = draw(n)
        if n % 3 == 1 and not (tmp_path / str(n)).exists():
            (tmp_path / str(n)).touch()
            raise OSError("not yet")
        return found

    assert list(pool.map(stumble, range(30), seed=7, retries=1, chunksize=5)) == drawn


class DrawsWhenLoaded:
    def __reduce__(self) -> Any:
        return _draw_and_make, ()


def _draw_and_make() -> int:
    random.random()
    np.random.random()
    return 1


def test_loading_an_argument_shifts_no_stream(pool: Pool, drawn: list[Any]) -> None:
    assert list(pool.map(draw, [DrawsWhenLoaded()] * 5, seed=7)) == drawn[:5]


@pytest.mark.needs_processes("they share the master's imports")
def test_an_item_that_is_the_first_to_load_numpy_draws_the_same() -> None:
    def late() -> list[float]:
        import numpy as late_numpy  # noqa: ICN001 - the module has np already

        return late_numpy.random.random(3).tolist()

    def loaded() -> bool:
        import sys

        return "numpy.random" in sys.modules

    def twice(n: int) -> list[float]:
        return late()

    with Pool(1) as one, Pool(3) as three:
        assert one.call(loaded) == [False]
        first = list(one.map(twice, range(6), seed=1))
        assert list(three.map(twice, range(6), seed=1, chunksize=1)) == first
        assert list(one.map(twice, range(6), seed=1)) == first


def test_the_generator_of_an_item_is_the_one_that_the_docs_name(pool: Pool) -> None:
    expected = [
        np.random.default_rng(np.random.SeedSequence(11, spawn_key=(n,))).integers(1 << 40)
        for n in range(5)
    ]
    assert list(pool.map(lambda n: azpool.rng().integers(1 << 40), range(5), seed=11)) == expected


def test_after_a_seeded_map_nodes_draw_afresh(pool: Pool) -> None:
    def unseeded() -> tuple[float, ...]:
        return draw(0)

    seen = []
    for _ in range(2):
        list(pool.map(draw, range(6), seed=7, chunksize=2))
        seen += pool.call(unseeded)
    numbers = [number for row in seen for number in row]
    assert len(set(numbers)) == len(numbers)


def test_without_a_seed_no_two_nodes_draw_alike(pool: Pool) -> None:
    for draws in (
        pool.call(lambda: random.random()),
        pool.call(lambda: np.random.random()),
        pool.call(lambda: azpool.rng().random()),
        pool.call(random.random),  # bound methods that hold the master's generator
        pool.call(np.random.random),
        [f.result() for f in [pool.submit_to(n, random.gauss, 0, 1) for n in range(3)]],
    ):
        assert len(set(draws)) == 3


def test_seeded_bound_methods_draw_from_the_items_streams(pool: Pool) -> None:
    draws = [list(pool.map(random.uniform, [0] * 9, [1] * 9, seed=2)) for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 9
    draws = [list(pool.map(np.random.normal, range(9), seed=2)) for _ in range(2)]
    assert draws[0] == draws[1]


def test_a_generator_of_the_users_own_still_travels(pool: Pool) -> None:
    mine = random.Random(5)
    assert pool.submit(lambda: mine.random()).result() == random.Random(5).random()
    legacy = np.random.RandomState(5)
    assert pool.submit(legacy.random_sample).result() == np.random.RandomState(5).random_sample()


def test_a_seeded_map_inside_a_task_is_the_same_and_disturbs_nothing(
    pool: Pool, drawn: list[Any]
) -> None:
    def nested(n: int) -> Any:
        before = draw(n)
        inner = azpool.pool_map(draw, range(30), seed=7)
        return before, inner, draw(n)

    def plain(n: int) -> Any:
        return draw(n), draw(n)

    rows = list(pool.map(nested, range(3), seed=3))
    assert all(inner == drawn for _, inner, _ in rows)
    assert [(a, b) for a, _, b in rows] == list(pool.map(plain, range(3), seed=3))


def test_pool_map_takes_a_seed(drawn: list[Any]) -> None:
    azpool.init_pool(2)
    try:
        assert azpool.pool_map(draw, range(30), seed=7) == drawn
    finally:
        azpool.delete_pool()


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True])
def test_a_seed_that_is_no_number_is_refused_at_the_call(pool: Pool, seed: Any) -> None:
    with pytest.raises(UsageError, match="cannot use seed="):
        pool.map(abs, [1], seed=seed)


def test_a_generator_outside_of_any_task_is_the_processes_own() -> None:
    assert azpool.rng() is azpool.rng()


# -- progress ------------------------------------------------------------------------------------


def test_a_callable_is_told_how_many_are_done_in_the_thread_that_reads(pool: Pool) -> None:
    told: list[tuple[int, int | None]] = []
    threads = set()

    def tell(done: int, total: int | None) -> None:
        threads.add(threading.current_thread())
        told.append((done, total))

    list(pool.map(abs, range(50), chunksize=5, progress=tell))
    assert threads == {threading.current_thread()}
    counts = [done for done, _ in told]
    assert counts == sorted(set(counts)) and counts[-1] == 50
    assert {total for _, total in told} == {50}


@pytest.mark.needs_processes("this ends one")
def test_failures_count_as_done(pool: Pool) -> None:
    told: list[int] = []

    def end(n: int) -> None:
        os._exit(1) if n == 3 else 1 / (n - 1)

    options: Any = {"return_exceptions": True, "chunksize": 1}
    list(pool.map(end, range(6), progress=lambda done, total: told.append(done), **options))
    assert told[-1] == 6


def test_the_total_of_a_stream_is_known_when_it_has_ended(pool: Pool) -> None:
    told: list[tuple[int, int | None]] = []
    stream = iter(range(100))
    list(pool.map(abs, stream, buffersize=4, progress=lambda *words: told.append(words)))
    assert told[0][1] is None
    assert told[-1] == (100, 100)


class Bar:
    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.n = 0
        self.closed = False
        made.append(self)

    def update(self, n: int = 1) -> None:
        self.n += n

    def close(self) -> None:
        self.closed = True


made: list[Bar] = []


def test_a_bar_like_tqdms_is_updated_and_left_open(pool: Pool) -> None:
    bar = Bar()
    list(pool.map(abs, range(30), progress=bar))
    list(pool.map(abs, range(30), progress=bar))
    assert (bar.n, bar.total, bar.closed) == (60, 30, False)


def test_a_class_of_bars_is_made_and_closed(pool: Pool) -> None:
    made.clear()
    results = pool.map(lambda n: 1 / n, [1, 2, 0], progress=Bar)
    assert not made  # until the first result is asked for
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert [(bar.total, bar.closed) for bar in made] == [(3, True)]


def test_an_error_of_the_callable_ends_the_map_and_not_the_pool(pool: Pool) -> None:
    def tell(done: int, total: int | None) -> None:
        raise LookupError("no screen")

    results = pool.map(abs, range(1000), progress=tell)
    with pytest.raises(LookupError, match="no screen"):
        next(results)
    assert list(results) == []
    assert list(pool.map(abs, range(10))) == list(range(10))


@pytest.mark.parametrize("progress", [3, "yes", object()])
def test_what_shows_no_progress_is_refused_at_the_call(pool: Pool, progress: Any) -> None:
    with pytest.raises(UsageError, match="cannot show progress with"):
        pool.map(abs, [1], progress=progress)


def test_maps_inside_tasks_tell_their_progress_too(pool: Pool) -> None:
    def nested() -> list[tuple[int, int | None]]:
        told: list[tuple[int, int | None]] = []
        azpool.pool_map(abs, range(3), progress=lambda *words: told.append(words))
        return told

    assert pool.submit(nested).result() == [(1, 3), (2, 3), (3, 3)]


def test_without_a_terminal_lines_are_few(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    list(pool.map(abs, range(100), progress=True))
    assert capsys.readouterr().err == ""

    now = 0.0
    out = io.StringIO()
    meter = Meter(Lines(out, lambda: now), 1200, "work")
    meter.begin()
    for _ in range(12):
        now += PLAIN_SECONDS / 2
        meter.add(100, 1)
    meter.end()
    meter.end()
    lines = out.getvalue().splitlines()
    assert lines[0] == "azpool: work: 200 of 1,200 done, 2 failed, 40/s, 25 s left"
    assert lines[-1] == "azpool: work: 1,200 of 1,200 done, 12 failed, 40/s"
    assert len(lines) == 6


BARS = """
import sys, threading
from azpool import Pool

def work(n):
    return 1 / (n - 7)

with Pool(2) as pool:
    def use():
        list(pool.map(work, range(40), progress=True, return_exceptions=True))
    threads = [threading.Thread(target=use) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
"""


def test_on_a_terminal_maps_share_one_display() -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", BARS], stderr=slave, env=environment) as child:
        os.close(slave)
        shown = b""
        try:
            while data := os.read(master, 4096):
                shown += data
        except OSError:  # the terminal's other end is closed
            pass
        os.close(master)
    text = shown.decode()
    assert child.returncode == 0, text
    assert "work" in text and "40/40" in text and "1 failed" in text
    assert "Traceback" not in text


# -- logging -------------------------------------------------------------------------------------


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.threads: set[threading.Thread] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.threads.add(threading.current_thread())
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    logger = logging.getLogger("tests.nodes")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Shown:
    """What is written to both streams in the block, by the courier too.

    Not capsys: it loses what another thread writes in the middle of a look.
    """

    def __enter__(self) -> Self:
        self._out, self._err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(self._out))
            stack.enter_context(contextlib.redirect_stderr(self._err))
            self._undo = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def out(self) -> str:
        return self._out.getvalue()

    @property
    def err(self) -> str:
        return self._err.getvalue()


@pytest.mark.needs_processes("what they log is logged as it is")
def test_what_nodes_log_is_logged_here_with_their_number(pool: Pool, kept: Kept) -> None:
    def speak(n: int) -> None:
        log = logging.getLogger("tests.nodes.deep")
        log.warning("slow disk %s after %d s", "sda", n, extra={"tries": n, "parts": [n]})
        log.info("nobody has asked for this")

    pool.submit_to(2, speak, 7).result()
    wait_for(lambda: kept.records)
    (record,) = kept.records
    assert record.getMessage() == "slow disk sda after 7 s"
    assert (record.msg, record.args) == ("slow disk %s after %d s", ("sda", 7))
    assert (record.levelname, record.name) == ("WARNING", "tests.nodes.deep")
    assert (record.funcName, record.filename) == ("speak", "test_observe.py")
    assert record.azpool_node == 2  # type: ignore[attr-defined]
    assert record.tries == 7 and record.parts == [7]  # type: ignore[attr-defined]
    assert record.processName == "azpool-node-2"
    assert record.process == pool.pids()[2]
    assert threading.current_thread() not in kept.threads


def test_a_logged_exception_comes_as_its_traceback(pool: Pool, kept: Kept) -> None:
    def fail() -> None:
        try:
            {}["key"]
        except KeyError:
            logging.getLogger("tests.nodes").exception("went wrong")

    pool.submit(fail).result()
    wait_for(lambda: kept.records)
    text = logging.Formatter("%(message)s").format(kept.records[0])
    assert text.startswith("went wrong\nTraceback") and "KeyError: 'key'" in text


class NoTraveller:
    def __reduce__(self) -> Any:
        raise TypeError("stays at home")

    def __str__(self) -> str:
        return "words"

    __repr__ = __str__


class NoArrival:
    def __reduce__(self) -> Any:
        return divmod, (1, 0)


@pytest.mark.needs_processes("what they log is logged as it is")
def test_records_that_hold_anything_arrive(pool: Pool, kept: Kept) -> None:
    def speak() -> None:
        log = logging.getLogger("tests.nodes")
        log.warning("holds %s", NoTraveller(), extra={"it": NoTraveller()})
        log.warning(NoTraveller(), extra={"it": NoArrival()})
        log.warning("named %(a)s", {"a": 1})

    pool.submit(speak).result()
    wait_for(lambda: len(kept.records) == 3)
    assert [r.getMessage() for r in kept.records] == ["holds words", "words", "named 1"]
    assert kept.records[0].it == "words"  # type: ignore[attr-defined]
    assert "ZeroDivisionError" in kept.records[1].it  # type: ignore[attr-defined]


@pytest.mark.needs_processes("this ends one")
def test_nothing_logged_or_printed_is_lost_when_the_node_dies(kept: Kept) -> None:
    def speak_and_die() -> None:
        for n in range(500):
            logging.getLogger("tests.nodes").error("%d", n)
            print(n)
        os.kill(os.getpid(), signal.SIGKILL)

    with Shown() as shown:
        with Pool(1) as pool, pytest.raises(NodeDied):
            pool.submit(speak_and_die).result()
        wait_for(lambda: len(kept.records) == 500)
        wait_for(lambda: shown.out.count("\n") == 500)
    assert [r.args for r in kept.records] == [(n,) for n in range(500)]
    assert shown.out.splitlines() == [f"[node 0] {n}" for n in range(500)]


def test_nodes_have_the_levels_that_the_master_had_when_they_started(kept: Kept) -> None:
    logger = logging.getLogger("tests.nodes")
    logger.setLevel(logging.DEBUG)
    try:
        with Pool(1) as pool:
            pool.submit(lambda: logging.getLogger("tests.nodes").debug("fine")).result()
            wait_for(lambda: kept.records)
            logger.setLevel(logging.ERROR)  # the master has the last word
            pool.submit(lambda: logging.getLogger("tests.nodes").warning("late")).result()
            pool.submit(lambda: logging.getLogger("tests.nodes").error("bad")).result()
        wait_for(lambda: len(kept.records) == 2)
        assert [r.msg for r in kept.records] == ["fine", "bad"]
    finally:
        logger.setLevel(logging.NOTSET)


def test_a_handler_may_use_the_pool(pool: Pool) -> None:
    answers: list[int] = []

    class Asks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            answers.append(pool.submit(abs, -5).result())

    logger = logging.getLogger("tests.asks")
    logger.addHandler(handler := Asks())
    pool.submit(lambda: logging.getLogger("tests.asks").error("now")).result()
    wait_for(lambda: answers == [5])
    logger.removeHandler(handler)


def test_a_finalizer_may_log_while_its_node_sends(pool: Pool, kept: Kept) -> None:
    def litter() -> int:
        import gc

        class Loud:
            def __del__(self) -> None:
                logging.getLogger("tests.nodes").error("gone")

        try:
            for n in range(300):
                gc.set_threshold(n % 30 + 1)  # collect here, there and everywhere
                loud = Loud()
                loud.me = loud  # type: ignore[attr-defined]
                del loud
                azpool.pool.emit([n])
        finally:
            gc.set_threshold(700, 10, 10)
            gc.collect()
        return 300

    assert pool.submit(litter).result() == 300
    wait_for(lambda: len(kept.records) == 300)


@pytest.mark.needs_processes("what they print is printed as it is")
def test_a_process_that_a_task_forks_may_speak_too(pool: Pool) -> None:
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            print("child prints")
            logging.getLogger("tests.forked").error("child logs")
            warnings.warn("child warns", stacklevel=1)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    with Shown() as shown:
        assert pool.submit_to(1, fork).result() == 0
        for words in ("child prints", "child logs", "child warns"):
            wait_for(lambda words=words: words in shown.out + shown.err)  # type: ignore[misc]
    assert all(line.startswith("[node 1] ") for line in (shown.out + shown.err).splitlines())
    assert pool.submit_to(1, abs, -1).result() == 1


SPEAKS_LAST = """
import logging, time, warnings, azpool

def speak(n):
    logging.getLogger("any").warning("said %d", n)
    if n == 0:
        warnings.warn("mind the gap")

azpool.init_pool(2)
list(azpool.get_pool().map(speak, range(40)))
"""


@pytest.mark.needs_processes("what they log is logged as it is")
def test_without_logging_set_up_and_at_the_end_of_a_script() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPEAKS_LAST], capture_output=True, text=True, timeout=50, check=True
    )
    lines = [line.split("] ", 1) for line in done.stderr.splitlines() if line.startswith("[node ")]
    assert {tag for tag, _ in lines} <= {"[node 0", "[node 1"}
    said = [text for _, text in lines if text.startswith("said")]
    assert sorted(said) == sorted(f"said {n}" for n in range(40))
    assert sum("UserWarning: mind the gap" in text for _, text in lines) == 1


# -- warnings ------------------------------------------------------------------------------------


class OwnWarning(UserWarning):
    pass


def caution(text: str) -> None:
    warnings.warn(text, OwnWarning, stacklevel=1)


def collected(pool: Pool, *texts: str, action: Any = "always") -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(action)
        for text in texts:
            pool.call(caution, text)
        pool.call(lambda: warnings.warn("the end", stacklevel=1))
        wait_for(lambda: sum(str(w.message) == "the end" for w in seen) >= 1)
    return [w for w in seen if str(w.message) != "the end"]


@pytest.mark.needs_processes("what they warn of is warned of as it is")
def test_warnings_of_nodes_are_warnings_here_with_their_number() -> None:
    with Pool(2) as pool:
        first, second = collected(pool, "thin ice")
    assert first.category is OwnWarning
    assert str(first.message) == "thin ice"
    assert {first.message.azpool_node, second.message.azpool_node} == {0, 1}  # type: ignore[union-attr]
    assert {w.filename for w in (first, second)} == {f"[node {n}] {__file__}" for n in (0, 1)}
    shown = warnings.formatwarning(first.message, first.category, first.filename, first.lineno)
    assert shown.endswith("OwnWarning: thin ice\n  warnings.warn(text, OwnWarning, stacklevel=1)\n")


def test_a_location_is_shown_once_where_filters_say_so() -> None:
    with Pool(3) as pool:
        seen = collected(pool, "again", "again", "another", action="default")
    assert [str(w.message) for w in seen] == ["again", "another"]


def test_the_masters_filters_decide() -> None:
    with Pool(1) as pool, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message="thin", category=OwnWarning)
        warnings.filterwarnings("ignore", module="quiet_module")
        pool.call(caution, "thin ice")
        pool.evalq("__name__ = 'quiet_module'; import warnings; warnings.warn('unheard')")
        pool.call(caution, "the end")
        wait_for(lambda: seen)
    assert [str(w.message) for w in seen] == ["the end"]


@pytest.mark.needs_processes("what they warn of is raised where it is an error")
def test_warnings_as_errors_are_shown_and_harm_nothing() -> None:
    with Shown() as shown:
        with Pool(1) as pool:  # pytest makes errors of warnings here
            pool.call(caution, "alarm")
            pool.call(lambda: print("still here"))
        wait_for(lambda: shown.out.endswith("\n") and "OwnWarning: alarm" in shown.err)
    assert shown.err.startswith("[node 0] ")
    assert shown.out == "[node 0] still here\n"


@pytest.mark.needs_processes("every class is loaded here")
def test_a_warning_class_that_is_not_loaded_here_comes_as_its_base() -> None:
    def warn() -> None:
        class Local(RuntimeWarning):
            pass

        Local.__module__ = "nowhere"
        warnings.warn("odd", Local, stacklevel=1)

    with Pool(1) as pool, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pool.call(warn)
        wait_for(lambda: seen)
    assert seen[0].category is RuntimeWarning
