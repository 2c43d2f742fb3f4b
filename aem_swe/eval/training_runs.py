"""What is kept of one training run: its values, and its series for the figure. Read from metrics.jsonl alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ConfigDict

from aem_swe.config import load_recipe
from aem_swe.errors import ConfigError
from aem_swe.eval.arms import compared_settings, config_changes
from aem_swe.eval.jsonl import number, read_rows
from aem_swe.eval.runs import Run, Series, load_run
from aem_swe.eval.statistics import WINDOW, Floats
from aem_swe.eval.training_plan import Plan
from aem_swe.schema import Recipe
from aem_swe.section import CountOrZero, Section

SERIES: Final = {
    "reward": "critic/rewards/mean",
    "truncation": "rollout/truncation_rate",
    "entropy": "actor/entropy",
}
_DIGITS: Final = 4
_MOST_CHANGES: Final = 3


class Alpha(Section):
    """AEM's weights, means over all steps."""

    token: float | None
    positive: float | None
    """Of responses with A > 0."""
    negative: float | None


class RunValues(Section):
    """A finished run. Rates are fractions, entropies nats; None where the run did not record it."""

    model_config = ConfigDict(allow_inf_nan=False)

    seed: CountOrZero
    steps: CountOrZero
    held_out_first: float | None
    """Success on the held-out tasks before the first step and after the last."""
    held_out: float | None
    reward_first: float | None
    """Training reward, mean of the first 8 steps and of the last 8."""
    reward: float | None
    truncation: float | None
    """Share of episodes that were cut off, mean of the last 8 steps; and the largest of any step."""
    truncation_max: float | None
    entropy: float | None
    """Mean token entropy, mean of the last 8 steps."""
    alpha: Alpha | None
    step_seconds: float
    """What the steps recorded of their own wall time, summed."""
    commit: str | None
    """Of the code that ran."""
    series: dict[str, tuple[float | None, ...]]
    """Name in SERIES -> one value per step, from step 1 on, rounded."""


def read_run(recipe: Recipe) -> RunValues | int:
    """The run in the recipe's run_dir: its values if it is finished, else how many of its steps are done.

    Raises ConfigError where it was made with other settings, RunError where its folder is broken.
    """
    folder = Path(recipe.run_dir)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file() or all(row is None or number(row.get("step")) is None for row in read_rows(metrics)):
        return 0
    run = load_run(folder)
    _require_same_settings(recipe, folder)
    return measure_run(run, recipe.seed) if run.steps >= recipe.trainer.steps else run.steps


def _require_same_settings(recipe: Recipe, folder: Path) -> None:
    found = load_recipe(str(folder / "config.yaml"))
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
    series = {name: run.series(key) for name, key in SERIES.items()}
    held_out = {int(number(row["step"]) or 0): number(row.get("val/pass@1")) for row in run.rows}
    truncation = series["truncation"].values
    alphas = [_mean(run.series(f"aem/alpha_{name}_mean").values) for name in Alpha.model_fields]
    commit = run.manifest.get("git_commit")
    return RunValues(
        seed=seed,
        steps=run.steps,
        held_out_first=held_out.get(0),
        held_out=held_out.get(run.steps),
        reward_first=_mean(_window(series["reward"], 1, WINDOW)),
        reward=_last(series["reward"], run.steps),
        truncation=_last(series["truncation"], run.steps),
        truncation_max=float(truncation.max()) if truncation.size else None,
        entropy=_last(series["entropy"], run.steps),
        alpha=None
        if all(alpha is None for alpha in alphas)
        else Alpha(**dict(zip(Alpha.model_fields, alphas, strict=True))),
        step_seconds=float(run.series("timing_s/step").values.sum()),
        commit=None if commit is None else str(commit),
        series={name: _rounded(one, run.steps) for name, one in series.items()},
    )


def _window(series: Series, first: int, last: int) -> Sequence[float]:
    """The values of the steps from first to last, those without one left out."""
    return [float(x) for x in series.values[(series.steps >= first) & (series.steps <= last)]]


def _last(series: Series, steps: int) -> float | None:
    return _mean(_window(series, steps - WINDOW + 1, steps))


def _mean(values: Sequence[float] | Floats) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _rounded(series: Series, steps: int) -> tuple[float | None, ...]:
    found = {int(step): round(float(value), _DIGITS) for step, value in zip(series.steps, series.values, strict=True)}
    return tuple(found.get(step) for step in range(1, steps + 1))


def find_runs(plan: Plan, out: Path) -> dict[tuple[str, int], RunValues | int]:
    """Every run of the plan in `out`, as `read_run` finds it. Raises ConfigError or RunError for the first bad one."""
    return {(arm, seed): read_run(plan.recipe(arm, seed, out)) for seed in plan.seeds for arm in plan.arms}
