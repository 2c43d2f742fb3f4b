"""Which ratios moved between a stored run of the benchmarks and this one.

A ratio moved where it is further from the stored value than the tolerance (25%: outside 0.8 to 1.25 of it) AND the two
intervals do not overlap; where one of them is a single measurement there is no interval, and the tolerance decides
alone. Beyond the tolerance with overlapping intervals is "unclear": repeat it on a quieter machine. An interval is of
the repeats of one run, and two runs on a busy machine differ by more than it says; the tolerance is for that, and does
not cover everything. Fewer than 6 repeats make an interval that holds too little.
Not covered: whether the two machines are alike. Ratios travel better than seconds, and not everywhere; `differences`
says what is not the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ratios import Ratio

Verdict = Literal["worse", "better", "unclear", "same", "new", "gone", "not run"]
MOVED: tuple[Verdict, ...] = ("worse", "better")
TOLERANCE = 0.25
SAME_MACHINE = ("machine", "cores", "python", "torch")


@dataclass(frozen=True, slots=True)
class Change:
    key: str
    benchmark: str
    verdict: Verdict
    before: float | None
    after: float | None
    reason: str = ""
    """Why it was not run."""

    @property
    def relative(self) -> float | None:
        """How much more it is than it was; None where one of them is missing, or it was 0."""
        return self.after / self.before - 1 if self.before and self.after is not None else None

    @property
    def line(self) -> str:
        """What stands behind the ratio in a table."""
        if self.before is None:
            return self.verdict
        by = "" if self.relative is None else f", {self.relative:+.0%}"
        return f"was {self.before:.3g}{by}: {self.verdict}{f' ({self.reason})' if self.reason else ''}"


def compare(
    before: Sequence[Ratio], after: Sequence[Ratio], not_run: Mapping[str, str], tolerance: float = TOLERANCE
) -> dict[str, Change]:
    """Return the change of every ratio of either side, by key. not_run: by benchmark, why."""
    old, new = ({ratio.key: ratio for ratio in ratios} for ratios in (before, after))
    changes = {}
    for key, ratio in {**old, **new}.items():
        was, now = old.get(key), new.get(key)
        reason = not_run.get(ratio.benchmark, "") if now is None else ""
        verdict: Verdict = "not run" if reason else "gone"
        if now is not None:
            verdict = "new" if was is None else _verdict(was, now, tolerance)
        values = (was.value if was else None, now.value if now else None)
        changes[key] = Change(key, ratio.benchmark, verdict, *values, reason)
    return changes


def _verdict(old: Ratio, new: Ratio, tolerance: float) -> Verdict:
    if old.value / (1 + tolerance) <= new.value <= old.value * (1 + tolerance):
        return "same"
    if _overlap(old, new):
        return "unclear"
    return "worse" if new.value > old.value else "better"


def _overlap(one: Ratio, other: Ratio) -> bool:
    """False where either is a single measurement."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:  # Any: JSON values
    """Return what is not the same about the two machines."""
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in SAME_MACHINE
        if before.get(name) != after.get(name)
    ]
