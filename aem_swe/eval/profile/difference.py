"""Two profiles: how much longer a step of the second waits for each stage, with a 95% interval.

The unit is the step, as if the steps of a run were independent draws. So an interval speaks of these two runs on the
machines and at the load they had, not of the change that was made between them: for that, run each several times.
Only some steps evaluate or save a checkpoint, as the recipe says, so the wall is compared without them too.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types

from aem_swe.eval.profile.path import NOT_ATTRIBUTED
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.stages import Floats, place
from aem_swe.eval.profile.step import StepProfile

CONFIDENCE = 0.95
OCCASIONAL = ("checkpoint", "evaluation")
STEADY, WALL = "wall less evaluation and checkpoint", "wall"
SUMS = (NOT_ATTRIBUTED, STEADY, WALL)
"""Rows that are no stage."""


@dataclass(frozen=True, slots=True)
class StageDifference:
    """Seconds of the critical path per step, second run less first."""

    stage: str
    """A stage, or one of SUMS."""
    first_s: float
    second_s: float
    difference_s: float
    low: float | None
    """Of the 95% interval (Welch); None where a run has fewer than two steps."""
    high: float | None
    first_share: float | None
    """Of that run's wall less evaluation and checkpoint; None for these two and the whole wall, which hold more."""
    second_share: float | None


def compare_profiles(first: Profile, second: Profile) -> tuple[StageDifference, ...]:
    """Every stage of either run in a step's order, the residual, their sum; then the occasional ones and the wall."""
    stages = sorted({stage for profile in (first, second) for stage in profile.stages}, key=place)
    usual = [stage for stage in stages if stage not in OCCASIONAL]
    names = (*usual, NOT_ATTRIBUTED, STEADY, *(stage for stage in stages if stage in OCCASIONAL), WALL)
    return tuple(_difference(name, first, second) for name in names)


def _difference(name: str, first: Profile, second: Profile) -> StageDifference:
    one, other = _mean(name, first), _mean(name, second)
    half = half_width(_seconds(name, first), _seconds(name, second))
    value = other - one
    low, high = (None, None) if half is None else (value - half, value + half)
    return StageDifference(name, one, other, value, low, high, _share(name, first), _share(name, second))


def _share(name: str, profile: Profile) -> float | None:
    wall = _mean(STEADY, profile)
    return _mean(name, profile) / wall if wall and name not in (*OCCASIONAL, WALL) else None


def _mean(name: str, profile: Profile) -> float:
    return float(_seconds(name, profile).mean())


def _seconds(name: str, profile: Profile) -> Floats:
    """Of a row, by step."""
    return np.array([_of_step(name, step) for step in profile.steps])


def _of_step(name: str, step: StepProfile) -> float:
    if name == WALL:
        return step.wall_s
    if name == NOT_ATTRIBUTED:
        return step.residual_s
    if name == STEADY:
        return step.wall_s - sum(step.path_s.get(stage, 0.0) for stage in OCCASIONAL)
    return step.path_s.get(name, 0.0)


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
