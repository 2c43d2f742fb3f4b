"""Our agent as an rLLM AgentFlow: the same episodes as everywhere else, with the policy behind rLLM's gateway.

The gateway gives every rollout a URL of its own, sends its requests to one of the vLLM servers and says which weights
answered. Requests are token ids (/v1/completions), so the ids of turn k start with all ids of turn k-1, whatever the
model's chat template does with earlier thinking; the gateway's own accumulator of tokens is not needed.

The reward is made in the flow, in a fresh sandbox; the evaluator only hands it over. An episode that failed for reasons
of infrastructure ends as ERROR, which rLLM's compact filtering drops before the baseline.
"""

import itertools
import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal  # rLLM's objects have no types

import httpx
from rllm.engine.rollout import ModelOutput
from rllm.eval.types import EvalOutput
from rllm.types import Episode, Step
from rllm.types import Trajectory as RllmTrajectory
from rllm.workflows.workflow import TerminationReason
from rllm_model_gateway import GatewayClient

from aem_swe.agents.endpoint import EndpointPolicy
from aem_swe.algorithms.filters import TRUNCATIONS
from aem_swe.drivers import run_thread
from aem_swe.engines.problems import load_problems
from aem_swe.engines.rllm.backend import MASKED
from aem_swe.engines.rllm.estimators import ROLE
from aem_swe.engines.setting import open_setting
from aem_swe.engines.tokenizer import load_chat
from aem_swe.errors import RunError
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.schema import Recipe
from aem_swe.tasks.grading import PatchGrader, Problem
from aem_swe.types import Termination, Trajectory

_LOG = logging.getLogger(__name__)
EPISODE = "aem_swe"
"""Key in an episode's artifacts: our own Trajectory."""
_SESSION = "gateway"
"""Key in an episode's artifacts: (address, session) of the gateway."""
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
        run = EpisodeRun(
            setting, problems[name].task, problems[name].grader, 0, rollout, (next(self._numbers), rollout)
        )
        with EndpointPolicy(
            base_url=config.base_url, model=config.model, chat=setting.chat, temperature=temperature, seed=None
        ) as policy:
            trajectory = run_thread(run, policy)
        return self._episode_of(trajectory, task, config)

    def _episode_of(self, trajectory: Trajectory, task: Any, config: Any) -> Episode:
        masked = self._recipe.algorithm.filter == "mask" and str(trajectory.termination) in TRUNCATIONS
        ours = RllmTrajectory(
            name=self.name,
            task=task.metadata,
            reward=trajectory.reward or 0.0,  # of an infrastructure error nobody reads it: the episode is dropped
            metadata={MASKED: masked, "termination": str(trajectory.termination), "reason": trajectory.reward_reason},
        )
        seconds = {f"swe/{stage}_s": float(value) for stage, value in trajectory.seconds.items()}
        return Episode(
            task=task.metadata,
            trajectories=[ours],
            is_correct=trajectory.reward == 1.0,
            termination_reason=REASONS[trajectory.termination],
            artifacts={EPISODE: trajectory, _SESSION: (config.base_url.partition("/sessions/")[0], config.session_uid)},
            metrics={"swe/turns": len(trajectory.turns), "swe/retries": len(trajectory.retries), **seconds},
        )


class HandOver:
    """rLLM's evaluator: the reward is there already; put our own record of the turns in the place of the traces.

    A request that the client had to send twice leaves two traces. What was played is what we recorded; the gateway
    only adds which weights answered. Its traces hold every prompt in full and are deleted at once: an hour of them is
    more than a node's memory, and rLLM deletes none in fully asynchronous training.
    """

    def evaluate(self, task: Any, episode: Episode) -> EvalOutput:
        ours: Trajectory = episode.artifacts[EPISODE]
        trajectory = episode.trajectories[0]
        versions = {
            (tuple(step.prompt_ids), tuple(step.response_ids)): step.weight_version for step in trajectory.steps
        }
        trajectory.steps = [
            Step(
                model_output=ModelOutput(
                    content=turn.text,
                    prompt_ids=list(turn.prompt_ids),
                    completion_ids=list(turn.response_ids),
                    logprobs=list(turn.logprobs),
                    prompt_length=len(turn.prompt_ids),
                    completion_length=len(turn.response_ids),
                    finish_reason=turn.finish_reason,
                    weight_version=versions.get((turn.prompt_ids, turn.response_ids)),
                ),
                model_response=turn.text,
                observation=turn.observation,
            )
            for turn in ours.turns
        ]
        address, session = episode.artifacts.pop(_SESSION)
        try:
            with GatewayClient(address) as gateway:
                gateway.delete_session(session)
        except httpx.HTTPError as error:  # memory of the gateway's, and no reason to lose an episode
            _LOG.warning("the traces of %s could not be deleted: %s", session, error)
        return EvalOutput(reward=trajectory.reward or 0.0, is_correct=ours.reward == 1.0)


def row_of(problem: Problem, split: Literal["train", "held_out"]) -> dict[str, str]:
    """A row of rLLM's data set: the name of a task. Its files and tests stay with whoever plays it."""
    return {"id": problem.task.id, "task": problem.task.id, "data_source": split}
