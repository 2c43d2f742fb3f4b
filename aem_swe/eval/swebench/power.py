"""How many runs, and how many training seeds, a difference of pass@1 needs before it can be seen.

Two answers, because there are two claims:

1) about TWO checkpoints, on these same tasks: only the runs are noise. With variance v between the runs of one task,
   N tasks and K runs per checkpoint, the difference has variance 2 v / (N K): repeats make it as small as wanted.
2) about the METHOD: the training seed is the unit. With a spread s between seeds and n seeds per arm, the difference
   has variance 2 (s^2 + v / (N K)) / n: no number of runs makes up for too few seeds.

Not covered: tasks drawn anew. The interval of a comparison lets them vary as well, and is wider where two checkpoints
are good at different tasks. Quantities are fractions (0.01 is one point).
"""

import math
from dataclasses import dataclass

from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.errors import ConfigError
from aem_swe.eval.statistics import CONFIDENCE
from aem_swe.eval.wording import counted, points

MOST_SEEDS = 10_000
ASSUMED_TASK_VARIANCE = 0.11
TWO_SIDED = (1.0 + CONFIDENCE) / 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known, or taken to be so, before anything is run."""

    rate: float
    """pass@1 of the reference."""
    difference: float
    """The one that should be seen."""
    seed_spread: float
    """Standard deviation of pass@1 between training seeds of one recipe."""
    runs: int
    """Evaluation runs per checkpoint."""
    seeds: int
    """Training seeds per arm."""
    tasks: int = 500
    task_variance: float = ASSUMED_TASK_VARIANCE
    """Between the runs of one task, averaged over tasks: p (1 - p)."""
    power: float = 0.80

    def __post_init__(self) -> None:
        ceiling = self.rate * (1.0 - self.rate)
        _within("rate", self.rate, 0.0 < self.rate < 1.0, "a fraction between 0 and 1, such as 0.42")
        _within("difference", 100 * self.difference, 1e-6 <= self.difference < 1.0, "points above 0, such as 1.4")
        _within("seed-sd", 100 * self.seed_spread, 0.0 <= self.seed_spread < 1.0, "points, 0 or more, such as 1.0")
        _within("runs", self.runs, self.runs >= 1, "1 or more")
        _within("seeds", self.seeds, self.seeds >= 1, "1 or more")
        _within("tasks", self.tasks, self.tasks >= 1, "1 or more, such as 500")
        _within(
            "task-variance", self.task_variance, 0.0 <= self.task_variance <= ceiling + 1e-12,
            f"0 to {ceiling:.3f}, which is rate x (1 - rate)",
        )  # fmt: skip
        _within("power", self.power, TWO_SIDED - CONFIDENCE < self.power < 1.0, "between 0.025 and 1, such as 0.8")


def _within(option: str, value: float, holds: bool, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"--{option} {value:g} cannot be used; give {remedy}")


def run_error(rate: float, tasks: int) -> float:
    """Standard error of the pass@1 of one run, tasks drawn anew: binomial."""
    return math.sqrt(rate * (1.0 - rate) / tasks)


def checkpoints_error(task_variance: float, tasks: int, runs: int) -> float:
    """Standard error of the difference of two checkpoints on the same tasks, each with so many runs."""
    return math.sqrt(2.0 * task_variance / (tasks * runs))


def runs_to_exclude_zero(plan: Plan) -> int:
    """Runs per checkpoint after which an interval around that very difference leaves 0 out: found about every second
    time."""
    return _runs(plan, float(stats.norm.ppf(TWO_SIDED)))


def runs_for_power(plan: Plan) -> int:
    """Runs per checkpoint with which a two-sided 5% test finds that difference with the power asked for."""
    return _runs(plan, float(stats.norm.ppf([TWO_SIDED, plan.power]).sum()))


def _runs(plan: Plan, quantile: float) -> int:
    return max(1, math.ceil(2.0 * plan.task_variance * quantile**2 / (plan.tasks * plan.difference**2)))


def checkpoints_power(plan: Plan) -> float:
    """The chance to find the difference between two checkpoints with `plan.runs` each."""
    error = checkpoints_error(plan.task_variance, plan.tasks, plan.runs)
    if error == 0.0:
        return 1.0
    limit = float(stats.norm.ppf(TWO_SIDED))
    return float(stats.norm.sf(limit - plan.difference / error) + stats.norm.cdf(-limit - plan.difference / error))


def method_error(plan: Plan, seeds: int) -> float:
    """Standard error of the difference of two methods with so many training seeds each."""
    return math.sqrt(2.0 / seeds * (plan.seed_spread**2 + plan.task_variance / (plan.tasks * plan.runs)))


def method_power(plan: Plan, seeds: int) -> float:
    """The chance that a t test over the seeds of both arms finds the difference; 0 with one seed, where there is none.

    The spread is not known but estimated, which few seeds pay for: a noncentral t, not a normal.
    """
    freedom = 2 * (seeds - 1)
    if freedom == 0:
        return 0.0
    error = method_error(plan, seeds)
    if error == 0.0:
        return 1.0
    limit, centre = float(stats.t.ppf(TWO_SIDED, freedom)), plan.difference / error
    # scipy gives NaN for some far tails that are next to nothing
    near, far = float(stats.nct.sf(limit, freedom, centre)), float(stats.nct.cdf(-limit, freedom, centre))
    return min(1.0, near + (far if math.isfinite(far) else 0.0))


def seeds_for_power(plan: Plan) -> int | None:
    """The fewest seeds per arm with that power; None beyond 10,000."""
    low, high = 1, 2
    while method_power(plan, high) < plan.power:
        low, high = high, high * 2
        if high > MOST_SEEDS:
            return None
    while high - low > 1:  # power grows with the number of seeds
        middle = (low + high) // 2
        low, high = (low, middle) if method_power(plan, middle) >= plan.power else (middle, high)
    return high


def power_lines(plan: Plan) -> list[str]:
    """Both answers as plain lines."""
    needed = seeds_for_power(plan)
    single = run_error(plan.rate, plan.tasks)
    two = checkpoints_error(plan.task_variance, plan.tasks, plan.runs)
    method = method_error(plan, plan.seeds)
    runs = counted(plan.runs, "run")
    spread = f"{100 * plan.seed_spread:g} point" + "s" * (100 * plan.seed_spread != 1)
    said = f"more than {MOST_SEEDS:,} seeds" if needed is None else counted(needed, "seed")
    test = (
        "with one seed per arm nothing can be said about the method"
        if plan.seeds == 1
        else f"power {method_power(plan, plan.seeds):.0%}"
    )
    return [
        f"One run on {plan.tasks} tasks at {plan.rate:.1%} has a standard error of {100 * single:.1f} points.",
        f"Wanted: a difference of {points(plan.difference)} points, two-sided 5% test; variance between the runs of "
        f"one task {plan.task_variance:g}.",
        f"1) About two checkpoints, on these {plan.tasks} tasks:",
        f"   {counted(runs_to_exclude_zero(plan), 'run')} per checkpoint until the 95% interval around that difference "
        "excludes 0 (then it is found about every second time),",
        f"   {counted(runs_for_power(plan), 'run')} per checkpoint for {plan.power:.0%} power.",
        f"   With {runs} each: standard error {100 * two:.2f} points, power {checkpoints_power(plan):.0%}.",
        f"2) About the method, with {spread} between seeds and {runs} per checkpoint:",
        f"   {said} per arm for {plan.power:.0%} power.",
        f"   With {counted(plan.seeds, 'seed')} per arm: standard error {100 * method:.2f} points, {test}.",
        "More runs answer 1) only; 2) needs more training seeds. A comparison also lets the tasks vary, so its "
        "interval can be wider.",
    ]
