"""Which token belongs to which response, exactly.

A response mask alone cannot say it: two turns with no observation token between them (a truncated turn, a context
reset) merge into one run of ones, and then AEM scales both with one wrong alpha. So a batch carries an id per token,
made from the borders that the rollout recorded, and everything downstream reads the segment form of those ids.
Not covered: finding the borders in token ids. Whoever built the row knows them.

Shapes: B row, T token, R response (one model turn), S segment (a response or a gap).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aem_swe.algorithms.blocks import Blocks, cut_blocks


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """The responses of a batch in segment form, ordered by position (row by row, left to right)."""

    id_R: Tensor
    """Long. The id in `response_id_BT`."""
    row_R: Tensor
    start_R: Tensor
    """Long. Column of the first token."""
    length_R: Tensor
    """Long. Tokens, at least one."""
    shape: tuple[int, int]
    """(B, T)."""
    blocks: Blocks
    """The same responses, cut for fast arithmetic."""

    @property
    def offset_R(self) -> Tensor:
        """First token of each response in the flattened [B*T] order."""
        return self.row_R * self.shape[1] + self.start_R


def response_ids(row_R: Tensor, start_R: Tensor, end_R: Tensor, *, shape: tuple[int, int]) -> Tensor:
    """Number the tokens of a [B, T] batch by response: id k for the tokens [start, end) of input k, -1 outside.

    Inputs are integer tensors of one length, in any order; an empty response (start == end) owns no token.
    Returns Long [B, T]. Raises ValueError for spans that leave the batch or overlap, and names them.
    """
    rows, tokens = shape
    row_R, start_R, end_R = row_R.long(), start_R.long(), end_R.long()
    wrong_R = (row_R < 0) | (row_R >= rows) | (start_R < 0) | (end_R < start_R) | (end_R > tokens)
    if wrong_R.any():
        first = int(wrong_R.nonzero()[0])
        raise ValueError(
            f"{int(wrong_R.sum())} of {len(row_R)} response spans are not inside a [{rows}, {tokens}] batch; the first"
            f" is {_describe(first, row_R, start_R, end_R)}; 0 <= row < {rows}, 0 <= start <= end <= {tokens} must hold"
        )
    offset_R = row_R * tokens + start_R
    id_R = (end_R > start_R).nonzero().flatten()
    id_R = id_R[offset_R[id_R].argsort()]
    begin_R = offset_R[id_R]
    finish_R = begin_R + (end_R - start_R)[id_R]
    overlap = (begin_R[1:] < finish_R[:-1]).nonzero().flatten()
    if len(overlap):
        left, right = (_describe(int(id_R[int(overlap[0]) + k]), row_R, start_R, end_R) for k in (0, 1))
        raise ValueError(
            f"{len(overlap)} pairs of response spans overlap, first {left} and {right}; a token has one owner"
        )
    borders = torch.stack([begin_R, finish_R], dim=1).flatten()
    length_S = borders.diff(prepend=borders.new_zeros(1), append=borders.new_full((1,), rows * tokens))
    id_S = length_S.new_full((2 * len(id_R) + 1,), -1)  # gap, response, gap, ..., response, gap
    id_S[1::2] = id_R
    return id_S.repeat_interleave(length_S, output_size=rows * tokens).view(rows, tokens)


def response_ids_from_mask(mask_BT: Tensor) -> Tensor:
    """Number the runs of ones of a response mask, row by row: Long [B, T], -1 outside.

    A fallback for engines that lost the borders: it MERGES responses that touch each other, which changes their entropy
    and their alpha. Use `response_ids` wherever the spans are known, and report when this was used instead.
    """
    mask_BT = mask_BT.bool()
    begins_BT = mask_BT.clone()
    begins_BT[:, 1:] &= ~mask_BT[:, :-1]
    id_BT = begins_BT.flatten().cumsum(0).view(mask_BT.shape) - 1
    return id_BT.masked_fill(~mask_BT, -1)


def find_responses(response_id_BT: Tensor) -> Responses:
    """Find the segments of a batch of response ids: maximal runs of one non-negative id within one row.

    Two adjacent ids are two responses; negative ids are outside. Ids are otherwise free: gaps and any order are fine.
    Raises ValueError if an id occurs in two segments: a response is contiguous and lives in one row.
    """
    rows, tokens = response_id_BT.shape
    begins_BT = torch.ones_like(response_id_BT, dtype=torch.bool)
    torch.ne(response_id_BT[:, 1:], response_id_BT[:, :-1], out=begins_BT[:, 1:])
    begin_S = begins_BT.flatten().nonzero().flatten()
    length_S = begin_S.diff(append=begin_S.new_full((1,), rows * tokens))
    id_S = response_id_BT.reshape(-1).index_select(0, begin_S).long()
    inside_S = id_S >= 0
    id_R, begin_R = id_S.masked_select(inside_S), begin_S.masked_select(inside_S)
    sorted_R = id_R.sort().values
    twice = sorted_R[1:][sorted_R[1:] == sorted_R[:-1]]
    if len(twice):
        places = [divmod(offset, tokens) for offset in begin_R[id_R == twice[0]].tolist()]
        raise ValueError(
            f"response id {int(twice[0])} starts at {len(places)} places, (row, token) {places}; a response must be"
            " contiguous in one row: give every segment an id of its own (response_ids does)"
        )
    row_R, start_R = begin_R.div(tokens, rounding_mode="floor"), begin_R.remainder(tokens)
    length_R = length_S.masked_select(inside_S)
    blocks = cut_blocks(row_R, start_R, length_R, shape=(rows, tokens))
    return Responses(id_R, row_R, start_R, length_R, (rows, tokens), blocks)


def _describe(index: int, row_R: Tensor, start_R: Tensor, end_R: Tensor) -> str:
    return f"span {index} (row {int(row_R[index])}, tokens {int(start_R[index])}:{int(end_R[index])})"
