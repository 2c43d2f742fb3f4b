"""What came of one arm: held-out success step by step, its gain over the start, the learning gain of each run.

Only complete evaluations count: one that a killed run left half written is left out and noted, because its tasks are
not a sample of all tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aem_swe.eval.arms import Arm
from aem_swe.eval.runs import Run
from aem_swe.eval.statistics import (
    Change,
    Difference,
    Floats,
    Interval,
    change,
    crossed_difference,
    mean_interval,
    paired_difference,
)
from aem_swe.eval.trajectories import Evaluation, read_evaluation
from aem_swe.eval.truncation import truncation_warning

Evaluations = Mapping[int, Evaluation]


@dataclass(frozen=True, slots=True)
class Success:
    """Held-out pass@1 of an arm after one step; the interval resamples tasks: it is about these runs."""

    step: int
    interval: Interval
    tasks: int
    episodes: int
    ungraded: int


@dataclass(frozen=True, slots=True)
class Outcome:
    arm: Arm
    evaluations: tuple[Evaluations, ...]
    """Per run, the complete ones by step."""
    curve: tuple[Success, ...]
    gain: Difference | None
    """From the first to the last evaluation that all runs of the arm share; tasks resampled."""
    gain_with_seeds: Difference | None
    """The same with the training seed as a unit too; None for one run."""
    learning: tuple[Change | None, ...]
    """Training reward of each run, first against last steps; None where it is not recorded."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def measure(arm: Arm) -> Outcome:
    notes: list[str] = []
    evaluations = tuple(_complete_evaluations(run, notes) for run in arm.runs)
    shared = sorted(set.intersection(*(set(by_step) for by_step in evaluations)))
    curve = tuple(success for step in shared if (success := _success(step, evaluations)) is not None)
    gain = gain_with_seeds = None
    if len(curve) > 1:
        before, after = aligned(evaluations, curve[0].step, evaluations, curve[-1].step)
        if after.size:
            gain = paired_difference(after, before)
            gain_with_seeds = crossed_difference(after, before, same_runs=True) if arm.seeds_differ else None
    found = [(run, truncation_warning(run.series("rollout/truncation_rate").values)) for run in arm.runs]
    warnings = tuple(f"{run.name}: {warning}" for run, warning in found if warning)
    learning = tuple(change(run.series("critic/rewards/mean").values) for run in arm.runs)
    return Outcome(arm, evaluations, curve, gain, gain_with_seeds, learning, warnings, tuple(notes))


def aligned(
    before: tuple[Evaluations, ...], before_step: int, after: tuple[Evaluations, ...], after_step: int
) -> tuple[Floats, Floats]:
    """Two tables run x task of mean rewards over the tasks that are graded in every run of both, in one order."""
    tables = [[by_step[before_step].rewards for by_step in before], [by_step[after_step].rewards for by_step in after]]
    tasks = sorted(set.intersection(*(set(rewards) for table in tables for rewards in table)))
    first, second = (np.array([[rewards[task] for task in tasks] for rewards in table]) for table in tables)
    return first, second


def _success(step: int, evaluations: tuple[Evaluations, ...]) -> Success | None:
    values_RT, _ = aligned(evaluations, step, evaluations, step)
    if not values_RT.size:
        return None
    here = [by_step[step] for by_step in evaluations]
    interval = mean_interval(values_RT.mean(axis=0))
    episodes, ungraded = sum(item.episodes for item in here), sum(item.ungraded for item in here)
    return Success(step, interval, values_RT.shape[1], episodes, ungraded)


def _complete_evaluations(run: Run, notes: list[str]) -> Evaluations:
    found = {step: read_evaluation(path, step) for step, path in run.evaluation_files().items()}
    full = max((item.episodes for item in found.values()), default=0)
    kept = {step: item for step, item in found.items() if item.rewards and item.episodes == full}
    for step in sorted(set(found) - set(kept)):
        graded = found[step].episodes - found[step].ungraded
        notes.append(
            f"{run.name}: the evaluation after step {step} holds {found[step].episodes} of {full} episodes, "
            f"{graded} of them graded; it is left out"
        )
    if unreadable := sum(item.unreadable_lines for item in found.values()):
        notes.append(f"{run.name}: {unreadable} unreadable line(s) in its evaluation files skipped")
    if ungraded := sum(item.ungraded for item in kept.values()):
        notes.append(f"{run.name}: {ungraded} held-out episode(s) without a reward (infrastructure) count for nobody")
    return kept
