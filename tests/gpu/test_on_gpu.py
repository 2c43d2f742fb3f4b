"""engine=local at full length on one GPU, sized for an H200: `pytest -m gpu`. No download; a few minutes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gpu_long import measure_long
from gpu_meter import Figures
from gpu_precision import measure_precision
from gpu_scene import H200, NEEDED_GIB
from gpu_step import measure_sampler, measure_step

from aem_swe.engines.device_time import device_span
from aem_swe.profiling import recording

pytestmark = [
    pytest.mark.gpu,
    # CUDA libraries have warnings of their own that no test here is about: shown, not turned into errors.
    pytest.mark.filterwarnings("default"),
]
Report = Callable[[Figures], None]


def test_a_training_step_of_16_rows_of_8k_tokens_fits_and_moves_the_weights(cuda: torch.device, report: Report) -> None:
    figures = measure_step(H200, cuda)
    report(figures)
    assert math.isfinite(figures["step/loss"])
    assert 0 < figures["step/grad_norm"] < math.inf
    # AdamW's first update is about lr = 1e-6 for every weight, hundreds of times the last bit of a float32 of 0.02.
    assert figures["step/moved_share"] > 0.9
    assert figures["step/peak_gib"] < NEEDED_GIB


def test_a_span_ends_with_its_kernels_so_that_the_next_one_does_not_pay_for_them(
    cuda: torch.device, tmp_path: Path
) -> None:
    matrix = torch.randn(8192, 8192, device=cuda)
    matrix @ matrix
    with recording(tmp_path / "spans.jsonl"):
        with device_span("update/backward", cuda):
            for _ in range(50):  # 55 TFLOP: queued in a millisecond, done in a second or so
                matrix @ matrix
        with device_span("update/optimizer", cuda):
            torch.ones(1, device=cuda)
    first, second = (json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines())
    assert 0.9 * first["gpu_s"] < first["seconds"] < 1.5 * first["gpu_s"]
    assert second["seconds"] < 0.1 * first["seconds"]


def test_the_sampler_at_8k_and_the_score_pass_agree_on_the_log_probs(cuda: torch.device, report: Report) -> None:
    figures = measure_sampler(H200, cuda)
    report(figures)
    # Logits reach 50 here, where the last bit of bfloat16 is 0.25, and each pass rounds them and its hidden states on
    # its own. The same network in bfloat16 on a CPU, 192 tokens: 0.04 on average, 0.5 at most; here are 4096.
    assert figures["sampler/error_mean"] < 0.1
    assert figures["sampler/error_max"] < 1.5
    assert figures["sampler/peak_gib"] < NEEDED_GIB


def test_entropies_and_aem_at_36k_tokens_fit_and_aem_costs_next_to_nothing(cuda: torch.device, report: Report) -> None:
    figures = measure_long(H200, cuda)
    report(figures)
    # Weights, hidden states and one block of logits: about 6 GiB against 10. All logits at once would take half a dozen
    # of these copies.
    assert figures["long/peak_gib"] < figures["long/logits_gib"]
    assert figures["aem/share_of_score"] < 0.01
    assert figures["aem/mean_error"] < 1e-6
    # Float64 on both devices: only the order of the sums differs, stretched by 1 / the range of a group.
    assert figures["aem/device_error"] < 1e-9


def test_bfloat16_keeps_the_entropies_and_the_order_of_alpha(cuda: torch.device, report: Report) -> None:
    figures = measure_precision(H200, cuda)
    report(figures)
    # The same network on a CPU: a token's entropy has an error of 0.07 nats and a spread of 0.74, and both shrink alike
    # with the length of a response, so the error is r = 0.1 of the spread at any length. Normal errors then put
    # atan(r) / pi = 3% of the pairs in the wrong order, at a rank correlation of 0.995. The bounds are r = 0.2, and for
    # H_k twice 0.07 / sqrt(64) on average and ten times at most.
    assert figures["precision/entropy_error_mean"] < 0.02
    assert figures["precision/entropy_error_max"] < 0.09
    assert figures["precision/alpha_error_max"] < 0.2
    assert figures["precision/spearman"] > 0.98
    assert figures["precision/discordant_share"] < 0.06
