"""What the steps of each arm waited for, and the paper's Figure 4 of each: from spans where the runs recorded them.

Arms whose runs recorded none have the sums of metrics.jsonl (timings.py) to show, and no residual. Of an arm that lacks
one of the paper's four rows (there is no AEM in it, say) none is shown.
"""

from collections.abc import Sequence
from contextlib import suppress

from aem_swe.errors import RunError
from aem_swe.eval.arms import Arm
from aem_swe.eval.profile.figure4 import PAPER, shares_of_four
from aem_swe.eval.profile.path import NOT_ATTRIBUTED
from aem_swe.eval.profile.profile import Profile, load_profile
from aem_swe.eval.profile.spans import SPANS
from aem_swe.eval.profile.stages import place
from aem_swe.eval.profile.wording import seconds_text
from aem_swe.eval.tables import TableRow, total_of

WALL = "wall time of a step"


def profiles_of(arm: Arm) -> tuple[Profile, ...]:
    """The profiles of those runs of an arm that recorded a step; spans without one are as good as none."""
    found = []
    for run in arm.runs:
        with suppress(RunError):
            found += [load_profile(run.folder)] if (run.folder / SPANS).is_file() else []
    return tuple(found)


def path_rows(profiles: Sequence[Sequence[Profile]]) -> tuple[TableRow, ...]:
    """One row per family of stages (policy, tool, ...), per arm the mean seconds that a step waited for it; or none."""
    per_arm = [_families(several) for several in profiles]
    names = sorted({name for found in per_arm for name in found} - {NOT_ATTRIBUTED, WALL}, key=place)
    if not names:
        return ()
    return tuple(
        TableRow(
            name,
            tuple(_cell(found.get(name), found.get(WALL)) for found in per_arm),
            name not in (NOT_ATTRIBUTED, WALL),
        )
        for name in (*names, NOT_ATTRIBUTED, WALL)
    )


def _families(profiles: Sequence[Profile]) -> dict[str, float]:
    """Mean path seconds per step, all runs together."""
    steps = sum(len(profile.steps) for profile in profiles)
    totals: dict[str, float] = {}
    for profile in profiles:
        for step in profile.steps:
            for stage, seconds in step.path_s.items():
                family = stage.partition("/")[0]
                totals[family] = totals.get(family, 0.0) + seconds
        totals[NOT_ATTRIBUTED] = totals.get(NOT_ATTRIBUTED, 0.0) + profile.residual_s
        totals[WALL] = totals.get(WALL, 0.0) + profile.wall_s
    return {name: total / steps for name, total in totals.items()}


def figure4_rows(arms: Sequence[Arm], profiles: Sequence[Sequence[Profile]]) -> tuple[TableRow, ...]:
    """The paper's four rows: shares of their sum, here and there."""
    per_arm = [shares_of_four(_four(arm, several)) for arm, several in zip(arms, profiles, strict=True)]
    return tuple(
        TableRow(f"{name} (paper: {share:.1%})", tuple(_share(found.get(name)) for found in per_arm))
        for name, share in PAPER.items()
    )


def _four(arm: Arm, profiles: Sequence[Profile]) -> dict[str, float]:
    if not profiles:
        return {name: total for name in PAPER if (total := total_of(arm, f"timing_s/{name}")) is not None}
    steps = [step for profile in profiles for step in profile.steps]
    return {name: sum(step.phases_s.get(name, 0.0) for step in steps) for name in PAPER}


def _share(share: float | None) -> str | None:
    return None if share is None else f"{share:.{1 if share > 0.01 else 3}%}"


def _cell(seconds: float | None, wall: float | None) -> str | None:
    if seconds is None or not wall:
        return None
    return f"{seconds_text(seconds)} ({seconds / wall:.1%})"
