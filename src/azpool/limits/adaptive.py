"""How many requests may be in flight: found by trying, from throughput alone.

    what was answered, what is in flight -> observe -> the limit
                                              |
        settle (one round) -> epoch (rounds of the limit) -> compare two limits -> keep or refuse

A closed loop with N requests in flight and a throughput of X answers each of them after N / X
seconds (Little's law), so throughput and N tell what latency would, and no base latency need be
known: TCP Vegas and Netflix's gradient limits compare latencies and drift where the least one ever
seen is stale. Here a limit is *tried* beside the present one, in turns, and kept if its throughput
is worth it, as PCC does it with sending rates. Pure: the caller passes the time, in seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from azpool.limits.options import FAST, AdaptiveOptions, Phase

if TYPE_CHECKING:
    from azpool.limits._statistics import AdaptiveStatistics

__all__ = ["AdaptiveLimit"]

# The rules' numbers; tests/unit/limits/test_adaptive.py shows in simulations what they achieve.
WORTH = math.log(1.05) / math.log(4 / 3)  # a limit of 4/3 has to bring 5 % more, one of 2 12 %
FALL = 0.7  # multiplicative decrease, CUBIC's
CONFIDENCE = 1.5  # standard errors that decide a trial before its last epoch
TRIAL_EPOCHS = 6  # then the better mean decides
WINDOW_EPOCHS = 8  # what the present limit's mean remembers
FIRST_NOISE = 0.1  # standard deviation of an epoch's log throughput, until it is known
LEAST_NOISE = 0.02
LUMPS = 8  # answers told in lumps: so many of the largest are one measurement at least
USED = 0.9  # of the limit, on average: epochs below it say nothing of the limit
FRESH_SECONDS = 2.0  # and 10 epochs: older means are measured again before they are compared
FRESH_EPOCHS = 10
REFUSED_WINDOW = 100  # answers over which the share of refused ones is taken, at least


class _Arm:
    """The throughput at one limit: a mean of logarithms, so that ratios are differences."""

    __slots__ = ("at", "last", "limit", "mean", "n")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n = 0
        self.mean = 0.0
        self.last = 0.0
        self.at = -math.inf

    def add(self, value: float, now: float) -> None:
        self.n = min(self.n + 1, WINDOW_EPOCHS)
        self.mean += (value - self.mean) / self.n
        self.last = value
        self.at = now


class AdaptiveLimit:
    """A limit on requests in flight that finds the knee of the throughput, and stays there.

    - **Growing and shrinking.** Another limit is tried beside the present one in turns of one epoch
      each, and kept if log(throughput) rose by more than `WORTH` x log(limit). So a higher limit
      must bring something, and a lower one that loses next to nothing is kept: a server that works
      one by one gets few requests. Factors begin at 2 (TCP's slow start), and go down by their
      square roots to `step` while neither direction helps (a bisection).
    - **Noise.** A trial ends when the difference is clear against the scatter of epochs, which is
      learned, or after 6 turns.
    - **Holding.** When neither direction helps it stays, and looks again after a while, or at once
      where the throughput shifts.
    - **Falling.** Throttled and timed-out requests lower the limit by 0.7 (AIMD's decrease), or
      end the trial that caused them; then nothing lowers it again until every request that was in
      flight has been answered. For a while it comes no nearer to where it fell than half the way
      at a time, as BIC does.
    - **Idle.** Epochs in which fewer than 9 of 10 allowed requests were in flight do not count.

    Not thread-safe; `Limiter` is. The time never runs backwards: an earlier `now` counts as the
    latest one.

    Args:
        options: bounds and pace.
        now: the time, in seconds, of any clock that doesn't jump.
    """

    __slots__ = (
        "_answers", "_answers_per_second", "_base", "_ceiling", "_ceiling_patience",
        "_ceiling_until", "_counts", "_down_refused", "_effect", "_episode", "_epoch_at",
        "_epoch_target", "_factor", "_flight", "_guard", "_hold", "_in_flight", "_limit",
        "_look_at", "_lump", "_noise", "_now", "_refused_share", "_settle", "_span", "_steady",
        "_trial", "_up_refused", "_work", "options",
    )  # fmt: skip

    def __init__(self, options: AdaptiveOptions | None = None, *, now: float) -> None:
        self.options = options or AdaptiveOptions()
        self._now = now
        self._in_flight = 0
        self._limit = self._bounded(self.options.start)
        self._base = _Arm(self._limit)
        self._trial: _Arm | None = None
        self._factor = FAST
        self._up_refused = self._down_refused = False
        self._hold = self.options.hold_seconds
        self._look_at = -math.inf
        self._steady = -math.inf
        self._span = self.options.epoch_seconds
        self._answers_per_second = 1 / self.options.epoch_seconds  # until it is measured
        self._noise = FIRST_NOISE**2
        self._refused_share = 0.0
        self._guard = 0
        self._episode = False
        self._ceiling = math.inf
        self._ceiling_until = -math.inf
        self._ceiling_patience = self.options.ceiling_seconds
        self._effect = False
        self._counts = {"epochs": 0, "idle": 0, "kept": 0, "refused": 0, "falls": 0, "requests": 0}
        self._begin_settling()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return self._limit

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        if self._trial is not None:
            return Phase.TRYING
        return Phase.HOLDING if self._base.n else Phase.MEASURING

    def observe(
        self,
        now: float,
        *,
        in_flight: int,
        requests: int = 0,
        bytes_moved: int = 0,
        throttled: int = 0,
        timed_out: int = 0,
        closed_seconds: float = 0.0,
    ) -> int:
        """Take in what was answered since the last call, and answer the limit.

        Args:
            now: the time of it.
            in_flight: requests in flight from now on, those begun in place of the answered ones
                included; for work that is given out in batches the threads that were given out.
            requests: answered, by success or by any error that is not told below.
            bytes_moved: by them.
            throttled: answered by 429 or 503.
            timed_out: not answered in time.
            closed_seconds: how long nothing may be sent because of the throttled ones.
        """
        now = max(now, self._now)
        self._flight += self._in_flight * (now - self._now)
        self._now = now
        before, self._in_flight = self._in_flight, in_flight
        # Either: where a slot is taken up a moment after it was given back, `in_flight` tells of
        # the moment between.
        self._effect = self._effect or self._used(before) or self._used(in_flight)
        refused = throttled + timed_out
        answers = requests + refused
        if answers and not self._falls(requests, refused, closed_seconds):
            self._measure(answers, requests + bytes_moved / self.options.request_bytes)
        return self._limit

    def statistics(self) -> AdaptiveStatistics:
        """Answer what it knows, frozen."""
        from azpool.limits._statistics import AdaptiveStatistics

        counts = self._counts
        return AdaptiveStatistics(
            limit=self._limit,
            proven=self._base.limit,
            phase=self.phase,
            in_flight=self._in_flight,
            work_per_second=math.exp(self._base.mean) if self._base.n else 0.0,
            noise=math.sqrt(self._noise),
            epochs=counts["epochs"],
            idle_epochs=counts["idle"],
            kept=counts["kept"],
            refused=counts["refused"],
            falls=counts["falls"],
            refused_requests=counts["requests"],
        )

    # --- epochs ---------------------------------------------------------------------------------

    def _bounded(self, limit: float) -> int:
        return max(self.options.min_limit, min(self.options.max_limit, round(limit)))

    def _move(self, limit: int) -> None:
        if limit != self._limit:
            self._limit = limit
            self._begin_settling()

    def _begin_settling(self) -> None:
        # A change is measured once it is in effect and the requests begun before it are answered.
        self._effect = False
        self._settle = self._limit
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._epoch_at = self._now
        self._epoch_target = self._limit
        self._answers = 0
        self._lump = 0
        self._work = 0.0
        self._flight = 0.0

    def _used(self, in_flight: float) -> bool:
        # Half a request: at limits of 1 to 5 the gap between two requests is a big share.
        return USED * self._limit - 0.5 <= in_flight <= self._limit / USED + 0.5

    def _measure(self, answers: int, work: float) -> None:
        if answers > 1:
            self._lump = max(self._lump, answers)
        if self._settle > 0:
            if self._effect:
                self._answers += answers
                if self._answers >= max(self._settle, LUMPS * self._lump):
                    self._settle = 0
                    self._begin_epoch()
            return
        self._answers += answers
        self._work += work
        if self._answers < max(self._epoch_target, LUMPS * self._lump):
            return
        seconds = self._now - self._epoch_at
        if seconds < self.options.epoch_seconds or seconds <= 0:
            # Whole rounds: requests that began together end together, and a part of a round
            # would hold all of them or none.
            self._epoch_target = (self._answers // self._limit + 1) * self._limit
            return
        self._span = max(seconds, self.options.epoch_seconds)
        used = self._used(self._flight / seconds)
        throughput = self._work / seconds
        self._answers_per_second = self._answers / seconds
        self._begin_epoch()
        if used and throughput > 0:
            self._counts["epochs"] += 1
            self._learn(math.log(throughput))
        else:
            self._counts["idle"] += 1

    def _learn(self, value: float) -> None:
        on_trial = self._trial is not None and self._limit == self._trial.limit
        arm = self._trial if on_trial and self._trial is not None else self._base
        for one in (self._base, self._trial):
            if one is not None and self._now - one.at > FRESH_SECONDS + FRESH_EPOCHS * self._span:
                one.n = 0
        last = arm.last
        if arm.n:
            # Cut off: one jump is a change of the server, not noise.
            square = min((value - last) ** 2 / 2, 9 * self._noise)
            self._noise = max(LEAST_NOISE**2, self._noise + 0.2 * (square - self._noise))
        arm.add(value, self._now)
        if self._trial is None:
            self._episode = False
            if self._shifted(value, last):
                # Another server, as it were: search anew, and forget what the old one gave.
                self._base = _Arm(self._limit)
                self._base.add(value, self._now)
                self._factor = FAST
                self._hold = self.options.hold_seconds
                self._look()
            elif self._now >= self._look_at:
                self._look()
        elif self._base.n == 0 or self._trial.n == 0:
            self._move((self._trial if self._trial.n == 0 else self._base).limit)
        else:
            self._judge(self._trial)

    # --- trials ---------------------------------------------------------------------------------

    def _shifted(self, value: float, last: float) -> bool:
        """Whether the throughput is, twice running, not what it was when holding began."""
        spread = max(0.25, 3 * math.sqrt(self._noise))
        off, off_before = value - self._steady, last - self._steady
        if self._steady == -math.inf or min(abs(off), abs(off_before)) < spread:
            return False
        return (off > 0) == (off_before > 0)

    def _look(self) -> None:
        """Begin to look in both directions, with what the last looks have left as a factor."""
        self._steady = -math.inf
        self._up_refused = self._down_refused = False
        self._try_next()

    def _try_next(self) -> None:
        """Try the next limit that was not refused yet, or hold."""
        while True:
            for up in (True, False):
                if self._up_refused if up else self._down_refused:
                    continue
                limit = self._target(up=up)
                if limit is not None:
                    self._trial = _Arm(limit)
                    self._move(limit)
                    return
            if self._factor <= self.options.step:
                break
            self._factor = max(self.options.step, math.sqrt(self._factor))
            self._up_refused = self._down_refused = False
        self._look_at = self._now + self._hold
        self._hold = min(self._hold * 2, self.options.max_hold_seconds)
        self._steady = self._base.mean

    def _target(self, *, up: bool) -> int | None:
        base = self._base.limit
        if not up:
            limit = self._bounded(min(base - 1, base / self._factor))
            return limit if limit < base else None
        limit = self._bounded(max(base + 1, base * self._factor))
        if self._now < self._ceiling_until and limit >= self._ceiling:
            limit = int((base + self._ceiling) / 2)
            if limit < 1.1 * base:
                return None
        return limit if limit > base else None

    def _judge(self, trial: _Arm) -> None:
        base = self._base
        gain = trial.mean - base.mean - WORTH * math.log(trial.limit / base.limit)
        error = math.sqrt(self._noise * (1 / base.n + 1 / trial.n))
        if abs(gain) < CONFIDENCE * error and trial.n < TRIAL_EPOCHS:
            # In turns, so that a drift of the whole machine falls on both alike.
            self._move(base.limit if self._limit == trial.limit else trial.limit)
        elif gain > 0:
            self._keep(trial)
        else:
            self._refuse(up=trial.limit > base.limit)

    def _keep(self, trial: _Arm) -> None:
        up = trial.limit > self._base.limit
        self._counts["kept"] += 1
        self._base = trial
        self._trial = None
        self._hold = self.options.hold_seconds
        self._factor = min(FAST, self._factor**2)
        self._up_refused = not up
        self._down_refused = up
        if up and trial.limit >= self._ceiling:
            self._ceiling = math.inf
            self._ceiling_patience = self.options.ceiling_seconds
        self._move(trial.limit)
        self._try_next()

    def _refuse(self, *, up: bool) -> None:
        self._counts["refused"] += 1
        self._trial = None
        if up:
            self._up_refused = True
        else:
            self._down_refused = True
        self._move(self._base.limit)
        self._try_next()

    # --- refusals of the server -----------------------------------------------------------------

    def _falls(self, requests: int, refused: int, closed_seconds: float) -> bool:
        """Count refused requests, and lower the limit where they are too many."""
        self._counts["requests"] += refused
        if self._guard > 0:
            self._guard -= requests + refused
            return False
        keep = 1 - 1 / max(REFUSED_WINDOW, self._limit)
        share = self._refused_share * keep ** (requests + refused)
        self._refused_share = share + 1 - keep**refused
        if not refused:
            return False
        # A wait for all loses what would have been answered meanwhile: far more than one request,
        # and a short trial would not see it.
        lost = 1 - keep ** (closed_seconds * self._answers_per_second)
        if max(self._refused_share, lost) <= self.options.tolerated_share:
            return False
        self._fall()
        return True

    def _fall(self) -> None:
        trial, base, fell_from = self._trial, self._base.limit, self._limit
        if trial is not None and trial.limit > base and (fell_from > base or self._settle > 0):
            fell_from, limit = trial.limit, base
        else:
            limit = self._bounded(min(fell_from - 1, int(fell_from * FALL)))
        if not self._episode:
            # Falls in a row are one event, and where it began is the limit to be careful at.
            self._episode = True
            self._ceiling = fell_from
            self._ceiling_until = self._now + self._ceiling_patience
            longest = 16 * self.options.ceiling_seconds
            self._ceiling_patience = min(2 * self._ceiling_patience, longest)
        self._counts["falls"] += 1
        self._guard = max(1, self._in_flight)
        self._refused_share = 0.0
        self._trial = None
        self._base = _Arm(limit)
        self._factor = FAST
        self._hold = self.options.hold_seconds
        self._look_at = self._steady = -math.inf
        self._limit = limit
        self._begin_settling()
