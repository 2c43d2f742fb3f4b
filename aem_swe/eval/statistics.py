"""Uncertainty of success rates and of their differences. Legend: R run (one training seed each), T task.

Episodes of one task are alike, so the task is the smallest unit that is ever resampled; all compared runs are evaluated
on the same tasks, so every difference is paired by task. Two claims are kept apart, because they need different data:

1) about THESE runs: what if other tasks of the same kind had been drawn? `paired_difference` resamples tasks.
2) about the METHOD: what if other training seeds had been drawn as well? In `crossed_difference` both vary.

2) does not resample the seeds: three of them, resampled, give an interval from the worst to the best seed, which covers
75% where it says 95%. The variance components of the table run x task and a t quantile keep what they promise.
Where only one number per seed or policy is kept, `t_interval` is over those; `holm` corrects a family of comparisons.
Not covered: ordered or growing task sets; nothing but `holm` corrects for more than one comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.80
RESAMPLES = 4999  # the end points move by less than a tenth of the half width between seeds
WINDOW = 8


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two success rates with its 95% interval, as fractions (0.01 is one point)."""

    value: float
    low: float
    high: float
    p_value: float
    detectable: float | None
    """The true difference that such data would have shown with 80% power; None where nothing varied."""
    unit: Literal["task", "task and seed"]
    tasks: int

    @property
    def holds_zero(self) -> bool:
        return self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True)
class Change:
    """The mean of the first and of the last `window` steps."""

    first: float
    last: float
    window: int

    @property
    def gain(self) -> float:
        return self.last - self.first


def mean_interval(values_T: Floats, *, lowest: float = 0.0, highest: float = 1.0, seed: int = 0) -> Interval:
    """Mean over tasks with an expanded percentile bootstrap interval; the unit of resampling is the task.

    `values_T` is one number per task, for pass@1 the mean of its graded episodes: every task counts the same. Supports
    'these runs, on tasks drawn anew'. Where all tasks agree there is nothing to resample; then the exact binomial bound
    on the share of tasks that might differ, up to `lowest` or `highest`, takes its place (so 0 of 60 is not 0 to 0).
    """
    values_T = np.asarray(values_T, float)
    mean = float(values_T.mean())
    if np.ptp(values_T) == 0.0:
        unseen = 1.0 - ((1.0 - CONFIDENCE) / 2.0) ** (1.0 / values_T.size)
        return Interval(mean, mean - unseen * (mean - lowest), mean + unseen * (highest - mean))
    result = stats.bootstrap(
        (values_T,), np.mean, n_resamples=RESAMPLES, batch=500, method="percentile",
        confidence_level=_expanded_level(values_T.size), rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Interval(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def _expanded_level(size: int) -> float:
    """The percentile level that covers 95% for a mean of `size` values; plain percentiles of 8 tasks cover 87%.

    The expanded percentile interval of Hesterberg (2015, doi 10.1080/00031305.2015.1089789), for small samples.
    """
    quantile = (size / (size - 1)) ** 0.5 * stats.t.ppf((1.0 + CONFIDENCE) / 2.0, size - 1)
    return min(1.0 - 2.0 * float(stats.norm.sf(quantile)), 1.0 - 1.0 / RESAMPLES)


def paired_difference(plus_RT: Floats, minus_RT: Floats, *, seed: int = 0) -> Difference:
    """`plus - minus`, averaged over the runs of each side; the unit of resampling is the task.

    Columns are the same tasks in both arrays; the runs may differ in number. Interval: bootstrap over tasks. p-value:
    sign flips over tasks (exact up to 12 tasks that differ, else random flips). Supports a claim about these runs, with
    one run per arm 'about these two runs (one training seed each), not about the method'.
    """
    difference_T = np.atleast_2d(plus_RT).mean(axis=0) - np.atleast_2d(minus_RT).mean(axis=0)
    interval = mean_interval(difference_T, lowest=-1.0, highest=1.0, seed=seed)
    detectable = None
    if np.ptp(difference_T) > 0.0:
        standard_error = float(difference_T.std(ddof=1)) / difference_T.size**0.5
        detectable = detectable_difference(standard_error, degrees_of_freedom=difference_T.size - 1)
    p_value = sign_flip_p_value(difference_T, seed=seed)
    return Difference(interval.value, interval.low, interval.high, p_value, detectable, "task", difference_T.size)


def sign_flip_p_value(difference_T: Floats, *, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of 0 when the two sides of each task may be swapped."""
    moved = difference_T[difference_T != 0.0]  # a tie looks the same when swapped; without ties more cases are exact
    if moved.size == 0:
        return 1.0
    if moved.size == 1:  # scipy asks for two; one pair can be swapped or not, and both are equally far from 0
        return 1.0
    result = stats.permutation_test(
        (moved,), np.mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES, batch=500,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def crossed_difference(plus_RT: Floats, minus_RT: Floats, *, same_runs: bool) -> Difference | None:
    """`plus - minus` when both the tasks and the training seeds are samples; the seed is the unit that counts.

    `same_runs=True`: row k of both sides is the same run (before -> after). False: the rows of the two sides are
    different runs, taken to have the same spread between seeds. None when no side has two runs, or nothing varies.
    Crossed random effects: variance = seeds + tasks - residual (which is in both), Satterthwaite degrees of freedom.
    Supports a claim about the method: these recipes, on tasks and with seeds drawn anew.
    """
    plus_RT, minus_RT = np.atleast_2d(plus_RT), np.atleast_2d(minus_RT)
    sides = [plus_RT - minus_RT] if same_runs else [plus_RT, minus_RT]
    tasks, weight = plus_RT.shape[1], sum(1.0 / side.shape[0] for side in sides)
    seed_freedom = sum(side.shape[0] - 1 for side in sides)
    if seed_freedom < 1 or tasks < 2:
        return None
    difference_T = plus_RT.mean(axis=0) - minus_RT.mean(axis=0)
    seeds = weight * _between_runs(sides) / seed_freedom
    between_tasks = float(difference_T.var(ddof=1)) / tasks
    residual_freedom = seed_freedom * (tasks - 1)
    residual = weight * _residual(sides) / residual_freedom / tasks
    # Chance can push a component below the residual that it contains; a variance is not smaller than its parts.
    variance = max(seeds + between_tasks - residual, seeds, between_tasks)
    if variance <= 1e-15:
        return None
    parts = seeds**2 / seed_freedom + between_tasks**2 / (tasks - 1) + residual**2 / residual_freedom
    freedom = max(variance**2 / parts, float(seed_freedom))
    value, error = float(difference_T.mean()), variance**0.5
    half = float(stats.t.ppf((1.0 + CONFIDENCE) / 2.0, freedom)) * error
    p_value = 2.0 * float(stats.t.sf(abs(value) / error, freedom))
    detectable = detectable_difference(error, degrees_of_freedom=freedom)
    return Difference(value, value - half, value + half, p_value, detectable, "task and seed", tasks)


def _between_runs(sides: list[Floats]) -> float:
    means = [side.mean(axis=1) for side in sides]
    return float(sum(((mean_R - mean_R.mean()) ** 2).sum() for mean_R in means))


def _residual(sides: list[Floats]) -> float:
    """Sum of squares of what neither the run nor the task explains."""
    centred = [side - side.mean(axis=0) - side.mean(axis=1, keepdims=True) + side.mean() for side in sides]
    return float(sum((part**2).sum() for part in centred))


def detectable_difference(standard_error: float, *, degrees_of_freedom: float) -> float:
    """The true difference that a two-sided 5% test finds with 80% power, from the standard error of these data."""
    quantiles = stats.t.ppf([(1.0 + CONFIDENCE) / 2.0, POWER], degrees_of_freedom)
    return float(quantiles.sum()) * standard_error


def change(values: Floats, window: int = WINDOW) -> Change | None:
    """First against last `window` steps: of the training reward, the learning gain of ONE run (no interval: steps of a
    run depend on each other). A run shorter than two windows is cut in half; None below two steps."""
    window = min(window, values.size // 2)
    if window < 1:
        return None
    return Change(float(values[:window].mean()), float(values[-window:].mean()), window)


def t_interval(values: Floats) -> Interval | None:
    """Mean of one number per seed (or policy) with its two-sided 95% t interval over them; None below two."""
    if values.size < 2:
        return None
    half = float(stats.t.ppf((1.0 + CONFIDENCE) / 2.0, values.size - 1) * values.std(ddof=1)) / values.size**0.5
    return Interval(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979). None counts as 1 and stays None."""
    order = sorted(range(len(p_values)), key=lambda i: _or_one(p_values[i]))
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        p = p_values[i]
        if p is not None:
            largest = max(largest, min(1.0, p * (len(p_values) - rank)))
            corrected[i] = largest
    return corrected


def _or_one(p_value: float | None) -> float:
    return 1.0 if p_value is None else p_value
