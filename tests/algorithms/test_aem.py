"""AEM by hand, against a slow loop, and its exact properties. R response, B row, T token."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import find_responses, modulate, response_ids

Spans = list[tuple[int, int, int]]
NAN = float("nan")


def id_tensor(spans: Spans, shape: tuple[int, int]) -> Tensor:
    row_R, start_R, end_R = torch.tensor(spans, dtype=torch.long).reshape(-1, 3).unbind(1)
    return response_ids(row_R, start_R, end_R, shape=shape)


def slow_alpha(entropy_BT: Tensor, spans: Spans, groups: list[int], lam: float) -> list[float]:
    """Eq. 13-15, one response at a time. `groups` is per row, negative outside G."""
    means = [math.fsum(entropy_BT[row, start:end].tolist()) / (end - start) for row, start, end in spans]
    alpha = [1.0] * len(spans)
    for group in {g for g in groups if g >= 0}:
        members = [k for k, (row, _, _) in enumerate(spans) if groups[row] == group]
        if not members:
            continue
        low, high = min(means[k] for k in members), max(means[k] for k in members)
        if high - low <= 1e-8:
            continue
        weights = [math.exp(-lam * (means[k] - low) / (high - low)) for k in members]
        for k, weight in zip(members, weights, strict=True):
            alpha[k] = weight / (math.fsum(weights) / len(weights))
    return alpha


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Spans, list[int]]:
    rows, tokens = draw(st.integers(1, 6)), draw(st.integers(1, 60))
    spans = []
    for row in range(rows):
        borders = sorted(draw(st.sets(st.integers(0, tokens), max_size=7)))
        spans += [(row, start, end) for start, end in pairwise(borders) if draw(st.booleans())]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    groups = draw(st.lists(st.sampled_from([-1, 0, 4, 7]), min_size=rows, max_size=rows))
    return (
        torch.randn(rows, tokens, generator=generator),
        3 * torch.rand(rows, tokens, generator=generator),
        spans,
        groups,
    )


def test_two_responses_by_hand() -> None:
    # H = (1, 3), h = (0, 1), weights (1, 1/e), mean (1 + 1/e) / 2
    advantages_BT = torch.tensor([[1.0, 1.0, 1.0, 5.0], [-1.0, -1.0, 5.0, 5.0]])
    entropy_BT = torch.tensor([[0.5, 1.0, 1.5, 9.0], [2.0, 4.0, 9.0, 9.0]])
    id_BT = torch.tensor([[0, 0, 0, -1], [1, 1, -1, -1]])
    got = modulate(advantages_BT, entropy_BT, id_BT, torch.tensor([3, 3]), lam=1.0)
    low, high = 2 / (1 + math.exp(-1)), 2 * math.exp(-1) / (1 + math.exp(-1))
    assert got.entropy_R.tolist() == [1.0, 3.0]
    assert got.alpha_R.tolist() == pytest.approx([low, high], rel=1e-14)
    torch.testing.assert_close(got.advantages_BT, torch.tensor([[low] * 3 + [5.0], [-high, -high, 5.0, 5.0]]))
    assert (got.group_R.tolist(), got.advantage_R.tolist()) == ([3, 3], [1.0, -1.0])
    assert got.entropy_range_G.tolist() == [2.0]


@settings(max_examples=100, deadline=None)
@given(batches(), st.sampled_from([0.3, 1.0, 3.0, 1000.0]))
def test_alpha_and_advantages_equal_a_loop(batch: tuple[Tensor, Tensor, Spans, list[int]], lam: float) -> None:
    advantages_BT, entropy_BT, spans, groups = batch
    id_BT = id_tensor(spans, (len(groups), advantages_BT.shape[1]))
    got = modulate(advantages_BT, entropy_BT, id_BT, torch.tensor(groups), lam=lam)
    expected = slow_alpha(entropy_BT, spans, groups, lam)
    assert got.alpha_R.tolist() == pytest.approx(expected, rel=1e-12)
    expected_BT = advantages_BT.clone()
    for alpha, (row, start, end) in zip(expected, spans, strict=True):
        expected_BT[row, start:end] *= alpha
    torch.testing.assert_close(got.advantages_BT, expected_BT)


@settings(max_examples=60, deadline=None)
@given(batches(), st.floats(0, 20))
def test_mean_alpha_over_the_responses_of_a_group_is_one(
    batch: tuple[Tensor, Tensor, Spans, list[int]], lam: float
) -> None:
    advantages_BT, entropy_BT, spans, groups = batch
    id_BT = id_tensor(spans, (len(groups), advantages_BT.shape[1]))
    got = modulate(advantages_BT, entropy_BT, id_BT, torch.tensor(groups), lam=lam)
    for group in torch.unique(got.group_R):
        assert got.alpha_R[got.group_R == group].mean().item() == pytest.approx(1.0, abs=1e-12)
    assert (got.alpha_R[got.group_R < 0] == 1.0).all()


@settings(max_examples=40, deadline=None)
@given(batches())
def test_lambda_zero_is_the_base_algorithm_bit_for_bit(batch: tuple[Tensor, Tensor, Spans, list[int]]) -> None:
    advantages_BT, entropy_BT, spans, groups = batch
    id_BT = id_tensor(spans, (len(groups), advantages_BT.shape[1]))
    got = modulate(advantages_BT, entropy_BT, id_BT, torch.tensor(groups), lam=0.0)
    assert torch.equal(got.advantages_BT.view(torch.int32), advantages_BT.view(torch.int32))
    assert (got.alpha_R == 1.0).all()
    assert got.advantages_BT.data_ptr() != advantages_BT.data_ptr()


@settings(max_examples=60, deadline=None)
@given(batches(), st.data())
def test_row_order_ids_and_padding_change_nothing(
    batch: tuple[Tensor, Tensor, Spans, list[int]], data: st.DataObject
) -> None:
    advantages_BT, entropy_BT, spans, groups = batch
    rows, tokens = advantages_BT.shape
    order = data.draw(st.permutations(range(rows)))
    padding = data.draw(st.integers(0, 40))
    base = modulate(advantages_BT, entropy_BT, id_tensor(spans, (rows, tokens)), torch.tensor(groups), lam=1.0)
    wide_BT = id_tensor([(order.index(row), start, end) for row, start, end in spans], (rows, tokens + padding))
    wide_BT = torch.where(wide_BT >= 0, 10_000 - 3 * wide_BT, -1)
    index_B = torch.tensor(order)
    other = modulate(
        torch.nn.functional.pad(advantages_BT[index_B], (0, padding), value=NAN),
        torch.nn.functional.pad(entropy_BT[index_B], (0, padding), value=NAN),
        wide_BT,
        torch.tensor(groups)[index_B],
        lam=1.0,
    )
    sorted_R = other.responses.id_R.argsort(descending=True)
    assert torch.equal(other.entropy_R[sorted_R], base.entropy_R)
    # The sum over a group runs in another order, so only the last bits of alpha may differ.
    torch.testing.assert_close(other.alpha_R[sorted_R], base.alpha_R, rtol=1e-14, atol=0)
    torch.testing.assert_close(other.advantages_BT[:, :tokens], base.advantages_BT[index_B], rtol=1e-6, atol=0)
    assert other.advantages_BT[:, tokens:].isnan().all()


def test_a_group_with_a_spread_of_1e_8_is_flat_and_with_2e_8_it_is_not() -> None:
    for spread, flat in ((1e-8, True), (2e-8, False)):
        entropy_BT = torch.tensor([[0.0, spread]], dtype=torch.float64)
        got = modulate(torch.ones(1, 2), entropy_BT, torch.tensor([[0, 1]]), torch.tensor([0]), lam=1.0)
        assert (got.alpha_R.tolist() == [1.0, 1.0]) == flat


def test_equal_float32_entropies_are_flat_whatever_the_lengths() -> None:
    spans = [(0, 0, 3), (0, 3, 1000), (0, 1001, 1018)]
    got = modulate(
        torch.ones(1, 1024), torch.full((1, 1024), 0.7), id_tensor(spans, (1, 1024)), torch.tensor([0]), lam=1.0
    )
    assert got.alpha_R.tolist() == [1.0, 1.0, 1.0]


def test_a_single_response_keeps_its_advantage() -> None:
    got = modulate(
        torch.full((1, 2), 0.3), torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.long), torch.tensor([0]), lam=1.0
    )
    assert torch.equal(got.advantages_BT, torch.full((1, 2), 0.3))


def test_precomputed_responses_change_nothing_and_no_gradient_flows() -> None:
    entropy_BT = torch.rand(2, 8, requires_grad=True)
    id_BT = torch.tensor([[0, 0, 1, -1, 2, 2, 2, 2], [3, 3, 3, -1, -1, -1, -1, 4]])
    group_B = torch.tensor([0, 0])
    once = modulate(torch.ones(2, 8), entropy_BT, id_BT, group_B, lam=1.0)
    again = modulate(torch.ones(2, 8), entropy_BT, find_responses(id_BT), group_B, lam=1.0)
    assert torch.equal(once.advantages_BT, again.advantages_BT)
    assert not once.advantages_BT.requires_grad and not once.alpha_R.requires_grad


@pytest.mark.parametrize("lam", [-0.1, NAN, float("inf")])
def test_a_lambda_that_is_negative_or_not_finite_is_refused(lam: float) -> None:
    with pytest.raises(ValueError, match="lam is"):
        modulate(torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long), torch.tensor([0]), lam=lam)


@pytest.mark.parametrize(("advantages", "groups"), [((2, 3), 2), ((2, 4), 3)])
def test_shapes_that_disagree_are_refused(advantages: tuple[int, int], groups: int) -> None:
    with pytest.raises(ValueError, match=r"give \[B, T\], \[B, T\] and \[B\]"):
        modulate(torch.ones(advantages), torch.ones(2, 4), torch.full((2, 4), -1), torch.zeros(groups), lam=1.0)


def test_an_entropy_of_nan_under_a_response_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1 entropies .* \(0, 1\)"):
        modulate(torch.ones(1, 2), torch.tensor([[1.0, NAN]]), torch.tensor([[0, 0]]), torch.tensor([0]), lam=1.0)
