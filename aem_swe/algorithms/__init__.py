"""The algorithms: tensors in, tensors out, and torch is all they need.

Data flow of a step: `filter_trajectories` -> `leave_one_out` (or another of ADVANTAGES) -> `to_rows` -> `modulate`
(AEM) -> `ppo_loss` (or another of LOSSES) -> `aggregate`. Nothing here reads a config, logs or touches a file.
"""

from aem_swe.algorithms.advantages import (
    ADVANTAGES,
    GRPO_EPSILON,
    grpo,
    leave_one_out,
    mean_baseline,
    overlong_penalty,
    to_rows,
)
from aem_swe.algorithms.aem import FLAT_RANGE, Modulation, aem_metrics, analysis_mask, modulate
from aem_swe.algorithms.entropy import TokenStatistics, response_entropy, token_logprobs_and_entropy
from aem_swe.algorithms.filters import (
    MODES,
    REASONS,
    TERMINATIONS,
    TRUNCATIONS,
    FilterVerdict,
    Mode,
    filter_trajectories,
)
from aem_swe.algorithms.losses import (
    LOSSES,
    Aggregation,
    LossFunction,
    PolicyLoss,
    aggregate,
    gspo_loss,
    kl_k3,
    ppo_loss,
    unit_tokens,
)
from aem_swe.algorithms.spans import Responses, find_responses, response_ids, response_ids_from_mask

__all__ = [
    "ADVANTAGES",
    "FLAT_RANGE",
    "GRPO_EPSILON",
    "LOSSES",
    "MODES",
    "REASONS",
    "TERMINATIONS",
    "TRUNCATIONS",
    "Aggregation",
    "FilterVerdict",
    "LossFunction",
    "Mode",
    "Modulation",
    "PolicyLoss",
    "Responses",
    "TokenStatistics",
    "aem_metrics",
    "aggregate",
    "analysis_mask",
    "filter_trajectories",
    "find_responses",
    "grpo",
    "gspo_loss",
    "kl_k3",
    "leave_one_out",
    "mean_baseline",
    "modulate",
    "overlong_penalty",
    "ppo_loss",
    "response_entropy",
    "response_ids",
    "response_ids_from_mask",
    "to_rows",
    "token_logprobs_and_entropy",
    "unit_tokens",
]
