"""The limiter with real threads; where time matters, only that nothing comes too early."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque

import pytest

from azpool.errors import ConnectionFailed, Throttled
from azpool.limits import AdaptiveOptions, Answer, GateOptions, Limiter


def fixed(limit, **options):
    return Limiter(AdaptiveOptions(start=limit, min_limit=limit, max_limit=limit), **options)


@contextlib.contextmanager
def threads(count, target):
    """Run `target` on threads; errors of theirs are raised at the end."""
    errors = []

    def run():
        try:
            target()
        except BaseException as error:
            errors.append(error)

    started = [threading.Thread(target=run) for _ in range(count)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        for thread in started:
            thread.join()
    assert not errors, errors


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def test_never_more_than_the_limit_at_once_and_all_of_it():
    limiter = fixed(4)
    full = threading.Barrier(4)  # passes only if four are inside together
    lock = threading.Lock()
    inside, most = 0, 0
    left = [None] * 200  # turns of all: with turns of its own the last thread would be alone

    def work():
        nonlocal inside, most
        while True:
            with lock:
                if not left:
                    return
                left.pop()
            with limiter:
                with lock:
                    inside += 1
                    most = max(most, inside)
                full.wait(30)
                with lock:
                    inside -= 1

    with threads(8, work):
        pass
    assert most == 4
    facts = limiter.statistics()
    assert (facts.in_flight, facts.waiting) == (0, 0)
    assert facts.requests.taken == 200


def test_waiting_thread_goes_on_when_a_slot_is_given_back():
    limiter = fixed(1)
    held = limiter.acquire()
    assert limiter.try_acquire() is None
    with threads(1, lambda: limiter.acquire().release()):
        until(lambda: limiter.statistics().waiting == 1)
        held.release()
    held.release()  # again is harmless
    assert limiter.statistics().in_flight == 0


def test_acquire_that_times_out_holds_nothing_and_costs_no_other_its_turn():
    limiter = fixed(1)
    held = limiter.acquire()
    with pytest.raises(TimeoutError, match=r"cannot send a request: none was allowed in 0\.01 s"):
        limiter.acquire(timeout_seconds=0.01)
    assert limiter.statistics().in_flight == 1
    with threads(1, lambda: limiter.acquire().release()):
        until(lambda: limiter.statistics().waiting == 1)
        held.release()


def test_throttled_keeps_every_thread_waiting_until_then():
    limiter = fixed(4, jitter=lambda: 0.0)
    with limiter:
        opens_at = time.monotonic() + 0.2
        limiter.throttled(0.2)
    early = []

    def work():
        with limiter:
            early.append(time.monotonic() < opens_at)

    with threads(6, work):
        pass
    assert early == [False] * 6


def test_thread_that_waits_for_a_slot_keeps_to_a_gate_that_closes_meanwhile():
    limiter = fixed(1, jitter=lambda: 0.0)
    times = []
    held = limiter.acquire()

    def work():
        with limiter:
            times.append(time.monotonic())

    with threads(1, work):
        until(lambda: limiter.statistics().waiting == 1)
        closed_at = time.monotonic()
        held.throttled(0.1)
        held.release()
    assert times[0] >= closed_at + 0.1


class Clock:
    """A clock that stands until it is set."""

    now = 0.0

    def __call__(self):
        return self.now


class AzureError(Exception):
    """As azure-core's, which azpool does not import here."""

    status_code = 429


class OtherError(Exception):
    status = 404


def raising(limiter, error):
    with pytest.raises(type(error)), limiter:
        raise error


@pytest.mark.parametrize(
    ("error", "closed_seconds"),
    [
        (Throttled("slow down", status=503, retry_after_seconds=40.0), 40.0),
        (Throttled("slow down", status=503), 2.0),
        (AzureError(), 2.0),
        (OtherError(), 0.0),
        (ConnectionFailed("cut"), 0.0),
        (KeyboardInterrupt(), 0.0),
    ],
    ids=repr,
)
def test_error_that_comes_through_closes_the_gate_if_it_is_a_refusal(error, closed_seconds):
    limiter = fixed(8, clock=Clock(), jitter=lambda: 0.0, gate=GateOptions(first_seconds=2.0))
    raising(limiter, error)
    facts = limiter.statistics()
    assert facts.gate.wait_seconds == closed_seconds
    assert facts.in_flight == 0
    assert facts.limit.refused_requests == (1 if closed_seconds else 0)


def test_refusals_and_time_outs_lower_the_limit():
    clock = Clock()
    for error in (Throttled("slow", retry_after_seconds=5.0), TimeoutError()):
        limiter = Limiter(AdaptiveOptions(start=10), clock=clock)
        # One after the other, or a closed gate would let no second one through.
        permits = [limiter.acquire() for _ in range(10)]
        for permit in permits:
            with contextlib.suppress(type(error)), permit:
                raise error
        assert limiter.limit == 7, error
        assert limiter.statistics().limit.falls == 1


def test_limit_grows_while_that_brings_more():
    clock = Clock()
    limiter = Limiter(AdaptiveOptions(start=4), clock=clock)
    held = []
    for _ in range(2000):
        while (permit := limiter.try_acquire()) is not None:
            held.append(permit)
        clock.now += 0.02 / len(held)  # a server that answers each in 20 ms, whatever comes
        held.pop(0).release()
    assert limiter.limit >= 64
    for permit in held:
        permit.release()


def test_threads_that_are_slow_to_take_a_slot_do_not_look_like_a_lack_of_work():
    class Gaps(Clock):
        """Time passes, but for what a request takes, only while a slot is free."""

        def __call__(self):
            if limiter is not None and limiter._in_flight == 0:
                self.now += 1.0
            return self.now

    limiter, clock = None, Gaps()
    limiter = fixed(1, clock=clock)
    rounds, alive = list(range(80)), [None] * 4

    def work():
        while rounds:
            with limiter:
                if rounds:
                    rounds.pop()
                until(lambda: limiter.statistics().waiting == len(alive) - 1)
                clock.now += 0.1
        alive.pop()

    with threads(4, work):
        pass
    facts = limiter.statistics().limit
    assert facts.epochs > 10
    assert facts.idle_epochs <= 4  # at the end there is nobody who waits


def test_threads_that_ask_again_at_once_take_no_turn_from_those_who_wait():
    limiter = fixed(4)
    inside, turns, over = deque(), Counter(), threading.Event()

    def work():
        while not over.is_set():
            with limiter:
                turns[threading.get_ident()] += 1
                leave = threading.Event()
                inside.append(leave)
                assert over.is_set() or leave.wait(30)

    def all_there():
        return len(inside) == 4 and limiter.statistics().waiting == 4

    with threads(8, work):
        for _ in range(8 * 25 - 4):
            until(all_there)
            inside.popleft().set()
        until(all_there)
        fair = sorted(turns.values())
        over.set()
        for leave in inside.copy():
            leave.set()
    assert fair == [25] * 8


def test_a_slot_that_is_given_back_belongs_to_who_waits_before_that_thread_is_awake():
    limiter = fixed(1)
    held, over = limiter.acquire(), threading.Event()

    def work():
        with limiter:
            assert over.wait(30)

    with threads(1, work):
        until(lambda: limiter.statistics().waiting == 1)
        held.release()
        facts = limiter.statistics()
        late = limiter.try_acquire()
        over.set()
    assert (facts.in_flight, facts.waiting, late) == (1, 0, None)


def test_ctrl_c_passes_a_slot_on_that_came_with_it():
    limiter = fixed(1)
    held = limiter.acquire()
    done = []

    def interrupt(*_):
        held.release()  # to this thread, which is the first that waits
        assert limiter.statistics().in_flight == 1
        raise KeyboardInterrupt

    def press():
        until(lambda: limiter.statistics().waiting == 1)
        with threads(1, go_on):
            until(lambda: limiter.statistics().waiting == 2)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def go_on():
        limiter.acquire(timeout_seconds=30).release()
        done.append(True)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with threads(1, press), pytest.raises(KeyboardInterrupt):
            limiter.acquire()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done == [True]
    facts = limiter.statistics()
    assert (facts.in_flight, facts.waiting, facts.gate.outstanding) == (0, 0, 0)


def test_who_waits_keeps_to_a_limit_that_has_fallen():
    limiter = Limiter(AdaptiveOptions(start=10, tolerated_share=0.001), clock=Clock())
    held, over = [limiter.acquire() for _ in range(10)], threading.Event()

    def work():
        with limiter:
            assert over.wait(30)

    with threads(2, work):
        until(lambda: limiter.statistics().waiting == 2)
        held[0].timed_out()
        seen = []
        for permit in held[:6]:
            permit.release()
            facts = limiter.statistics()
            seen.append((facts.in_flight, facts.waiting))
        over.set()
    assert limiter.limit == 7
    assert seen == [(9, 2), (8, 2), (7, 2), (7, 1), (7, 0), (6, 0)]
    for permit in held:
        permit.release()


def test_thread_that_gives_up_at_a_closed_gate_passes_its_turn_on():
    limiter = fixed(1, jitter=lambda: 0.0)
    held = limiter.acquire()
    gave_up, seconds = [], []

    def go_on():
        began = time.monotonic()
        limiter.acquire(timeout_seconds=30).release()
        seconds.append(time.monotonic() - began)

    def give_up():
        with pytest.raises(TimeoutError):
            limiter.acquire(timeout_seconds=3)
        gave_up.append(True)

    with threads(1, give_up):
        until(lambda: limiter.statistics().waiting == 1)
        with threads(1, go_on):
            until(lambda: limiter.statistics().waiting == 2)
            held.throttled(4.0)
            held.release()  # tells the first, which will not use it
    assert gave_up == [True]
    assert seconds[0] < 25  # told, not woken by its own time-out


def test_rate_of_requests_is_kept_over_all_threads():
    limiter = fixed(8, requests_per_second=100.0)
    began = time.monotonic()

    def work():
        for _ in range(5):
            with limiter:
                pass

    with threads(8, work):
        pass
    burst = 10 + 1
    assert time.monotonic() - began >= (40 - burst) / 100 - 0.01


def test_bytes_that_moved_make_the_next_request_wait():
    clock = Clock()
    limiter = fixed(8, bytes_per_second=1000.0, clock=clock)
    with limiter as permit:
        permit.moved(2000)
        permit.moved(100)
    assert limiter.statistics().moved.debt_seconds == pytest.approx(2.0)
    assert limiter.try_acquire() is None
    clock.now = 2.0
    with limiter.try_acquire() as permit:
        assert permit.answer is Answer.ANSWERED


def test_throttled_outside_a_block_closes_the_gate_alone():
    limiter = fixed(8, clock=Clock(), jitter=lambda: 0.5, gate=GateOptions(spread=0.5))
    limiter.throttled(8.0)
    facts = limiter.statistics()
    assert facts.gate.wait_seconds == 10.0
    assert facts.limit.refused_requests == 0


def test_blocks_of_one_thread_nest():
    limiter = fixed(2)
    with limiter as outer:
        with limiter as inner:
            limiter.throttled(0.0)
            assert limiter.try_acquire() is None
        assert inner.answer is Answer.THROTTLED
        assert outer.answer is Answer.ANSWERED
    assert limiter.statistics().in_flight == 0


def test_limits_load_nothing_but_errors_and_waits_of_azpool():
    code = "import azpool.limits, sys; print(*sorted(m for m in sys.modules if 'azpool' in m))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    others = {
        name for name in done.stdout.split() if not name.startswith("azpool.limits")
    }  # fmt: skip
    assert others == {"azpool", "azpool._version", "azpool._waits", "azpool.errors"}
