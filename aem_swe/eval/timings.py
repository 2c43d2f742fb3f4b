"""Where the time of a step went, stage by stage, and which stages overlap so that they must not be added up."""

from collections.abc import Sequence
from dataclasses import dataclass

from aem_swe.eval.arms import Arm
from aem_swe.eval.profile.path import NOT_ATTRIBUTED
from aem_swe.eval.tables import TableRow, total_of

SEQUENTIAL = (
    "rollout", "batch", "old_log_prob", "ref_log_prob", "filter", "advantage", "aem", "update", "record", "checkpoint",
    "evaluation",
)  # fmt: skip
BEHIND_GENERATION = ("rollout_policy", "rollout_tools", "rollout_reward")
STAGES = ("step", "rollout", *BEHIND_GENERATION, *SEQUENTIAL[1:])
OTHER = NOT_ATTRIBUTED


@dataclass(frozen=True, slots=True)
class StageTime:
    seconds: float
    """Mean per step."""
    share: float | None
    """Of the step; None where the step was not timed."""


def stage_times(arm: Arm) -> dict[str, StageTime | None]:
    """Mean seconds per step of every stage; a stage that only some steps have counts as its total over all steps."""
    recorded = {key.removeprefix("timing_s/") for run in arm.runs for key in run.keys("timing_s/")}
    steps = sum(run.series("timing_s/step").values.size for run in arm.runs)
    step_total = total_of(arm, "timing_s/step")
    rows = steps or sum(run.steps for run in arm.runs)
    times: dict[str, StageTime | None] = {}
    for stage in (*STAGES, *sorted(recorded - set(STAGES))):
        total = total_of(arm, f"timing_s/{stage}")
        share = total / step_total if step_total and total is not None else None
        times[stage] = None if total is None or not rows else StageTime(total / rows, share)
    whole, parts = times["step"], [times[stage] for stage in SEQUENTIAL]
    if whole is not None:
        rest = whole.seconds - sum(part.seconds for part in parts if part is not None)
        # Below 0 the stages overlap or lie outside the step, and the rest has no meaning.
        times[OTHER] = StageTime(rest, rest / whole.seconds) if rest >= 0.0 < whole.seconds else None
    return times


def timing_rows(arms: Sequence[Arm]) -> tuple[TableRow, ...]:
    times = [stage_times(arm) for arm in arms]
    stages = dict.fromkeys(stage for per_arm in times for stage in per_arm)
    return tuple(
        TableRow(stage, tuple(_time_cell(per_arm.get(stage)) for per_arm in times), stage in BEHIND_GENERATION)
        for stage in sorted(stages, key=lambda stage: stage == OTHER)
        if any(per_arm.get(stage) is not None for per_arm in times) or stage in STAGES
    )


def _time_cell(time: StageTime | None) -> str | None:
    if time is None:
        return None
    seconds = f"{time.seconds:.{2 if time.seconds >= 0.1 else 3}f} s" if time.seconds >= 0.001 else "< 0.001 s"
    return seconds if time.share is None else f"{seconds} ({time.share:.1%})"
