"""What the runs of a result file of `aem-swe verify training` must have in common with its plan and with themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from aem_swe.eval.statistics import WINDOW
from aem_swe.eval.training import Arm
from aem_swe.eval.training_plan import Plan, require_different
from aem_swe.eval.training_runs import SERIES, RunValues

_RATES: Final = ("held_out_first", "held_out", "truncation", "truncation_max")
_ROUNDING: Final = 1e-3
"""Series are rounded; a value that is further from its own series was changed, or the series was."""


def require_family(plan: Plan, family: Mapping[str, int]) -> None:
    """Raises ValueError where Holm's correction would count fewer contrasts than there are."""
    for measure, count in plan.family().items():
        if family[measure] < count:
            raise ValueError(f"family counts {family[measure]} of {measure}, of which there are {count}")


def require_runs_of(plan: Plan, name: str, arm: Arm) -> None:
    """Raises ValueError for runs that the plan does not have, and for values that cannot be."""
    require_different([run.seed for run in arm.runs], f"arm {name!r}")
    steps = plan.recipe(name, plan.seeds[0], Path("runs")).trainer.steps if arm.runs else 0
    for run in arm.runs:
        where = f"arm {name!r}, seed {run.seed}"
        if run.seed not in plan.seeds:
            raise ValueError(f"{where}: the plan has the seeds {list(plan.seeds)}")
        if run.steps != steps:
            raise ValueError(f"{where}: {run.steps} steps, and its recipe has {steps}")
        _require_rates(run, where)
        _require_own_series(run, where)


def require_absent(plan: Plan, arms: Mapping[str, Arm], names: Sequence[tuple[str, int]]) -> None:
    """Raises ValueError for a run without values that the plan does not have, that has values, or that comes twice."""
    for place, (arm, seed) in enumerate(names):
        where = f"arm {arm!r}, seed {seed}"
        if arm not in plan.arms or seed not in plan.seeds:
            raise ValueError(f"{where}: failed or unfinished, and not in the plan")
        if (arm, seed) in names[:place] or seed in {run.seed for run in arms[arm].runs}:
            raise ValueError(f"{where}: failed or unfinished, and there a second time")


def _require_rates(run: RunValues, where: str) -> None:
    values = [(measure, getattr(run, measure)) for measure in _RATES]
    values += [("truncation in its series", value) for value in run.series["truncation"]]
    for measure, value in values:
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"{where}: {measure} is {value}, which is no fraction")


def _require_own_series(run: RunValues, where: str) -> None:
    """The mean of the last 8 steps, for each measure that has a series."""
    for measure in SERIES:
        series = run.series[measure]
        if len(series) != run.steps:
            raise ValueError(f"{where}: the series of {measure} has {len(series)} of {run.steps} steps")
        stored, mean = getattr(run, measure), _mean(series[-WINDOW:])
        if (stored is None) != (mean is None) or (stored is not None and abs(stored - (mean or 0.0)) > _ROUNDING):
            raise ValueError(f"{where}: {measure} is {stored}, and the last {WINDOW} steps of its series give {mean}")


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
