"""The optimiser's half of a step: score the batch once, then update in micro-batches of whole trajectories."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aem_swe.engines.batch import TrainingBatch
from aem_swe.engines.device_time import device_span
from aem_swe.engines.local.model import LocalModel, Scores, score
from aem_swe.engines.update import BatchLoss, Prepared, batch_loss, denominator
from aem_swe.errors import PolicyError
from aem_swe.schema import Recipe


def micro_batches(batch: TrainingBatch, rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield row indices, similar lengths together, at most `size` rows; the rows of a trajectory stay together.

    (A GSPO ratio may span the rows of a trajectory, so a larger trajectory makes a larger micro-batch.)
    """
    by_trajectory: dict[int, list[int]] = {}
    for row in rows.tolist():
        by_trajectory.setdefault(int(batch.trajectory_B[row]), []).append(row)
    units = sorted(by_trajectory.values(), key=lambda unit: (max(int(batch.length_B[row]) for row in unit), unit))
    pending: list[int] = []
    for unit in units:
        if pending and len(pending) + len(unit) > size:
            yield torch.tensor(pending)
            pending = []
        pending += unit
    if pending:
        yield torch.tensor(pending)


def _scored(model: LocalModel, batch: TrainingBatch, rows: Tensor, temperature: float) -> Scores:
    width = int(batch.length_B[rows].max())
    tokens_BT, mask_BT = batch.tokens_BT[rows, :width], batch.response_mask_BT[rows, :width]
    return score(model, tokens_BT.to(model.device), mask_BT.to(model.device), temperature=temperature)


@torch.no_grad()
def score_batch(model: LocalModel, batch: TrainingBatch, recipe: Recipe) -> Scores:
    """Log-probs and entropies of the whole batch in one pass, on the CPU in the batch's order."""
    logprobs_BT, entropy_BT = torch.zeros(batch.tokens_BT.shape), torch.zeros(batch.tokens_BT.shape)
    for rows in micro_batches(batch, torch.arange(len(batch.tokens_BT)), recipe.trainer.micro_batch):
        scores = _scored(model, batch, rows, recipe.sampling.temperature)
        width = scores.logprobs_BT.shape[1]
        logprobs_BT[rows, :width], entropy_BT[rows, :width] = scores.logprobs_BT.cpu(), scores.entropy_BT.cpu()
    return Scores(logprobs_BT, entropy_BT)


@dataclass(slots=True)
class UpdateStatistics:
    """Sums over the updates of a step."""

    updates: int = 0
    loss: float = 0.0
    """What was minimised: policy loss + kl_coefficient * KL."""
    policy_loss: float = 0.0
    kl_loss: float = 0.0
    grad_norm: float = 0.0
    clip_low: float = 0.0
    """Tokens whose gradient the lower clip cut; likewise `clip_high`."""
    clip_high: float = 0.0
    tokens: int = 0

    def add(self, loss: BatchLoss) -> None:
        self.loss += float(loss.total.detach())
        self.policy_loss += float(loss.policy_loss)
        self.kl_loss += float(loss.kl_loss)
        self.clip_low += float(loss.policy.clip_low_fraction) * loss.tokens
        self.clip_high += float(loss.policy.clip_high_fraction) * loss.tokens
        self.tokens += loss.tokens

    def metrics(self, *, with_kl: bool) -> dict[str, float]:
        updates, tokens = max(1, self.updates), max(1, self.tokens)
        return {
            "actor/updates": self.updates,
            "actor/pg_loss": self.policy_loss / updates,
            "actor/grad_norm": self.grad_norm / updates,
            "actor/clip_low_fraction": self.clip_low / tokens,
            "actor/clip_high_fraction": self.clip_high / tokens,
            **({"actor/kl_loss": self.kl_loss / updates} if with_kl else {}),
        }


def update(
    model: LocalModel,
    optimizer: torch.optim.Optimizer,
    prepared: Prepared,
    reference_BT: Tensor | None,
    minibatches: Sequence[Tensor],
    recipe: Recipe,
) -> UpdateStatistics:
    """One optimiser update per minibatch of groups. A minibatch without anything to learn from is no update at all."""
    statistics = UpdateStatistics()
    learns_B = prepared.loss_mask_BT.any(1)
    if reference_BT is None:  # a row without advantage has a gradient of exactly zero
        learns_B &= (prepared.advantages_BT != 0).any(1)
    for groups_G in minibatches:
        rows = (torch.isin(prepared.group_B, groups_G) & learns_B).nonzero()[:, 0]
        if not len(rows):
            continue
        divisor = denominator(prepared, groups_G, recipe.algorithm)
        for part in micro_batches(prepared.batch, rows, recipe.trainer.micro_batch):
            with device_span("update/forward", model.device, rows=len(part)):
                # The entropies are let go before the backward pass, which would otherwise keep, for their unused
                # gradient, the recomputed logits of every block.
                logprobs_BT = _scored(model, prepared.batch, part, recipe.sampling.temperature).logprobs_BT.cpu()
                part_reference = None if reference_BT is None else reference_BT[part, : logprobs_BT.shape[1]]
                loss = batch_loss(
                    prepared,
                    part,
                    logprobs_BT,
                    part_reference,
                    divisor,
                    recipe.algorithm,
                    budget=recipe.agent.response_budget,
                )
            with device_span("update/backward", model.device, rows=len(part)):
                loss.total.backward()  # type: ignore[no-untyped-call]  # torch's own annotation
            statistics.add(loss)
        with device_span("update/optimizer", model.device):
            norm = torch.nn.utils.clip_grad_norm_(model.parameters, recipe.optimizer.grad_clip)
            if not norm.isfinite():
                raise PolicyError(
                    f"the gradient norm is {float(norm)}: training has diverged; choose a lower optimizer.lr"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        statistics.grad_norm += float(norm)
        statistics.updates += 1
    return statistics
