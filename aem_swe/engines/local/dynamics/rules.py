"""The rules that are compared: how much each response of one batch weighs in the policy gradient.

Every rule multiplies the same advantages by a weight per response (`token`: per token). AEM's alphas change the size of
a step as well as its direction, because their mean over tokens is not 1; a mask makes the step smaller. So every rule
has a control: its weights permuted among the responses of one group and one sign of the advantage. A step is linear in
its weights, therefore the mean over ALL permutations needs no drawing: each weight is replaced by the mean of its cell.

Shapes: B row, T token, R response, U unit that has a weight of its own (a response, for `token` a sampled token).
A cell is a pair (group, sign of the advantage).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aem_swe.algorithms import Modulation, analysis_mask, modulate
from aem_swe.engines.update import Prepared

BASE, INVERTED, RISE, FALL = "base", "inverted", "rise", "fall"
SURPRISAL, BATCH, SUM, TOKEN = "surprisal", "batch", "sum", "token"
"""Variants of AEM, one choice changed in each: the sampled surprisal as H; one G for the whole batch; H summed over the
tokens of a response instead of averaged; an alpha per token."""


def aem_rule(lam: float) -> str:
    return f"aem_{lam:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """Weights per unit; all tensors are float64 [U] in the order of `modulation.responses`."""

    weights: dict[str, Tensor]
    cell_U: Tensor
    """Long. The number of the (group, sign of the advantage) of each unit."""
    modulation: Modulation
    """Of AEM at the lambda of the masks and variants; its `responses` are the units."""

    @property
    def controlled(self) -> tuple[str, ...]:
        """The rules with a permuted control: all but the base, whose weights are equal."""
        return tuple(rule for rule in self.weights if rule != BASE)


def make_rules(prepared: Prepared, entropy_BT: Tensor, *, lam: float, lambdas: Sequence[float]) -> tuple[Rules, Rules]:
    """Return the rules that weigh responses, and the one that weighs tokens, for a batch prepared with AEM off.

    `lam` makes the masks of Analysis A, the variants and the inverted alphas, exp(+lam h) with the same normalisation.
    """
    trained_B = prepared.loss_mask_BT.any(1)
    ids_BT, group_B = prepared.batch.response_id_BT, prepared.group_B
    token_BT = torch.arange(ids_BT.numel()).view_as(ids_BT).masked_fill(ids_BT < 0, -1)

    def alphas(h_BT: Tensor, strength: float = lam, ids_BT: Tensor = ids_BT, group_B: Tensor = group_B) -> Modulation:
        return modulate(prepared.advantages_BT, h_BT, ids_BT, group_B, lam=strength, trained_of_row_B=trained_B)

    middle, by_token = alphas(entropy_BT), alphas(entropy_BT, ids_BT=token_BT)
    weights = {BASE: torch.ones_like(middle.alpha_R)}
    weights |= {aem_rule(strength): alphas(entropy_BT, strength).alpha_R for strength in lambdas}
    # -H is stretched to 1 - h, and exp(-lam (1 - h)) is exp(+lam h) up to a factor that the normalisation removes.
    weights[INVERTED] = alphas(-entropy_BT).alpha_R
    weights[SURPRISAL] = alphas(-prepared.old_logprobs_BT).alpha_R
    weights[BATCH] = alphas(entropy_BT, group_B=group_B.clamp(max=0)).alpha_R
    summed_BT = middle.responses.blocks.scale(entropy_BT.double(), middle.responses.length_R.double())
    weights[SUM] = alphas(summed_BT).alpha_R
    weights[RISE] = analysis_mask(middle.advantage_R, middle.alpha_R, keep="rise").double()
    weights[FALL] = analysis_mask(middle.advantage_R, middle.alpha_R, keep="fall").double()
    return _rules(weights, middle), _rules({TOKEN: by_token.alpha_R}, by_token)


def _rules(weights: dict[str, Tensor], modulation: Modulation) -> Rules:
    return Rules(weights, make_cells(modulation.group_R, modulation.advantage_R), modulation)


def make_cells(group_R: Tensor, advantage_R: Tensor) -> Tensor:
    """Number the pairs (group, sign of the advantage) from 0: Long [R]."""
    key_R = group_R.long() * 3 + advantage_R.sign().long() + 1
    cell_R: Tensor = torch.unique(key_R, return_inverse=True)[1]
    return cell_R


def permute_within(values_R: Tensor, cell_R: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle values among the responses of each cell."""
    mixed_R = values_R.clone()
    for cell in range(int(cell_R.max()) + 1 if len(cell_R) else 0):
        members = (cell_R == cell).nonzero()[:, 0]
        mixed_R[members] = values_R[members[torch.randperm(len(members), generator=generator)]]
    return mixed_R


def cell_mean(values_R: Tensor, cell_R: Tensor) -> Tensor:
    """Replace each value by the mean of its cell: the mean over all permutations within the cells. Float64 [R]."""
    return _sums(values_R, cell_R)[cell_R] / _sums(torch.ones_like(values_R), cell_R)[cell_R]


def permutation_deviation(weight_R: Tensor, effect_R: Tensor, cell_R: Tensor) -> float:
    """Standard deviation of sum(weight * effect) over all permutations of the weights within the cells, exactly.

    Within a cell of n: variance = sum (w - mean w)^2 * sum (e - mean e)^2 / (n - 1).
    """
    spread = [
        _sums((values_R.double() - cell_mean(values_R, cell_R)) ** 2, cell_R) for values_R in (weight_R, effect_R)
    ]
    size = _sums(torch.ones_like(weight_R), cell_R)
    return float((spread[0] * spread[1] / (size - 1).clamp(min=1)).sum().sqrt())


def _sums(values_R: Tensor, cell_R: Tensor) -> Tensor:
    cells = int(cell_R.max()) + 1 if len(cell_R) else 0
    return torch.zeros(cells, dtype=torch.float64).index_add(0, cell_R, values_R.double())
