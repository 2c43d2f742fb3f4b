"""Advantages of a verl batch, times alpha. Torch and our own algorithms only, so it runs in any process.

Shapes: B row, T response token, R response (one turn).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aem_swe.algorithms.aem import aem_metrics, modulate
from aem_swe.algorithms.spans import response_ids_from_mask
from aem_swe.engines.verl.settings import AemSettings


@dataclass(frozen=True, slots=True, eq=False)
class Rescaled:
    """New advantages (a new tensor: `returns` may share the old one's storage), and what to log."""

    advantages_BT: Tensor
    metrics: dict[str, float]


def rescale(
    advantages_BT: Tensor,
    entropy_BT: Tensor,
    mask_BT: Tensor,
    prompt_of_row_B: Sequence[object],
    settings: AemSettings,
    *,
    response_id_BT: Tensor | None = None,
    exact: bool = True,
) -> Rescaled:
    """AEM, eq. 13-15, over the responses of each prompt.

    prompt_of_row_B: what verl calls `uid`; rows with the same one are rollouts of one prompt, in any order.
    mask_BT: 1 where a token of the policy is trained. Responses without such a token are not in G: masked rows have
    none, and verl's rejection of rollouts takes more away.
    response_id_BT: which tokens the policy wrote as one response, trained or not; H is their mean. None: the runs of
    the mask. `exact` says whether these ids are more than such runs.
    With lambda 0, or where AEM is off, the advantages come back unchanged, bit for bit.
    Raises ValueError for entropies that are not finite, or shapes that disagree.
    """
    if not settings.enabled:
        return Rescaled(advantages_BT, {})
    ids_BT = response_ids_from_mask(mask_BT) if response_id_BT is None else response_id_BT
    ids_BT = ids_BT.masked_fill(~torch.isin(ids_BT, ids_BT[mask_BT.bool()]), -1)
    numbers: dict[object, int] = {}
    group_B = torch.tensor(
        [numbers.setdefault(prompt, len(numbers)) for prompt in prompt_of_row_B], device=advantages_BT.device
    )
    entropy_BT = entropy_BT.masked_fill(ids_BT < 0, 0.0)  # verl leaves whatever it likes outside the mask
    modulation = modulate(advantages_BT, entropy_BT, ids_BT, group_B, lam=settings.lam)
    metrics = {**aem_metrics(modulation), "aem/borders_from_mask": float(response_id_BT is None or not exact)}
    return Rescaled(modulation.advantages_BT, metrics)
