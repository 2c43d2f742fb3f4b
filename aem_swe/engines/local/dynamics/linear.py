"""How one small SGD step changes the entropy on fixed states: for every response of a batch at once.

A step with learning rate lr along the policy gradient changes the probe entropy H by <step, grad H>, to first order.
The step is a sum over sampled tokens of u_t * grad log p_t, where u_t is what the engine's own loss gives as weight
(advantage / denominator). So with j_t = <grad log p_t, grad H>, the change is lr * sum u_t j_t, and a rule that
multiplies the advantages of response k by w_k gives lr * sum_k w_k * sum_{t in k} u_t j_t. All j_t come from two
forward passes, at the weights moved a little along grad H and against it. One batch thus answers for every lambda,
every mask and all permutations, without the noise of separate measurements.
Not covered: clipping (the ratio is 1 here), momentum and Adam's scaling. `real_step` is the check.

Shapes: B row, T token, R response.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aem_swe.algorithms import Responses
from aem_swe.engines.batch import TrainingBatch
from aem_swe.engines.local.model import LocalModel, score
from aem_swe.engines.local.step import micro_batches, score_batch
from aem_swe.engines.update import Prepared, batch_loss, denominator
from aem_swe.schema import Recipe

Gradient = list[Tensor]
"""One tensor per parameter of the model."""
_RELATIVE_MOVE = 1e-5
"""Length of the move along grad H relative to the weights' own. Longer, and the cubic remainder grows; shorter, and the
rounding of float32 does. Every checked batch reports how far the two ways to the linear change are apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Slope:
    """The gradient of the probe entropy with respect to the weights."""

    gradient: Gradient
    norm: float
    entropy: float
    """The probe entropy itself, nats per token."""


def probe_entropy(model: LocalModel, probe: TrainingBatch, recipe: Recipe) -> float:
    """Mean entropy of the full softmax over the probe's sampled tokens, in nats; the mean is taken in float64."""
    return float(score_batch(model, probe, recipe).entropy_BT[probe.response_mask_BT].double().mean())


def entropy_slope(model: LocalModel, probe: TrainingBatch, recipe: Recipe) -> Slope:
    """The exact gradient of `probe_entropy` by backpropagation."""
    tokens, total = int(probe.response_mask_BT.sum()), 0.0
    with _gradients(model) as gradient:
        for _rows, tokens_BT, mask_BT in _parts(model, probe, torch.arange(len(probe.tokens_BT)), recipe):
            scores = score(model, tokens_BT, mask_BT, temperature=recipe.sampling.temperature)
            part = scores.entropy_BT.sum() / tokens
            part.backward()  # type: ignore[no-untyped-call]  # torch's own annotation
            total += float(part.detach())
    return Slope(gradient, norm(gradient), total)


def norm(gradient: Gradient) -> float:
    return math.sqrt(inner(gradient, gradient))


def inner(one: Gradient, other: Gradient) -> float:
    return float(sum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True)))


def slope_of_logprobs(model: LocalModel, batch: TrainingBatch, slope: Slope, recipe: Recipe) -> Tensor:
    """j_t = <grad log p_t, grad H> for the sampled tokens, 0 elsewhere: float64 [B, T], by a central difference."""
    weights = norm([parameter.detach() for parameter in model.parameters])
    move = _RELATIVE_MOVE * weights / slope.norm
    with moved(model, slope.gradient, move):
        ahead_BT = score_batch(model, batch, recipe).logprobs_BT
    with moved(model, slope.gradient, -move):
        behind_BT = score_batch(model, batch, recipe).logprobs_BT
    slope_BT: Tensor = (ahead_BT.double() - behind_BT.double()) / (2 * move)
    return slope_BT


def token_weights(prepared: Prepared, recipe: Recipe) -> Tensor:
    """u_t: minus the derivative of the engine's loss with respect to each token's log-prob, at ratio 1. [B, T]"""
    logprobs_BT = prepared.old_logprobs_BT.clone().requires_grad_()
    everything = torch.arange(len(logprobs_BT))
    loss = _loss(prepared, everything, logprobs_BT, recipe)
    return -torch.autograd.grad(loss, logprobs_BT)[0]


def response_sums(values_BT: Tensor, responses: Responses) -> Tensor:
    """Sum over the tokens of each response, in float64: [R]."""
    return responses.blocks.sum(values_BT.double())


def rule_gradient(
    model: LocalModel, prepared: Prepared, responses: Responses, weight_R: Tensor, recipe: Recipe
) -> Gradient:
    """Minus the gradient of the engine's loss with the advantage of each response multiplied by its weight."""
    weighted = replace(prepared, advantages_BT=responses.blocks.scale(prepared.advantages_BT, weight_R))
    rows = (weighted.loss_mask_BT & (weighted.advantages_BT != 0)).any(1).nonzero()[:, 0]
    with _gradients(model) as gradient:
        for part, tokens_BT, mask_BT in _parts(model, prepared.batch, rows, recipe):
            logprobs_BT = score(model, tokens_BT, mask_BT, temperature=recipe.sampling.temperature).logprobs_BT.cpu()
            loss = _loss(weighted, part, logprobs_BT, recipe)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation
    return [-tensor for tensor in gradient]


def real_step(model: LocalModel, probe: TrainingBatch, gradient: Gradient, lr: float, recipe: Recipe) -> float:
    """The probe entropy after one SGD step along `gradient`; the weights are put back, bit for bit."""
    with moved(model, gradient, lr):
        return probe_entropy(model, probe, recipe)


@contextmanager
def moved(model: LocalModel, direction: Gradient, length: float) -> Iterator[None]:
    """The model with `length * direction` added to its weights."""
    before = [parameter.detach().clone() for parameter in model.parameters]
    try:
        with torch.no_grad():
            for parameter, change in zip(model.parameters, direction, strict=True):
                parameter.add_(change, alpha=length)
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(model.parameters, before, strict=True):
                parameter.copy_(old)


@contextmanager
def _gradients(model: LocalModel) -> Iterator[Gradient]:
    """Collect what is backpropagated inside; the list is filled at the end."""
    model.network.zero_grad(set_to_none=True)
    gradient: Gradient = []
    try:
        yield gradient
        gradient += [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in model.parameters]
    finally:
        model.network.zero_grad(set_to_none=True)


def _parts(
    model: LocalModel, batch: TrainingBatch, rows: Tensor, recipe: Recipe
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Micro-batches as (rows, tokens [b, t], mask [b, t])."""
    for part in micro_batches(batch, rows, recipe.trainer.micro_batch):
        width = int(batch.length_B[part].max())
        tokens_BT, mask_BT = batch.tokens_BT[part, :width], batch.response_mask_BT[part, :width]
        yield part, tokens_BT.to(model.device), mask_BT.to(model.device)


def _loss(prepared: Prepared, rows: Tensor, logprobs_BT: Tensor, recipe: Recipe) -> Tensor:
    groups_G = torch.unique(prepared.group_B[prepared.group_B >= 0])
    divisor = denominator(prepared, groups_G, recipe.algorithm)
    return batch_loss(
        prepared, rows, logprobs_BT, None, divisor, recipe.algorithm, budget=recipe.agent.response_budget
    ).total
