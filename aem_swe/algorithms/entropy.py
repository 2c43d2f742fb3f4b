"""Token entropies, and their mean over a response: the H of AEM.

Both numbers come from ONE forward pass, the one that recomputes the old log-probs, at the sampling temperature. The
mean is accumulated in float64, and not for elegance: AEM stretches the spread of a group to [0, 1], so the 1e-7 noise
of float32 sums would turn a group of equal responses (spread 0, alpha 1) into a full-scale modulation.
Not covered: chunking over tokens. The caller owns the memory of its logits.

Shapes: N token, V vocabulary, B row, T token, R response.
"""

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from aem_swe.algorithms.spans import Responses


@dataclass(frozen=True, slots=True, eq=False)
class TokenStatistics:
    """What one forward pass says about sampled tokens, in nats."""

    logprobs_N: Tensor
    entropy_N: Tensor


def token_logprobs_and_entropy(logits_NV: Tensor, ids_N: Tensor, *, temperature: float) -> TokenStatistics:
    """Log-prob of each sampled token and the entropy of its distribution, of softmax(logits / temperature).

    Computes in float32 (float64 if the logits are). A logit of -inf is a token that cannot be sampled and adds
    0 * log 0 = 0. Differentiable. Raises ValueError for a temperature that is not positive and finite.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; it must be positive and finite (the sampling temperature)")
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    log_NV = (logits_NV.to(wide) / temperature).log_softmax(dim=-1)
    p_NV = log_NV.exp()
    # Fill before multiplying: a mask after the product leaves 0 * inf = NaN in the gradient.
    entropy_N = -(p_NV * log_NV.masked_fill(p_NV == 0, 0.0)).sum(dim=-1)
    return TokenStatistics(log_NV.gather(-1, ids_N.long().unsqueeze(-1)).squeeze(-1), entropy_N)


def response_entropy(entropy_BT: Tensor, responses: Responses) -> Tensor:
    """Mean entropy over the sampled tokens of each response: H_k of AEM, eq. 13 (arXiv 2605.00425).

    Returns float64 [R] in nats. What lies outside the responses is never read into a sum, NaN and garbage included.
    Raises ValueError if a response holds an entropy that is not finite.
    """
    if entropy_BT.shape != responses.shape:
        raise ValueError(f"entropies are {tuple(entropy_BT.shape)}, response ids {responses.shape}; they must agree")
    mean_R = responses.blocks.sum(entropy_BT) / responses.length_R
    if not mean_R.isfinite().all():
        _raise_not_finite(entropy_BT, responses)
    return mean_R


def _raise_not_finite(entropy_BT: Tensor, responses: Responses) -> NoReturn:
    position = (~entropy_BT.isfinite()).flatten().nonzero().flatten()
    owner = torch.searchsorted(responses.offset_R, position, right=True) - 1
    end = (responses.offset_R + responses.length_R)[owner.clamp(min=0)]
    position = position[(owner >= 0) & (position < end)]
    raise ValueError(
        f"{len(position)} entropies under responses are not finite, the first at (row, token)"
        f" {divmod(int(position[0]), entropy_BT.shape[1])}; look for NaN or +inf logits in that forward pass, and"
        " compute entropies in float32 with token_logprobs_and_entropy, which allows -inf logits"
    )
