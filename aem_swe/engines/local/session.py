"""What it takes to play episodes with the embedded engine: a model, its samplers, sandboxes and worker threads."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aem_swe.agents.definition import AgentDefinition
from aem_swe.drivers import run_cohorts
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import LocalModel
from aem_swe.engines.problems import Problems
from aem_swe.engines.setting import open_setting
from aem_swe.engines.validation import validation_metrics
from aem_swe.errors import TaskError
from aem_swe.profiling import Stopwatch, span
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.schema import Recipe
from aem_swe.tasks.grading import PatchGrader, Problem
from aem_swe.types import Trajectory

if TYPE_CHECKING:
    from aem_swe.eval.swebench.validation import Validation

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
    graders: ThreadPoolExecutor
    """For rewards: a tool call that the policy waits for must not wait behind tests that nobody waits for."""
    validation: "Validation | None" = None


@contextmanager
def open_session(recipe: Recipe, model: LocalModel, problems: Problems) -> Iterator[Session]:
    """Open sandboxes and samplers with room for all prompts. Raises SandboxUnavailable or ConfigError."""
    with (
        ThreadPoolExecutor(recipe.sandbox.workers, thread_name_prefix="sandbox") as workers,
        ThreadPoolExecutor(recipe.sandbox.workers, thread_name_prefix="reward") as graders,
        open_setting(recipe, model.chat) as setting,
    ):
        try:
            samplers = _samplers(recipe, setting.definition, model, problems)
            yield Session(recipe, model, setting, samplers, workers, graders, problems.validation)
        finally:  # before the sandboxes go, so that no queued episode finds them gone
            for threads in (workers, graders):
                threads.shutdown(wait=False, cancel_futures=True)
            if problems.validation:
                problems.validation.grader.close()


def _samplers(recipe: Recipe, definition: AgentDefinition, model: LocalModel, problems: Problems) -> list[Sampler]:
    """One sampler per cohort, with room for the longest prompt and the response budget."""
    everything = [*problems.pool, *([] if problems.validation else problems.held_out)]
    prompts = [model.chat.first_prompt(definition.system, definition.first_message(p.task)) for p in everything]
    context = max(len(prompt) for prompt in prompts) + recipe.agent.response_budget
    if problems.validation:
        context = max(context, problems.validation.protocol.play.context)
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
    setting: Setting | None = None,
    first_group: int = 0,
) -> list[Trajectory]:
    """Play `rollouts` episodes of every problem with the current weights; groups are numbered on from `first_group`.

    Raises TaskError for a reward that is not a finite number.
    """
    setting = setting or session.setting
    with span("agent"):
        runs = [
            EpisodeRun(setting, problem.task, problem.grader, group, rollout, (*seed, group, rollout))
            for group, problem in enumerate(problems, first_group)
            for rollout in range(rollouts)
        ]
        sandboxes_each = 1 if isinstance(problems[0].grader, PatchGrader) else 2  # the agent's and the grading's
        setting.sandboxes.expect([run.task for run in runs for _ in range(sandboxes_each)])
    samplers = session.samplers
    rows = samplers[0].rows
    cohorts = [runs[i : i + rows] for i in range(0, len(runs), rows)]
    trajectories: list[Trajectory] = []
    for i in range(0, len(cohorts), len(samplers)):
        for sampler in samplers:
            sampler.reset(version)
        trajectories += run_cohorts(
            cohorts[i : i + len(samplers)], samplers, session.workers, stopwatch, session.graders
        )
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
    """Play held-out problems with the same random streams every time, so every evaluation is paired with every other.

    With a validation they are played by its protocol.
    """
    rules, temperature = session.validation, session.recipe.sampling.temperature
    for sampler in session.samplers:
        sampler.temperature = rules.protocol.play.temperature if rules else temperature
    try:
        trajectories = play(
            session,
            problems,
            session.recipe.trainer.eval_rollouts,
            seed=(EVALUATION,),
            version=version,
            stopwatch=Stopwatch(),
            setting=rules.setting(session.setting) if rules else None,
        )
    finally:
        for sampler in session.samplers:
            sampler.temperature = temperature
    return validation_metrics(trajectories), trajectories
