"""The stages of a run: what all its counted steps together say about each."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aem_swe.eval.profile.spans import CONTAINERS
from aem_swe.eval.profile.step import Tally

Floats = npt.NDArray[np.float64]

ORDER = (
    "worker/queue", "sandbox/open", "sandbox/image", "sandbox/queue", "sandbox/create", "sandbox/start",
    "sandbox/prepare", "policy", "policy/queue", "policy/prefill", "policy/decode", "policy/request", "generate",
    "agent/prepare", "agent/queue", "agent", "agent/traces", "agent/hand_over", "tool", "diff", "reward/queue",
    "reward/start", "reward/tests", "sandbox/close", "collect", "batch", "buffer", "old_log_prob", "ref_log_prob",
    "filter", "advantage", "aem", "update/forward", "update/backward", "update/optimizer", "update/actor", "drain",
    "weight_sync", "checkpoint", "evaluation", "record",
)  # fmt: skip
"""As they happen in a step."""


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One stage over the counted steps."""

    stage: str
    path_s: float
    """Critical path, mean seconds per step."""
    share: float
    """Of the wall time, as a fraction."""
    work_s: float
    """Self times summed over threads, mean seconds per step."""
    count: int
    """Spans behind the percentiles: the latency spans (one a turn) if there are any, else those of the stage that were
    waited for and that did something for the first time."""
    p50: float
    """Seconds of one span, what lies inside it left out, as are the following."""
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Samples:
    """What growth.py needs of single spans, over the counted steps."""

    turn_s: Mapping[str, Mapping[int, Floats]]
    """Seconds by stage (tools together as "tool") and turn: as in the percentiles."""
    decode_tokens: Floats
    """Of each span that sampled in one turn, in the order of decode_s."""
    decode_s: Floats
    episode_s: tuple[Floats, ...]
    """By counted step: seconds of each episode, ascending."""


def sum_stages(tallies: Sequence[Tally]) -> dict[str, StageProfile]:
    """Every stage that was recorded, in the order in which they happen in a step."""
    wall_s = sum(tally.profile.wall_s for tally in tallies)
    names = {stage for tally in tallies for stage in (*tally.profile.path_s, *tally.profile.work_s, *tally.span_s)}
    stages = {}
    for stage in sorted(names - CONTAINERS, key=place):
        path_s = sum(tally.profile.path_s.get(stage, 0.0) for tally in tallies)
        work_s = sum(tally.profile.work_s.get(stage, 0.0) for tally in tallies)
        seconds = join(tally.span_s[stage] for tally in tallies if stage in tally.span_s)
        p50, p95, p99, most = np.percentile(seconds, (50, 95, 99, 100)).tolist() if seconds.size else (0.0,) * 4
        share = path_s / wall_s if wall_s else 0.0
        steps = len(tallies)
        stages[stage] = StageProfile(stage, path_s / steps, share, work_s / steps, seconds.size, p50, p95, p99, most)
    return stages


def place(stage: str) -> tuple[int, str]:
    """Where a stage comes in a step; one that we have no name for comes after its family, or last."""
    if stage in ORDER:
        return ORDER.index(stage), ""
    family = stage.partition("/")[0]
    related = [index for index, known in enumerate(ORDER) if known.partition("/")[0] == family]
    return (related[-1] if related else len(ORDER), stage)


def pool_samples(tallies: Sequence[Tally]) -> Samples:
    turns: dict[str, dict[int, list[array[float]]]] = {}
    for tally in tallies:
        for stage, by_turn in tally.turn_s.items():
            for turn, seconds in by_turn.items():
                turns.setdefault(stage, {}).setdefault(turn, []).append(seconds)
    return Samples(
        turn_s={
            stage: {turn: join(turns[stage][turn]) for turn in sorted(turns[stage])}
            for stage in sorted(turns, key=place)
        },
        decode_tokens=join(tally.decode_tokens for tally in tallies),
        decode_s=join(tally.decode_s for tally in tallies),
        episode_s=tuple(np.array(tally.episode_s) for tally in tallies),
    )


def join(parts: Iterable["array[float]"]) -> Floats:
    return np.concatenate([np.empty(0), *(np.frombuffer(part) for part in parts if len(part))])
