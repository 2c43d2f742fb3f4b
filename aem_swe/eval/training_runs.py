"""Training runs as `aem-swe verify training` reads them: metrics.jsonl, recipe and manifest of a folder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from aem_swe.config import complaint, load_recipe
from aem_swe.errors import ConfigError, RunError
from aem_swe.eval.arms import compared_settings, config_changes
from aem_swe.eval.jsonl import number, read_rows
from aem_swe.eval.runs import Run, Series, load_run
from aem_swe.eval.statistics import WINDOW
from aem_swe.eval.training_plan import Plan
from aem_swe.eval.training_values import COMMIT, SERIES, Alpha, RunValues, mean, require_run
from aem_swe.schema import Recipe

_ALPHAS: Final = {name: f"aem/alpha_{name}_mean" for name in Alpha.model_fields}
_HELD_OUT: Final = "val/pass@1"
_SECONDS: Final = "timing_s/step"
_DIGITS: Final = 4
_MOST_CHANGES: Final = 3
_CLIPPED: Final = 40


def read_run(recipe: Recipe) -> RunValues | int:
    """The run in the recipe's run_dir: its values if it is finished, else how many of its steps are done.

    Raises ConfigError where it was made with other settings, RunError where its folder is broken or its values cannot
    be: they pass the checks of a result file.
    """
    folder = Path(recipe.run_dir)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file() or all(row is None or number(row.get("step")) is None for row in read_rows(metrics)):
        return 0
    run = load_run(folder)
    _require_same_settings(recipe, folder)
    steps = recipe.trainer.steps
    if run.steps < steps:
        return max(run.steps, 0)
    where = f"run {str(folder)!r}"
    try:
        _require_rows(run, steps, where)
        values = measure_run(run, recipe.seed)
        require_run(values, steps, where)
    except ValidationError as error:
        raise RunError(f"{where}: {complaint(error, RunValues)}; move the run away") from error
    except ValueError as error:
        raise RunError(f"{error}; move the run away") from error
    return values


def _require_rows(run: Run, steps: int, where: str) -> None:
    """Raises ValueError unless there is one row for each step, with finite numbers."""
    if run.steps > steps:  # before anything as long as its steps is made
        raise ValueError(f"{where}: step {run.steps:g} is there, and its recipe has {steps}")
    there = {int(number(row["step"]) or 0) for row in run.rows}
    if absent := next((step for step in range(1, steps + 1) if step not in there), 0):
        raise ValueError(f"{where}: step {absent} is missing in its metrics.jsonl")
    for row in run.rows:
        for key in (*SERIES.values(), *_ALPHAS.values(), _HELD_OUT, _SECONDS):
            if (value := row.get(key)) is not None and number(value) is None:
                shown = repr(value)[:_CLIPPED]
                raise ValueError(f"{where}: {key} of step {row['step']} is {shown}, which is no finite number")


def _require_same_settings(recipe: Recipe, folder: Path) -> None:
    try:
        found = load_recipe(str(folder / "config.yaml"))
    except ConfigError as error:
        raise ConfigError(f"run {str(folder)!r} has no usable config.yaml ({error}); move the run away") from error
    changes = config_changes(*(compared_settings(one.model_dump(by_alias=True)) for one in (found, recipe)))
    said = [f"{change.key} is {change.reference}, not {change.value}" for change in changes]
    if found.seed != recipe.seed:
        said.insert(0, f"seed is {found.seed}, not {recipe.seed}")
    if said:
        more = f" and {len(said) - _MOST_CHANGES} more" if len(said) > _MOST_CHANGES else ""
        raise ConfigError(
            f"run {str(folder)!r} was made with other settings: {', '.join(said[:_MOST_CHANGES])}{more};"
            " choose another --out, or move the run away"
        )


def measure_run(run: Run, seed: int) -> RunValues:
    """The values of a run that has a row for each of its steps. Raises ValidationError for infinite ones."""
    series = {name: run.series(key) for name, key in SERIES.items()}
    held_out = {int(number(row["step"]) or 0): number(row.get(_HELD_OUT)) for row in run.rows}
    truncation = series["truncation"].values
    alphas = {name: mean(run.series(key).values) for name, key in _ALPHAS.items()}
    commit = run.manifest.get("git_commit")
    return RunValues(
        seed=seed,
        steps=run.steps,
        held_out_first=held_out.get(0),
        held_out=held_out.get(run.steps),
        reward_first=mean(_window(series["reward"], 1, WINDOW)),
        reward=_last(series["reward"], run.steps),
        truncation=_last(series["truncation"], run.steps),
        truncation_max=float(truncation.max()) if truncation.size else None,
        entropy=_last(series["entropy"], run.steps),
        alpha=None if all(alpha is None for alpha in alphas.values()) else Alpha(**alphas),
        step_seconds=sum(map(float, run.series(_SECONDS).values)),
        commit=commit if isinstance(commit, str) and re.fullmatch(COMMIT, commit) else None,
        series={name: _rounded(one, run.steps) for name, one in series.items()},
    )


def _window(series: Series, first: int, last: int) -> Sequence[float]:
    """The values of the steps from first to last, those without one left out."""
    return [float(x) for x in series.values[(series.steps >= first) & (series.steps <= last)]]


def _last(series: Series, steps: int) -> float | None:
    return mean(_window(series, steps - WINDOW + 1, steps))


def _rounded(series: Series, steps: int) -> tuple[float | None, ...]:
    found = {int(step): round(float(value), _DIGITS) for step, value in zip(series.steps, series.values, strict=True)}
    return tuple(found.get(step) for step in range(1, steps + 1))


def find_runs(plan: Plan, out: Path) -> dict[tuple[str, int], RunValues | int]:
    """Every run of the plan in `out`, as `read_run` finds it. Raises ConfigError or RunError for the first bad one."""
    return {(arm, seed): read_run(plan.recipe(arm, seed, out)) for seed in plan.seeds for arm in plan.arms}
