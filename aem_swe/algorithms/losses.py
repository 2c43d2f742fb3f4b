"""Policy losses per token, and the three ways to make one number of them.

A loss here never averages: what the sum is divided by is a property of the BATCH (its tokens, its sequences), and a
micro-batch cannot know it. `aggregate` therefore takes the denominator, and where it needs them the lengths of whole
sequences, and the losses of micro-batches simply add up to the loss of the batch, however it was cut.
Not covered: dual clip and an entropy bonus (DeepSWE has neither).

Every loss is called as (logprobs, old_logprobs, advantages, unit_id), all [B, T]; a token with a negative unit is not
trained, its loss is 0 and its gradient exactly 0. Shapes: B row, T token, U unit (what shares one ratio in GSPO).
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PolicyLoss:
    """A loss per token, to be minimised, and how often the clip cut its gradient."""

    loss_BT: Tensor
    """0 outside the loss mask."""
    clip_low_fraction: Tensor
    """Scalar. Share of the trained tokens with A < 0 and a ratio below 1 - clip_low."""
    clip_high_fraction: Tensor
    """Scalar. Share of the trained tokens with A > 0 and a ratio above 1 + clip_high."""


def ppo_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    unit_id_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), r the ratio of each token: PPO (arXiv 1707.06347).

    Two clip values are DAPO's clip-higher (arXiv 2503.14476). Of `unit_id_BT` only the sign matters.
    """
    mask_BT = unit_id_BT >= 0
    ratio_BT = (logprobs_BT - old_logprobs_BT).masked_fill(~mask_BT, 0.0).exp()
    return _clipped(ratio_BT, advantages_BT, mask_BT, clip_low, clip_high)


def gspo_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    unit_id_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """PPO's clip with one ratio per unit, the geometric mean of its tokens': GSPO-token (arXiv 2507.18071, eq. 13-14).

    The unit is the caller's choice: response ids, or trajectory ids broadcast on tokens. All tokens of a unit must be
    in ONE call: keep the rows of a trajectory in one micro-batch. The value of the ratio is the unit's s, its gradient
    s * grad logprob for each token; the mean of that over the tokens of a unit is GSPO's own gradient.
    """
    mask_BT = unit_id_BT >= 0
    change_BT = (logprobs_BT - old_logprobs_BT).masked_fill(~mask_BT, 0.0)
    with torch.no_grad():
        index = _unit_index(unit_id_BT)
        count_U = index.bincount()
        total_U = torch.zeros(len(count_U), dtype=torch.float64, device=index.device)
        total_U = total_U.index_add(0, index, change_BT.double().flatten())
        unit_BT = (total_U / count_U.clamp(min=1))[index].view(change_BT.shape).to(change_BT.dtype)
    ratio_BT = (unit_BT + (change_BT - change_BT.detach())).exp()
    return _clipped(ratio_BT, advantages_BT, mask_BT, clip_low, clip_high)


def unit_tokens(unit_id_BT: Tensor) -> Tensor:
    """How many tokens the unit of each token has, over all rows given: [B, T] int64, 0 where the unit is negative."""
    index = _unit_index(unit_id_BT)
    return (index.bincount()[index] * (index > 0)).view(unit_id_BT.shape)


def _unit_index(unit_id_BT: Tensor) -> Tensor:
    """Unit ids, flat and from 1; 0 collects what is outside."""
    return unit_id_BT.long().clamp(min=-1).flatten() + 1


class LossFunction(Protocol):
    def __call__(
        self,
        logprobs_BT: Tensor,
        old_logprobs_BT: Tensor,
        advantages_BT: Tensor,
        unit_id_BT: Tensor,
        *,
        clip_low: float,
        clip_high: float,
    ) -> PolicyLoss:
        """What every entry of LOSSES is."""


LOSSES: Final[dict[str, LossFunction]] = {"ppo": ppo_loss, "gspo": gspo_loss}


def _clipped(ratio_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip_low: float, clip_high: float) -> PolicyLoss:
    advantages_BT = advantages_BT.masked_fill(~mask_BT, 0.0)
    clamped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT = -torch.minimum(ratio_BT * advantages_BT, clamped_BT * advantages_BT)
    tokens = mask_BT.sum().clamp(min=1)
    low_BT = (ratio_BT < 1 - clip_low) & (advantages_BT < 0)
    high_BT = (ratio_BT > 1 + clip_high) & (advantages_BT > 0)
    return PolicyLoss(loss_BT, low_BT.sum() / tokens, high_BT.sum() / tokens)


def kl_k3(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference): exp(d) - d - 1 with d = reference - policy.

    Never negative, unbiased under the policy's own samples: k3 of Schulman, "Approximating KL divergence" (2020), as in
    GRPO (arXiv 2402.03300, eq. 4). Log-probs must be finite wherever a gradient is taken, padding included.
    """
    difference_BT = reference_logprobs_BT - logprobs_BT
    return difference_BT.exp() - difference_BT - 1


Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-sum-over-budget"]


def aggregate(
    loss_BT: Tensor,
    mask_BT: Tensor,
    *,
    how: Aggregation,
    budget: int,
    denominator: int,
    sequence_tokens_BT: Tensor | None = None,
) -> Tensor:
    """Sum the masked losses and divide by what belongs to the whole batch. A scalar.

    "token-mean" divides by `denominator` = trained tokens of the BATCH (DAPO).
    "seq-mean-token-mean" divides each token by the trained tokens of its SEQUENCE, `sequence_tokens_BT`, and the sum by
    `denominator` = sequences of the batch, the masked ones included: GSPO's own way (arXiv 2507.18071, eq. 5 and 14)
    and GRPO's (arXiv 2402.03300, eq. 3). A sequence is a trajectory in however many rows, or what else shares a GSPO
    ratio; verl's mode of this name takes a row for one.
    "seq-sum-over-budget" divides by `budget` tokens times `denominator` = TRAJECTORIES of the batch, the masked ones
    included (DeepSWE, Dr. GRPO; verl's seq-mean-token-sum-norm): rows per trajectory do not matter.
    Each way reads its own arguments only. Raises ValueError for another `how`, for a divisor that is not positive, and
    where sequence_tokens_BT is missing or less than 1 on a masked-in token.
    """
    if how not in get_args(Aggregation):
        raise ValueError(f"how is {how!r}; choose one of {list(get_args(Aggregation))}")
    divisor = budget * denominator if how == "seq-sum-over-budget" else denominator
    if divisor <= 0:
        raise ValueError(
            f"{how} would divide by {divisor} (budget {budget}, denominator {denominator}); skip such a batch"
        )
    mask_BT = mask_BT.bool()
    loss_BT = loss_BT.masked_fill(~mask_BT, 0.0)
    if how == "seq-mean-token-mean":
        if sequence_tokens_BT is None or (sequence_tokens_BT[mask_BT] < 1).any():
            raise ValueError(f"{how} needs the length of every trained sequence; give unit_tokens of the whole batch")
        loss_BT = loss_BT / sequence_tokens_BT.clamp(min=1)
    return loss_BT.sum() / divisor
