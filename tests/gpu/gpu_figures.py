"""All that is measured on a GPU, by name: `pytest -m gpu` asserts bounds on it, `benchmarks/gpu.py` prints it.

The same functions run with tiny shapes on the CPU, in test_shapes_on_cpu.py.
Not covered: several GPUs, sandboxes, and models that were trained.
"""

from collections.abc import Callable
from typing import Final

import torch
from gpu_long import measure_long
from gpu_meter import Figures
from gpu_precision import measure_precision
from gpu_scene import Workload
from gpu_step import measure_sampler, measure_step

MEASUREMENTS: Final[tuple[Callable[[Workload, torch.device], Figures], ...]] = (
    measure_step,
    measure_sampler,
    measure_long,
    measure_precision,
)

FIGURES: Final = {
    "step/score_s": "training step: old log-probs and entropies, s",
    "step/aem_s": "training step: advantages and AEM (on the CPU, as the trainer does), s",
    "step/update_s": "training step: forward, backward, AdamW, s",
    "step/loss": "training step: loss",
    "step/grad_norm": "training step: gradient norm",
    "step/moved_share": "training step: share of the bfloat16 weights that AdamW at lr 1e-6 moves",
    "step/peak_gib": "training step: peak memory, GiB",
    "sampler/prefill_s": "sampler: prefill of all rows and one token, s",
    "sampler/tokens_per_s": "sampler: tokens per second, all rows together",
    "sampler/error_mean": "sampler: |log-prob - that of the score pass|, mean, nats",
    "sampler/error_max": "sampler: |log-prob - that of the score pass|, max, nats",
    "sampler/peak_gib": "sampler: peak memory, GiB",
    "long/score_s": "long row: old log-probs and entropies, s",
    "long/peak_gib": "long row: peak memory, GiB",
    "long/logits_gib": "long row: for comparison, one float32 copy of its scored logits, GiB",
    "aem/modulate_s": "AEM on the long batch: s",
    "aem/share_of_score": "AEM on the long batch: share of the time that scoring it takes",
    "aem/peak_gib": "AEM on the long batch: peak memory, GiB",
    "aem/mean_error": "AEM on the long batch: |mean alpha of a group - 1|, max",
    "aem/device_error": "AEM on the long batch: |alpha - alpha computed on the CPU|, max",
    "precision/entropy_spread": "float32: standard deviation of H_k within a group, nats",
    "precision/entropy_error_mean": "bfloat16 against float32: |error of H_k|, mean, nats",
    "precision/entropy_error_max": "bfloat16 against float32: |error of H_k|, max, nats",
    "precision/alpha_error_max": "bfloat16 against float32: |error of alpha|, max",
    "precision/spearman": "bfloat16 against float32: rank correlation of alpha, worst group",
    "precision/discordant_share": "bfloat16 against float32: share of pairs whose alphas swap, worst group",
}
"""What every key means, in the order of the table."""
