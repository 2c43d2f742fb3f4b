"""What a step leaves in the run folder: the metrics row and the trajectories as JSON."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aem_swe.algorithms import FilterVerdict, aem_metrics, find_responses, response_entropy
from aem_swe.engines.batch import TrainingBatch
from aem_swe.engines.local.model import Scores
from aem_swe.engines.trajectories import trajectory_json
from aem_swe.engines.update import Prepared
from aem_swe.types import Termination, Trajectory

Json = dict[str, Any]  # JSON values
_TRUNCATED = (Termination.MAX_STEPS, Termination.TOKEN_BUDGET, Termination.TIMEOUT)


def _mean(name: str, values: Sequence[float]) -> Json:
    """A mean over nothing is left out: a step in which every sandbox died has no reward, not a reward of 0."""
    return {name: sum(values) / len(values)} if values else {}


def rollout_metrics(trajectories: Sequence[Trajectory], batch: TrainingBatch, scores: Scores) -> Json:
    """Rewards, lengths, entropy, and how far the sampler's log-probs are from the recomputed ones."""
    lengths = [len(turn.response_ids) for t in trajectories for turn in t.turns]
    mask_BT = batch.response_mask_BT
    difference_BT = (scores.logprobs_BT - batch.rollout_logprobs_BT).abs()
    return {
        **_mean("critic/rewards/mean", [t.reward for t in trajectories if t.reward is not None]),
        **_mean("actor/entropy", scores.entropy_BT[mask_BT].double().tolist()),
        "rollout/trajectories": len(trajectories),
        **_mean("rollout/truncation_rate", [t.termination in _TRUNCATED for t in trajectories]),
        **_mean("rollout/turns_mean", [len(t.turns) for t in trajectories]),
        "rollout/retries": sum(len(t.retries) for t in trajectories),
        "rollout/logprob_difference_max": float(difference_BT[mask_BT].max()) if mask_BT.any() else 0.0,
        "response/tokens": sum(lengths),
        **_mean("response/length_mean", lengths),
    }


def filter_metrics(verdict: FilterVerdict) -> Json:
    """The ledger (every trajectory under exactly one reason) and the groups that cannot teach anything."""
    return {
        **verdict.ledger(),
        "filter/uniform_groups": verdict.uniform_groups,
        "filter/small_groups": verdict.small_groups,
    }


def modulation_metrics(prepared: Prepared) -> Json:
    return {} if prepared.modulation is None else dict(aem_metrics(prepared.modulation))


def training_records(
    trajectories: Sequence[Trajectory],
    prepared: Prepared,
    verdict: FilterVerdict,
    advantages_N: Tensor,
    entropy_BT: Tensor,
) -> list[Json]:
    """Return the trajectories of a step with their verdicts, advantages, and entropy and alpha per turn."""
    responses = prepared.modulation.responses if prepared.modulation else find_responses(prepared.batch.response_id_BT)
    entropy_R = prepared.modulation.entropy_R if prepared.modulation else response_entropy(entropy_BT, responses)
    alpha_R = prepared.modulation.alpha_R if prepared.modulation else torch.ones_like(entropy_R)
    per_turn: list[dict[int, Json]] = [{} for _ in trajectories]
    for response, entropy, alpha in zip(responses.id_R.tolist(), entropy_R.tolist(), alpha_R.tolist(), strict=True):
        trajectory, turn = prepared.batch.turn_of_response[response]
        per_turn[trajectory][turn] = {"entropy": entropy, "alpha": alpha if prepared.modulation else None}
    return [
        trajectory_json(t, per_turn[i], verdict=verdict.reason[i], advantage=float(advantages_N[i]))
        for i, t in enumerate(trajectories)
    ]
