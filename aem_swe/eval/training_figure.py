"""The picture of `aem-swe verify training`: success with and without AEM, truncation and entropy over steps."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from aem_swe.eval.plots import COLORS, DASHES, image_bytes, style
from aem_swe.eval.statistics import Floats, t_interval
from aem_swe.eval.training import Arm
from aem_swe.eval.training_result import Result
from aem_swe.eval.training_table import arms_of, filter_arms, of_lambda
from aem_swe.eval.wording import counted

_INK: Final = "#59606a"
_APART: Final = 0.16


def draw_training(result: Result, image: Literal["png", "svg"]) -> bytes:
    """Three panels; the same result gives the same bytes. A bar is the 95% t interval over seeds, absent for one."""
    with style():
        figure = Figure(figsize=(12.0, 3.6))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.055, right=0.99, bottom=0.15, top=0.91, wspace=0.2)
        _draw_algorithms(figure.add_subplot(1, 3, 1), result)
        draw_series(figure.add_subplot(1, 3, 2), result, "truncation", "truncated episodes", filter_arms(result))
        draw_series(figure.add_subplot(1, 3, 3), result, "entropy", "entropy, nat", _masks(result))
        return image_bytes(figure, image)


def _masks(result: Result) -> list[str]:
    """Arms whose entropy is judged, and the first algorithm with and without AEM beside them.

    Without contrasts of lambda, which are in the figure of `aem-swe verify ablations`.
    """
    apart = of_lambda(result)
    judged = [one for one in result.judgements if one.measure == "entropy" and one not in apart]
    return arms_of([*result.pairs[:1], *judged])


def _draw_algorithms(axes: Axes, result: Result) -> None:
    axes.set_title("held-out success after training")
    for place, one in enumerate(result.pairs):
        for side, name in enumerate((one.contrast.against, one.contrast.arm)):
            label = ("without AEM", "with AEM")[side] if place == 0 else None
            _draw_arm(axes, place + _APART * (2 * side - 1), result.arms[name], COLORS[side][0], label)
    names = [one.algorithm for one in result.pairs]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, max(len(names), 1) - 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.margins(y=0.2)  # room for the legend
    finish(axes)


def _draw_arm(axes: Axes, place: float, arm: Arm, color: str, label: str | None) -> None:
    values = arm.values("held_out")
    if not values.size:
        return
    axes.plot(np.full(values.size, place), values, "o", color=color, markersize=3.5, alpha=0.45)
    axes.plot(place, values.mean(), "D", color=color, markersize=5.5, label=label)
    if interval := t_interval(values):
        axes.vlines(place, interval.low, interval.high, color=color, linewidth=1.8)


def draw_series(axes: Axes, result: Result, name: str, title: str, arms: Sequence[str]) -> None:
    """Every seed thin, their mean thick."""
    axes.set_title(title)
    for number, arm in enumerate(arms):
        runs = [_values(run.series[name]) for run in result.arms[arm].runs if run.series.get(name)]
        color, dash = COLORS[number % len(COLORS)][0], DASHES[number % len(DASHES)]
        for values in runs:
            axes.plot(np.arange(1, values.size + 1), values, color=color, linewidth=0.7, alpha=0.3)
        if runs:
            mean = _mean_by_step(runs)
            label = f"{arm}, {counted(len(runs), 'seed')}"
            axes.plot(np.arange(1, mean.size + 1), mean, color=color, linestyle=dash, linewidth=1.9, label=label)
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_ylim(bottom=0.0)
    if name == "truncation":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    finish(axes)


def _values(series: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in series], dtype=np.float64)


def _mean_by_step(runs: Sequence[Floats]) -> Floats:
    """Over the seeds that recorded the step; NaN, a gap in the line, where none did."""
    steps = [[run[step] for run in runs if step < run.size] for step in range(max(run.size for run in runs))]
    there = [[value for value in values if not np.isnan(value)] for values in steps]
    return np.array([np.mean(values) if values else np.nan for values in there], dtype=np.float64)


def finish(axes: Axes) -> None:
    """Frame and legend; without anything in the legend the panel says "not run"."""
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=7.5)
    else:
        axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=_INK)
