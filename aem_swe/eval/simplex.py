"""The picture of Theorem 3.2.2 (the subject of the paper's Figure 1): policies over three actions, as a triangle.

Action 1 was sampled. The flow of the natural gradient, A (e_1 - p), points to its corner or away from it; the colour is
the rate A (S - H) at which entropy changes on the way, and the lines are levels of the entropy. Where action 1 is as
surprising as the average (S = H) the rate is 0: that line, and not the direction of the flow, separates rise from fall.

Shapes: N point, 3 action, 2 coordinate in the plane.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.tri import TriContourSet

from aem_swe.eval.plots import image_bytes, style
from aem_swe.theory.calculus import replicator
from aem_swe.theory.policies import Floats, entropy
from aem_swe.theory.statements import relative_surprisal

CORNERS: Final = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
"""Where each action has probability 1; the sampled one on top."""
LEVELS: Final = (0.3, 0.5, 0.7, 0.85, 0.95, 1.05)
"""Entropies (nats) whose lines are drawn; the centre has log 3."""
LARGEST: Final = 2.0
"""Of the colour scale; the rate has no bound towards the edge opposite to the sampled action."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Entropy, its rate of change and the flow at points of the simplex, for one sampled action."""

    p_N3: Floats
    place_N2: Floats
    entropy_N: Floats
    rate_N: Floats
    flow_N2: Floats


def simplex_field(advantage: float, *, steps: int, margin: float = 1e-4) -> Field:
    """The grid of policies with probabilities in steps of 1 / `steps`, moved inwards by `margin` from the edges.

    Action 1 (the first of 3) is sampled with that advantage.
    """
    counts = np.array([(a, b, steps - a - b) for a in range(steps + 1) for b in range(steps + 1 - a)], dtype=np.float64)
    p_N3 = margin + (1.0 - 3.0 * margin) * counts / steps
    logprobs_N3 = np.log(p_N3)
    rate_N = np.array([advantage * relative_surprisal(one)[0] for one in logprobs_N3])
    flow_N3 = np.array([replicator(p, np.array([advantage / p[0], 0.0, 0.0])) for p in p_N3])
    return Field(p_N3, p_N3 @ CORNERS, entropy(logprobs_N3), rate_N, flow_N3 @ CORNERS)


def draw_simplex(image: Literal["png", "svg"]) -> bytes:
    """The figure for A = +1 and A = -1, in light colours; the same bytes every time."""
    with style():
        figure = Figure(figsize=(8.4, 3.7))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.01, right=0.88, bottom=0.01, top=0.93, wspace=0.02)
        panels = [figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)]
        for axes, advantage in zip(panels, (1.0, -1.0), strict=True):
            colours = _draw_panel(axes, advantage)
        scale = figure.colorbar(colours, cax=figure.add_axes((0.895, 0.1, 0.016, 0.74)), extend="both")
        scale.set_label("dH/dt = A (S - H), nats", labelpad=2)
        return image_bytes(figure, image)


def _draw_panel(axes: Axes, advantage: float) -> TriContourSet:
    fine, coarse = simplex_field(advantage, steps=60), simplex_field(advantage, steps=13, margin=0.02)
    x, y = fine.place_N2.T
    bands = np.linspace(-LARGEST, LARGEST, 21)
    filled = axes.tricontourf(x, y, fine.rate_N, levels=bands, cmap="RdBu_r", extend="both")
    lines = axes.tricontour(x, y, fine.entropy_N, levels=LEVELS, colors="#59606a", linewidths=0.7)
    axes.clabel(lines, fmt="%.2f", fontsize=7)
    axes.tricontour(x, y, fine.rate_N, levels=[0.0], colors="#1d2126", linewidths=1.8, linestyles="dashed")
    inwards = "tail" if advantage > 0 else "tip"  # no arrow leaves the triangle
    axes.quiver(
        *coarse.place_N2.T, *coarse.flow_N2.T, color="#1d2126", width=0.004, scale=22.0, alpha=0.75, pivot=inwards
    )
    axes.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="#1d2126", linewidth=1.0)
    for corner, text, side in zip(CORNERS, ("action 1 (sampled)", "action 2", "action 3"), (1, -1, -1), strict=True):
        place = (corner[0], corner[1] + 0.03 * side)
        axes.annotate(text, place, ha="center", va="bottom" if side > 0 else "top")
    axes.set_title(f"A = {advantage:+.0f}", loc="left", fontweight="bold")
    axes.set_aspect("equal")
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.09, 0.95)
    axes.axis("off")
    return filled
