"""The picture of `aem-swe verify dynamics`: the entropy change of every rule, one dot per policy, with intervals."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aem_swe.eval.dynamics import Regime, Row, minus_base, minus_permuted
from aem_swe.eval.dynamics_rules import standardised, values_of, with_spread
from aem_swe.eval.plots import image_bytes, style
from aem_swe.eval.statistics import Floats, t_interval
from aem_swe.eval.wording import counted

_COLORS = {"minus permuted": "#1f63b5", "minus base": "#8a5a18"}
_MICRO = 1e6
Contrast = tuple[str, str, Floats]
"""(rule, minus what, value per policy)"""


def draw_dynamics(rows: Sequence[Row], image: Literal["png", "svg"]) -> bytes:
    """One column per regime; above in nats, below in standard deviations over the permutations of a rule's weights.

    A bar is the 95% t interval over policies; it is absent for a single policy.
    """
    both: tuple[Regime, ...] = ("early", "late")
    regimes = [regime for regime in both if any(row["regime"] == regime for row in rows)]
    with style():
        figure = Figure(figsize=(4.6 * len(regimes), 6.8))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.19 / len(regimes), right=0.98, bottom=0.07, top=0.93, wspace=0.3, hspace=0.28)
        for number, regime in enumerate(regimes, 1):
            above = figure.add_subplot(2, len(regimes), number)
            _draw_panel(above, contrasts(rows, regime), _MICRO)
            above.set_xlabel("entropy change by SGD, 1e-6 nat per unit of lr")
            policies = len({row["policy"] for row in rows if row["regime"] == regime})
            above.set_title(f"{regime}, {counted(policies, 'policy', 'policies')}")
            below = figure.add_subplot(2, len(regimes), len(regimes) + number)
            _draw_panel(below, alignments(rows, regime), 1.0)
            below.set_xlabel("the same minus permuted, in sd of the permutations")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(list(unique.values()), list(unique), frameon=False, loc="upper left", ncols=2, fontsize=7.5)
        return image_bytes(figure, image)


def contrasts(rows: Sequence[Row], regime: Regime) -> list[Contrast]:
    """Every rule minus its permuted control, the masks minus base too; in nats per unit of learning rate."""
    inside = [row for row in rows if row["regime"] == regime]
    if not inside:
        return []
    pairs = [(rule, "minus permuted", minus_permuted(rule)) for rule in inside[0]["permuted"]]
    pairs += [(rule, "minus base", minus_base(rule)) for rule in ("rise", "fall")]
    return [(rule, kind, values_of(inside, regime, contrast)) for rule, kind, contrast in pairs]


def alignments(rows: Sequence[Row], regime: Regime) -> list[Contrast]:
    """Every rule minus its permuted control, in standard deviations over the permutations."""
    inside = [row for row in rows if row["regime"] == regime]
    return [
        (rule, "minus permuted", values_of(with_spread(inside, rule), regime, standardised(rule)))
        for rule in (inside[0]["permuted"] if inside else ())
    ]


def _draw_panel(axes: Axes, found: Sequence[Contrast], scale: float) -> None:
    for place, (_, kind, values) in enumerate(reversed(found)):
        scaled, color = values * scale, _COLORS[kind]
        if not scaled.size:
            continue
        axes.plot(scaled, np.full(scaled.size, place), "o", color=color, markersize=3.5, alpha=0.45)
        axes.plot(scaled.mean(), place, "D", color=color, markersize=5.5, label=kind)
        interval = t_interval(scaled)
        if interval:
            axes.hlines(place, interval.low, interval.high, color=color, linewidth=1.8)
    axes.axvline(0.0, color="#59606a", linewidth=0.8)
    axes.set_yticks(range(len(found)), [rule for rule, _, _ in reversed(found)])
    axes.spines[["top", "right"]].set_visible(False)
