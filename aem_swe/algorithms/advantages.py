"""Advantages per trajectory: how much better a rollout was than its group.

All of them compare rollouts of one prompt and need no critic. DeepSWE uses leave-one-out without a division by the
standard deviation; AEM multiplies whatever comes out of here. A group of -1 (any negative number) is "not part": such a
trajectory counts in no baseline, its reward is never looked at, and its advantage is 0.
Not covered: PPO's advantages, which need a value model.

Shapes: B trajectory (or row, in `to_rows`), M member (a trajectory that is part of a group).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor


def leave_one_out(rewards_B: Tensor, group_B: Tensor) -> Tensor:
    """r_i - mean of the other rewards of the group: RLOO (arXiv 2402.14740), DeepSWE's estimator.

    Equal to n/(n-1) * (r_i - mean r). Raises ValueError for a group of one, and for rewards that are not finite.
    """
    members = _members(rewards_B, group_B)
    _require_two(members, "leave_one_out compares a rollout with the others")
    others_M = (members.total_M - members.reward_M) / (members.size_M - 1)
    return _scatter(members, members.reward_M - others_M, rewards_B)


def grpo(rewards_B: Tensor, group_B: Tensor, *, epsilon: float) -> Tensor:
    """(r_i - mean r) / (std r + epsilon): GRPO (arXiv 2402.03300).

    std is the unbiased one (divide by n-1), torch.std as in verl's compute_grpo_outcome_advantage; the paper does not
    say. Raises ValueError for a group of one (it has no such std), and for rewards that are not finite.
    """
    members = _members(rewards_B, group_B)
    _require_two(members, "grpo divides by the standard deviation of the group")
    centred_M = members.reward_M - members.total_M / members.size_M
    variance_M = _group_sum(centred_M.square(), members.index_M) / (members.size_M - 1)
    return _scatter(members, centred_M / (variance_M.sqrt() + epsilon), rewards_B)


def mean_baseline(rewards_B: Tensor, group_B: Tensor) -> Tensor:
    """r_i - mean r: Dr. GRPO (arXiv 2503.20783), no division by the std. A group of one gets 0.

    Raises ValueError for rewards that are not finite.
    """
    members = _members(rewards_B, group_B)
    return _scatter(members, members.reward_M - members.total_M / members.size_M, rewards_B)


def overlong_penalty(length_B: Tensor, *, budget: int, buffer: int) -> Tensor:
    """Soft overlong punishment, to be added to the reward: DAPO, eq. 13 (arXiv 2503.14476).

    0 up to budget - buffer tokens, then falling linearly to -1 at the budget, -1 beyond. Float32 [B].
    Raises ValueError unless 0 < buffer <= budget.
    """
    if not 0 < buffer <= budget:
        raise ValueError(f"buffer is {buffer} and budget {budget}; choose 0 < buffer <= budget, in tokens")
    return ((budget - buffer - length_B).float() / buffer).clamp(-1.0, 0.0)


def to_rows(values_B: Tensor, trajectory_of_row: Tensor, *, padding: float = 0) -> Tensor:
    """Broadcast a value per trajectory to its rows: one growing row, or one row per turn.

    `trajectory_of_row` holds an index into `values_B` per row, -1 for a padding row, which gets `padding`.
    Raises ValueError for any other index.
    """
    count = len(values_B)
    wrong = ((trajectory_of_row < -1) | (trajectory_of_row >= count)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(f"rows {wrong} belong to no trajectory: indices must be in [0, {count}), or -1 for padding")
    table = torch.cat([values_B.new_full((1,), padding), values_B])
    return table[trajectory_of_row.long() + 1]


GRPO_EPSILON: Final = 1e-6
"""verl's default."""

ADVANTAGES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "leave_one_out": leave_one_out,
    "grpo": partial(grpo, epsilon=GRPO_EPSILON),
    "mean_baseline": mean_baseline,
}
"""Estimators by name, all called as (rewards_B, group_B)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Members:
    """The trajectories that are part of a group, with the totals of that group. Float64."""

    inside_B: Tensor
    group_M: Tensor
    index_M: Tensor
    reward_M: Tensor
    total_M: Tensor
    size_M: Tensor


def _members(rewards_B: Tensor, group_B: Tensor) -> _Members:
    inside_B = group_B >= 0
    wrong = (inside_B & ~rewards_B.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"rewards of trajectories {wrong} are not finite; give a trajectory without a reward the group -1"
            " (filter_trajectories does)"
        )
    # Members only, so a trajectory that is not part cannot even change the rounding.
    group_M, reward_M = group_B[inside_B], rewards_B[inside_B].double()
    index_M = torch.unique(group_M, return_inverse=True)[1]
    return _Members(
        inside_B=inside_B,
        group_M=group_M,
        index_M=index_M,
        reward_M=reward_M,
        total_M=_group_sum(reward_M, index_M),
        size_M=_group_sum(torch.ones_like(reward_M), index_M),
    )


def _group_sum(values_M: Tensor, index_M: Tensor) -> Tensor:
    """The sum over each member's group, given back to the members (index < members, so their number is enough room)."""
    return torch.zeros_like(values_M).index_add(0, index_M, values_M)[index_M]


def _require_two(members: _Members, why: str) -> None:
    single = members.group_M[members.size_M < 2].tolist()
    if single:
        raise ValueError(f"groups {single} have one trajectory each, and {why}; drop them (filter_trajectories does)")


def _scatter(members: _Members, advantage_M: Tensor, like_B: Tensor) -> Tensor:
    advantages_B = torch.zeros_like(like_B, dtype=torch.promote_types(like_B.dtype, torch.float32))
    advantages_B[members.inside_B] = advantage_M.to(advantages_B.dtype)
    return advantages_B
