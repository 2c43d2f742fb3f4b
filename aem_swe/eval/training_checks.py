"""What the runs of a result file of `aem-swe verify training` must have in common with its plan and with themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from aem_swe.eval.training import Arm
from aem_swe.eval.training_plan import Plan, require_different
from aem_swe.eval.training_values import require_run

_MOST: Final = 10_000
"""Contrasts of a measure; Holm's correction makes a list of so many."""


def require_family(plan: Plan, family: Mapping[str, int]) -> None:
    """Raises ValueError where Holm's correction would count fewer contrasts than there are, or no number of them."""
    for measure, count in family.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MOST:
            raise ValueError(f"family counts {count!r} of {measure}, which is no number from 0 to {_MOST}")
    for measure, count in plan.family().items():
        if family[measure] < count:
            raise ValueError(f"family counts {family[measure]} of {measure}, of which there are {count}")


def require_settings(name: str, arm: Arm, written: Mapping[str, object]) -> None:
    """Raises ValueError where a file says of an arm what its recipe does not; an older file says less."""
    for key, value in arm.settings.items():
        if key in written and written[key] != value:
            raise ValueError(f"arm {name!r}: {key} is {written[key]}, and its recipe has {value}")


def require_runs_of(plan: Plan, name: str, arm: Arm) -> None:
    """Raises ValueError for runs that the plan does not have, and for values that cannot be."""
    require_different([run.seed for run in arm.runs], f"arm {name!r}")
    recipe = plan.recipe(name, plan.seeds[0], Path("runs"))
    for run in arm.runs:
        where = f"arm {name!r}, seed {run.seed}"
        if run.seed not in plan.seeds:
            raise ValueError(f"{where}: the plan has the seeds {list(plan.seeds)}")
        require_run(run, recipe.trainer.steps, where)
        if run.alpha and not arm.aem:
            raise ValueError(f"{where}: it has an alpha, and its recipe has no AEM")


def require_absent(plan: Plan, arms: Mapping[str, Arm], names: Sequence[tuple[str, int]]) -> None:
    """Raises ValueError for a run without values that the plan does not have, that has values, or that comes twice."""
    for place, (arm, seed) in enumerate(names):
        where = f"arm {arm!r}, seed {seed}"
        if arm not in plan.arms or seed not in plan.seeds:
            raise ValueError(f"{where}: failed or unfinished, and not in the plan")
        if (arm, seed) in names[:place] or seed in {run.seed for run in arms[arm].runs}:
            raise ValueError(f"{where}: failed or unfinished, and there a second time")
