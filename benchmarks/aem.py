"""What AEM's arithmetic costs, next to something that everybody has a feeling for: an elementwise PPO clip.

One run times all of it on the same tensors, in turns (ratios.py). Bounds: AEM costs at most 2 clips, and at most 1/20
of the obvious Python loop over spans (exit status 1 if missed).
"aem" is everything from (advantages, entropies, responses, groups) to the rescaled advantages, the check for NaN
included; the responses were found once, when the batch was built, as the loop's list of spans was. "aem_with_search"
finds them in the ids on every call.
Not covered: the entropies themselves, which come with the forward pass of the old log-probs.

    python benchmarks/aem.py --json aem.json
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from ratios import Result, divided, in_turns, parse, report
from torch import Tensor

from aem_swe.algorithms import Responses, find_responses, modulate, response_ids

MAX_AEM_OVER_CLIP, MAX_AEM_OVER_NAIVE = 2.0, 1 / 20
BEST_OF = 12
SIZES = {
    "rows": (64, 16),
    "tokens": (32768, 1024),
    "responses-per-row": (50, 10),
    "rows-per-group": (8, 8),
    "threads": (2, 1),
    "repeats": (6, 6),
}
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


@dataclass(frozen=True, slots=True)
class Batch:
    advantages_BT: Tensor
    entropy_BT: Tensor
    logprobs_BT: Tensor
    old_logprobs_BT: Tensor
    response_id_BT: Tensor
    responses: Responses
    group_of_row_B: Tensor
    spans: dict[int, list[tuple[int, int, int]]]
    """(row, start, end) of every response, by group."""


def make_batch(rows: int, tokens: int, responses_per_row: int, rows_per_group: int) -> Batch:
    """Random responses with random gaps between them, in every row as many."""
    generator = torch.Generator().manual_seed(0)
    cuts = [torch.randperm(tokens, generator=generator)[: 2 * responses_per_row] for _ in range(rows)]
    borders = torch.stack(cuts).sort(dim=1).values
    row_R = torch.arange(rows).repeat_interleave(responses_per_row)
    start_R, end_R = borders[:, 0::2].flatten(), borders[:, 1::2].flatten()
    response_id_BT = response_ids(row_R, start_R, end_R, shape=(rows, tokens))
    group_of_row_B = torch.arange(rows) // rows_per_group
    spans: dict[int, list[tuple[int, int, int]]] = {}
    for row, start, end in zip(row_R.tolist(), start_R.tolist(), end_R.tolist(), strict=True):
        spans.setdefault(row // rows_per_group, []).append((row, start, end))
    logprobs_BT = -torch.rand(rows, tokens, generator=generator)
    return Batch(
        advantages_BT=torch.randn(rows, 1, generator=generator).expand(rows, tokens).contiguous(),
        entropy_BT=2 * torch.rand(rows, tokens, generator=generator),
        logprobs_BT=logprobs_BT,
        old_logprobs_BT=logprobs_BT + 0.1 * torch.randn(rows, tokens, generator=generator),
        response_id_BT=response_id_BT,
        responses=find_responses(response_id_BT),
        group_of_row_B=group_of_row_B,
        spans=spans,
    )


def clip(batch: Batch) -> Tensor:
    ratio_BT = torch.exp(batch.logprobs_BT - batch.old_logprobs_BT)
    clipped_BT = ratio_BT.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    return -torch.minimum(ratio_BT * batch.advantages_BT, clipped_BT * batch.advantages_BT)


def aem(batch: Batch) -> Tensor:
    return modulate(batch.advantages_BT, batch.entropy_BT, batch.responses, batch.group_of_row_B, lam=1.0).advantages_BT


def aem_with_search(batch: Batch) -> Tensor:
    return _modulate(batch, batch.response_id_BT)


def _modulate(batch: Batch, responses: Tensor | Responses) -> Tensor:
    return modulate(batch.advantages_BT, batch.entropy_BT, responses, batch.group_of_row_B, lam=1.0).advantages_BT


def naive(batch: Batch) -> Tensor:
    """Eq. 13-15 as one would write them first, with the accuracy of `modulate`."""
    advantages_BT = batch.advantages_BT.clone()
    for spans in batch.spans.values():
        means = []
        for row, start, end in spans:
            entropy_T = batch.entropy_BT[row, start:end]
            assert torch.isfinite(entropy_T).all()
            means.append(entropy_T.double().mean())
        entropy_R = torch.stack(means)
        weight_R = torch.exp(-(entropy_R - entropy_R.min()) / (entropy_R.max() - entropy_R.min()))
        alpha_R = weight_R / weight_R.mean()
        for alpha, (row, start, end) in zip(alpha_R, spans, strict=True):
            advantages_BT[row, start:end] *= alpha
    return advantages_BT


CONTENDERS: dict[str, Callable[[Batch], Tensor]] = {f.__name__: f for f in (clip, aem, aem_with_search, naive)}


def best(milliseconds: Sequence[float]) -> list[float]:
    """The best of every few calls: other work on the machine only ever adds to a time, and adds more to the threaded
    ones."""
    return [min(milliseconds[i : i + BEST_OF]) for i in range(0, len(milliseconds), BEST_OF)]


def main() -> int:
    arguments = parse(__doc__, SIZES)
    torch.set_num_threads(arguments.threads)
    # Freeing one large block makes glibc keep freed memory, as in a process that has worked for a while. Without this,
    # page faults of fresh memory are most of what is timed, and which contender pays for them is chance.
    torch.empty(31 * 2**20, dtype=torch.uint8)
    batch = make_batch(arguments.rows, arguments.tokens, arguments.responses_per_row, arguments.rows_per_group)
    torch.testing.assert_close(aem(batch), naive(batch), rtol=1e-6, atol=0.0)

    actions = {name: partial(function, batch) for name, function in CONTENDERS.items()}
    seconds = in_turns(actions, BEST_OF * arguments.repeats, warm=True)
    milliseconds = {name: [1e3 * value for value in values] for name, values in seconds.items()}
    median = {name: statistics.median(values) for name, values in milliseconds.items()}
    found = {name: best(values) for name, values in milliseconds.items()}
    shape = f"[{arguments.rows}, {arguments.tokens}] float32, {len(batch.responses.id_R)} responses"
    print(f"{shape}, {arguments.threads} threads\n{'':<24}{'median':>8}{'best':>8} of {BEST_OF * arguments.repeats}")
    for name in CONTENDERS:
        print(f"{name + ', ms':<24}{median[name]:8.2f}{min(found[name]):8.2f}")
    clip, loop = "an elementwise PPO clip", "a loop over responses"
    ratios = (
        divided("aem", "AEM", clip, found["aem"], found["clip"], MAX_AEM_OVER_CLIP),
        divided("aem", "AEM", loop, found["aem"], found["naive"], MAX_AEM_OVER_NAIVE),
        divided("aem", "AEM with search", clip, found["aem_with_search"], found["clip"]),
    )
    details = {"shape": shape, "threads": arguments.threads, "median_ms": median}
    details["best_ms"] = {name: min(values) for name, values in found.items()}
    return report(Result("aem", ratios, details), arguments)


if __name__ == "__main__":
    sys.exit(main())
