"""What engine=local needs on one GPU at DeepSWE's lengths: seconds, peak memory, and what bfloat16 does to AEM.

A Qwen3-0.6B of random weights takes a training step of 16 rows of 8k tokens, samples at 8k, scores one row of 36k, and
AEM modulates 64 such rows. Sized for an H200; a few minutes, no download. Without a GPU every row says 'not measured',
and the one ratio, AEM's share of the pass that its entropies come from, is skipped.
`pytest -m gpu` asserts bounds on the same figures; the functions are shared and live beside those tests.
Not covered: several GPUs, sandboxes, and the larger models that one GPU could train.

    python benchmarks/gpu.py --json gpu.json
"""

import math
import sys
from pathlib import Path

import torch
from ratios import Ratio, Result, parse, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "gpu"))  # not a package: content beside tests

from gpu_figures import FIGURES, MEASUREMENTS
from gpu_meter import Figures
from gpu_scene import H200

NOT_MEASURED = "not measured"


def measure() -> Figures:
    """Every figure; NaN for all of them without a GPU."""
    figures = dict.fromkeys(FIGURES, math.nan)
    if torch.cuda.is_available():
        for function in MEASUREMENTS:
            figures |= function(H200, torch.device("cuda"))
    return figures


def about() -> dict[str, str]:
    """What the figures belong to."""
    network = H200.network
    return {
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA GPU",
        "torch": torch.__version__,
        "network": f"Qwen3-0.6B, random float32 weights computing in bfloat16, vocabulary {network['vocab_size']}",
        "step": f"{H200.rows} rows x {H200.tokens} tokens, one micro-batch, gradient checkpointing, AdamW",
        "sampler": f"{H200.rows} rows, {H200.tokens - H200.new_tokens} tokens of prompt, {H200.new_tokens} sampled",
        "long row": f"{H200.long_tokens} tokens, {H200.long_turns} responses",
        "long batch": f"{H200.long_rows} such rows",
    }


def main() -> int:
    arguments = parse(__doc__, {})
    figures = measure()
    for name, value in about().items():
        print(f"{name:<12}{value}")
    for key, label in FIGURES.items():
        print(f"  {label:<90}{_said(figures[key]):>14}")
    values = {key: None if math.isnan(value) else value for key, value in figures.items()}
    details = {**about(), "figures": values}
    share = figures["aem/share_of_score"]
    if math.isnan(share):
        return report(Result("gpu", details=details, skipped="needs one CUDA GPU"), arguments)
    ratio = Ratio("gpu", "AEM", "the pass that scores its rows", share, None, None, 1)
    return report(Result("gpu", (ratio,), details), arguments)


def _said(value: float) -> str:
    return NOT_MEASURED if math.isnan(value) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
