"""Whole training runs, judged: what came of every arm over its seeds, and every contrast of two arms.

The unit is the training seed. Runs of one seed start from the same policy and the same tasks, so contrasts are paired
by seed: a two-sided paired t test, Holm-corrected over all contrasts of the plan in the same measure.
Not covered: tasks drawn anew. Held-out success is one number per run, and its sampling noise is part of the spread
between seeds; `aem-swe compare` takes it apart for two arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.eval.dynamics import ALPHA
from aem_swe.eval.dynamics import FEWEST_POLICIES as FEWEST_SEEDS
from aem_swe.eval.statistics import Floats, Interval, detectable_difference, holm, t_interval
from aem_swe.eval.training_plan import Contrast, Measure, Plan
from aem_swe.eval.training_values import RunValues
from aem_swe.eval.wording import counted
from aem_swe.schema import Recipe
from aem_swe.section import NotNegative, Section

Json = dict[str, Any]  # JSON values
TEST: Final = "two-sided paired t test over seeds, Holm-corrected over the contrasts of a measure"
_NAMES: Final[dict[Measure, str]] = {
    "held_out": "held-out success",
    "reward": "training reward of the last 8 steps",
    "truncation": "truncated episodes of the last 8 steps",
    "entropy": "entropy of the last 8 steps",
}
_ALIKE: Final = 1e-12
"""Differences that are closer than this are equal: a t test of them would be about rounding."""


class Arm(Section):
    """The finished runs of one arm, in the order of the plan's seeds."""

    aem: bool
    """Of the recipe that the runs were made with, as are `filter` and `lambda`."""
    filter: Literal["off", "mask", "drop"]
    lam: NotNegative = Field(alias="lambda")
    """AEM's strength; 0 without AEM."""
    runs: tuple[RunValues, ...]

    @classmethod
    def of(cls, recipe: Recipe, runs: Sequence[Any]) -> "Arm":
        """runs: RunValues, or what they were written as. Raises ValidationError."""
        aem = recipe.aem
        settings = {"aem": aem.enabled, "filter": recipe.algorithm.filter, "lambda": aem.lam if aem.enabled else 0.0}
        return cls.model_validate({**settings, "runs": tuple(runs)})

    @property
    def settings(self) -> Json:
        """As they are written."""
        return self.model_dump(by_alias=True, exclude={"runs"})

    def values(self, name: str) -> Floats:
        found = [getattr(run, name) for run in self.runs]
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def by_seed(self, name: str) -> dict[int, float]:
        return {run.seed: value for run in self.runs if (value := getattr(run, name)) is not None}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One contrast in one measure. Fractions; entropy and its differences in nats. None: too few seeds."""

    name: str
    contrast: Contrast
    measure: Measure
    differences: Mapping[int, float]
    """arm - against, by seed; seeds that only one of the two has are left out."""
    seeds: tuple[int, int]
    """How many the arm and its reference have."""
    interval: Interval | None
    p_value: float | None
    p_holm: float | None
    family: int
    """Contrasts that the correction is over."""
    detectable: float | None
    """True difference that ONE two-sided 5% test of so many seeds finds with 80% power, at the spread observed."""

    @property
    def algorithm(self) -> str:
        """What aem_NAME is about: the base algorithm, in words."""
        return self.name.removeprefix("aem_").replace("_", " ")

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def mean(self) -> float | None:
        return float(np.mean(list(self.differences.values()))) if self.n else None

    @property
    def verdict(self) -> str:
        """higher, lower, no detectable difference; undecided or not run, with the reason."""
        if self.mean is None:
            return "not run"
        if self.n < FEWEST_SEEDS:
            return f"undecided ({counted(self.n, 'seed')}, {FEWEST_SEEDS} needed)"
        if self.p_holm is None and abs(self.mean) > _ALIKE:
            return "undecided (all seeds differ by the same, which no t test judges)"
        if self.p_holm is None or self.p_holm > ALPHA:
            return "no detectable difference"
        return "higher" if self.mean > 0 else "lower"

    @property
    def figure(self) -> str:
        """The numbers in one line, with n, interval and test."""
        if self.mean is None:
            return ""
        n = f"n = {counted(self.n, 'seed')}"
        if max(self.seeds) > self.n:
            n += f" that both have, of {self.seeds[0]} and {self.seeds[1]}"
        inside = [n]
        if self.interval:
            low, high = (difference_text(x, self.measure, unit=False) for x in (self.interval.low, self.interval.high))
            inside.insert(0, f"95% t interval {low} to {high}")
        if self.p_holm is not None:
            inside.append(f"paired t test, p = {self.p_holm:.2g} after Holm over {counted(self.family, 'contrast')}")
        said = f"{_NAMES[self.measure]} {difference_text(self.mean, self.measure)} ({', '.join(inside)})"
        if self.detectable is None:
            return said
        least = difference_text(self.detectable, self.measure).removeprefix("+")
        return f"{said}; one such test, uncorrected, would find {least} with 80% power"

    def as_json(self) -> Json:
        return {
            "name": self.name,
            "arm": self.contrast.arm,
            "against": self.contrast.against,
            "paper": self.contrast.paper,
            "measure": self.measure,
            "n": self.n,
            "mean": self.mean,
            "low": self.interval and self.interval.low,
            "high": self.interval and self.interval.high,
            "p_value": self.p_value,
            "p_holm": self.p_holm,
            "family": self.family,
            "detectable": self.detectable,
            "verdict": self.verdict,
            "figure": self.figure,
        }


def difference_text(value: float, measure: Measure, *, unit: bool = True) -> str:
    """A signed difference as it is printed: points, reward, or nats."""
    if measure in ("held_out", "truncation"):
        return f"{100 * value:+.1f}" + " points" * unit
    return f"{value:+.3f}" + " nat" * (unit and measure == "entropy")


def judge(plan: Plan, arms: Mapping[str, Arm], family: Mapping[str, int]) -> list[Judgement]:
    """Every contrast in every measure of it. family: how many contrasts Holm's correction counts, by measure."""
    found = [_compare(name, one, of, arms, family[of]) for name, one in plan.contrasts.items() for of in one.of]
    corrected: dict[int, float | None] = {}
    for measure in dict.fromkeys(one.measure for one in found):
        places = [place for place, one in enumerate(found) if one.measure == measure]
        p_values = [found[place].p_value for place in places]
        absent: list[float | None] = [None] * (family[measure] - len(places))
        corrected |= dict(zip(places, holm(p_values + absent), strict=False))
    return [replace(one, p_holm=corrected[place]) for place, one in enumerate(found)]


def _compare(name: str, contrast: Contrast, measure: Measure, arms: Mapping[str, Arm], family: int) -> Judgement:
    plus, minus = (arms[arm].by_seed(measure) for arm in (contrast.arm, contrast.against))
    differences = {seed: plus[seed] - minus[seed] for seed in plus if seed in minus}
    values = np.array(list(differences.values()))
    p_value = detectable = None
    if values.size > 1 and np.ptp(values) > _ALIKE:
        p_value = float(stats.ttest_1samp(values, 0.0).pvalue)
        error = float(values.std(ddof=1)) / values.size**0.5
        detectable = detectable_difference(error, degrees_of_freedom=values.size - 1)
    return Judgement(
        name, contrast, measure, differences, (len(plus), len(minus)), t_interval(values), p_value, None, family,
        detectable,
    )  # fmt: skip
