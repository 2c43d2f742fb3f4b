"""What bfloat16 does to AEM: the error of H_k, and of the order in which alpha puts the responses of a group.

AEM stretches the entropies of a group to [0, 1], so what counts is not the error of H_k but its ratio to the spread
within the group. The weights are the same; only the arithmetic differs.

Shapes: R response, M response of one group, B row, T token.
"""

from typing import Final

import torch
from gpu_meter import Figures
from gpu_scene import Workload, make_recipe, make_trajectories, random_model
from scipy.stats import spearmanr
from torch import Tensor

from aem_swe.algorithms import Modulation, modulate
from aem_swe.engines.batch import TrainingBatch, build_batch
from aem_swe.engines.local.model import LocalModel
from aem_swe.engines.local.step import score_batch

LEAST_TOKENS: Final = 64
"""Shorter responses are left out of the errors: their mean does not average much."""


def measure_precision(work: Workload, device: torch.device) -> Figures:
    """Score the training step's rows in both precisions and compare H_k and alpha."""
    narrow = random_model(work, device)
    wide = LocalModel(narrow.network, narrow.chat, device)
    trajectories = make_trajectories(work, rows=work.rows, tokens=work.tokens, turns=work.turns)
    batch = build_batch(trajectories, layout="trajectory")
    rough = _modulated(work, batch, score_batch(narrow, batch, make_recipe(work, micro_batch=work.rows)).entropy_BT)
    # Row by row: torch has no fused float32 attention for grouped heads, so a row's scores are all in memory at once.
    exact = _modulated(work, batch, score_batch(wide, batch, make_recipe(work, micro_batch=1)).entropy_BT)
    long_R = exact.responses.length_R >= LEAST_TOKENS
    groups = [(exact.group_R == group) & long_R for group in range(work.prompts)]
    error_R = (rough.entropy_R - exact.entropy_R)[long_R].abs()
    return {
        "precision/entropy_spread": min(float(exact.entropy_R[group].std()) for group in groups),
        "precision/entropy_error_mean": float(error_R.mean()),
        "precision/entropy_error_max": float(error_R.max()),
        "precision/alpha_error_max": float((rough.alpha_R - exact.alpha_R)[long_R].abs().max()),
        "precision/spearman": min(spearman(rough.alpha_R[group], exact.alpha_R[group]) for group in groups),
        "precision/discordant_share": max(
            discordant_share(rough.alpha_R[group], exact.alpha_R[group]) for group in groups
        ),
    }


def _modulated(work: Workload, batch: TrainingBatch, entropy_BT: Tensor) -> Modulation:
    group_B = batch.trajectory_B // work.rollouts
    return modulate(torch.ones_like(entropy_BT), entropy_BT, batch.response_id_BT, group_B, lam=1.0)


def spearman(a_M: Tensor, b_M: Tensor) -> float:
    """Rank correlation."""
    return float(spearmanr(a_M.numpy(), b_M.numpy()).statistic)


def discordant_share(a_M: Tensor, b_M: Tensor) -> float:
    """Share of the pairs that the two put in opposite orders."""
    sign_MM = (a_M[:, None] - a_M).sign() * (b_M[:, None] - b_M).sign()
    return float((sign_MM < 0).sum()) / (len(a_M) * (len(a_M) - 1))
