"""Entropies of one row of DeepSWE's full length, and AEM on a whole batch of such rows, on the device.

Shapes: B row, T token, R response, G group.
"""

from dataclasses import dataclass
from typing import Final

import torch
from gpu_meter import Figures, Meter
from gpu_scene import Workload, make_recipe, make_trajectories, random_model
from torch import Tensor

from aem_swe.algorithms import Modulation, modulate
from aem_swe.engines.batch import build_batch
from aem_swe.engines.local.step import score_batch

_REPEATS: Final = 10


def measure_long(work: Workload, device: torch.device) -> Figures:
    """Score one long row, then modulate `long_rows` of them. `aem/share_of_score` compares the two for equal rows."""
    model = random_model(work, device)
    recipe = make_recipe(work, micro_batch=1)
    trajectories = make_trajectories(work, rows=1, tokens=work.long_tokens, turns=work.long_turns)
    batch = build_batch(trajectories, layout="trajectory")
    score_batch(model, batch, recipe)  # the first pass of a shape pays for loading its kernels
    meter = Meter(device)
    with meter.stage("score"):
        scores = score_batch(model, batch, recipe)
    peak_gib, score_s = meter.peak_gib(), meter.seconds("score")
    del model
    long_batch = _repeated(work, scores.entropy_BT, batch.response_id_BT)
    meter = Meter(device)
    on_device = long_batch.to(device)
    modulation = on_device.modulate()
    with meter.stage("modulate"):
        for _ in range(_REPEATS):
            on_device.modulate()
    modulate_s = meter.seconds("modulate") / _REPEATS
    return {
        "long/score_s": score_s,
        "long/peak_gib": peak_gib,
        "long/logits_gib": int(batch.response_mask_BT.sum()) * work.network["vocab_size"] * 4 / 2**30,
        "aem/modulate_s": modulate_s,
        "aem/share_of_score": modulate_s / (work.long_rows * score_s),
        "aem/peak_gib": meter.peak_gib(),
        "aem/mean_error": _mean_error(modulation),
        "aem/device_error": float((modulation.alpha_R.cpu() - long_batch.modulate().alpha_R).abs().max()),
    }


@dataclass(frozen=True, slots=True)
class LongBatch:
    """What AEM takes."""

    advantages_BT: Tensor
    entropy_BT: Tensor
    response_id_BT: Tensor
    group_B: Tensor

    def to(self, device: torch.device) -> "LongBatch":
        parts = (self.advantages_BT, self.entropy_BT, self.response_id_BT, self.group_B)
        return LongBatch(*(part.to(device) for part in parts))

    def modulate(self) -> Modulation:
        return modulate(self.advantages_BT, self.entropy_BT, self.response_id_BT, self.group_B, lam=1.0)


def _repeated(work: Workload, entropy_1T: Tensor, response_id_1T: Tensor) -> LongBatch:
    """The row `long_rows` times, its entropies scaled by a random factor in each."""
    row_B = torch.arange(work.long_rows)
    factor_B = 0.5 + torch.rand(work.long_rows, generator=torch.Generator().manual_seed(0))
    sign_B = torch.where(row_B % 2 == 0, 1.0, -1.0)
    return LongBatch(
        advantages_BT=sign_B[:, None] * (response_id_1T >= 0),
        entropy_BT=factor_B[:, None] * entropy_1T,
        response_id_BT=torch.where(response_id_1T >= 0, response_id_1T + work.long_turns * row_B[:, None], -1),
        group_B=row_B // work.rollouts,
    )


def _mean_error(modulation: Modulation) -> float:
    groups_G, index_R = torch.unique(modulation.group_R, return_inverse=True)
    sum_G = torch.zeros(len(groups_G), dtype=torch.float64, device=index_R.device).index_add(
        0, index_R, modulation.alpha_R
    )
    return float((sum_G / index_R.bincount() - 1).abs().max())
