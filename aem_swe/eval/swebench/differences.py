"""The paired difference between two sides over instances: as a whole, by group, and as single instances that flip.

Legend: C checkpoint, I instance; a table is pass@1 of every checkpoint on every instance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.eval.statistics import Difference, Floats, paired_difference
from aem_swe.eval.swebench.measures import Tally, members_of
from aem_swe.eval.visible import visible_line
from aem_swe.eval.wording import interval_text, points

HALF = 0.5


@dataclass(frozen=True, slots=True)
class Flip:
    """An instance that one side resolves in most of its runs, and the other does not. One tally per checkpoint."""

    instance_id: str
    reference: tuple[Tally, ...]
    arm: tuple[Tally, ...]

    @property
    def change(self) -> float:
        return _mean(self.arm) - _mean(self.reference)

    def __str__(self) -> str:
        sides = ["+".join(map(str, side)) for side in (self.reference, self.arm)]
        return f"{visible_line(self.instance_id, 80)} ({sides[0]} -> {sides[1]} runs)"


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """The paired difference inside one repository or difficulty, about these checkpoints."""

    name: str
    reference: float
    arm: float
    difference: Difference

    def __str__(self) -> str:
        name, found = visible_line(self.name, 60), self.difference
        rates = f"{self.reference:.1%} -> {self.arm:.1%}"
        return f"{name} ({found.tasks}): {rates}, {points(found.value)} points ({interval_text(found)})"


def instance_difference(plus_CI: Floats, minus_CI: Floats, *, exact: bool) -> Difference:
    """`plus - minus` with instances resampled. exact: one run on each side, so that McNemar's exact test applies."""
    found = paired_difference(plus_CI, minus_CI)
    if not exact:
        return found
    gained, lost = int((plus_CI > minus_CI).sum()), int((plus_CI < minus_CI).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return replace(found, p_value=p_value)


def group_differences(
    plus_CI: Floats, minus_CI: Floats, names_I: Sequence[str], *, exact: bool
) -> tuple[GroupDifference, ...]:
    """One per name, the largest group first; instances without a name are in none."""
    groups = []
    for name, places in members_of({place: name for place, name in enumerate(names_I) if name}).items():
        plus, minus = plus_CI[:, places], minus_CI[:, places]
        difference = instance_difference(plus, minus, exact=exact)
        groups.append(GroupDifference(name, float(minus.mean()), float(plus.mean()), difference))
    return tuple(groups)


def flips(
    names: Sequence[str],
    reference: Sequence[Mapping[str, Tally]],
    arm: Sequence[Mapping[str, Tally]],
    *,
    down: bool,
) -> tuple[Flip, ...]:
    """The instances that the reference resolves mostly and the arm does not (down), or the other way round.

    The clearest first. In half of the runs is not mostly.
    """
    every = [Flip(name, tuple(one[name] for one in reference), tuple(one[name] for one in arm)) for name in names]
    ends = [(flip, _mean(flip.reference), _mean(flip.arm)) for flip in every]
    found = [flip for flip, before, after in ends if (before > HALF >= after if down else after > HALF >= before)]
    return tuple(sorted(found, key=lambda flip: (-abs(flip.change), flip.instance_id)))


def _mean(side: Sequence[Tally]) -> float:
    return sum(tally.rate for tally in side) / len(side)
