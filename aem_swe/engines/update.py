"""One step of the algorithm on a batch: filter -> advantages -> AEM -> loss. Both engines call these functions.

Rewards, baselines, counts and denominators are per trajectory and are broadcast to rows afterwards, so the layout of
the rows, their order, their padding and the micro-batches change nothing.

Shapes: B row, T token, N trajectory, R response.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aem_swe.algorithms import (
    ADVANTAGES,
    LOSSES,
    FilterVerdict,
    Modulation,
    PolicyLoss,
    aggregate,
    analysis_mask,
    filter_trajectories,
    kl_k3,
    modulate,
    overlong_penalty,
    to_rows,
    unit_tokens,
)
from aem_swe.engines.batch import TrainingBatch
from aem_swe.profiling import Stopwatch
from aem_swe.schema import Aem, Algorithm
from aem_swe.types import Trajectory


def judge(
    trajectories: Sequence[Trajectory],
    algorithm: Algorithm,
    *,
    drop_uniform_groups: bool,
    most_groups: int | None = None,
) -> FilterVerdict:
    """Give every trajectory its verdict, before anything is compared. Rewards of None count as missing.

    Rewards are the graders' own here: the soft overlong punishment makes no contrast (DAPO, eq. 11).
    """
    return filter_trajectories(
        [str(trajectory.termination) for trajectory in trajectories],
        _rewards(trajectories),
        torch.tensor([trajectory.group for trajectory in trajectories]),
        mode=algorithm.filter,
        drop_uniform_groups=drop_uniform_groups,
        most_groups=most_groups,
    )


def _rewards(trajectories: Sequence[Trajectory]) -> Tensor:
    nothing = float("nan")
    return torch.tensor([nothing if t.reward is None else t.reward for t in trajectories], dtype=torch.float32)


def trajectory_advantages(
    trajectories: Sequence[Trajectory],
    batch: TrainingBatch,
    verdict: FilterVerdict,
    algorithm: Algorithm,
    *,
    budget: int,
) -> Tensor:
    """Return the advantage per trajectory (N,), 0 for those outside the baseline."""
    rewards_N = _rewards(trajectories)
    if algorithm.overlong_buffer:
        rewards_N = rewards_N + overlong_penalties(trajectories, algorithm, budget=budget)
    return ADVANTAGES[algorithm.advantage](rewards_N, verdict.group_B)


def overlong_penalties(trajectories: Sequence[Trajectory], algorithm: Algorithm, *, budget: int) -> Tensor:
    """DAPO's soft punishment of each trajectory (N,), 0 to -1, to be added to its reward; overlong_buffer is not 0."""
    used_N = torch.tensor([_budget_used(trajectory) for trajectory in trajectories])
    return overlong_penalty(used_N, budget=budget, buffer=algorithm.overlong_buffer)


def _budget_used(trajectory: Trajectory) -> int:
    """Tokens after the first prompt, observations included: what the response budget counts."""
    if not trajectory.turns:
        return 0
    first, last = trajectory.turns[0], trajectory.turns[-1]
    return len(last.prompt_ids) + len(last.response_ids) - len(first.prompt_ids)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is ready for its updates."""

    batch: TrainingBatch
    advantages_BT: Tensor
    loss_mask_BT: Tensor
    """Sampled tokens of trained trajectories."""
    old_logprobs_BT: Tensor
    unit_id_BT: Tensor
    """What shares one GSPO ratio, and is a sequence to seq-mean-token-mean: the ids of trajectories, or with
    `loss: gspo` and `gspo_unit: response` those of responses; -1 outside the loss mask."""
    unit_tokens_BT: Tensor
    """Trained tokens of that unit, in all its rows; 0 outside the loss mask."""
    group_B: Tensor
    """-1 for rows outside the baseline."""
    counted_N: Tensor
    """Trajectories that belong to the denominator."""
    group_N: Tensor
    modulation: Modulation | None


def prepare(
    batch: TrainingBatch,
    verdict: FilterVerdict,
    advantages_N: Tensor,
    old_logprobs_BT: Tensor,
    entropy_BT: Tensor,
    algorithm: Algorithm,
    aem: Aem,
    stopwatch: Stopwatch | None = None,
) -> Prepared:
    """Broadcast advantages to tokens and modulate them. AEM off leaves them exactly as they are.

    aem.analysis sets the advantages of the responses that its mask drops to 0; denominators stay.
    """
    clock = stopwatch or Stopwatch()
    with clock.stage("advantage"):
        trained_B = to_rows(verdict.trained_B, batch.trajectory_B)
        group_B = to_rows(verdict.group_B, batch.trajectory_B)
        advantages_BT = to_rows(advantages_N, batch.trajectory_B)[:, None] * batch.response_mask_BT
        loss_mask_BT = batch.response_mask_BT & trained_B[:, None]
        trajectory_BT = batch.trajectory_B[:, None].expand_as(loss_mask_BT)
        unit_BT = torch.where(loss_mask_BT, batch.response_id_BT if _by_response(algorithm) else trajectory_BT, -1)
    modulation = None
    with clock.stage("aem"):
        if aem.enabled:
            members = trained_B if aem.group == "trained" else None
            modulation = modulate(
                advantages_BT, entropy_BT, batch.response_id_BT, group_B, lam=aem.lam, trained_of_row_B=members
            )
            if aem.analysis == "off":
                advantages_BT = modulation.advantages_BT
            else:
                kept_R = analysis_mask(modulation.advantage_R, modulation.alpha_R, keep=aem.analysis)
                advantages_BT = modulation.responses.blocks.scale(advantages_BT, kept_R.double())
    return Prepared(
        batch=batch,
        advantages_BT=advantages_BT,
        loss_mask_BT=loss_mask_BT,
        old_logprobs_BT=old_logprobs_BT,
        unit_id_BT=unit_BT,
        unit_tokens_BT=unit_tokens(unit_BT),
        group_B=group_B,
        counted_N=verdict.counted_B,
        group_N=verdict.group_B,
        modulation=modulation,
    )


def _by_response(algorithm: Algorithm) -> bool:
    return algorithm.loss == "gspo" and algorithm.gspo_unit == "response"


def denominator(prepared: Prepared, groups_G: Tensor, algorithm: Algorithm) -> int:
    """Return what the losses of one update over these groups are divided by: trained tokens or sequences.

    Sequences are trajectories, or for GSPO by response the responses. The masked ones count (filter `mask`), so that an
    update in which half was masked is half a step, as in DeepSWE.
    """
    rows_B = torch.isin(prepared.group_B, groups_G)
    if algorithm.aggregation == "token-mean":
        return int(prepared.loss_mask_BT[rows_B].sum())
    if algorithm.aggregation == "seq-mean-token-mean" and _by_response(algorithm):
        ids_BT = prepared.batch.response_id_BT[rows_B]
        return len(torch.unique(ids_BT[ids_BT >= 0]))
    return int((torch.isin(prepared.group_N, groups_G) & prepared.counted_N).sum())


@dataclass(frozen=True, slots=True, eq=False)
class BatchLoss:
    """The loss of some rows. All scalars, divided for the whole update."""

    total: Tensor
    """Policy loss + kl_coefficient * KL; differentiable."""
    policy_loss: Tensor
    kl_loss: Tensor
    """k3 against the reference, before its coefficient; 0 without one."""
    policy: PolicyLoss
    tokens: int
    """Trained tokens: what the clip fractions are shares of."""


def batch_loss(
    prepared: Prepared,
    rows: Tensor,
    logprobs_BT: Tensor,
    reference_BT: Tensor | None,
    divisor: int,
    algorithm: Algorithm,
    *,
    budget: int,
) -> BatchLoss:
    """Return the loss of some rows, already divided for the whole update, so micro-batches add up.

    logprobs_BT (len(rows), T') holds the current policy's log-probs of the first T' tokens of those rows.
    """
    width = logprobs_BT.shape[1]
    mask_BT = prepared.loss_mask_BT[rows, :width]
    policy = LOSSES[algorithm.loss](
        logprobs_BT,
        prepared.old_logprobs_BT[rows, :width],
        prepared.advantages_BT[rows, :width],
        prepared.unit_id_BT[rows, :width],
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
    )

    def together(loss_BT: Tensor) -> Tensor:
        return aggregate(
            loss_BT,
            mask_BT,
            how=algorithm.aggregation,
            budget=budget,
            denominator=divisor,
            sequence_tokens_BT=prepared.unit_tokens_BT[rows, :width],
        )

    policy_loss = together(policy.loss_BT)
    if reference_BT is None:
        return BatchLoss(policy_loss, policy_loss.detach(), torch.zeros(()), policy, int(mask_BT.sum()))
    kl = together(kl_k3(logprobs_BT, reference_BT))
    total = policy_loss + algorithm.kl_coefficient * kl
    return BatchLoss(total, policy_loss.detach(), kl.detach(), policy, int(mask_BT.sum()))
