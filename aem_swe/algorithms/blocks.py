"""Sums and scales over thousands of responses of any length, at the speed of plain elementwise arithmetic.

Reducing by token ids (scatter, segment reductions, prefix sums) costs several elementwise passes, because it touches an
index per token and runs mostly on one thread. Here every response is cut, once per batch, into whole blocks of its row
and a few ragged tokens at its two ends. Blocks need no index per token, and the ragged tokens are few.
Blocks are counted from the start of a row, so a sum does not depend on the other rows, not even in its last bit.

Shapes: B row, T token, K block of a row, R response, S run of blocks (of a response, or between two), E ragged token.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

BLOCK: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """How the responses of a batch are made of blocks and ragged tokens."""

    length_S: Tensor
    """Whole blocks per run: between, response, between, response, ..., between. All tensors here are Long."""
    token_E: Tensor
    """Position in the flattened [B*T] order."""
    owner_E: Tensor
    """Index of the response."""

    def sum(self, values_BT: Tensor) -> Tensor:
        """Float64 sum of the tokens of each response [R]; what lies outside is never added, NaN included."""
        sum_BK = _whole(values_BT).to(torch.float64).sum(dim=2)
        whole_R = torch.segment_reduce(sum_BK.flatten(), "sum", lengths=self.length_S, unsafe=True)[1::2]
        ragged_E = values_BT.reshape(-1).index_select(0, self.token_E).to(torch.float64)
        return whole_R.index_add(0, self.owner_E, ragged_E)

    def scale(self, values_BT: Tensor, scale_R: Tensor) -> Tensor:
        """A copy of the values, multiplied by the scale of their response; outside they are the same, bit for bit."""
        scale_R = scale_R.to(torch.result_type(values_BT, 1.0))
        scale_S = scale_R.new_ones(len(self.length_S))
        scale_S[1::2] = scale_R
        blocks_BKW = _whole(values_BT)
        rows, row_blocks, _ = blocks_BKW.shape
        scaled_BT = torch.empty(values_BT.shape, dtype=scale_R.dtype, device=scale_R.device)
        scale_BK = scale_S.repeat_interleave(self.length_S, output_size=rows * row_blocks)
        torch.mul(blocks_BKW, scale_BK.view(rows, row_blocks, 1), out=_whole(scaled_BT))
        scaled_BT[:, row_blocks * BLOCK :] = values_BT[:, row_blocks * BLOCK :]
        ragged_E = scaled_BT.view(-1).index_select(0, self.token_E) * scale_R.index_select(0, self.owner_E)
        scaled_BT.view(-1).index_copy_(0, self.token_E, ragged_E)
        return scaled_BT


def cut_blocks(row_R: Tensor, start_R: Tensor, length_R: Tensor, *, shape: tuple[int, int]) -> Blocks:
    """Cut responses, given in the order of their positions, into whole blocks and ragged tokens."""
    rows, tokens = shape
    row_blocks = tokens // BLOCK
    end_R = start_R + length_R
    first_R = (start_R + BLOCK - 1).div(BLOCK, rounding_mode="floor")
    stop_R = end_R.div(BLOCK, rounding_mode="floor").maximum(first_R)
    borders = torch.stack([first_R, stop_R], dim=1).clamp(max=row_blocks) + (row_R * row_blocks).unsqueeze(1)
    borders = borders.flatten()
    head_R = end_R.minimum(first_R * BLOCK) - start_R
    tail_R = (end_R - stop_R * BLOCK).clamp(min=0)
    count = torch.cat([head_R, tail_R])
    position = torch.cat([start_R, stop_R * BLOCK]) + (row_R * tokens).repeat(2)
    owner_E = torch.arange(len(row_R), device=row_R.device).repeat(2).repeat_interleave(count)
    before = (position - (count.cumsum(0) - count)).repeat_interleave(count)
    return Blocks(
        length_S=borders.diff(prepend=borders.new_zeros(1), append=borders.new_full((1,), rows * row_blocks)),
        token_E=before + torch.arange(len(before), device=before.device),
        owner_E=owner_E,
    )


def _whole(values_BT: Tensor) -> Tensor:
    """The whole blocks of every row, a view [B, K, BLOCK]."""
    row_blocks = values_BT.shape[1] // BLOCK
    return values_BT[:, : row_blocks * BLOCK].view(len(values_BT), row_blocks, BLOCK)
