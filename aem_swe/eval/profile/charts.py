"""The charts of a profile's page as positions and words: spread of each stage, steps over time, growth.

The template draws them with plain boxes, so they follow the colours of the page. Every number in them is one of the
profile; where neighbours are drawn as one, the chart says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aem_swe.eval.profile.axis import SHORTEST_S, Tick, linear_ticks, log_axis
from aem_swe.eval.profile.families import FAMILIES, family_of, step_families
from aem_swe.eval.profile.growth import Growth
from aem_swe.eval.profile.measures import sort_spans
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.stages import Floats, StageProfile
from aem_swe.eval.profile.step import StepProfile
from aem_swe.eval.profile.wording import seconds_text, short_name

BINS = 72
MOST_COLUMNS = 100
"""More steps, or turns, are drawn several in a column."""


@dataclass(frozen=True, slots=True)
class Strip:
    """How long single spans of one stage took, on a logarithmic axis. All positions are percent."""

    stage: str
    family: str
    bars: tuple[tuple[float, float], ...]
    """(left, height) of each bin that is not empty, of the drawn steps."""
    low: float
    """p50, and the others where they belong."""
    p95: float
    p99: float
    high: float
    title: str


@dataclass(frozen=True, slots=True)
class Spread:
    strips: tuple[Strip, ...]
    ticks: tuple[Tick, ...]
    bin_width: float


def draw_spread(stages: Sequence[StageProfile], shown: Sequence[StepProfile]) -> Spread:
    """Percentiles over all counted steps; the bars are of the steps `shown`, whose spans were kept."""
    samples: dict[str, list[float]] = {}
    for step in shown:
        for name, uses in sort_spans(step.spans).single().items():
            samples.setdefault(name, []).extend(seconds for _, seconds in uses)
    timed = [stage for stage in stages if stage.count]
    values = [value for stage in timed for value in (stage.p50, stage.max, *samples.get(stage.stage, ()))]
    axis = log_axis(min(values, default=SHORTEST_S), max(values, default=1.0))
    strips = []
    for stage in timed:
        places = np.array([axis.place(value) for value in samples.get(stage.stage, ())])
        counts, _ = np.histogram(places, BINS, (0.0, 100.0))
        tallest = int(counts.max(initial=1))
        bars = tuple((100.0 * index / BINS, 100.0 * int(counts[index]) / tallest) for index in np.flatnonzero(counts))
        low, p95, p99, high = (axis.place(value) for value in (stage.p50, stage.p95, stage.p99, stage.max))
        title = f"p50 {seconds_text(stage.p50)}, p95 {seconds_text(stage.p95)}, p99 {seconds_text(stage.p99)}"
        title += f", longest {seconds_text(stage.max)} of {stage.count:,}"
        strips.append(Strip(short_name(stage.stage), family_of(stage.stage), bars, low, p95, p99, high, title))
    return Spread(tuple(strips), axis.ticks(), 100.0 / BINS)


@dataclass(frozen=True, slots=True)
class Part:
    family: str
    height: float
    """Percent of the chart's."""
    title: str


@dataclass(frozen=True, slots=True)
class Column:
    label: str
    parts: tuple[Part, ...]
    """From the bottom up."""


@dataclass(frozen=True, slots=True)
class Columns:
    title: str
    columns: tuple[Column, ...]
    ticks: tuple[Tick, ...]
    note: str = ""

    @property
    def first(self) -> str:
        return self.columns[0].label

    @property
    def last(self) -> str:
        return self.columns[-1].label


def draw_steps(profile: Profile) -> Columns:
    """Path seconds of every step, by family, stacked; the whole column is the step's wall time."""
    steps = profile.steps
    each = -(-len(steps) // MOST_COLUMNS)
    blocks = [steps[first : first + each] for first in range(0, len(steps), each)]
    means = [_mean([step_families(step) for step in block]) for block in blocks]
    top = max(sum(seconds.values()) for seconds in means)
    columns = []
    for block, seconds in zip(blocks, means, strict=True):
        label = str(block[0].step) if len(block) == 1 else f"{block[0].step} to {block[-1].step}"
        columns.append(Column(label, tuple(_parts(f"step {label}" if each == 1 else f"steps {label}", seconds, top))))
    note = f"A column is the mean of {each} steps." if each > 1 else ""
    return Columns("seconds of a step", tuple(columns), linear_ticks(top, 4), note)


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {family: sum(row[family] for row in rows) / len(rows) for family in FAMILIES}


def _parts(name: str, seconds: Mapping[str, float], top: float) -> Iterator[Part]:
    for family, value in seconds.items():
        if value > 0.0 and top > 0.0:
            yield Part(family, 100.0 * value / top, f"{name}: {FAMILIES[family]}, {seconds_text(value)}")


def draw_growth(growth: Growth) -> list[Columns]:
    """One small chart a quantity, as far as the run recorded it."""
    charts = []
    for stage, turns in growth.turns.items():
        if len(turns) > 1:
            shown = turns[:MOST_COLUMNS]
            left_out = f"Turns after {shown[-1].turn} are not drawn." if len(shown) < len(turns) else ""
            charts.append(
                _single(
                    f"{short_name(stage)}: median by turn", family_of(stage), [str(one.turn) for one in shown],
                    np.array([one.p50 for one in shown]), [f"turn {one.turn}, n = {one.count:,}" for one in shown],
                    left_out,
                )
            )  # fmt: skip
    if len(growth.tokens) > 1:
        labels = [f"{one.low} to {one.high}" if one.high > one.low else str(one.low) for one in growth.tokens]
        titles = [f"{label} tokens, n = {one.count:,}" for label, one in zip(labels, growth.tokens, strict=True)]
        values = np.array([one.p50 for one in growth.tokens])
        charts.append(_single("a token's decoding, by tokens of the turn", "policy", labels, values, titles))
    if len(growth.slowest) > 1:
        labels = [str(one.episodes) for one in growth.slowest]
        titles = [f"the slowest of {label} of the step's, mean over all choices" for label in labels]
        values = np.array([one.seconds for one in growth.slowest])
        charts.append(_single("the slowest of so many of the step's episodes", "other", labels, values, titles))
    return charts


def _single(
    title: str, family: str, labels: Sequence[str], values: Floats, titles: Sequence[str], note: str = ""
) -> Columns:
    top = float(values.max())
    heights = (100.0 * values / top if top > 0.0 else values).tolist()
    columns = tuple(
        Column(label, (Part(family, height, f"{name}: {seconds_text(value)}"),))
        for label, height, name, value in zip(labels, heights, titles, values.tolist(), strict=True)
    )
    return Columns(title, columns, linear_ticks(top, 3), note)
