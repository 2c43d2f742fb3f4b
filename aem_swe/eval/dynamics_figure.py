"""The picture of `aem-swe verify dynamics`: the entropy change of every rule, one dot per policy, with intervals."""

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.eval.dynamics import Claim, Regime, Row, minus_base, minus_permuted, policy_values
from aem_swe.eval.plots import style
from aem_swe.eval.statistics import CONFIDENCE, Floats

_COLORS = {"minus permuted": "#1f63b5", "minus base": "#8a5a18"}
_MICRO = 1e6


def draw_dynamics(rows: Sequence[Row], image: Literal["png", "svg"]) -> bytes:
    """One panel per regime. A bar is the 95% t interval over policies; it is absent for a single policy."""
    both: tuple[Regime, ...] = ("early", "late")
    regimes = [regime for regime in both if any(row["regime"] == regime for row in rows)]
    with style():
        figure = Figure(figsize=(4.6 * len(regimes), 3.4))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.24 / len(regimes) + 0.02, right=0.98, bottom=0.15, top=0.92, wspace=0.42)
        for number, regime in enumerate(regimes, 1):
            _draw_panel(figure.add_subplot(1, len(regimes), number), rows, regime)
        buffer = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if image == "svg" else {}
        figure.savefig(buffer, format=image, dpi=150, metadata=metadata)
    return buffer.getvalue()


def contrasts(rows: Sequence[Row], regime: Regime) -> list[tuple[str, str, Floats]]:
    """(rule, minus what, value per policy in nats): every rule minus its permuted control, the masks minus base too."""
    inside = [row for row in rows if row["regime"] == regime]
    if not inside:
        return []
    pairs = [(rule, "minus permuted", minus_permuted(rule)) for rule in inside[0]["permuted"]]
    pairs += [(rule, "minus base", minus_base(rule)) for rule in ("rise", "fall")]
    return [(rule, kind, policy_values(rows, Claim(rule, rule, regime, 1, contrast))) for rule, kind, contrast in pairs]


def _draw_panel(axes: Axes, rows: Sequence[Row], regime: Regime) -> None:
    found = contrasts(rows, regime)
    for place, (_, kind, values) in enumerate(reversed(found)):
        scaled, color = values * _MICRO, _COLORS[kind]
        axes.plot(scaled, np.full(scaled.size, place), "o", color=color, markersize=3.5, alpha=0.45)
        axes.plot(scaled.mean(), place, "D", color=color, markersize=5.5, label=kind)
        if scaled.size > 1:
            half = stats.t.ppf((1 + CONFIDENCE) / 2, scaled.size - 1) * scaled.std(ddof=1) / scaled.size**0.5
            axes.hlines(place, scaled.mean() - half, scaled.mean() + half, color=color, linewidth=1.8)
    axes.axvline(0.0, color="#59606a", linewidth=0.8)
    axes.set_yticks(range(len(found)), [rule for rule, _, _ in reversed(found)])
    axes.set_xlabel("entropy change by SGD, 1e-6 nat per unit of lr")
    policies = max((values.size for _, _, values in found), default=0)
    axes.set_title(f"{regime}, {policies} {'policy' if policies == 1 else 'policies'}")
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(list(unique.values()), list(unique), frameon=False, fontsize=7.5)
