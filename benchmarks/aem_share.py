"""AEM's share of a training step at DeepSWE's size, next to the pass that its entropies come from.

AEM rescales a whole batch of 64 rows of 36,864 tokens (4,096 of prompt, 32,768 of response) with 50 responses each; the
reference is the old-log-prob pass of ONE such row by a small model, times 64, in the same run on the same threads. A
larger model makes the pass longer and leaves AEM as it is. Bound: 1% (exit status 1 if missed).
Not covered: the pass makes the entropies anyway, in verl as here; what they cost is not AEM's. GPUs: benchmarks/gpu.py.

    python benchmarks/aem_share.py --json benchmarks/results/aem_share.json
"""

import sys

import torch
from aem import aem_with_search, make_batch
from ratios import Result, divided, parse, report, timed

from aem_swe.engines.local.model import LocalModel, load_model, score

MAX_SHARE = 0.01
ROWS, PROMPT, RESPONSES = 64, 4096, 50
SIZES = {"tokens": (36864, 6144), "threads": (2, 2), "calls": (5, 2), "repeats": (3, 2)}


def old_log_probs(model: LocalModel, tokens: int) -> None:
    """The pass over one row."""
    vocabulary = model.network.get_output_embeddings().weight.shape[0]
    tokens_BT = torch.randint(0, vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        score(model, tokens_BT, torch.arange(tokens)[None] >= min(PROMPT, tokens // 2), temperature=1.0)


def main() -> int:
    arguments = parse(__doc__, SIZES, {"model": "builtin/demo-policy"})
    torch.set_num_threads(arguments.threads)
    batch = make_batch(ROWS, arguments.tokens, RESPONSES, rows_per_group=8)
    model = load_model(arguments.model, device="cpu")
    aem_with_search(batch)  # untimed: warm memory
    old_log_probs(model, 512)
    aem_s, pass_s = [], []
    for _ in range(arguments.repeats):
        aem_s.append(max(timed(lambda: aem_with_search(batch)) for _ in range(arguments.calls)))
        pass_s.append(timed(lambda: old_log_probs(model, arguments.tokens)))
    millions = sum(p.numel() for p in model.parameters) / 1e6
    shape = [ROWS, arguments.tokens]
    print(f"AEM on {shape}, {ROWS * RESPONSES} responses, borders searched: {1e3 * max(aem_s):.1f} ms (slowest)")
    print(f"old-log-prob pass of one row, {millions:.1f}M parameters: {min(pass_s):.2f} s; times {ROWS}")
    reference = f"the old-log-prob pass of {ROWS} rows"
    ratio = divided("aem_share", "AEM, slowest call", reference, aem_s, [ROWS * s for s in pass_s], MAX_SHARE)
    details = {"shape": shape, "responses": ROWS * RESPONSES, "threads": arguments.threads}
    details |= {"aem_s": aem_s, "pass_of_one_row_s": pass_s, "model_millions": millions}
    return report(Result("aem_share", (ratio,), details), arguments)


if __name__ == "__main__":
    sys.exit(main())
