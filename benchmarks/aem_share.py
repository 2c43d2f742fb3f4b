"""AEM's share of a training step at DeepSWE's size, next to the pass that its entropies come from.

AEM rescales a whole batch of 64 rows of 36,864 tokens (4,096 of prompt, 32,768 of response) with 50 responses each; the
reference is the old-log-prob pass of ONE such row by a small model, times 64, in the same run on the same threads. A
larger model makes the pass longer and leaves AEM as it is. Bound: 1% (exit status 1 if missed).
Not covered: the pass makes the entropies anyway, in verl as here; what they cost is not AEM's. GPUs: benchmarks/gpu.py.

    python benchmarks/aem_share.py --json benchmarks/results/aem_share.json
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from aem import aem_with_search, make_batch

from aem_swe.engines.local.model import load_model, score

MAX_SHARE = 0.01
ROWS, PROMPT, TOKENS, RESPONSES = 64, 4096, 36864, 50


def old_log_prob_pass(model_path: str) -> tuple[float, float]:
    """Seconds of the pass over one row, and the model's parameters in millions."""
    model = load_model(model_path, device="cpu")
    vocabulary = model.network.get_output_embeddings().weight.shape[0]
    tokens_BT = torch.randint(0, vocabulary, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    sampled_BT = torch.arange(TOKENS)[None] >= PROMPT
    with torch.no_grad():
        score(model, tokens_BT[:, :512], torch.arange(512)[None] > 0, temperature=1.0)  # untimed: warm memory
        begin = time.perf_counter()
        score(model, tokens_BT, sampled_BT, temperature=1.0)
        return time.perf_counter() - begin, sum(p.numel() for p in model.parameters) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin/demo-policy", help="of the old-log-prob pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch = make_batch(ROWS, TOKENS, RESPONSES, rows_per_group=8)
    seconds = []
    for _ in range(arguments.repeats):
        aem_with_search(batch)
        begin = time.perf_counter()
        aem_with_search(batch)
        seconds.append(time.perf_counter() - begin)
    row_s, millions = old_log_prob_pass(arguments.model)
    worst = max(seconds)
    share = worst / (ROWS * row_s)
    met = share <= MAX_SHARE
    print(f"AEM on [{ROWS}, {TOKENS}], {ROWS * RESPONSES} responses, borders searched: {1e3 * worst:.1f} ms (slowest)")
    print(
        f"old-log-prob pass of one row, {millions:.1f}M parameters: {row_s:.2f} s; times {ROWS}: {ROWS * row_s:.0f} s"
    )
    print(f"share {share:.2e}, bound {MAX_SHARE:g}: {'met' if met else 'MISSED'}")
    if arguments.json:
        values = {"shape": [ROWS, TOKENS], "responses": ROWS * RESPONSES, "threads": arguments.threads}
        values |= {"aem_s": worst, "pass_of_one_row_s": row_s, "model_millions": millions, "share": share, "met": met}
        arguments.json.write_text(json.dumps(values, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
