"""The differences of a report on one axis: where each lies, how wide its interval is, and what was too small to see.

Positions are percent of the width; the template draws them with plain boxes, so they follow the colours of the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aem_swe.eval.comparison import Comparison
from aem_swe.eval.statistics import Difference
from aem_swe.eval.wording import judged_gain, points


@dataclass(frozen=True, slots=True)
class ForestRow:
    label: str
    arm: int
    text: str
    left: float
    width: float
    dot: float
    blind_left: float
    """The band of differences around 0 that would have been missed more than one time in five."""
    blind_width: float


@dataclass(frozen=True, slots=True)
class Forest:
    rows: tuple[ForestRow, ...]
    zero: float
    ends: tuple[str, str]


def build_forest(comparison: Comparison) -> Forest | None:
    """Gain of every arm, then every contrast; None if there is no difference to show."""
    found = [
        (f"gain of {outcome.arm.label}", index, gain)
        for index, outcome in enumerate(comparison.outcomes)
        if (gain := judged_gain(outcome)) is not None
    ]
    arms = [outcome.arm.label for outcome in comparison.outcomes]
    found += [
        (f"{item.outcome.arm.label} minus {arms[0]}", arms.index(item.outcome.arm.label), item.judged)
        for item in comparison.contrasts
    ]
    return _place(found) if found else None


def _place(found: Sequence[tuple[str, int, Difference]]) -> Forest:
    edges = [0.0] + [edge for _, _, item in found for edge in (item.low, item.high, *_blind(item))]
    margin = 0.04 * max(max(edges) - min(edges), 0.01)
    low, high = min(edges) - margin, max(edges) + margin

    def place(value: float) -> float:
        return round(100.0 * (value - low) / (high - low), 2)

    rows = []
    for label, arm, item in found:
        left, blind = place(item.low), _blind(item)
        text = f"{points(item.value)} ({points(item.low)} to {points(item.high)})"
        blind_left = place(blind[0])
        rows.append(
            ForestRow(
                label, arm, text, left, place(item.high) - left, place(item.value), blind_left,
                place(blind[1]) - blind_left,
            )
        )  # fmt: skip
    return Forest(tuple(rows), place(0.0), (points(low), points(high)))


def _blind(item: Difference) -> tuple[float, float]:
    size = item.detectable or 0.0
    return -size, size
