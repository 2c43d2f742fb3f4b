"""Our agent as an rLLM AgentFlow: the same episodes as everywhere else, with the policy behind rLLM's gateway.

The gateway gives every rollout a URL of its own, sends its requests to one of the vLLM servers and says which weights
answered. Requests are token ids (/v1/completions), so the ids of turn k start with all ids of turn k-1, whatever the
model's chat template does with earlier thinking; the gateway's own accumulator of tokens is not needed.

The reward is made in the flow, in a fresh sandbox; the evaluator only hands it over. An episode that failed for reasons
of infrastructure ends as ERROR, which rLLM's compact filtering drops before the baseline.
"""

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal  # rLLM's objects have no types

from rllm.types import Episode
from rllm.types import Trajectory as RllmTrajectory
from rllm.workflows.workflow import TerminationReason

from aem_swe.agents.endpoint import EndpointPolicy
from aem_swe.algorithms.filters import TRUNCATIONS
from aem_swe.drivers import run_thread
from aem_swe.engines.problems import load_problems
from aem_swe.engines.rllm.backend import MASKED
from aem_swe.engines.rllm.estimators import NEEDS_CONTRAST, PUNISHMENT, ROLE
from aem_swe.engines.rllm.hand_over import EPISODE, PLAYED, Played
from aem_swe.engines.setting import open_setting
from aem_swe.engines.tokenizer import load_chat
from aem_swe.engines.update import overlong_penalties
from aem_swe.errors import RunError
from aem_swe.profiling import Value, record, span
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.schema import Recipe
from aem_swe.tasks.grading import PatchGrader, Problem
from aem_swe.types import Termination, Trajectory

REASONS = {
    Termination.FINISHED: TerminationReason.ENV_DONE,
    Termination.MAX_STEPS: TerminationReason.MAX_TURNS_EXCEEDED,
    Termination.TOKEN_BUDGET: TerminationReason.MAX_RESPONSE_LENGTH_EXCEEDED,
    Termination.TIMEOUT: TerminationReason.TIMEOUT,
    Termination.FORMAT_ERRORS: TerminationReason.UNKNOWN,
    Termination.INFRASTRUCTURE_ERROR: TerminationReason.ERROR,
}
"""How rLLM calls the end of an episode."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a process needs to play."""

    setting: Setting
    validation: Setting
    """Of held-out episodes."""
    validation_temperature: float | None
    """None: as rLLM is configured."""
    pool: dict[str, Problem]
    held_out: dict[str, Problem]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the episodes are for that begin now, said by the backend. Nobody says it in fully asynchronous training:
    its episodes belong to no step."""

    about: Mapping[str, Value] = field(default_factory=lambda: {"phase": "rollout"})
    """Step and phase."""
    at: float | None = None
    """time.perf_counter() when they were asked for, all at once; None: one by one."""


class SweFlow:
    """Plays episodes of a recipe. Pickles without what it holds open; opens that in the first process that plays."""

    name = ROLE

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._resources = ExitStack()
        self._opened: Opened | None = None
        self._numbers = itertools.count()
        self.asked = Asked()

    def __getstate__(self) -> Recipe:
        return self._recipe

    def __setstate__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._forget()

    def _open(self) -> "Opened":
        with self._lock:
            if self._opened is None:
                problems = load_problems(self._recipe)
                chat = load_chat(self._recipe.model.path)
                setting = self._resources.enter_context(open_setting(self._recipe, chat))
                rules = problems.validation
                if rules:
                    self._resources.callback(rules.grader.close)
                self._opened = Opened(
                    setting,
                    rules.setting(setting) if rules else setting,
                    rules.protocol.play.temperature if rules else None,
                    {problem.task.id: problem for problem in problems.pool},
                    {problem.task.id: problem for problem in problems.held_out},
                )
            return self._opened

    def close(self) -> None:
        """End all sandboxes."""
        with self._lock:
            self._opened = None
            self._resources.close()

    def expect(self, task_ids: Sequence[str], *, held_out: bool = False) -> None:
        """Start sandboxes ahead for episodes of these tasks: one for the agent and one for the grading of each."""
        opened = self._open()
        problems = opened.held_out if held_out else opened.pool
        chosen = [problems[name] for name in task_ids]
        opened.setting.sandboxes.expect(
            [one.task for one in chosen for _ in range(1 if isinstance(one.grader, PatchGrader) else 2)]
        )

    def run(self, task: Any, config: Any) -> Episode:
        """Play one episode. task: rLLM's, of a row that `row_of` made. config: where the policy answers, and how."""
        opened, name = self._open(), task.metadata["task"]
        validates = task.metadata.get("data_source") == "held_out"
        problems = opened.held_out if validates else opened.pool
        if name not in problems:
            raise RunError(f"task {name!r} is not in data.source {self._recipe.data.source!r} as this machine reads it")
        rollout = int(config.session_uid.rpartition(":")[2])
        temperature = float(config.sampling_params.get("temperature", self._recipe.sampling.temperature))
        setting = opened.setting
        if validates:
            setting, ruled = opened.validation, opened.validation_temperature
            temperature = temperature if ruled is None else ruled
        about = {**self.asked.about, "episode": config.session_uid, "task": name}
        if self.asked.at is not None:  # for a thread of rLLM's, its hooks and a session of the gateway
            record("agent/queue", self.asked.at, time.perf_counter() - self.asked.at, **about)
        with span("agent", **about):
            seed = (next(self._numbers), rollout)
            run = EpisodeRun(
                setting, problems[name].task, problems[name].grader, 0, rollout, seed, name=config.session_uid
            )
            policy = EndpointPolicy(
                base_url=config.base_url, model=config.model, chat=setting.chat, temperature=temperature, seed=None
            )
        with policy:
            trajectory = run_thread(run, policy)
        return self._episode_of(trajectory, task, config, run.about)

    def _episode_of(self, trajectory: Trajectory, task: Any, config: Any, about: Mapping[str, Value]) -> Episode:
        masked = self._recipe.algorithm.filter == "mask" and str(trajectory.termination) in TRUNCATIONS
        ours = RllmTrajectory(
            name=self.name,
            task=task.metadata,
            reward=trajectory.reward or 0.0,  # of an infrastructure error nobody reads it: the episode is dropped
            metadata={
                MASKED: masked,
                "termination": str(trajectory.termination),
                "reason": trajectory.reward_reason,
                **self._punishment(trajectory),
            },
        )
        address = config.base_url.partition("/sessions/")[0]
        seconds = {f"swe/{stage}_s": float(value) for stage, value in trajectory.seconds.items()}
        return Episode(
            task=task.metadata,
            trajectories=[ours],
            is_correct=trajectory.reward == 1.0,
            termination_reason=REASONS[trajectory.termination],
            artifacts={
                EPISODE: trajectory,
                PLAYED: Played(address, config.session_uid, about, time.perf_counter()),
            },
            metrics={"swe/turns": len(trajectory.turns), "swe/retries": len(trajectory.retries), **seconds},
        )

    def _punishment(self, trajectory: Trajectory) -> dict[str, Any]:
        """What the estimator has to know of DAPO's overlong punishment; it makes none of an evaluation's episodes."""
        recipe = self._recipe
        if not recipe.algorithm.overlong_buffer:
            return {}
        penalty = overlong_penalties([trajectory], recipe.algorithm, budget=recipe.agent.response_budget)
        return {PUNISHMENT: float(penalty), NEEDS_CONTRAST: recipe.sampling.drop_uniform_groups}


def row_of(problem: Problem, split: Literal["train", "held_out"]) -> dict[str, str]:
    """A row of rLLM's data set: the name of a task. Its files and tests stay with whoever plays it."""
    return {"id": problem.task.id, "task": problem.task.id, "data_source": split}
