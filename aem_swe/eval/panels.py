"""Which charts the report has, and which numbers go into them. Drawing is in plots.py."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aem_swe.eval.arms import Arm
from aem_swe.eval.outcomes import Outcome
from aem_swe.eval.plots import Curve, Panel
from aem_swe.eval.runs import Series
from aem_swe.eval.statistics import Floats
from aem_swe.eval.truncation import CEILING

RUNNING = 5
TITLES = (
    "Held-out pass@1", "Training reward", "Token entropy", "Alpha of responses", "Truncated episodes",
    "Tokens per response",
)  # fmt: skip


def build_panels(outcomes: Sequence[Outcome]) -> tuple[Panel, ...]:
    """The charts that the recorded metrics allow, in reading order."""
    arms = [outcome.arm for outcome in outcomes]
    panels = (
        _heldout_panel(outcomes),
        _metric_panel(arms, "critic/rewards/mean", "Training reward", "Mean reward of the sampled episodes.", True),
        _metric_panel(arms, "actor/entropy", "Token entropy", "Of the policy over its sampled tokens, in nats.", False),
        _alpha_panel(arms),
        _metric_panel(
            arms, "rollout/truncation_rate", "Truncated episodes",
            f"Episodes that ran out of turns, tokens or time. Dotted: {CEILING:.0%}, above it this report warns.",
            True, level=CEILING,
        ),
        _metric_panel(arms, "response/length_mean", "Tokens per response", "Thinking and call together.", False),
    )  # fmt: skip
    return tuple(panel for panel in panels if panel is not None)


def missing_charts(panels: Sequence[Panel]) -> tuple[str, ...]:
    drawn = {panel.title for panel in panels}
    return tuple(title for title in TITLES if title not in drawn)


def _heldout_panel(outcomes: Sequence[Outcome]) -> Panel | None:
    curves = tuple(_success_curve(index, outcome) for index, outcome in enumerate(outcomes) if outcome.curve)
    caption = "Bars: 95% intervals over tasks, about these runs."
    if not curves:
        arms = [outcome.arm for outcome in outcomes]
        curves = _mean_curves(arms, "val/pass@1", running=1)
        caption = "As the trainer logged it; without recorded episodes there is no interval."
    if not curves:
        return None
    labels = [outcome.arm.label for outcome in outcomes]
    return Panel("Held-out pass@1", caption, _describe("Held-out pass@1", labels, curves), curves, percent=True)


def _success_curve(index: int, outcome: Outcome) -> Curve:
    rows = [(item.step, item.interval.value, item.interval.low, item.interval.high) for item in outcome.curve]
    steps, values, low, high = np.array(rows, float).T
    return Curve(index, steps, values, low, high)


def _metric_panel(
    arms: Sequence[Arm], key: str, title: str, caption: str, percent: bool, *, level: float | None = None
) -> Panel | None:
    """Faint: every run as it is, or its running mean if there are several. Bold: running mean over the arm."""
    bold = _mean_curves(arms, key, running=RUNNING)
    if not bold:
        return None
    faint = tuple(
        Curve(index, series.steps, running_mean(series.values, 1 if len(arm.runs) == 1 else RUNNING), faint=True)
        for index, arm in enumerate(arms)
        for run in arm.runs
        if (series := run.series(key)).values.size
    )
    smooth = f" Bold: mean of the last {RUNNING} steps" + (
        "." if len(faint) == len(bold) else " over the runs of an arm."
    )
    description = _describe(title, [arm.label for arm in arms], bold)
    return Panel(title, caption + smooth, description, (*faint, *bold), percent=percent, level=level)


def _alpha_panel(arms: Sequence[Arm]) -> Panel | None:
    positive = _mean_curves(arms, "aem/alpha_positive_mean", running=RUNNING)
    negative = _mean_curves(arms, "aem/alpha_negative_mean", running=RUNNING)
    if not positive and not negative:
        return None
    solid = [replace(curve, line="solid") for curve in positive]
    dotted = [replace(curve, line="dotted") for curve in negative]
    caption = (
        "Mean weight of responses with positive (line) and negative (dotted) advantage, over the last "
        f"{RUNNING} steps. 1 changes nothing. Arms without AEM have none."
    )
    labels = [arm.label for arm in arms]
    description = _describe("Alpha, positive", labels, positive) + " " + _describe("Alpha, negative", labels, negative)
    return Panel("Alpha of responses", caption, description, (*solid, *dotted), from_zero=False, level=1.0)


def _mean_curves(arms: Sequence[Arm], key: str, *, running: int) -> tuple[Curve, ...]:
    """Mean over the runs of each arm at the steps that all of them have; arms without the metric have no curve."""
    curves = []
    for index, arm in enumerate(arms):
        recorded = [run.series(key) for run in arm.runs]
        mean = _mean_series([series for series in recorded if series.values.size])
        if mean is not None and mean.values.size:
            curves.append(Curve(index, mean.steps, running_mean(mean.values, running)))
    return tuple(curves)


def _mean_series(recorded: Sequence[Series]) -> Series | None:
    if not recorded:
        return None
    steps = recorded[0].steps
    for series in recorded[1:]:
        steps = np.intersect1d(steps, series.steps)
    values = np.mean([series.values[np.isin(series.steps, steps)] for series in recorded], axis=0)
    return Series(steps, values)


def running_mean(values: Floats, width: int) -> Floats:
    """Mean of each value and the `width - 1` before it, or as many as there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, values.size + 1)
    starts = np.maximum(ends - width, 0)
    means: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _describe(title: str, labels: Sequence[str], curves: Sequence[Curve]) -> str:
    parts = [
        f"{labels[curve.arm]} from {curve.values[0]:.3g} at step {curve.steps[0]:.0f} "
        f"to {curve.values[-1]:.3g} at step {curve.steps[-1]:.0f}"
        for curve in curves
    ]
    return f"{title}: {'; '.join(parts)}."
