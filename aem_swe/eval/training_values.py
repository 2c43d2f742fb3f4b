"""What is kept of one training run, and what its values must be: the same for a run folder and for a result file."""

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from pydantic import ConfigDict, Field

from aem_swe.eval.statistics import WINDOW, Floats
from aem_swe.section import CountOrZero, NotNegative, Section

SERIES: Final = {
    "reward": "critic/rewards/mean",
    "truncation": "rollout/truncation_rate",
    "entropy": "actor/entropy",
}
COMMIT: Final = r"^[0-9a-f]{7,40}(-dirty)?$"
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_RATES: Final = ("held_out_first", "held_out", "truncation", "truncation_max")
_ROUNDING: Final = 1e-3
"""Series are rounded; a value that is further from its own series was changed, or the series was."""


class Alpha(Section):
    """AEM's weights, means over all steps."""

    token: Number | None
    positive: Number | None
    """Of responses with A > 0."""
    negative: Number | None


class RunValues(Section):
    """A finished run. Rates are fractions, entropies nats; None where the run did not record it."""

    model_config = ConfigDict(allow_inf_nan=False)

    seed: CountOrZero
    steps: CountOrZero
    held_out_first: Number | None
    """Success on the held-out tasks before the first step and after the last."""
    held_out: Number | None
    reward_first: Number | None
    """Training reward, mean of the first 8 steps and of the last 8."""
    reward: Number | None
    truncation: Number | None
    """Share of episodes that were cut off, mean of the last 8 steps; and the largest of any step."""
    truncation_max: Number | None
    entropy: NotNegative | None
    """Mean token entropy, mean of the last 8 steps."""
    alpha: Alpha | None
    step_seconds: NotNegative
    """What the steps recorded of their own wall time, summed."""
    commit: Annotated[str, Field(pattern=COMMIT)] | None
    """Of the code that ran."""
    series: dict[str, tuple[Number | None, ...]]
    """Name in SERIES -> one value per step, from step 1 on, rounded."""


def require_run(run: RunValues, steps: int, where: str) -> None:
    """Raises ValueError for values that cannot be those of a run of so many steps."""
    if run.steps != steps:
        raise ValueError(f"{where}: {run.steps} steps, and its recipe has {steps}")
    if unknown := run.series.keys() - SERIES:
        raise ValueError(f"{where}: the series of {min(unknown)!r} is unknown")
    for name in SERIES:
        if name not in run.series:
            raise ValueError(f"{where}: the series of {name} is missing")
        if len(run.series[name]) != steps:
            raise ValueError(f"{where}: the series of {name} has {len(run.series[name])} of {steps} steps")
    _require_ranges(run, where)
    _require_own_series(run, where)


def _require_ranges(run: RunValues, where: str) -> None:
    values = [(measure, getattr(run, measure)) for measure in _RATES]
    values += [("truncation in its series", value) for value in run.series["truncation"]]
    for measure, value in values:
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"{where}: {measure} is {value}, which is no fraction")
    for value in run.series["entropy"]:
        if value is not None and value < 0.0:
            raise ValueError(f"{where}: entropy in its series is {value}, which is less than 0")


def _require_own_series(run: RunValues, where: str) -> None:
    """Means of the first and the last 8 steps, and the largest: what is stored beside a series is of that series."""
    own = [(name, f"the last {WINDOW} steps of its series give", mean(run.series[name][-WINDOW:])) for name in SERIES]
    first = f"the first {WINDOW} steps of its series give"
    own.append(("reward_first", first, mean(run.series["reward"][:WINDOW])))
    truncation = [value for value in run.series["truncation"] if value is not None]
    own.append(("truncation_max", "the largest of its series is", max(truncation, default=None)))
    for measure, what, value in own:
        stored = getattr(run, measure)
        if (stored is None) != (value is None) or (stored is not None and abs(stored - (value or 0.0)) > _ROUNDING):
            raise ValueError(f"{where}: {measure} is {stored}, and {what} {value}")


def mean(values: Sequence[float | None] | Floats) -> float | None:
    """Of the values that are there; None without any, infinite where float64 is too small for their sum."""
    there = [value for value in values if value is not None]
    with np.errstate(over="ignore"):
        return float(np.mean(there)) if there else None
