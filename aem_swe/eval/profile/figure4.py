"""The paper's Figure 4 (AEM, arXiv 2605.00425): its four stages of a training step, and the same of a run of ours.

The paper's shares are of the sum of its four rows, so ours are too; what else a step does is left out of both. A row is
the time that the step's own thread spent in the phase, all that lies inside it included. Without one of the four there
are no shares: shares of three cannot stand beside shares of four.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aem_swe.eval.profile.profile import Profile

PAPER = {"rollout": 0.459, "update": 0.360, "old_log_prob": 0.168, "aem": 0.011}
"""Shares; they are printed with one decimal and sum to 99.8 percent."""
AEM_ALONE = "The entropies that AEM needs come out of the old-log-prob pass, so the row aem is the rescaling alone."


@dataclass(frozen=True, slots=True)
class Row:
    stage: str
    paper_share: float
    share: float | None
    """Of the four rows' sum; None where one of them was not recorded."""
    seconds: float
    """Mean per step."""


@dataclass(frozen=True, slots=True)
class Figure4:
    rows: tuple[Row, ...]
    steps: int


def measure_figure4(profile: Profile) -> Figure4:
    """Ours beside the paper's, over the counted steps."""
    steps = len(profile.steps)
    seconds = {name: sum(step.phases_s.get(name, 0.0) for step in profile.steps) / steps for name in PAPER}
    shares = shares_of_four(seconds)
    rows = (Row(name, paper, shares.get(name), seconds[name]) for name, paper in PAPER.items())
    return Figure4(tuple(rows), steps)


def shares_of_four(seconds: Mapping[str, float]) -> dict[str, float]:
    """Of their sum, by row; empty unless all four took some time."""
    if any(seconds.get(name, 0.0) <= 0.0 for name in PAPER):
        return {}
    total = sum(seconds[name] for name in PAPER)
    return {name: seconds[name] / total for name in PAPER}
