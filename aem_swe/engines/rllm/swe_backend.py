"""The backend of our own runs: with sandboxes started ahead, a run folder, and an end to a run that plays nothing."""

import asyncio
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any  # rLLM's objects have no types

from omegaconf import OmegaConf
from rllm.engine import agentflow_engine
from rllm.workflows.workflow import TerminationReason

from aem_swe.config import validate_recipe
from aem_swe.engines.loop_spans import LoopSpans
from aem_swe.engines.rllm import estimators  # noqa: F401  # registers them in the process of the trainer
from aem_swe.engines.rllm.backend import AEMVerlBackend
from aem_swe.engines.rllm.flow import Asked, SweFlow
from aem_swe.engines.rllm.hand_over import ENDED, EPISODE
from aem_swe.engines.rllm.recorder import Recorder, turns_of
from aem_swe.errors import RunError
from aem_swe.metrics import RunFolder
from aem_swe.profiling import inherited, record, span
from aem_swe.types import Termination, Trajectory

SECTION = "aem_swe"
"""Where train.py puts the recipe into rLLM's configuration: our backend's constructor gets nothing else."""
_PEAK = "perf/max_memory_allocated_gb"
"""Of verl's workers during the update, in GiB."""
_enrich = agentflow_engine.enrich_episode_with_traces


def _enrich_leniently(*arguments: Any, strict: bool = True, **named: Any) -> Any:
    """The gateway keeps a trace of every answer, of refusals too, and rLLM gives up an episode that has one. Our own
    record of the turns replaces the traces (flow.py), so a request that succeeded in its second try is no reason."""
    return _enrich(*arguments, strict=False, **named)


agentflow_engine.enrich_episode_with_traces = _enrich_leniently


class SweBackend(AEMVerlBackend):
    """AEMVerlBackend for SweFlow.

    It records where a step's time goes. rLLM calls a hook before a batch and one behind it, and goes on: it logs,
    evaluates (test_freq) and fetches the next batch. So a step of ours lasts until the next one's first hook, which in
    fully asynchronous order comes when the groups of the next step are there.
    """

    def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
        values: Any = OmegaConf.to_container(config[SECTION]["recipe"], resolve=True)
        recipe = validate_recipe(values)
        self._recorder = Recorder(recipe)
        self._recording = ExitStack()
        self._recording.enter_context(RunFolder(Path(recipe.run_dir)).recorded_spans(recipe.trainer.profile))
        self._loop = LoopSpans(time.perf_counter())
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
        with nullcontext() if is_validation else span("rollout", phase="rollout", group_size=times):
            with span("agent/prepare"):
                await asyncio.to_thread(
                    flow.expect, [row["task"] for row in batch for _ in range(times)], held_out=is_validation
                )
            began = time.perf_counter()
            flow.asked = Asked(inherited(), began)
            episodes = await super().generate_episodes(batch, agent_workflow_engine, is_validation, **named)
            flow.asked = Asked()
            _record_wait(episodes, began)
        if not is_validation:
            self._loop.mark()
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

    async def on_batch_start(self, trainer_state: Any) -> None:
        self._loop.begin(trainer_state.global_step, "buffer" if self.is_separated else "record")
        await super().on_batch_start(trainer_state)

    def transform_to_backend_batch(self, trainer_state: Any, **named: Any) -> Any:
        self._loop.passed("filter")  # rLLM's own filters, and the groups
        return super().transform_to_backend_batch(trainer_state, **named)

    async def update_policy(self, trainer_state: Any, **named: Any) -> None:
        await super().update_policy(trainer_state, **named)
        self._loop.mark()

    async def on_policy_updated(self, trainer_state: Any) -> None:
        """In fully asynchronous order only; with partial_rollout=false rLLM waits for the episodes under way first."""
        self._loop.passed("drain")
        await super().on_policy_updated(trainer_state)
        self._loop.mark()

    async def on_batch_end(self, trainer_state: Any) -> None:
        self._loop.passed("record")  # rLLM prints what was played
        with span("record"):  # and, as spans inside, the checkpoint and the weights
            await self._end_batch(trainer_state)
        self._loop.mark()

    async def _end_batch(self, trainer_state: Any) -> None:
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
        if peak := float(trainer_state.metrics.get(_PEAK, 0)):  # 0 where there is no GPU
            self._loop.note(gpu_peak_mb=peak * 1024**3 / 1e6)
        await super().on_batch_end(trainer_state)
        self._recorder.add(trainer_state.metrics)

    async def on_validation_start(self, trainer_state: Any) -> bool:
        self._loop.begin_evaluation("drain" if self.is_separated else "record")
        return bool(await super().on_validation_start(trainer_state))

    async def on_validation_end(self, trainer_state: Any) -> None:
        await super().on_validation_end(trainer_state)
        self._recorder.evaluation(trainer_state.global_step, self._evaluated)
        self._evaluated = []
        self._loop.end_evaluation()

    async def on_train_end(self, trainer_state: Any) -> None:
        await super().on_train_end(trainer_state)
        self._loop.close()

    def shutdown(self) -> None:
        """Also where training never began, or an evaluation before it failed."""
        super().shutdown()
        self._loop.close()
        self._recording.close()


def _record_wait(episodes: Sequence[Any], began: float) -> None:
    """The rollout waited for the episode that was handed over last, and then for rLLM: it deletes the gateway's
    sessions and puts the servers to sleep (`collect`). Where an episode failed in rLLM itself nobody knows its end, so
    the wait goes on to the end of the rollout."""
    now = time.perf_counter()
    known = [episode.artifacts[ENDED] for episode in episodes if ENDED in episode.artifacts]
    if known:
        name, at = max(known, key=lambda ended: float(ended[1]))
        end = at if len(known) == len(episodes) else now
        record("wait", began, end - began, waits_for=name)
        record("collect", end, now - end)


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
