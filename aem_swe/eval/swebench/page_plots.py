"""Pictures of an evaluation as SVG data URIs, for light and for dark pages: pass@k, and distributions by status.

As in plots.py no text of a run goes into a picture, and the same numbers give the same bytes.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from aem_swe.eval.plots import COLORS, Picture, style
from aem_swe.eval.swebench.live import short
from aem_swe.eval.swebench.measures import PassAtK
from aem_swe.eval.swebench.results import Evaluation, Result, Status

STATUS_COLORS = {
    Status.RESOLVED: 3,
    Status.UNRESOLVED: 1,
    Status.EMPTY: 5,
    Status.ERROR: 4,
    Status.INFRASTRUCTURE: 0,
}
"""Index into COLORS and into the page's --arm colours."""
_BINS = 24


def pictures_of(evaluation: Evaluation, curve: Sequence[PassAtK]) -> list[Picture]:
    """Those that the results allow, in reading order."""
    pictures = [_pass_at_k(curve)] if len(curve) > 1 else []
    played = [result for result in evaluation.results.values() if result.turns]
    for title, unit, read in (
        ("Turns", "turns", lambda result: result.turns),
        ("Tokens written", "tokens", lambda result: result.completion_tokens),
        ("Minutes", "minutes", lambda result: sum(result.seconds.values()) / 60.0),
    ):
        found = _by_status(played, read)
        if any(max(values) > 0 for values in found.values()):
            pictures.append(_histogram(title, unit, found))
    return pictures


def _by_status(results: Sequence[Result], read: Callable[[Result], float]) -> dict[Status, list[float]]:
    found: dict[Status, list[float]] = {}
    for status in Status:
        values = [float(read(result)) for result in results if result.status is status]
        if values:
            found[status] = values
    return found


def _pass_at_k(curve: Sequence[PassAtK]) -> Picture:
    ks = np.array([one.k for one in curve], float)
    values, low, high = np.array([(one.interval.value, one.interval.low, one.interval.high) for one in curve], float).T

    def draw(axes: Axes, theme: int) -> None:
        color = COLORS[1][theme]
        axes.fill_between(ks, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(ks, values, color=color, linewidth=1.7, marker="o", markersize=4)
        axes.set_ylim(0.0, min(1.03, max(float(high.max()) * 1.08, 0.05)))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))

    caption = "The chance that at least one of k runs resolves an instance. Band: 95% interval over instances."
    said = ", ".join(f"{one.interval.value:.1%} at k = {one.k}" for one in curve)
    return _picture("pass@k", caption, f"pass@k: {said}.", "k", draw)


def _histogram(title: str, unit: str, found: Mapping[Status, Sequence[float]]) -> Picture:
    top = max(max(values) for values in found.values())
    edges = np.linspace(0.0, top * 1.0001, _BINS + 1)

    def draw(axes: Axes, theme: int) -> None:
        below = np.zeros(_BINS)
        middles, width = edges[:-1] + np.diff(edges) / 2.0, float(edges[1] - edges[0])
        for status, values in found.items():
            counts = np.histogram(values, edges)[0].astype(float)
            axes.bar(middles, counts, width * 0.92, below, color=COLORS[STATUS_COLORS[status]][theme], linewidth=0)
            below += counts
        axes.set_xlim(0.0, float(edges[-1]))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value))))

    medians = "; ".join(f"{status} {np.median(values):.4g}" for status, values in found.items())
    caption = f"Results by {unit}. Medians: {medians}."
    return _picture(title, caption, f"{title} by status. Medians: {medians}.", unit, draw)


def _picture(title: str, caption: str, description: str, label: str, draw: Callable[[Axes, int], None]) -> Picture:
    light, dark = (_svg(label, draw, theme) for theme in (0, 1))
    return Picture(title, caption, description, light, dark)


def _svg(label: str, draw: Callable[[Axes, int], None], theme: int) -> str:
    ink, grid = (("#59606a", "#d9dce1"), ("#a5adb8", "#363c45"))[theme]
    with style():
        figure = Figure(figsize=(4.4, 2.7))
        figure.subplots_adjust(left=0.115, right=0.985, bottom=0.18, top=0.97)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(grid)
        axes.grid(axis="y", color=grid, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=ink, length=0, pad=5)
        axes.set_xlabel(label, color=ink)
        draw(axes, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
