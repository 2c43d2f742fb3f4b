"""Response ids: exact borders, adjacent responses, clear errors. R response, B row, T token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import find_responses, response_ids, response_ids_from_mask


def ids(spans: list[tuple[int, int, int]], shape: tuple[int, int]) -> Tensor:
    row_R, start_R, end_R = torch.tensor(spans, dtype=torch.long).reshape(-1, 3).unbind(1)
    return response_ids(row_R, start_R, end_R, shape=shape)


def slow_segments(id_BT: Tensor) -> list[tuple[int, int, int, int]]:
    found: list[list[int]] = []
    for row, values in enumerate(id_BT.tolist()):
        for token, value in enumerate(values):
            if value < 0:
                continue
            if token and values[token - 1] == value:
                found[-1][3] += 1
            else:
                found.append([value, row, token, 1])
    return [(value, row, start, length) for value, row, start, length in found]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    rows, tokens = draw(st.integers(0, 4)), draw(st.integers(0, 20))
    spans = []
    for row in range(rows):
        borders = sorted(draw(st.lists(st.integers(0, tokens), max_size=8)))
        spans += [(row, start, end) for start, end in zip(borders[0::2], borders[1::2], strict=False)]
    return draw(st.permutations(spans)), (rows, tokens)


def test_tokens_get_the_index_of_their_span_and_minus_one_outside() -> None:
    got = ids([(1, 0, 2), (0, 1, 3), (0, 3, 4)], (2, 5))
    assert got.tolist() == [[-1, 1, 1, 2, -1], [0, 0, -1, -1, -1]]
    assert got.dtype == torch.long


def test_an_empty_response_owns_no_token_but_keeps_its_number() -> None:
    assert ids([(0, 0, 1), (0, 1, 1), (0, 1, 2)], (1, 3)).tolist() == [[0, 2, -1]]
    assert ids([(0, 2, 2)], (1, 2)).tolist() == [[-1, -1]]


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_ids_equal_a_loop_over_spans_in_any_order(layout: tuple[list[tuple[int, int, int]], tuple[int, int]]) -> None:
    spans, shape = layout
    expected = torch.full(shape, -1)
    for index, (row, start, end) in enumerate(spans):
        expected[row, start:end] = index
    assert torch.equal(ids(spans, shape), expected)


@pytest.mark.parametrize("span", [(-1, 0, 1), (2, 0, 1), (0, -1, 1), (0, 2, 1), (0, 3, 6)])
def test_a_span_outside_of_the_batch_is_named(span: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"1 of 2 .* span 1 \(row {span[0]}, tokens {span[1]}:{span[2]}\)"):
        ids([(0, 0, 1), span], (2, 5))


def test_overlapping_spans_are_named() -> None:
    with pytest.raises(ValueError, match=r"first span 2 \(row 0, tokens 0:3\) and span 0 \(row 0, tokens 2:4\)"):
        ids([(0, 2, 4), (0, 4, 5), (0, 0, 3)], (1, 5))


def test_spans_may_end_and_begin_at_the_edge_of_neighbouring_rows() -> None:
    found = find_responses(ids([(0, 1, 3), (1, 0, 2)], (2, 3)))
    assert found.row_R.tolist() == [0, 1]
    assert found.start_R.tolist() == [1, 0]
    assert found.offset_R.tolist() == [1, 3]
    assert found.length_R.tolist() == [2, 2]


def test_adjacent_responses_stay_two_with_ids_and_merge_with_a_mask() -> None:
    exact = ids([(0, 0, 2), (0, 2, 4)], (1, 5))
    assert find_responses(exact).length_R.tolist() == [2, 2]
    assert find_responses(response_ids_from_mask(exact >= 0)).length_R.tolist() == [4]


def test_mask_runs_are_numbered_row_by_row_and_end_with_the_row() -> None:
    mask_BT = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert response_ids_from_mask(mask_BT).tolist() == [[0, 0, -1, 1], [2, -1, -1, -1], [-1] * 4]
    assert torch.equal(response_ids_from_mask(mask_BT.float()), response_ids_from_mask(mask_BT))


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_segments_equal_a_loop_over_tokens(layout: tuple[list[tuple[int, int, int]], tuple[int, int]]) -> None:
    id_BT = ids(*layout)
    found = find_responses(id_BT)
    got = torch.stack([found.id_R, found.row_R, found.start_R, found.length_R], dim=1)
    assert [tuple(segment) for segment in got.tolist()] == slow_segments(id_BT)
    assert found.shape == id_BT.shape


def test_any_negative_number_is_outside_and_ids_may_have_gaps() -> None:
    found = find_responses(torch.tensor([[-1, -7, 900, 900], [3, 3, -1, 5]], dtype=torch.int32))
    assert found.id_R.tolist() == [900, 3, 5]
    assert found.offset_R.tolist() == [2, 4, 7]


@pytest.mark.parametrize(
    ("id_BT", "places"),
    [
        ([[4, -1, 4], [-1, -1, -1]], r"\[\(0, 0\), \(0, 2\)\]"),
        ([[1, 4, 4], [4, -1, 4]], r"\[\(0, 1\), \(1, 0\), \(1, 2\)\]"),
    ],
)
def test_an_id_in_two_segments_is_an_error_with_its_places(id_BT: list[list[int]], places: str) -> None:
    with pytest.raises(ValueError, match=rf"response id 4 starts at \d places, \(row, token\) {places}"):
        find_responses(torch.tensor(id_BT))
