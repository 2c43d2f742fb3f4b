"""Two profiles on a page: what a step of the second waits for more or less than one of the first."""

from dataclasses import dataclass

from aem_swe.eval.profile.difference import RESIDUAL_ROW, WALL, StageDifference, compare_profiles
from aem_swe.eval.profile.families import family_of
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.wording import seconds_text, short_name

MOST_ROWS = 60


@dataclass(frozen=True, slots=True)
class PairRow:
    """One stage, the residual or the wall. Positions are percent of the track, whose middle is 0."""

    stage: str
    family: str
    difference: StageDifference
    first_share: float
    """Of the wall time of its run."""
    second_share: float
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


def pair_of(first: Profile, second: Profile) -> Pair:
    differences = compare_profiles(first, second)
    wall = next(row for row in differences if row.stage == WALL)
    last = [row for row in differences if row.stage in (RESIDUAL_ROW, WALL)][-2:]
    stages = differences[: -len(last)]
    kept = {row.stage for row in sorted(stages, key=lambda row: -abs(row.difference_s))[:MOST_ROWS]}
    shown = [row for row in stages if row.stage in kept] + last
    reach = max([abs(value) for row in shown for value in (row.difference_s, row.low, row.high) if value is not None])
    names = (short_name(first.name), short_name(second.name))
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    return Pair(names, _sentence(names, wall), tuple(_row(row, wall, reach) for row in shown), len(stages) - len(kept))


def _row(row: StageDifference, wall: StageDifference, reach: float) -> PairRow:
    def place(seconds: float) -> float:
        return 50.0 + 50.0 * seconds / reach if reach else 50.0

    shares = [
        seconds / whole if whole else 0.0
        for seconds, whole in ((row.first_s, wall.first_s), (row.second_s, wall.second_s))
    ]
    left = width = None
    if row.low is not None and row.high is not None:
        left, width = place(row.low), place(row.high) - place(row.low)
    family = {WALL: "wall", RESIDUAL_ROW: "residual"}.get(row.stage) or family_of(row.stage)
    return PairRow(short_name(row.stage), family, row, shares[0], shares[1], place(row.difference_s), left, width)


def _sentence(names: tuple[str, str], wall: StageDifference) -> str:
    steps = f"{seconds_text(wall.first_s)} to {seconds_text(wall.second_s)}"
    if wall.low is None or wall.high is None:
        way = "longer" if wall.difference_s > 0 else "shorter"
        return (
            f"A step of {names[1]} takes {seconds_text(abs(wall.difference_s))} {way} than one of {names[0]}: {steps};"
            " with fewer than two steps on a side there is no interval"
        )
    if wall.low <= 0.0 <= wall.high:
        return (
            f"Steps of {names[0]} and {names[1]} do not detectably differ: {steps}, 95% interval of the difference"
            f" {seconds_text(wall.low)} to {seconds_text(wall.high)}"
        )
    way = "longer" if wall.difference_s > 0 else "shorter"
    return (
        f"A step of {names[1]} takes {seconds_text(abs(wall.difference_s))} {way} than one of {names[0]}: {steps}, 95%"
        f" interval of the difference {seconds_text(wall.low)} to {seconds_text(wall.high)}"
    )
