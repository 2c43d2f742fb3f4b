"""Two profiles on a page: what a step of the second waits for more or less than one of the first."""

from collections.abc import Sequence
from dataclasses import dataclass

from aem_swe.eval.profile.difference import OCCASIONAL, STEADY, SUMS, WALL, StageDifference
from aem_swe.eval.profile.families import family_of
from aem_swe.eval.profile.path import NOT_ATTRIBUTED
from aem_swe.eval.profile.wording import seconds_text, short_name

MOST_ROWS = 60


@dataclass(frozen=True, slots=True)
class PairRow:
    """One stage, the residual or the wall. Positions are percent of the track, whose middle is 0."""

    stage: str
    family: str
    difference: StageDifference
    dot: float
    left: float | None
    """Of the interval; None where there is none."""
    width: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    names: tuple[str, str]
    sentence: str
    rows: tuple[PairRow, ...]
    more: int
    """Stages that differ least and for which there is no room."""


def pair_of(names: tuple[str, str], differences: Sequence[StageDifference]) -> Pair:
    """Of two runs with these names."""
    stages = [row for row in differences if row.stage not in SUMS]
    kept = {row.stage for row in sorted(stages, key=lambda row: -abs(row.difference_s))[:MOST_ROWS]} | {*SUMS}
    shown = [row for row in differences if row.stage in kept]
    reach = max([abs(value) for row in shown for value in (row.difference_s, row.low, row.high) if value is not None])
    names = (short_name(names[0]), short_name(names[1]))
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    walls = {row.stage: row for row in differences if row.stage in (STEADY, WALL)}
    steady = any(row.stage in OCCASIONAL and (row.first_s or row.second_s) for row in differences)
    sentence = _sentence(names, walls[STEADY if steady else WALL], ", evaluation and checkpoint left out," * steady)
    return Pair(names, sentence, tuple(_row(row, reach) for row in shown), len(differences) - len(shown))


def _row(row: StageDifference, reach: float) -> PairRow:
    def place(seconds: float) -> float:
        return 50.0 + 50.0 * seconds / reach if reach else 50.0

    left = width = None
    if row.low is not None and row.high is not None:
        left, width = place(row.low), place(row.high) - place(row.low)
    family = {STEADY: "wall", WALL: "wall", NOT_ATTRIBUTED: "residual"}.get(row.stage) or family_of(row.stage)
    return PairRow(short_name(row.stage), family, row, place(row.difference_s), left, width)


def _sentence(names: tuple[str, str], wall: StageDifference, of_what: str) -> str:
    steps = f"{seconds_text(wall.first_s)} to {seconds_text(wall.second_s)}"
    by = f"{seconds_text(abs(wall.difference_s))} {'longer' if wall.difference_s > 0 else 'shorter'}"
    differs = f"A step of {names[1]}{of_what} takes {by} than one of {names[0]}: {steps}"
    if wall.low is None or wall.high is None:
        return f"{differs}; with fewer than two steps on a side there is no interval"
    interval = f"95% interval of the difference {seconds_text(wall.low)} to {seconds_text(wall.high)}"
    if wall.low <= 0.0 <= wall.high:
        return f"Steps of {names[0]} and {names[1]}{of_what} do not detectably differ: {steps}, {interval}"
    return f"{differs}, {interval}"
