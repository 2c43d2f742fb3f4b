"""An episode's way from our flow to rLLM's trainer: our record of the turns in the place of the gateway's traces."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # rLLM's objects have no types

import httpx
from rllm.engine.rollout import ModelOutput
from rllm.eval.types import EvalOutput
from rllm.types import Episode, Step
from rllm_model_gateway import GatewayClient

from aem_swe.profiling import Value, record, span
from aem_swe.types import Trajectory

_LOG = logging.getLogger(__name__)
EPISODE = "aem_swe"
"""Key in an episode's artifacts: our own Trajectory."""
PLAYED = "aem_swe_played"
"""Key in an episode's artifacts: Played."""
ENDED = "aem_swe_ended"
"""Key in an episode's artifacts: (its name in the spans, time.perf_counter() when it was handed over)."""


@dataclass(frozen=True, slots=True)
class Played:
    """What HandOver has to know of an episode."""

    address: str
    """Of the gateway."""
    session: str
    about: Mapping[str, Value]
    """Of the episode's spans."""
    at: float
    """time.perf_counter() when the flow was done with it."""


class HandOver:
    """rLLM's evaluator: the reward is there already; put our own record of the turns in the place of the traces.

    A request that the client had to send twice leaves two traces. What was played is what we recorded; the gateway
    only adds which weights answered. Its traces hold every prompt in full and are deleted at once: an hour of them is
    more than a node's memory, and rLLM deletes none in fully asynchronous training.
    """

    def evaluate(self, task: Any, episode: Episode) -> EvalOutput:
        played: Played = episode.artifacts.pop(PLAYED)
        record("agent/traces", played.at, time.perf_counter() - played.at, **played.about)  # rLLM fetched them
        with span("agent/hand_over", **played.about):
            output = self._hand_over(episode, played)
        episode.artifacts[ENDED] = (played.session, time.perf_counter())
        return output

    def _hand_over(self, episode: Episode, played: Played) -> EvalOutput:
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
        try:
            with GatewayClient(played.address) as gateway:
                gateway.delete_session(played.session)
        except httpx.HTTPError as error:  # memory of the gateway's, and no reason to lose an episode
            _LOG.warning("the traces of %s could not be deleted: %s", played.session, error)
        return EvalOutput(reward=trajectory.reward or 0.0, is_correct=ours.reward == 1.0)
