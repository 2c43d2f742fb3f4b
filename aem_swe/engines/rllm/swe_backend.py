"""The backend of our own runs: with sandboxes started ahead, a run folder, and an end to a run that plays nothing."""

import asyncio
from typing import Any  # rLLM's objects have no types

from omegaconf import OmegaConf
from rllm.workflows.workflow import TerminationReason

from aem_swe.config import validate_recipe
from aem_swe.engines.rllm import estimators  # noqa: F401  # registers them in the process of the trainer
from aem_swe.engines.rllm.backend import AEMVerlBackend
from aem_swe.engines.rllm.flow import EPISODE, SweFlow
from aem_swe.engines.rllm.recorder import Recorder, turns_of
from aem_swe.errors import RunError
from aem_swe.types import Trajectory

SECTION = "aem_swe"
"""Where launch.py puts the recipe into rLLM's configuration: our backend's constructor gets nothing else."""


class SweBackend(AEMVerlBackend):
    """AEMVerlBackend for SweFlow."""

    def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
        values: Any = OmegaConf.to_container(config[SECTION]["recipe"], resolve=True)
        self._recorder = Recorder(validate_recipe(values))
        self._evaluated: list[Trajectory] = []
        super().__init__(config, *arguments, **named)

    async def generate_episodes(
        self, batch: Any, agent_workflow_engine: Any, is_validation: bool = False, **named: Any
    ) -> Any:
        """Let the flow start its sandboxes, and refuse a step in which nothing could be played."""
        flow: SweFlow = agent_workflow_engine.agent_flow
        times = self.config.rllm.rollout.n_val if is_validation else self.config.rllm.rollout.n
        await asyncio.to_thread(flow.expect, [row["task"] for row in batch for _ in range(times)])
        episodes = await super().generate_episodes(batch, agent_workflow_engine, is_validation, **named)
        if episodes and all(episode.termination_reason is TerminationReason.ERROR for episode in episodes):
            raise RunError(
                f"no episode of this step could be played or graded ({_last_words(episodes[-1])}); mend that, then use "
                "--resume"
            )
        if is_validation:
            self._evaluated += [episode.artifacts[EPISODE] for episode in episodes if EPISODE in episode.artifacts]
        return episodes

    async def on_batch_end(self, trainer_state: Any) -> None:
        await super().on_batch_end(trainer_state)
        episodes = trainer_state.episodes or []
        whole = [episode for episode in episodes if EPISODE in episode.artifacts and episode.trajectories]
        ages = {
            number: None if version is None else max(0, trainer_state.weight_version - version)
            for number, version in self.versions_of_responses().items()
        }
        per_turn = turns_of(self.layout, self.modulation, ages) if self.layout and self.modulation else {}
        advantages = {
            trajectory.uid: float(step.advantage)
            for episode in whole
            for trajectory in episode.trajectories
            for step in trajectory.steps[:1]
            if isinstance(step.advantage, int | float)
        }
        played = [(episode.trajectories[0].uid, episode.artifacts[EPISODE]) for episode in whole]
        self._recorder.step(trainer_state.global_step, trainer_state.metrics, played, per_turn, advantages)

    async def on_validation_end(self, trainer_state: Any) -> None:
        await super().on_validation_end(trainer_state)
        self._recorder.evaluation(trainer_state.global_step, self._evaluated)
        self._evaluated = []


def _last_words(episode: Any) -> str:
    """Why an episode failed, as far as it says."""
    ours = episode.artifacts.get(EPISODE)
    if ours is not None and ours.retries:
        return str(ours.retries[-1])
    return str((episode.metadata.get("error") or {}).get("message") or "no reason recorded")
