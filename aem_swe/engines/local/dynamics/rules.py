"""The rules that are compared: how much each response of one batch weighs in the policy gradient.

Every rule multiplies the same advantages by a weight per response. AEM's alphas change the size of a step as well as
its direction, because their mean over tokens is not 1; a mask makes the step smaller. So every rule has a control: its
weights permuted among the responses of one group and one sign of the advantage. A step is linear in its weights,
therefore the mean over ALL permutations needs no drawing: each weight is replaced by the mean of its cell.

Shapes: B row, T token, R response, G group. A cell is a pair (group, sign of the advantage).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aem_swe.algorithms import Modulation, analysis_mask, modulate
from aem_swe.engines.update import Prepared

BASE, INVERTED, RISE, FALL = "base", "inverted", "rise", "fall"


def aem_rule(lam: float) -> str:
    return f"aem_{lam:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """Weights per response; all tensors are float64 [R] in the order of `modulation.responses`."""

    weights: dict[str, Tensor]
    cell_R: Tensor
    """Long. The number of the (group, sign of the advantage) of each response."""
    modulation: Modulation
    """Of AEM at the lambda of the masks."""

    @property
    def controlled(self) -> tuple[str, ...]:
        """The rules with a permuted control: all but the base, whose weights are equal."""
        return tuple(rule for rule in self.weights if rule != BASE)


def make_rules(prepared: Prepared, entropy_BT: Tensor, *, lam: float, lambdas: Sequence[float]) -> Rules:
    """Return the weights of every rule for a batch that was prepared with AEM off.

    `lam` makes the masks of Analysis A and the inverted alphas, exp(+lam h) with the same normalisation.
    """
    trained_B = prepared.loss_mask_BT.any(1)
    ids_BT = prepared.batch.response_id_BT

    def alphas(entropies_BT: Tensor, strength: float) -> Modulation:
        return modulate(
            prepared.advantages_BT, entropies_BT, ids_BT, prepared.group_B, lam=strength, trained_of_row_B=trained_B
        )

    middle = alphas(entropy_BT, lam)
    weights = {BASE: torch.ones_like(middle.alpha_R)}
    weights |= {aem_rule(strength): alphas(entropy_BT, strength).alpha_R for strength in lambdas}
    # -H is stretched to 1 - h, and exp(-lam (1 - h)) is exp(+lam h) up to a factor that the normalisation removes.
    weights[INVERTED] = alphas(-entropy_BT, lam).alpha_R
    weights[RISE] = analysis_mask(middle.advantage_R, middle.alpha_R, keep="rise").double()
    weights[FALL] = analysis_mask(middle.advantage_R, middle.alpha_R, keep="fall").double()
    return Rules(weights, make_cells(middle.group_R, middle.advantage_R), middle)


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
