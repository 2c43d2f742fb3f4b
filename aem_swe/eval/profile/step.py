"""One step of a run in numbers: its critical path, its summed work, its episodes, and samples of its single spans."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from aem_swe.eval.profile.episodes import (
    Straggler,
    count_turns,
    episode_spans,
    find_straggler,
    largest_group,
    measure_lives,
)
from aem_swe.eval.profile.intervals import length
from aem_swe.eval.profile.measures import (
    amounts,
    by_turn,
    gpu_seconds,
    idle_seconds,
    lane_times,
    sampled_tokens,
    sort_spans,
    sum_path,
    sum_work,
)
from aem_swe.eval.profile.path import RESIDUAL, Segment, critical_path
from aem_swe.eval.profile.spans import Span, StepSpans

PHASES = ("rollout", "old_log_prob", "aem", "update")


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Where one step's time went. All times are seconds."""

    step: int
    complete: bool
    start: float
    """Unix seconds."""
    wall_s: float
    residual_s: float
    """wall_s less the sum of path_s."""
    path_s: Mapping[str, float]
    """By stage: what the step waited for. Everything in an evaluation counts as the stage evaluation."""
    work_s: Mapping[str, float]
    """By stage: self times summed over threads. Overlaps, so it can exceed the wall."""
    phases_s: Mapping[str, float]
    """rollout, old_log_prob, aem, update: time of the step's thread in it, all that lies inside it included."""
    segments: tuple[Segment, ...]
    """The critical path; kept for the shown steps (the slowest, the median, the incomplete), else empty."""
    spans: tuple[Span, ...]
    """All spans of the step; kept for the shown steps, else empty."""
    straggler: Straggler | None
    """None where the step had no episodes."""
    tokens: int
    """Sampled in the rollout: of policy/decode, or of policy/request where that is all there is."""
    batch_tokens: int | None
    """Scored and trained on, prompts and observations included: of old_log_prob; None where it does not say."""
    episodes: int
    turns: int
    idle_s: float
    """Rollout seconds in which no policy/* span ran; policy/queue is waiting, so it does not count as running."""
    span_count: int
    gpu_s: float | None
    """Seconds on the GPU; None where no span recorded any."""
    gpu_peak_mb: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """A step with the samples that are pooled over steps."""

    profile: StepProfile
    blocks: tuple[int, int]
    """The bytes of the file between which its spans lie."""
    span_s: Mapping[str, "array[float]"]
    """By stage: seconds of single uses, as `Sorted.single` says."""
    turn_s: Mapping[str, Mapping[int, "array[float]"]]
    """The same by turn: of each policy/*, and of all tools together as "tool"."""
    decode_tokens: "array[float]"
    decode_s: "array[float]"
    episode_s: "array[float]"
    """Ascending."""
    group_size: int
    """0 where there were no episodes."""


def tally_step(step: StepSpans, *, keep: bool) -> Tally:
    """Measure one step; `keep` keeps its spans and segments too."""
    segments = critical_path(step)
    path_s = sum_path(segments)
    residual_s = path_s.pop(RESIDUAL, 0.0)
    kinds = sort_spans(step.spans)
    single = kinds.single()
    episodes = episode_spans(step.spans)
    lives = measure_lives(episodes)
    phases = lane_times(step, PHASES)
    rollout_end = step.start + phases["rollout"][-1][1] if phases["rollout"] else max(lives.end.values(), default=0.0)
    with_tokens = sampled_tokens(kinds)
    of_turns = [(span.seconds, tokens) for span, tokens in with_tokens if span.turn is not None]
    noted = [span for span in step.spans if span.attributes]
    scored = amounts(kinds.work.get("old_log_prob", ()), "tokens")
    profile = StepProfile(
        step=step.step,
        complete=step.complete,
        start=step.start,
        wall_s=step.wall_s,
        residual_s=residual_s,
        path_s=path_s,
        work_s=sum_work(kinds),
        phases_s={name: length(intervals) for name, intervals in phases.items()},
        segments=segments if keep else (),
        spans=step.spans if keep else (),
        straggler=find_straggler(step, episodes, lives, rollout_end),
        tokens=int(sum(tokens for _, tokens in with_tokens)),
        batch_tokens=int(sum(scored)) if scored else None,
        episodes=len(episodes),
        turns=count_turns(episodes),
        idle_s=idle_seconds(step, phases["rollout"], kinds),
        span_count=len(step.spans),
        gpu_s=gpu_seconds(step.spans, noted),
        gpu_peak_mb=max(amounts(noted, "gpu_peak_mb"), default=None),
    )
    return Tally(
        profile=profile,
        blocks=step.blocks,
        span_s={stage: array("d", [seconds for _, seconds in uses]) for stage, uses in single.items()},
        turn_s=by_turn(single),
        decode_tokens=array("d", [tokens for _, tokens in of_turns]),
        decode_s=array("d", [seconds for seconds, _ in of_turns]),
        episode_s=array("d", lives.seconds()),
        group_size=int(max(amounts(noted, "group_size"), default=0.0)) or largest_group(episodes),
    )
