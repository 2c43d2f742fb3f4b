"""What a run on the cluster leaves in its run folder: the same rows and trajectories as the embedded engine.

The metrics are rLLM's and verl's own, plus ours; names that both engines have mean the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aem_swe.algorithms.aem import Modulation
from aem_swe.algorithms.filters import TRUNCATIONS
from aem_swe.engines.rllm.rows import Layout
from aem_swe.engines.trajectories import Json, trajectory_json
from aem_swe.engines.update import judge
from aem_swe.engines.validation import validation_metrics
from aem_swe.metrics import RunFolder
from aem_swe.schema import Recipe
from aem_swe.types import Trajectory

PerTurn = Mapping[tuple[str, int], Json]
"""(uid of rLLM's trajectory, number of the turn) -> its entropy, alpha and age."""


class Recorder:
    """Writes into the run folder of a recipe; the folder exists and is held by whoever started the run."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._folder = RunFolder(Path(recipe.run_dir))
        self._row: Json = {"step": 0}

    def step(
        self,
        step: int,
        metrics: Mapping[str, Any],
        played: Sequence[tuple[str, Trajectory]],
        per_turn: PerTurn,
        advantages: Mapping[str, float],
    ) -> None:
        """Record a training step. played: uid and episode, all of the step; empty: only the metrics."""
        row: Json = {"step": step, **_numbers(metrics)}
        if played:
            trajectories = _numbered([trajectory for _, trajectory in played])
            verdict = judge(
                trajectories,
                self._recipe.algorithm,
                drop_uniform_groups=self._recipe.sampling.drop_uniform_groups,
            )
            row |= {**rollout_metrics(trajectories), **verdict.ledger(), "filter/small_groups": verdict.small_groups}
            row["filter/uniform_groups"] = verdict.uniform_groups
            lines = [
                trajectory_json(
                    trajectory,
                    {turn: per_turn[uid, turn] for turn in range(len(trajectory.turns)) if (uid, turn) in per_turn},
                    verdict=reason,
                    advantage=advantages.get(uid, 0.0),
                )
                for (uid, _), trajectory, reason in zip(played, trajectories, verdict.reason, strict=True)
            ]
            self._folder.write_trajectories(f"step_{step:06d}", lines)
        self._row = row
        self._folder.append(row)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Add what became known after the row of the last step was written; names that it has keep their values."""
        later = {name: value for name, value in _numbers(metrics).items() if name not in self._row}
        self._folder.amend(self._row["step"], later)

    def evaluation(self, step: int, played: Sequence[Trajectory]) -> None:
        """Record an evaluation after `step` (0: of the starting policy), in the row of that step."""
        trajectories = _numbered(played)
        self._folder.write_trajectories(f"eval_{step:06d}", [trajectory_json(t) for t in trajectories])
        self._folder.amend(step, validation_metrics(trajectories))


def _numbered(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The same with the numbers that rLLM does not know: the prompt's, and the rollout's within it."""
    groups: dict[str, int] = {}
    counts: dict[str, int] = {}
    out = []
    for trajectory in trajectories:
        group = groups.setdefault(trajectory.task_id, len(groups))
        rollout = counts[trajectory.task_id] = counts.get(trajectory.task_id, -1) + 1
        out.append(replace(trajectory, group=group, rollout=rollout))
    return out


def rollout_metrics(trajectories: Sequence[Trajectory]) -> Json:
    """What the episodes of a step say by themselves. A mean over nothing is left out."""
    rewards = [t.reward for t in trajectories if t.reward is not None]
    lengths = [len(turn.response_ids) for t in trajectories for turn in t.turns]
    count = len(trajectories)
    metrics: Json = {
        "rollout/trajectories": count,
        "rollout/retries": sum(len(t.retries) for t in trajectories),
        "response/tokens": sum(lengths),
    }
    if rewards:
        metrics["critic/rewards/mean"] = sum(rewards) / len(rewards)
    if count:
        metrics["rollout/truncation_rate"] = sum(str(t.termination) in TRUNCATIONS for t in trajectories) / count
        metrics["rollout/turns_mean"] = sum(len(t.turns) for t in trajectories) / count
    if lengths:
        metrics["response/length_mean"] = sum(lengths) / len(lengths)
    return metrics


def turns_of(layout: Layout, modulation: Modulation, ages: Mapping[int, int]) -> dict[tuple[str, int], Json]:
    """Entropy, alpha and age (weight versions, None: unknown) of every response, by trajectory and turn."""
    numbers = modulation.responses.id_R.tolist()
    values = zip(numbers, modulation.entropy_R.tolist(), modulation.alpha_R.tolist(), strict=True)
    return {
        layout.step_of_response[number]: {"entropy": entropy, "alpha": alpha, "staleness": ages.get(number)}
        for number, entropy, alpha in values
        if number in layout.step_of_response
    }


def _numbers(metrics: Mapping[str, Any]) -> Json:
    """What can stand in a row of metrics.jsonl: finite numbers."""
    found: Json = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            found[name] = number
    return found
