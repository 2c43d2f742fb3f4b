"""The picture of `aem-swe verify ablations`: alignment of every rule, whole runs of every lambda and filter."""

from collections.abc import Sequence
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aem_swe.eval.ablations import REGIMES, Choice, Json, aem_of, choices
from aem_swe.eval.dynamics import Regime
from aem_swe.eval.plots import COLORS, image_bytes, style
from aem_swe.eval.training_figure import draw_series, finish
from aem_swe.eval.training_result import Result
from aem_swe.eval.training_table import filter_arms, lambda_arms
from aem_swe.eval.wording import counted

_INK: Final = "#59606a"
_WHOLE_RUNS: Final = (
    ("entropy", "entropy, nat, by lambda", lambda_arms),
    ("truncation", "truncated episodes, by filter", filter_arms),
    ("reward", "training reward, by filter", filter_arms),
)
_PANELS: Final = 2 + len(_WHOLE_RUNS)


def draw_ablations(dynamics: Json | None, training: Result | None, image: Literal["png", "svg"]) -> bytes:
    """Five panels; the same results give the same bytes. A half without its file says "not run"."""
    with style():
        figure = Figure(figsize=(18.0, 3.8))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.115, right=0.99, bottom=0.145, top=0.91, wspace=0.2)
        for number, regime in enumerate(REGIMES, 1):
            axes = figure.add_subplot(1, _PANELS, number)
            _draw_alignment(axes, regime, dynamics, named=number == 1)
        for number, (name, title, arms_of) in enumerate(_WHOLE_RUNS, 3):
            axes = figure.add_subplot(1, _PANELS, number)
            if training:
                draw_series(axes, training, name, title, arms_of(training))
            else:
                axes.set_title(title)
                finish(axes)
        return image_bytes(figure, image)


def _draw_alignment(axes: Axes, regime: Regime, dynamics: Json | None, *, named: bool) -> None:
    """Bars are 95% t intervals over policies, absent for one; the dotted line is AEM's mean."""
    rows = [one for one in choices(dynamics) if one.rule] if dynamics else []
    axes.set_title(f"{regime}: alignment of the weights")
    axes.set_xlabel("minus permuted, in sd of the permutations")
    if not dynamics or not any(regime in one.effects for one in rows):
        finish(axes)
        return
    policies = {row["policy"] for row in dynamics["batches"] if row["regime"] == regime}
    axes.set_title(f"{regime}: alignment, {counted(len(policies), 'policy', 'policies')}")
    _draw_rows(axes, regime, rows, aem_of(dynamics))
    axes.axvline(0.0, color=_INK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [f"{one.kind}: {one.setting}" for one in rows] if named else [""] * len(rows))


def _draw_rows(axes: Axes, regime: Regime, rows: Sequence[Choice], reference: str) -> None:
    kinds = list(dict.fromkeys(one.kind for one in rows))
    for place, one in enumerate(rows):
        effect = one.effects.get(regime)
        if effect is None or effect.standardised is None:
            continue
        found, color = effect.standardised, COLORS[kinds.index(one.kind) % len(COLORS)][0]
        axes.plot(found.mean, place, "D", color=color, markersize=5.5)
        if found.low is not None and found.high is not None:
            axes.hlines(place, found.low, found.high, color=color, linewidth=1.8)
        if one.rule == reference:
            axes.axvline(found.mean, color=color, linewidth=0.9, linestyle=":")
