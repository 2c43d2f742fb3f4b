"""The same trajectories for every engine: what the embedded engine makes of them, and their form for verl."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aem_swe.engines.batch import TrainingBatch, build_batch
from aem_swe.engines.local.model import LocalModel
from aem_swe.engines.local.step import score_batch, update
from aem_swe.engines.update import Prepared, judge, prepare, trajectory_advantages
from aem_swe.schema import Recipe
from aem_swe.types import Termination, ToolCall, Trajectory, Turn

BUDGET = 37
ROLLOUTS = 4
ENDINGS = {1: Termination.MAX_STEPS, 6: Termination.TOKEN_BUDGET}
"""Masked: their rewards count, their tokens do not."""
REWARDS = (1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0)
OBSERVATIONS = (2, 0, 1)
"""Tokens between two turns; none: they touch."""


def trajectories(*, broken: Sequence[int] = ()) -> list[Trajectory]:
    """Two prompts with four rollouts of one to three turns. `broken` ones failed for lack of a sandbox."""
    generator = torch.Generator().manual_seed(3)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 64, (count,), generator=generator).tolist())

    made = []
    for index in range(2 * ROLLOUTS):
        group = index // ROLLOUTS
        seen, turns = tokens(3 + group), []
        for number in range(1 + index % 3):
            response = tokens(2 + (index + number) % 4)
            turns.append(Turn(seen, response, (0.0,) * len(response), "stop", 0, "", ToolCall("x", {})))
            seen += response + tokens(OBSERVATIONS[(index + number) % 3])
        ending = Termination.INFRASTRUCTURE_ERROR if index in broken else ENDINGS.get(index, Termination.FINISHED)
        reward = None if index in broken else REWARDS[index]
        made.append(Trajectory("task", group, index % ROLLOUTS, tuple(turns), ending, reward, ""))
    return made


@dataclass
class Row:
    """One row of the batch as an engine of verl gets it."""

    uid: str
    trajectory: int
    output: int
    """Of its trajectory."""
    prompt: Tensor
    response: Tensor
    mask: Tensor
    """Trained tokens."""
    reward: float
    turn_lengths: list[int]
    advantages: Tensor
    """What the embedded engine says; `base` before AEM, `noise` what was added to the old log-probs."""
    base: Tensor
    noise: Tensor


@dataclass
class Local:
    """What the embedded engine made of the trajectories."""

    rows: list[Row]
    counted: int
    """Trajectories in the denominator."""
    loss: float
    gradient: dict[str, Tensor]


class _Keep(torch.optim.SGD):
    """An optimiser that keeps the gradient and moves nothing."""

    def step(self, closure: Any = None) -> None:
        self.kept = [parameter.grad.clone() for parameter in self.param_groups[0]["params"]]


def local_step(model: LocalModel, played: Sequence[Trajectory], recipe: Recipe) -> Local:
    """The embedded engine's own step, from the filter to the gradient. Old log-probs are moved to make ratios."""
    batch = build_batch(played, layout=recipe.algorithm.layout)
    verdict = judge(played, recipe.algorithm, drop_uniform_groups=False)
    advantages_N = trajectory_advantages(played, batch, verdict, recipe.algorithm, budget=BUDGET)
    scores = score_batch(model, batch, recipe)
    noise_BT = 0.25 * torch.sin(1.7 * torch.arange(batch.tokens_BT.numel())).view(batch.tokens_BT.shape)
    old_BT = scores.logprobs_BT + noise_BT
    arguments = (batch, verdict, advantages_N, old_BT, scores.entropy_BT, recipe.algorithm)
    prepared = prepare(*arguments, recipe.aem)
    base = prepare(*arguments, recipe.aem.model_copy(update={"enabled": False}))
    optimizer = _Keep(model.parameters, lr=1.0)
    statistics = update(model, optimizer, prepared, None, [torch.tensor([0, 1])], recipe)
    names = [name for name, _ in model.network.named_parameters()]
    rows = _rows(played, batch, prepared, base.advantages_BT, noise_BT)
    return Local(rows, int(verdict.counted_B.sum()), statistics.loss, dict(zip(names, optimizer.kept, strict=True)))


def _rows(
    played: Sequence[Trajectory], batch: TrainingBatch, prepared: Prepared, base_BT: Tensor, noise_BT: Tensor
) -> list[Row]:
    """The rows of trajectories that are in the baseline; the others never reach verl's update."""
    made: list[Row] = []
    for row in (prepared.group_B >= 0).nonzero().flatten().tolist():
        index, end = int(batch.trajectory_B[row]), int(batch.length_B[row])
        start = int(batch.response_mask_BT[row].nonzero()[0])
        kept = slice(start, end)
        mask = prepared.loss_mask_BT[row, kept]
        outputs = [other for other in made if other.trajectory == index]
        ids = batch.response_id_BT[row][batch.response_mask_BT[row]]
        reward = played[index].reward
        assert reward is not None
        made.append(
            Row(
                uid=f"prompt{played[index].group}",
                trajectory=index,
                output=len(outputs),
                prompt=batch.tokens_BT[row, :start],
                response=batch.tokens_BT[row, kept],
                mask=mask.long(),
                reward=reward,
                turn_lengths=ids.unique_consecutive(return_counts=True)[1].tolist(),
                advantages=prepared.advantages_BT[row, kept] * mask,
                base=base_BT[row, kept] * mask,
                noise=noise_BT[row, kept],
            )
        )
    return made


def padded(rows: Sequence[Row], multiple: int) -> Any:
    """verl's padded form, filled up with masked rows to a multiple: RayPPOTrainer updates whole mini-batches."""
    from verl import DataProto

    filler = Row("none", -1, 0, *(torch.tensor([1]),) * 2, torch.tensor([0]), 0.0, [1], *(torch.zeros(1),) * 3)
    rows = [*rows, *[filler] * (math.ceil(len(rows) / multiple) * multiple - len(rows))]
    left, right = max(len(row.prompt) for row in rows), max(len(row.response) for row in rows)

    def on_the_right(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.cat([value, value.new_zeros(right - len(value))]) for value in values])

    prompts = torch.stack([torch.cat([row.prompt.new_zeros(left - len(row.prompt)), row.prompt]) for row in rows])
    responses = on_the_right([row.response for row in rows])
    before = torch.stack([torch.arange(left) >= left - len(row.prompt) for row in rows]).long()
    attention = torch.cat([before, on_the_right([torch.ones_like(row.response) for row in rows])], 1)
    scores = torch.zeros(responses.shape)
    for number, row in enumerate(rows):
        scores[number, len(row.response) - 1] = row.reward
    lengths = np.empty(len(rows), dtype=object)
    lengths[:] = [row.turn_lengths for row in rows]
    return DataProto.from_dict(
        tensors={
            "input_ids": torch.cat([prompts, responses], 1), "attention_mask": attention, "prompts": prompts,
            "position_ids": (attention.cumsum(1) - 1).clamp(min=0), "responses": responses,
            "response_mask": on_the_right([row.mask for row in rows]), "token_level_rewards": scores,
            "token_level_scores": scores, "noise": on_the_right([row.noise for row in rows]),
            "base": on_the_right([row.base for row in rows]),
        },
        non_tensors={
            "uid": np.array([row.uid for row in rows], dtype=object), "turn_lengths": lengths,
            "row": np.arange(len(rows)),
        },
        meta_info={"temperature": 1.0, "global_token_num": attention.sum(-1).tolist()},
    )  # fmt: skip


def queued(rows: Sequence[Row]) -> tuple[list[str], list[dict[str, Any]]]:
    """Keys and fields for the TransferQueue of V1."""
    keys = [f"{row.uid}_{row.trajectory}_{row.output}" for row in rows]
    fields = []
    for number, row in enumerate(rows):
        scores = torch.zeros(len(row.response))
        scores[-1] = row.reward
        named = {"uid": row.uid, "row": number, "extra_fields": {"turn_lengths": row.turn_lengths}}
        tensors = {"prompts": row.prompt, "responses": row.response, "response_mask": row.mask, "rm_scores": scores}
        fields.append(named | tensors | {"noise": row.noise})
    return keys, fields
