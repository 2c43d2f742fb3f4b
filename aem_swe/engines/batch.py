"""From trajectories to tensors: rows of tokens with exact response ids, for one growing row per trajectory or one row
per turn.

Which tokens belong to which response is known from the turns, never guessed from a mask: two responses with no
observation between them stay two. What is attended to comes from lengths, never from comparing ids with a pad id.

Shapes: B row, T token, N trajectory, R response.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aem_swe.algorithms import response_ids
from aem_swe.types import Trajectory

Layout = Literal["trajectory", "turn"]


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Right-padded rows. Everything per response is in the order of `turn_of_response`."""

    tokens_BT: Tensor
    """(B, T) int64; 0 behind the end of a row."""
    response_mask_BT: Tensor
    """(B, T) bool; True where the policy sampled the token."""
    response_id_BT: Tensor
    """(B, T) int64; the index of the response in the batch, -1 elsewhere."""
    rollout_logprobs_BT: Tensor
    """(B, T) float32; what the sampler recorded, 0 elsewhere."""
    policy_version_BT: Tensor
    """(B, T) int64; the weights that a token was sampled from, -1 elsewhere."""
    length_B: Tensor
    trajectory_B: Tensor
    """(B) int64; row -> index of its trajectory."""
    turn_of_response: tuple[tuple[int, int], ...]
    """(trajectory, turn) per response id."""


@dataclass(slots=True)
class _Row:
    trajectory: int
    ids: list[int]
    spans: list[tuple[int, int, int]]
    """(start, end, turn)"""


def _rows(trajectories: Sequence[Trajectory], layout: Layout) -> list[_Row]:
    """Lay turns out in rows. A growing row starts anew wherever a prompt does not continue it (a context reset)."""
    rows: list[_Row] = []
    for index, trajectory in enumerate(trajectories):
        row: _Row | None = None
        for number, turn in enumerate(trajectory.turns):
            prompt = list(turn.prompt_ids)
            if row is None or layout == "turn" or prompt[: len(row.ids)] != row.ids:
                row = _Row(index, [], [])
                rows.append(row)
            start = len(prompt)
            row.ids = prompt + list(turn.response_ids)
            row.spans.append((start, len(row.ids), number))
    return rows


def build_batch(trajectories: Sequence[Trajectory], *, layout: Layout) -> TrainingBatch:
    """Build the batch of all turns of all trajectories. Raises ValueError where log-probs and ids differ in number."""
    rows = _rows(trajectories, layout)
    width = max((len(row.ids) for row in rows), default=1)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    logprobs = torch.zeros(len(rows), width)
    version = torch.full((len(rows), width), -1)
    spans = [(b, start, end, row.trajectory, number) for b, row in enumerate(rows) for start, end, number in row.spans]
    for b, row in enumerate(rows):
        tokens[b, : len(row.ids)] = torch.tensor(row.ids)
    for b, start, end, index, number in spans:
        turn = trajectories[index].turns[number]
        if len(turn.logprobs) != len(turn.response_ids):
            raise ValueError(
                f"trajectory {index} turn {number} has {len(turn.response_ids)} ids and {len(turn.logprobs)} log-probs"
            )
        logprobs[b, start:end] = torch.tensor(turn.logprobs)
        version[b, start:end] = turn.policy_version
    border = torch.tensor([span[:3] for span in spans], dtype=torch.long).reshape(-1, 3)
    ids = response_ids(border[:, 0], border[:, 1], border[:, 2], shape=(len(rows), width))
    return TrainingBatch(
        tokens_BT=tokens,
        response_mask_BT=ids >= 0,
        response_id_BT=ids,
        rollout_logprobs_BT=logprobs,
        policy_version_BT=version,
        length_B=torch.tensor([len(row.ids) for row in rows], dtype=torch.long),
        trajectory_B=torch.tensor([row.trajectory for row in rows], dtype=torch.long),
        turn_of_response=tuple((index, number) for _, _, _, index, number in spans),
    )
