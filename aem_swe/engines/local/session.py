"""What it takes to play episodes with the embedded engine: a model, its samplers, sandboxes and worker threads."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aem_swe.agents.definition import AgentDefinition
from aem_swe.drivers import run_cohorts
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import LocalModel
from aem_swe.engines.setting import open_setting
from aem_swe.errors import TaskError
from aem_swe.profiling import Stopwatch
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.schema import Recipe
from aem_swe.tasks.grading import Problem
from aem_swe.types import Trajectory

TRAINING, EVALUATION = 0, 1
"""First word of an episode's seed, so that the two never share a random stream."""


@dataclass(frozen=True, slots=True)
class Session:
    """Open resources; made by `open_session`."""

    recipe: Recipe
    model: LocalModel
    setting: Setting
    samplers: list[Sampler]
    workers: ThreadPoolExecutor


@contextmanager
def open_session(recipe: Recipe, model: LocalModel, problems: Sequence[Problem]) -> Iterator[Session]:
    """Open sandboxes and samplers with room for the prompts of `problems`. Raises SandboxUnavailable or ConfigError."""
    with (
        ThreadPoolExecutor(recipe.sandbox.workers, thread_name_prefix="sandbox") as workers,
        open_setting(recipe, model.chat) as setting,
    ):
        try:
            yield Session(recipe, model, setting, _samplers(recipe, setting.definition, model, problems), workers)
        finally:  # before the sandboxes go, so that no queued episode finds them gone
            workers.shutdown(wait=False, cancel_futures=True)


def _samplers(
    recipe: Recipe, definition: AgentDefinition, model: LocalModel, problems: Sequence[Problem]
) -> list[Sampler]:
    """One sampler per cohort, with room for the longest prompt and the response budget."""
    prompts = [model.chat.first_prompt(definition.system, definition.first_message(p.task)) for p in problems]
    context = max(len(prompt) for prompt in prompts) + recipe.agent.response_budget
    s = recipe.sampling
    rows = s.prompts * s.rollouts // s.cohorts
    return [
        Sampler(model, rows=rows, context=context, temperature=s.temperature, seed=recipe.seed)
        for _ in range(s.cohorts)
    ]


def play(
    session: Session,
    problems: Sequence[Problem],
    rollouts: int,
    *,
    seed: tuple[int, ...],
    version: int,
    stopwatch: Stopwatch,
) -> list[Trajectory]:
    """Play `rollouts` episodes of every problem with the current weights; group = index of the problem, in order.

    Raises TaskError for a reward that is not a finite number.
    """
    runs = [
        EpisodeRun(session.setting, problem.task, problem.grader, group, rollout, (*seed, group, rollout))
        for group, problem in enumerate(problems)
        for rollout in range(rollouts)
    ]
    session.setting.sandboxes.expect([run.task for run in runs for _ in ("agent", "grading")])
    samplers = session.samplers
    rows = samplers[0].rows
    cohorts = [runs[i : i + rows] for i in range(0, len(runs), rows)]
    trajectories: list[Trajectory] = []
    for i in range(0, len(cohorts), len(samplers)):
        for sampler in samplers:
            sampler.reset(version)
        trajectories += run_cohorts(cohorts[i : i + len(samplers)], samplers, session.workers, stopwatch)
    _require_finite_rewards(trajectories)
    for trajectory in trajectories:
        for name in ("sandbox", "tools", "reward"):
            stopwatch.add(f"rollout_{name}", trajectory.seconds.get(name, 0.0))
    return trajectories


def _require_finite_rewards(trajectories: Sequence[Trajectory]) -> None:
    for trajectory in trajectories:
        if trajectory.reward is not None and not math.isfinite(trajectory.reward):
            raise TaskError(
                f"{trajectory.task_id}: its grader gave the reward {trajectory.reward}; mend the grader"
                " (1 or 0, or None where the infrastructure failed)"
            )


def evaluate(session: Session, problems: Sequence[Problem], *, version: int) -> tuple[dict[str, Any], list[Trajectory]]:
    """Play held-out problems with the same random streams every time, so every evaluation is paired with every
    other."""
    trajectories = play(
        session,
        problems,
        session.recipe.trainer.eval_rollouts,
        seed=(EVALUATION,),
        version=version,
        stopwatch=Stopwatch(),
    )
    rewards = [t.reward for t in trajectories if t.reward is not None]
    unfinished = sum(t.reward_reason == "not_graded" for t in trajectories)
    metrics = {
        "val/pass@1": sum(rewards) / len(rewards) if rewards else None,
        "val/episodes": len(rewards),
        "val/infrastructure_error": len(trajectories) - len(rewards),
        "val/unfinished_rate": unfinished / len(rewards) if rewards else None,
    }
    return {key: value for key, value in metrics.items() if value is not None}, trajectories
