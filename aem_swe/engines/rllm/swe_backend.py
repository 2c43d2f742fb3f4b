"""The backend of our own runs: with sandboxes started ahead, a run folder, and an end to a run that plays nothing."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any  # rLLM's objects have no types

from omegaconf import OmegaConf
from rllm.engine import agentflow_engine
from rllm.workflows.workflow import TerminationReason

from aem_swe.config import validate_recipe
from aem_swe.engines.rllm import estimators  # noqa: F401  # registers them in the process of the trainer
from aem_swe.engines.rllm.backend import AEMVerlBackend
from aem_swe.engines.rllm.flow import EPISODE, SweFlow
from aem_swe.engines.rllm.recorder import Recorder, turns_of
from aem_swe.errors import RunError
from aem_swe.types import Termination, Trajectory

SECTION = "aem_swe"
"""Where train.py puts the recipe into rLLM's configuration: our backend's constructor gets nothing else."""
_enrich = agentflow_engine.enrich_episode_with_traces


def _enrich_leniently(*arguments: Any, strict: bool = True, **named: Any) -> Any:
    """The gateway keeps a trace of every answer, of refusals too, and rLLM gives up an episode that has one. Our own
    record of the turns replaces the traces (flow.py), so a request that succeeded in its second try is no reason."""
    return _enrich(*arguments, strict=False, **named)


agentflow_engine.enrich_episode_with_traces = _enrich_leniently


class SweBackend(AEMVerlBackend):
    """AEMVerlBackend for SweFlow."""

    def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
        values: Any = OmegaConf.to_container(config[SECTION]["recipe"], resolve=True)
        recipe = validate_recipe(values)
        self._recorder = Recorder(recipe)
        self._played: list[tuple[str, Trajectory]] = []
        self._evaluated: list[Trajectory] = []
        if "gateway.port" not in recipe.cluster.rllm:
            # rLLM takes whatever answers at its port for its own gateway, be it another run's
            config.rllm.gateway.port = _free_port()
        super().__init__(config, *arguments, **named)

    async def generate_episodes(
        self, batch: Any, agent_workflow_engine: Any, is_validation: bool = False, **named: Any
    ) -> Any:
        """Let the flow start its sandboxes, and refuse a step in which nothing could be played."""
        flow: SweFlow = agent_workflow_engine.agent_flow
        times = self.config.rllm.rollout.n_val if is_validation else self.config.rllm.rollout.n
        await asyncio.to_thread(
            flow.expect, [row["task"] for row in batch for _ in range(times)], held_out=is_validation
        )
        episodes = await super().generate_episodes(batch, agent_workflow_engine, is_validation, **named)
        if episodes and all(episode.termination_reason is TerminationReason.ERROR for episode in episodes):
            raise RunError(
                f"no episode of this step could be played or graded ({_last_words(episodes[-1])}); mend that, then use "
                "--resume"
            )
        played = _played(episodes)  # now: rLLM takes trajectories out of its episodes later on
        if is_validation:
            self._evaluated += [trajectory for _, trajectory in played]
        else:
            self._played = played
        return episodes

    async def on_batch_end(self, trainer_state: Any) -> None:
        """Write the row first: the checkpoint and the transfer of the weights take minutes, and may fail."""
        episodes = trainer_state.episodes or []
        per_turn = turns_of(self.layout, self.modulation, self.ages) if self.layout and self.modulation else {}
        advantages = {
            trajectory.uid: float(step.advantage)
            for episode in episodes
            for trajectory in episode.trajectories
            for step in trajectory.steps[:1]
            if isinstance(step.advantage, int | float)
        }
        played, self._played = self._played or _played(episodes), []
        self._recorder.step(trainer_state.global_step, trainer_state.metrics, played, per_turn, advantages)
        await super().on_batch_end(trainer_state)
        self._recorder.add(trainer_state.metrics)

    async def on_validation_end(self, trainer_state: Any) -> None:
        await super().on_validation_end(trainer_state)
        self._recorder.evaluation(trainer_state.global_step, self._evaluated)
        self._evaluated = []


def _played(episodes: Sequence[Any]) -> list[tuple[str, Trajectory]]:
    """uid and record of each episode; one that failed in rLLM itself has none, and is an infrastructure error."""
    found = []
    for episode in episodes:
        ours = episode.artifacts.get(EPISODE)
        uid = episode.trajectories[0].uid if episode.trajectories else ""
        failed = Trajectory(
            episode.task_id, 0, 0, (), Termination.INFRASTRUCTURE_ERROR, None, "failed", retries=(_last_words(episode),)
        )
        found.append((uid, ours or failed))
    return found


def _last_words(episode: Any) -> str:
    """Why an episode failed, as far as it says."""
    ours = episode.artifacts.get(EPISODE)
    if ours is not None and ours.retries:
        return str(ours.retries[-1])
    return str((episode.metadata.get("error") or {}).get("message") or "no reason recorded")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
