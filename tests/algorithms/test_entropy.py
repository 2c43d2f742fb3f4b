"""Entropies of tokens and their means over responses. N token, V vocabulary, R response, B row, T token."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import find_responses, response_entropy, response_ids, token_logprobs_and_entropy

NEVER = float("-inf")


def slow_means(entropy_BT: Tensor, spans: list[tuple[int, int, int]]) -> list[float]:
    return [math.fsum(entropy_BT[row, start:end].tolist()) / (end - start) for row, start, end in spans]


def test_two_and_four_equal_logits_have_entropy_log_2_and_log_4() -> None:
    logits_NV = torch.tensor([[0.0, 0.0, NEVER, NEVER], [3.0, 3.0, 3.0, 3.0]])
    got = token_logprobs_and_entropy(logits_NV, torch.tensor([1, 3]), temperature=1.0)
    torch.testing.assert_close(got.entropy_N, torch.tensor([math.log(2), math.log(4)]))
    torch.testing.assert_close(got.logprobs_N, torch.tensor([-math.log(2), -math.log(4)]))


def test_a_certain_token_has_entropy_zero_and_a_forbidden_one_no_probability() -> None:
    got = token_logprobs_and_entropy(torch.tensor([[NEVER, 5.0]] * 2), torch.tensor([1, 0]), temperature=1.0)
    assert got.entropy_N.tolist() == [0.0, 0.0]
    assert got.logprobs_N.tolist() == [0.0, NEVER]


def test_temperature_divides_the_logits() -> None:
    # softmax([2 log 3, 0] / 2) = (3/4, 1/4)
    got = token_logprobs_and_entropy(torch.tensor([[2 * math.log(3), 0.0]]), torch.tensor([0]), temperature=2.0)
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert got.entropy_N.item() == pytest.approx(expected, rel=1e-6)
    assert got.logprobs_N.item() == pytest.approx(math.log(0.75), rel=1e-6)


def test_half_precision_is_computed_in_float32_and_double_in_double() -> None:
    logits_NV = torch.randn(5, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids_N = torch.arange(5)
    half = token_logprobs_and_entropy(logits_NV, ids_N, temperature=0.7)
    assert half.entropy_N.dtype == torch.float32
    full = token_logprobs_and_entropy(logits_NV.double(), ids_N, temperature=0.7)
    assert full.entropy_N.dtype == torch.float64
    torch.testing.assert_close(half.entropy_N.double(), full.entropy_N, rtol=1e-5, atol=0)


def test_gradients_are_finite_and_right_where_logits_are_minus_infinity() -> None:
    logits_NV = torch.tensor([[0.3, -1.0, NEVER, -0.2]], dtype=torch.float64, requires_grad=True)
    got = token_logprobs_and_entropy(logits_NV, torch.tensor([0]), temperature=0.5)
    (gradient_NV,) = torch.autograd.grad((got.logprobs_N + got.entropy_N).sum(), logits_NV)
    free = torch.tensor([[0.3, -1.0, -0.2]], dtype=torch.float64, requires_grad=True)
    log_NV = torch.log_softmax(free / 0.5, dim=-1)
    (expected_NV,) = torch.autograd.grad(log_NV[0, 0] - (log_NV.exp() * log_NV).sum(), free)
    torch.testing.assert_close(gradient_NV[0, [0, 1, 3]], expected_NV[0])
    assert gradient_NV[0, 2] == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_no_sampling_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature is"):
        token_logprobs_and_entropy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), temperature=temperature)


def test_the_mean_runs_over_the_tokens_of_the_response_only() -> None:
    entropy_BT = torch.tensor([[9.0, 1.0, 2.0, 6.0, 9.0], [0.5, 9.0, 9.0, 9.0, 9.0]])
    id_BT = torch.tensor([[-1, 0, 0, 1, -1], [2, -1, -1, -1, -1]])
    got_R = response_entropy(entropy_BT, find_responses(id_BT))
    assert got_R.tolist() == [1.5, 6.0, 0.5]
    assert got_R.dtype == torch.float64


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_means_equal_exact_sums_for_any_borders_and_garbage_outside(data: st.DataObject) -> None:
    rows, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 70))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    spans = []
    for row in range(rows):
        borders = sorted(data.draw(st.sets(st.integers(0, tokens), max_size=9)))
        spans += [(row, start, end) for start, end in pairwise(borders) if data.draw(st.booleans())]
    row_R, start_R, end_R = torch.tensor(spans, dtype=torch.long).reshape(-1, 3).unbind(1)
    id_BT = response_ids(row_R, start_R, end_R, shape=(rows, tokens))
    entropy_BT = 3 * torch.rand(rows, tokens, generator=generator)
    expected = slow_means(entropy_BT, spans)
    for garbage in (float("nan"), float("inf"), 1e30):
        got_R = response_entropy(entropy_BT.masked_fill(id_BT < 0, garbage), find_responses(id_BT))
        assert got_R.tolist() == pytest.approx(expected, rel=1e-14)


def test_equal_entropies_have_equal_means_to_1e_12_whatever_the_length() -> None:
    # Sums in float32 would differ by 1e-7, and eq. 14 would stretch that to the whole range.
    lengths = torch.tensor([1, 7, 8, 9, 31, 1000, 4097])
    end_R = lengths.cumsum(0)
    id_BT = response_ids(torch.zeros(7), end_R - lengths, end_R, shape=(1, int(end_R[-1])))
    got_R = response_entropy(torch.full(id_BT.shape, 0.7), find_responses(id_BT))
    assert (got_R.max() - got_R.min()).item() < 1e-12


def test_half_precision_entropies_are_summed_in_double() -> None:
    entropy_BT = torch.full((1, 3000), 0.1, dtype=torch.bfloat16)
    got_R = response_entropy(entropy_BT, find_responses(torch.zeros(1, 3000, dtype=torch.long)))
    assert got_R.item() == pytest.approx(entropy_BT[0, 0].item(), rel=1e-14)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_entropies_that_are_not_finite_are_counted_and_located(bad: float) -> None:
    entropy_BT = torch.ones(2, 20)
    entropy_BT[0, 0] = bad  # outside of every response: harmless
    entropy_BT[1, 11:13] = bad
    id_BT = response_ids(torch.tensor([0, 1]), torch.tensor([2, 5]), torch.tensor([9, 20]), shape=(2, 20))
    with pytest.raises(ValueError, match=r"2 entropies .* the first at \(row, token\) \(1, 11\); look for"):
        response_entropy(entropy_BT, find_responses(id_BT))


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"entropies are \(1, 3\), response ids \(1, 2\)"):
        response_entropy(torch.zeros(1, 3), find_responses(torch.zeros(1, 2, dtype=torch.long)))


def test_no_responses_means_no_entropies() -> None:
    for shape in ((2, 5), (2, 0), (0, 5)):
        assert response_entropy(torch.zeros(shape), find_responses(torch.full(shape, -1))).shape == (0,)
