"""Two profiles: how much longer a step of the second waits for each stage, with a 95% interval.

The unit is the step, as if the steps of a run were independent draws. So an interval speaks of these two runs on the
machines and at the load they had, not of the change that was made between them: for that, run each several times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types

from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.stages import Floats, place

CONFIDENCE = 0.95
WALL, RESIDUAL_ROW = "wall", "not attributed"


@dataclass(frozen=True, slots=True)
class StageDifference:
    """Seconds of the critical path per step, second run less first."""

    stage: str
    """A stage, "not attributed" (the residual) or "wall"."""
    first_s: float
    second_s: float
    difference_s: float
    low: float | None
    """Of the 95% interval (Welch); None where a run has fewer than two steps."""
    high: float | None


def compare_profiles(first: Profile, second: Profile) -> tuple[StageDifference, ...]:
    """Every stage of either run in a step's order, then the residual and the wall."""
    stages = sorted({stage for profile in (first, second) for stage in profile.stages}, key=place)
    rows = [
        _difference(stage, *([step.path_s.get(stage, 0.0) for step in profile.steps] for profile in (first, second)))
        for stage in stages
    ]
    residuals = ([step.residual_s for step in profile.steps] for profile in (first, second))
    walls = ([step.wall_s for step in profile.steps] for profile in (first, second))
    return (*rows, _difference(RESIDUAL_ROW, *residuals), _difference(WALL, *walls))


def _difference(stage: str, first: Sequence[float], second: Sequence[float]) -> StageDifference:
    one_S, other_S = np.array(first), np.array(second)
    half = half_width(one_S, other_S)
    value = float(other_S.mean() - one_S.mean())
    low, high = (None, None) if half is None else (value - half, value + half)
    return StageDifference(stage, float(one_S.mean()), float(other_S.mean()), value, low, high)


def half_width(one_S: Floats, other_S: Floats) -> float | None:
    """Half of Welch's 95% interval for a difference of means; None below two values on a side."""
    if min(one_S.size, other_S.size) < 2:
        return None
    parts = [float(side.var(ddof=1)) / side.size for side in (one_S, other_S)]
    variance = sum(parts)
    if variance == 0.0:
        return 0.0
    shares = [part / variance for part in parts]  # so that the squares of tiny variances do not vanish
    freedom = 1.0 / sum(share**2 / (side.size - 1) for share, side in zip(shares, (one_S, other_S), strict=True))
    return float(stdtrit(freedom, (1.0 + CONFIDENCE) / 2.0)) * float(variance**0.5)
