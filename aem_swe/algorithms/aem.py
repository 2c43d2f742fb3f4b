"""Adaptive Entropy Modulation: scale the advantage of each response by how predictable it was.

1) For a sampled response the entropy drifts by A * (S - H), S its surprisal (eq. 9-11): a predictable response pushes
   entropy down when it is rewarded and up when it is punished.
2) AEM gives predictable responses more weight, so entropy rises while failures dominate (explore) and falls once
   successes do (exploit). No schedule and no entropy bonus.
3) The mean scale over the responses of a group is exactly 1, so the learning rate keeps its meaning.
Nothing else changes: with lam = 0 the result is the base algorithm, bit for bit.
Not covered: choosing G. Pass `trained_of_row_B` for "responses that carry gradient", None for "all of the group".

Source: arXiv 2605.00425. Shapes: B row, T token, R response (one model turn), G group (one prompt), M response in G.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from aem_swe.algorithms.entropy import response_entropy
from aem_swe.algorithms.spans import Responses, find_responses

FLAT_RANGE: Final = 1e-8
"""A group whose entropies differ by no more than this (nats) has nothing to compare: alpha is 1.

It guards the division, not the forward pass: a float32 pass gives one and the same response entropies that differ by
some 1e-8 between paddings, and a group of nothing but equal responses may then still be stretched.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Modulation:
    """The rescaled advantages and what they came from. Responses are in the order of `responses`."""

    advantages_BT: Tensor
    """Advantages times alpha, in the dtype of the input."""
    alpha_R: Tensor
    """Float64. Exactly 1 outside G and in flat groups."""
    entropy_R: Tensor
    """Float64, H of eq. 13 in nats."""
    group_R: Tensor
    """Long. -1 outside G."""
    advantage_R: Tensor
    """The advantage before AEM at the first token of each response."""
    entropy_range_G: Tensor
    """Float64. max H - min H of every group in G, by increasing group number."""
    responses: Responses


@torch.no_grad()
def modulate(
    advantages_BT: Tensor,
    entropy_BT: Tensor,
    response_id_BT: Tensor | Responses,
    group_of_row_B: Tensor,
    *,
    lam: float,
    trained_of_row_B: Tensor | None = None,
) -> Modulation:
    """Multiply every token's advantage by the alpha of its response: AEM, eq. 13-15 (arXiv 2605.00425).

    `response_id_BT` is what `response_ids` made, or `find_responses` of it where a batch keeps that at hand. Rows of a
    negative group or with `trained_of_row_B` False are outside G: alpha 1, and no influence on the others.
    Works on a copy (returns may share storage with advantages). No gradient flows through alpha.
    Raises ValueError for lam < 0 or not finite, shapes that disagree, and entropies that are not finite.
    """
    if not (math.isfinite(lam) and lam >= 0):
        raise ValueError(f"lam is {lam}; it must be finite and not negative (the paper uses 1, and 0 switches AEM off)")
    responses = response_id_BT if isinstance(response_id_BT, Responses) else find_responses(response_id_BT)
    if advantages_BT.shape != responses.shape or len(group_of_row_B) != len(advantages_BT):
        raise ValueError(
            f"advantages are {tuple(advantages_BT.shape)}, response ids {responses.shape} and groups"
            f" {tuple(group_of_row_B.shape)}; give [B, T], [B, T] and [B]"
        )
    entropy_R = response_entropy(entropy_BT, responses)
    if trained_of_row_B is not None:
        group_of_row_B = group_of_row_B.masked_fill(~trained_of_row_B.bool(), -1)
    group_R = group_of_row_B.index_select(0, responses.row_R).clamp(min=-1)
    inside_R = group_R >= 0
    # index_select and masked_select, not x[index]: that starts all threads for a few thousand elements.
    alpha_M, entropy_range_G = _alpha(entropy_R.masked_select(inside_R), group_R.masked_select(inside_R), lam)
    alpha_R = torch.ones_like(entropy_R).masked_scatter(inside_R, alpha_M)
    return Modulation(
        advantages_BT=responses.blocks.scale(advantages_BT, alpha_R),
        alpha_R=alpha_R,
        entropy_R=entropy_R,
        group_R=group_R,
        advantage_R=advantages_BT.reshape(-1).index_select(0, responses.offset_R),
        entropy_range_G=entropy_range_G,
        responses=responses,
    )


def _alpha(entropy_M: Tensor, group_M: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """Eq. 14 and 15 in float64: alpha of each response, and the entropy range of each group."""
    groups_G, index_M = torch.unique(group_M, return_inverse=True)
    empty_G = entropy_M.new_zeros(len(groups_G))
    lowest_G = empty_G.scatter_reduce(0, index_M, entropy_M, "amin", include_self=False)
    range_G = empty_G.scatter_reduce(0, index_M, entropy_M, "amax", include_self=False) - lowest_G
    range_M = range_G.index_select(0, index_M)
    h_M = (entropy_M - lowest_G.index_select(0, index_M)) / range_M
    # A flat group (one response included) divides 0 by 0 above; h = 0 for all of it makes alpha exactly 1.
    weight_M = torch.exp(-lam * h_M.masked_fill(range_M <= FLAT_RANGE, 0.0))
    mean_G = empty_G.index_add(0, index_M, weight_M) / empty_G.index_add(0, index_M, torch.ones_like(weight_M))
    return weight_M / mean_G.index_select(0, index_M), range_G


def aem_metrics(modulation: Modulation) -> dict[str, float]:
    """What a step logs about AEM, over the responses in G. A mean over nothing is left out, never NaN."""
    inside_R = modulation.group_R >= 0
    alpha_R, advantage_R = modulation.alpha_R[inside_R], modulation.advantage_R[inside_R]
    length_R = modulation.responses.length_R[inside_R]
    metrics = {
        "aem/responses": float(len(alpha_R)),
        "aem/groups": float(len(modulation.entropy_range_G)),
        "aem/flat_groups": float((modulation.entropy_range_G <= FLAT_RANGE).sum()),
    }
    if len(alpha_R):
        metrics["aem/alpha_min"] = float(alpha_R.min())
        metrics["aem/alpha_max"] = float(alpha_R.max())
        metrics["aem/alpha_token_mean"] = float((alpha_R * length_R).sum() / length_R.sum())
        metrics["aem/response_entropy_mean"] = float(modulation.entropy_R[inside_R].mean())
    for name, chosen_R in (("positive", advantage_R > 0), ("negative", advantage_R < 0)):
        if chosen_R.any():
            metrics[f"aem/alpha_{name}_mean"] = float(alpha_R[chosen_R].mean())
    return metrics


def analysis_mask(advantage_R: Tensor, alpha_R: Tensor, *, keep: Literal["rise", "fall"]) -> Tensor:
    """Which responses to train so that entropy must rise, or fall: Analysis A of the paper. Bool [R].

    "rise" drops (A > 0, alpha > 1) and (A < 0, alpha < 1), "fall" the opposite pairs; alpha = 1 and A = 0 always stay.
    """
    if keep not in ("rise", "fall"):
        raise ValueError(f"keep is {keep!r}; choose 'rise' or 'fall'")
    agreement_R = advantage_R.sign() * (alpha_R - 1).sign()
    return agreement_R <= 0 if keep == "rise" else agreement_R >= 0
