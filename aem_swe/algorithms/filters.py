"""One verdict per trajectory, before any advantage is computed.

Three different things can be meant by "filtered out", and mixing them up changes the gradient of the healthy rollouts:
not trained (the loss is masked), not in the baseline, not in the denominator. DeepSWE masks the loss of truncated
rollouts and keeps the rest; rLLM 0.3 drops them. A dead container must never count as a reward of 0: it is always out
of everything, and the group goes on as if it had been sampled smaller.
Not covered: retrying, and playing replacements for what was dropped (the engines do).

Shapes: B trajectory, G group (one prompt).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

TRUNCATIONS: Final = ("max_steps", "token_budget", "timeout")
"""The terminations that `mode` is about."""

TERMINATIONS: Final = ("finished", *TRUNCATIONS, "format_errors", "infrastructure_error")

REASONS: Final = ("kept", "infrastructure_error", *TRUNCATIONS, "small_group", "uniform_group", "surplus_group")
"""In the order of precedence after "kept": the first cause that applies is the reason.

kept: trained as it is, `finished` and `format_errors` alike, and truncated ones in mode "off".
infrastructure_error: the sandbox, engine or network failed; out of everything in every mode.
max_steps, token_budget, timeout: truncated; not trained in mode "mask", out of everything in mode "drop".
small_group: fewer than two of its group survived, so there is nobody to compare it with; out of everything.
uniform_group: all rewards of its group are equal and `drop_uniform_groups` is on; out of everything.
surplus_group: there are `most_groups` groups before its own already; out of everything.
"""

Mode = Literal["mask", "drop", "off"]
MODES: Final = ("mask", "drop", "off")


@dataclass(frozen=True, slots=True, eq=False)
class FilterVerdict:
    """What becomes of each trajectory."""

    in_baseline_B: Tensor
    """Bool. Its reward is compared with the group's."""
    trained_B: Tensor
    """Bool. Its loss is not masked. Always inside the baseline."""
    group_B: Tensor
    """Long. The group, -1 for what is not in the baseline."""
    reason: tuple[str, ...]
    """One of REASONS per trajectory."""
    small_groups: int
    """Groups with fewer than two survivors, those without any included."""
    uniform_groups: int
    """Groups whose surviving rewards are all equal, whether dropped or kept."""

    @property
    def counted_B(self) -> Tensor:
        """Bool. In the denominator of the loss: whatever is in the baseline, masked or not."""
        return self.in_baseline_B

    @property
    def kept_groups(self) -> list[int]:
        """The numbers of the groups with anything in the baseline, in order."""
        return [int(group) for group in torch.unique(self.group_B) if group >= 0]

    def ledger(self) -> dict[str, int]:
        """Trajectories per reason, zeros included; the counts add up to the batch."""
        return {f"filter/{reason}": self.reason.count(reason) for reason in REASONS}


def filter_trajectories(
    termination_B: Sequence[str],
    reward_B: Tensor,
    group_B: Tensor,
    *,
    mode: Mode,
    drop_uniform_groups: bool,
    most_groups: int | None = None,
) -> FilterVerdict:
    """Decide which trajectories count, are compared and are trained, with one reason each.

    `reward_B` is NaN where there is none; `group_B` holds non-negative integers. `mode` concerns TRUNCATIONS only:
    "mask" (DeepSWE) keeps them in the baseline and the denominator without training them, "drop" (rLLM 0.3) removes
    them before the baseline, "off" trains them. Of the groups that are left, the first `most_groups` by number stay
    (DAPO's dynamic sampling plays until it has enough, arXiv 2503.14476). Raises ValueError for unknown words and for
    missing rewards.
    """
    kind_B = _kinds(termination_B, reward_B, group_B, mode)
    failed_B = kind_B == TERMINATIONS.index("infrastructure_error")
    truncated_B = (kind_B > TERMINATIONS.index("finished")) & (kind_B < TERMINATIONS.index("format_errors"))
    baseline_B = ~failed_B & ~truncated_B if mode == "drop" else ~failed_B
    missing = (baseline_B & ~reward_B.isfinite()).nonzero().flatten().tolist()
    if missing:
        named = [f"{index} ({termination_B[index]})" for index in missing]
        raise ValueError(
            f"trajectories {', '.join(named)} have no finite reward; grade them, give truncated ones the reward 0, or"
            " record infrastructure_error"
        )
    groups_G, index_B = torch.unique(group_B, return_inverse=True)
    survivors_G = torch.zeros_like(groups_G).index_add(0, index_B, baseline_B.to(groups_G.dtype))
    small_B = baseline_B & (survivors_G < 2)[index_B]
    baseline_B = baseline_B & ~small_B
    uniform_G = _uniform(reward_B, baseline_B, index_B, len(groups_G))
    uniform_B = baseline_B & uniform_G[index_B] if drop_uniform_groups else torch.zeros_like(baseline_B)
    baseline_B = baseline_B & ~uniform_B
    surplus_B = baseline_B & _beyond(groups_G, index_B, baseline_B, most_groups)
    baseline_B = baseline_B & ~surplus_B
    # Later lines win, so the precedence of REASONS reads from the bottom.
    reason_B = torch.zeros_like(kind_B)
    reason_B[surplus_B] = REASONS.index("surplus_group")
    reason_B[uniform_B] = REASONS.index("uniform_group")
    reason_B[small_B] = REASONS.index("small_group")
    if mode != "off":
        reason_B[truncated_B] = kind_B[truncated_B] + REASONS.index("max_steps") - TERMINATIONS.index("max_steps")
    reason_B[failed_B] = REASONS.index("infrastructure_error")
    return FilterVerdict(
        in_baseline_B=baseline_B,
        trained_B=baseline_B & ~truncated_B if mode == "mask" else baseline_B,
        group_B=group_B.masked_fill(~baseline_B, -1),
        reason=tuple(REASONS[code] for code in reason_B.tolist()),
        small_groups=int((survivors_G < 2).sum()),
        uniform_groups=int(uniform_G.sum()),
    )


def _beyond(groups_G: Tensor, index_B: Tensor, baseline_B: Tensor, most_groups: int | None) -> Tensor:
    """Bool [B]: the group is not among the first `most_groups` of those that are in the baseline."""
    if most_groups is None:
        return torch.zeros_like(baseline_B)
    left_G = torch.zeros_like(groups_G).index_fill(0, index_B[baseline_B], 1)  # groups_G is sorted
    return (left_G.cumsum(0) > most_groups)[index_B]


def _kinds(termination_B: Sequence[str], reward_B: Tensor, group_B: Tensor, mode: str) -> Tensor:
    """The index of each termination in TERMINATIONS, after checking all inputs."""
    if mode not in MODES:
        raise ValueError(f"filter mode is {mode!r}; choose one of {list(MODES)}")
    if not len(termination_B) == len(reward_B) == len(group_B):
        raise ValueError(
            f"{len(termination_B)} terminations, {len(reward_B)} rewards, {len(group_B)} groups: give one each"
        )
    if unknown := sorted(set(termination_B) - set(TERMINATIONS)):
        raise ValueError(f"terminations {unknown} are unknown; choose from {list(TERMINATIONS)}")
    if nowhere := (group_B < 0).nonzero().flatten().tolist():
        raise ValueError(f"trajectories {nowhere} have a negative group; every trajectory starts in a group")
    return torch.tensor([TERMINATIONS.index(t) for t in termination_B], dtype=torch.long, device=group_B.device)


def _uniform(reward_B: Tensor, baseline_B: Tensor, index_B: Tensor, groups: int) -> Tensor:
    """Bool [G]: at least one trajectory is in the baseline, and all of those have one reward."""
    infinity_G = reward_B.new_full((groups,), float("inf"))
    lowest_G = infinity_G.scatter_reduce(0, index_B, reward_B.where(baseline_B, float("inf")), "amin")
    highest_G = (-infinity_G).scatter_reduce(0, index_B, reward_B.where(baseline_B, float("-inf")), "amax")
    return lowest_G == highest_G
