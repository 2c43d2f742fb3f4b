"""Line charts as SVG data URIs, each drawn for light and for dark pages.

No text of a run goes into a chart (the report names the arms beside it), so nothing that a policy, a recipe or a task
wrote can reach matplotlib's text parser. The same panel gives the same bytes.
"""

import base64
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from aem_swe.eval.statistics import Floats

# (light, dark); told apart with every common colour blindness, and by dash and marker without any colour.
COLORS = (
    ("#8a5a18", "#e0ab5e"), ("#1f63b5", "#7db4f2"), ("#6d3fa0", "#c39bea"),
    ("#1c7a5c", "#63c9a4"), ("#b03a48", "#f08b95"), ("#4f5b66", "#b3bec9"),
)  # fmt: skip
DASHES = ("-", (0, (6, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vP"


@dataclass(frozen=True, slots=True)
class Curve:
    arm: int
    """Index of the arm: decides colour, dash and marker."""
    steps: Floats
    values: Floats
    low: Floats | None = None
    high: Floats | None = None
    faint: bool = False
    line: Literal["arm", "solid", "dotted"] = "arm"
    """By arm, or by quantity where one panel holds two quantities of an arm."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    caption: str
    description: str
    """What the picture shows, in words, for those who do not see it."""
    curves: tuple[Curve, ...]
    percent: bool = False
    from_zero: bool = True
    level: float | None = None
    """A horizontal line of reference."""


@dataclass(frozen=True, slots=True)
class Picture:
    title: str
    caption: str
    description: str
    light: str
    dark: str


def draw(panel: Panel) -> Picture:
    """Both versions of a panel as `data:` URIs."""
    light, dark = (_draw_svg(panel, theme) for theme in (0, 1))
    return Picture(panel.title, panel.caption, panel.description, light, dark)


def style() -> AbstractContextManager[None]:
    """The style of every figure: the same drawing gives the same bytes."""
    return matplotlib.rc_context(
        {"svg.hashsalt": "aem-swe", "svg.fonttype": "path", "font.size": 9.0, "font.family": "DejaVu Sans"}
    )


def image_bytes(figure: Figure, image: Literal["png", "svg"]) -> bytes:
    """Without a date and without matplotlib's name, so that the same drawing gives the same bytes; inside `style()`."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if image == "svg" else {}
    figure.savefig(buffer, format=image, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _draw_svg(panel: Panel, theme: int) -> str:
    ink, grid = (("#59606a", "#d9dce1"), ("#a5adb8", "#363c45"))[theme]
    with style():
        figure = Figure(figsize=(4.4, 2.7))
        figure.subplots_adjust(
            left=0.115, right=0.985, bottom=0.18, top=0.97
        )  # automatic layouts take most of the time
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _dress(axes, panel, ink, grid)
        for curve in panel.curves:
            _draw_curve(axes, curve, COLORS[curve.arm % len(COLORS)][theme])
        if panel.level is not None:
            axes.axhline(panel.level, color=ink, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
        if panel.from_zero:
            axes.set_ylim(bottom=0.0, top=_top(panel))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _dress(axes: Axes, panel: Panel, ink: str, grid: str) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(grid)
    axes.grid(axis="y", color=grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink, length=0, pad=5)
    axes.set_xlabel("training step", color=ink)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _top(panel: Panel) -> float:
    highest = [float(np.max(curve.values if curve.high is None else curve.high)) for curve in panel.curves]
    top = max([*highest, panel.level or 0.0, 1e-3]) * 1.08
    # Five percent keeps the tick labels of whole percents apart.
    return min(max(top, 0.05), 1.03) if panel.percent else top


def _draw_curve(axes: Axes, curve: Curve, color: str) -> None:
    if curve.faint:
        axes.plot(curve.steps, curve.values, color=color, linewidth=0.8, alpha=0.38, zorder=2)
        return
    dash = {"solid": "-", "dotted": (0, (1, 1.3)), "arm": DASHES[curve.arm % len(DASHES)]}[curve.line]
    if curve.low is None or curve.high is None:
        # A single point has no line to be seen.
        marker = MARKERS[curve.arm % len(MARKERS)] if curve.steps.size == 1 else None
        axes.plot(curve.steps, curve.values, color=color, linewidth=1.8, linestyle=dash, marker=marker, zorder=3)
        return
    # Arms are moved apart a little, or the bars of equal steps would hide each other.
    steps = curve.steps + 0.006 * curve.arm * max(float(np.ptp(curve.steps)), 1.0)
    axes.plot(
        steps, curve.values, color=color, linewidth=1.6, linestyle=dash, zorder=3,
        marker=MARKERS[curve.arm % len(MARKERS)], markersize=4.5,
    )  # fmt: skip
    axes.vlines(steps, curve.low, curve.high, color=color, linewidth=1.3, alpha=0.75, zorder=2)
