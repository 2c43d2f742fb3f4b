"""The episodes of a step's rollout, and the one that ended last."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from aem_swe.eval.profile.path import innermost
from aem_swe.eval.profile.spans import CONTAINERS, EVALUATION, Span, StepSpans

REWARD = "reward/"


@dataclass(frozen=True, slots=True)
class Straggler:
    """The episode of a step's rollout that ended last."""

    step: int
    episode: str
    task: str
    turn: int | None
    """Of its longest stretch; None where that stretch belongs to no turn."""
    stage: str
    """Of its longest stretch within one span, such as tool/bash; empty where no stage is recorded for it."""
    stage_s: float
    seconds: float
    """From the start of the episode's first span to the end of its last."""
    median_s: float
    """The same of the step's median episode."""
    tail_s: float
    """Rollout seconds from when 90% of the step's episodes had ended to when the last one had, rewards left out: no
    limit of an episode bounds what comes after it. 0 below ten episodes, of which 90% are all."""


def episode_spans(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """The spans of each episode of the rollout, what was done ahead for it left aside."""
    found: dict[str, list[Span]] = {}
    for span in spans:
        episode = span.episode
        if episode and not span.background and span.phase != EVALUATION:
            if episode in found:
                found[episode].append(span)
            else:
                found[episode] = [span]
    return found


@dataclass(frozen=True, slots=True)
class Lives:
    """From when to when each episode of a step lived, in Unix seconds."""

    begin: Mapping[str, float]
    end: Mapping[str, float]

    def seconds(self) -> list[float]:
        """How long each lived, ascending."""
        return sorted(self.end[episode] - begin for episode, begin in self.begin.items())


def measure_lives(episodes: Mapping[str, list[Span]]) -> Lives:
    return Lives(
        {episode: min([span.start for span in spans]) for episode, spans in episodes.items()},
        {episode: max([span.start + span.seconds for span in spans]) for episode, spans in episodes.items()},
    )


def count_turns(episodes: Mapping[str, list[Span]]) -> int:
    """Turns of all episodes together."""
    return sum(len({span.turn for span in spans} - {None}) for spans in episodes.values())


def largest_group(episodes: Iterable[str]) -> int:
    """Episodes of one task, from their names group/rollout; 0 without episodes."""
    sizes: dict[str, int] = {}
    for episode in episodes:
        group = episode.partition("/")[0]
        sizes[group] = sizes.get(group, 0) + 1
    return max(sizes.values(), default=0)


def find_straggler(
    step: StepSpans, episodes: Mapping[str, list[Span]], lives: Lives, rollout_end: float
) -> Straggler | None:
    """The episode that ended last, of those the longest; `rollout_end` in Unix seconds. None without episodes."""
    if not episodes:
        return None
    name = max(episodes, key=lambda one: (lives.end[one], -lives.begin[one], one))
    spans = episodes[name]
    stretches = [stretch for stretch in innermost(spans, step) if stretch.span and stretch.span.stage not in CONTAINERS]
    longest = max(stretches, key=lambda stretch: (stretch.end - stretch.begin, -stretch.begin), default=None)
    span = longest.span if longest else None
    ends = sorted(min(_play_end(one), rollout_end) for one in episodes.values())
    most_had_ended = ends[-(-9 * len(ends) // 10) - 1]  # ceil(0.9 n) of them
    return Straggler(
        step=step.step,
        episode=name,
        task=min({one.task for one in spans} - {""}, default=""),
        turn=span.turn if span else None,
        stage=span.stage if span else "",
        stage_s=longest.end - longest.begin if longest else 0.0,
        seconds=lives.end[name] - lives.begin[name],
        median_s=median(lives.seconds()),
        tail_s=ends[-1] - most_had_ended,
    )


def _play_end(spans: Iterable[Span]) -> float:
    """When an episode wanted no more of the policy: its last moment that is not of its reward, in Unix seconds.

    The agent's span goes on around the reward, so nothing counts after the reward began.
    """
    reward = [span.start for span in spans if span.stage.startswith(REWARD)]
    play = [span.stop for span in spans if not span.stage.startswith(REWARD)]
    return min([max(play), *reward]) if play else min(reward)
