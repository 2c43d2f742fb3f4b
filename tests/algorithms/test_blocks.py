"""Sums and scales in blocks against loops over tokens. B row, T token, R response."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import Responses, find_responses, response_ids
from aem_swe.algorithms.blocks import BLOCK


@st.composite
def batches(draw: st.DrawFn) -> tuple[Responses, list[tuple[int, int, int]], Tensor]:
    rows, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 5 * BLOCK))
    spans = []
    for row in range(rows):
        borders = sorted(draw(st.sets(st.integers(0, tokens), max_size=9)))
        spans += [(row, start, end) for start, end in pairwise(borders) if draw(st.booleans())]
    row_R, start_R, end_R = torch.tensor(spans, dtype=torch.long).reshape(-1, 3).unbind(1)
    values_BT = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return find_responses(response_ids(row_R, start_R, end_R, shape=(rows, tokens))), spans, values_BT


@settings(max_examples=100, deadline=None)
@given(batches(), st.sampled_from([float("nan"), float("inf"), 1e30, 0.0]))
def test_sums_are_those_of_a_loop_and_ignore_garbage_outside(
    batch: tuple[Responses, list[tuple[int, int, int]], Tensor], garbage: float
) -> None:
    responses, spans, values_BT = batch
    outside_BT = torch.ones_like(values_BT, dtype=torch.bool)
    for row, start, end in spans:
        outside_BT[row, start:end] = False
    got_R = responses.blocks.sum(values_BT.masked_fill(outside_BT, garbage))
    expected = [math.fsum(values_BT[row, start:end].tolist()) for row, start, end in spans]
    assert got_R.tolist() == pytest.approx(expected, rel=1e-14)


@settings(max_examples=100, deadline=None)
@given(batches())
def test_scaling_is_that_of_a_loop_bit_for_bit_and_leaves_the_input_alone(
    batch: tuple[Responses, list[tuple[int, int, int]], Tensor],
) -> None:
    responses, spans, values_BT = batch
    scale_R = torch.linspace(0.5, 2, len(spans), dtype=torch.float64)
    expected_BT, before_BT = values_BT.clone(), values_BT.clone()
    for scale, (row, start, end) in zip(scale_R, spans, strict=True):
        expected_BT[row, start:end] *= scale.float()
    assert torch.equal(responses.blocks.scale(values_BT, scale_R), expected_BT)
    assert torch.equal(values_BT, before_BT)


def test_one_ragged_end_on_each_side_of_a_whole_block() -> None:
    tokens = 3 * BLOCK
    responses = find_responses(
        response_ids(torch.tensor([0]), torch.tensor([BLOCK - 1]), torch.tensor([2 * BLOCK + 2]), shape=(1, tokens))
    )
    assert responses.blocks.length_S.tolist() == [1, 1, 1]
    assert responses.blocks.token_E.tolist() == [BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1]
    assert responses.blocks.owner_E.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_of_the_values_is_kept_and_integers_become_float(dtype: torch.dtype) -> None:
    responses = find_responses(torch.zeros(1, 3, dtype=torch.long))
    half_R = torch.tensor([0.5], dtype=torch.float64)
    assert responses.blocks.scale(torch.ones(1, 3, dtype=dtype), half_R).dtype == dtype
    assert responses.blocks.scale(torch.ones(1, 3, dtype=torch.long), half_R).tolist() == [[0.5] * 3]


def test_values_may_be_an_expanded_view() -> None:
    tokens = 2 * BLOCK + 3
    responses = find_responses(torch.arange(2).unsqueeze(1).expand(2, tokens))
    values_BT = torch.tensor([[2.0], [3.0]]).expand(2, tokens)
    assert responses.blocks.sum(values_BT).tolist() == [2.0 * tokens, 3.0 * tokens]
    scaled_BT = responses.blocks.scale(values_BT, torch.tensor([0.5, 2.0]))
    assert torch.equal(scaled_BT, torch.tensor([[1.0], [6.0]]).expand(2, tokens))


@pytest.mark.parametrize("shape", [(2, 5), (2, 0), (0, 5), (2, 2 * BLOCK)])
def test_a_batch_without_responses_has_no_sums_and_is_not_scaled(shape: tuple[int, int]) -> None:
    blocks = find_responses(torch.full(shape, -1)).blocks
    values_BT = torch.rand(shape)
    assert blocks.sum(values_BT).tolist() == []
    assert torch.equal(blocks.scale(values_BT, torch.zeros(0)), values_BT)
