"""One number per batch, however it is cut: micro-batches, rows per turn; and the KL estimate. B row, T token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import LOSSES, aggregate, gspo_loss, kl_k3, unit_tokens

NAN = float("nan")


def example(seed: int, rows: int = 3, tokens: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(logprobs, old_logprobs, advantages, unit ids) in float64; units are two runs per row with a gap."""
    generator = torch.Generator().manual_seed(seed)
    old_BT = -3 * torch.rand(rows, tokens, generator=generator, dtype=torch.float64)
    logprobs_BT = old_BT + 0.4 * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    advantages_BT = torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    unit_BT = torch.arange(rows).unsqueeze(1) * 2 + torch.tensor([0, 0, 0, -99, 1, 1, -99])
    return logprobs_BT, old_BT, advantages_BT, unit_BT.clamp(min=-1)


def test_aggregates_by_hand() -> None:
    loss_BT, mask_BT = torch.tensor([[1.0, 2.0, NAN], [4.0, NAN, NAN]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert aggregate(loss_BT, mask_BT, how="token-mean", budget=100, denominator=3).item() == pytest.approx(7 / 3)
    got = aggregate(loss_BT, mask_BT, how="seq-sum-over-budget", budget=100, denominator=4)
    assert got.item() == pytest.approx(7 / 400)


def test_the_mean_of_means_by_hand() -> None:
    # sequence 4 has two tokens in one row and one in the next, sequence 1 has one; two more are masked
    unit_BT = torch.tensor([[4, 4, -1], [4, -1, -1], [-1, 1, -1]])
    loss_BT = torch.tensor([[1.0, 2.0, NAN], [6.0, NAN, NAN], [NAN, 4.0, NAN]])
    length_BT = unit_tokens(unit_BT)
    assert length_BT.tolist() == [[3, 3, 0], [3, 0, 0], [0, 1, 0]]
    got = aggregate(
        loss_BT, unit_BT >= 0, how="seq-mean-token-mean", budget=100, denominator=4, sequence_tokens_BT=length_BT
    )
    assert got.item() == pytest.approx((3 + 4) / 4)


def total(how: str, loss: str, inputs: tuple[Tensor, Tensor, Tensor, Tensor], rows: list[int] | Tensor) -> Tensor:
    """The loss of some rows of a batch, divided for all of it."""
    logprobs_BT, old_BT, advantages_BT, unit_BT = inputs
    loss_BT = LOSSES[loss](
        logprobs_BT[rows], old_BT[rows], advantages_BT[rows], unit_BT[rows], clip_low=0.2, clip_high=0.28
    ).loss_BT
    return aggregate(
        loss_BT,
        unit_BT[rows] >= 0,
        how=how,  # type: ignore[arg-type]  # one of HOWS
        budget=50,
        denominator=30 if how == "token-mean" else 7,
        sequence_tokens_BT=unit_tokens(unit_BT)[rows],
    )


HOWS = ["token-mean", "seq-mean-token-mean", "seq-sum-over-budget"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.permutations(range(6)), st.integers(1, 6), st.sampled_from(sorted(LOSSES)))
def test_micro_batches_of_any_rows_add_up_to_the_batch(seed: int, order: list[int], size: int, name: str) -> None:
    inputs = example(seed, rows=6)
    for how in HOWS:
        parts = [total(how, name, inputs, order[start : start + size]) for start in range(0, 6, size)]
        torch.testing.assert_close(torch.stack(parts).sum(), total(how, name, inputs, list(range(6))))


@pytest.mark.parametrize("how", HOWS)
def test_one_row_per_turn_has_the_loss_and_gradient_of_one_growing_row(how: str) -> None:
    """Two trajectories of 3 + 2 and 3 + 1 tokens; a sequence is the trajectory."""
    logprobs_BT, old_BT, advantages_BT, turn_BT = example(8, rows=2)
    turn_BT[1, 5] = -1
    logprobs_BT.requires_grad_()
    whole_BT = torch.where(turn_BT >= 0, turn_BT // 2, -1)
    rows = torch.tensor([0, 0, 1, 1])
    split_BT = torch.where(turn_BT[rows] == torch.arange(4).unsqueeze(1), whole_BT[rows], -1)
    growing = total(how, "ppo", (logprobs_BT, old_BT, advantages_BT, whole_BT), torch.arange(2))
    inputs = (logprobs_BT[rows], old_BT[rows], advantages_BT[rows], split_BT)
    per_turn = total(how, "ppo", inputs, torch.arange(4))
    torch.testing.assert_close(per_turn, growing)
    torch.testing.assert_close(torch.autograd.grad(per_turn, logprobs_BT), torch.autograd.grad(growing, logprobs_BT))
    as_rows = (*inputs[:3], torch.where(split_BT >= 0, torch.arange(4).unsqueeze(1), -1))  # a row taken for a sequence
    assert torch.isclose(total(how, "ppo", as_rows, torch.arange(4)), growing) == (how != "seq-mean-token-mean")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.permutations(range(6)), st.integers(0, 4), st.sampled_from(sorted(LOSSES)))
def test_row_order_and_padding_change_nothing(seed: int, order: list[int], columns: int, name: str) -> None:
    inputs = example(seed, rows=6)
    padded = [torch.cat([values, values.new_full((6, columns), -1)], dim=1)[order] for values in inputs]
    for how in HOWS:
        got = total(how, name, (padded[0], padded[1], padded[2], padded[3]), list(range(6)))
        torch.testing.assert_close(got, total(how, name, inputs, list(range(6))))


def sequence_objective(inputs: tuple[Tensor, Tensor, Tensor, Tensor], clip_low: float, clip_high: float) -> Tensor:
    """Minus GSPO's objective, eq. 5: one ratio per sequence with the gradient through all of it, one clip, one term."""
    logprobs_BT, old_BT, advantages_BT, unit_BT = inputs
    terms = []
    for unit in range(6):
        member_BT = unit_BT == unit
        s = (logprobs_BT[member_BT] - old_BT[member_BT]).mean().exp()
        a = advantages_BT[member_BT][0]
        terms.append(torch.minimum(s * a, s.clamp(1 - clip_low, 1 + clip_high) * a))
    return -torch.stack(terms).mean()


@pytest.mark.parametrize("seed", range(6))
def test_gspo_by_tokens_has_the_loss_and_gradient_of_gspo_by_sequences(seed: int) -> None:
    """Eq. 13-14 under seq-mean-token-mean is eq. 5 where a sequence has one advantage, clipped sequences included."""
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(seed)
    advantages_BT = torch.where(unit_BT >= 0, advantages_BT[:, :1] * (1 - 2 * (unit_BT % 2)), 0.0)  # one per unit
    logprobs_BT.requires_grad_()
    inputs = (logprobs_BT, old_BT, advantages_BT, unit_BT)
    policy = gspo_loss(*inputs, clip_low=0.05, clip_high=0.08)
    got = aggregate(
        policy.loss_BT,
        unit_BT >= 0,
        how="seq-mean-token-mean",
        budget=1,
        denominator=6,
        sequence_tokens_BT=unit_tokens(unit_BT),
    )
    expected = sequence_objective(inputs, 0.05, 0.08)
    torch.testing.assert_close(got, expected)
    slope_BT = torch.autograd.grad(got, logprobs_BT)[0]
    torch.testing.assert_close(slope_BT, torch.autograd.grad(expected, logprobs_BT)[0])
    cut = policy.clip_low_fraction + policy.clip_high_fraction
    assert 0 < cut < 1, "some sequences are clipped and some are not"
    in_sequences = torch.stack([(slope_BT[unit_BT == unit] == 0).all() for unit in range(6)])
    assert 0 < in_sequences.sum() < 6


@pytest.mark.parametrize(
    ("how", "budget", "denominator", "message"),
    [
        ("mean", 1, 1, "choose one of .'token-mean', 'seq-mean-token-mean', 'seq-sum-over-budget'."),
        ("token-mean", 1, 0, "token-mean would divide by 0"),
        ("seq-mean-token-mean", 1, 0, "seq-mean-token-mean would divide by 0"),
        ("seq-mean-token-mean", 1, 8, "needs the length of every trained sequence"),
        ("seq-sum-over-budget", 0, 8, "would divide by 0"),
        ("seq-sum-over-budget", -5, 8, "would divide by -40"),
    ],
)
def test_unknown_aggregations_and_empty_divisors_are_refused(
    how: str, budget: int, denominator: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate(torch.ones(1, 1), torch.ones(1, 1), how=how, budget=budget, denominator=denominator)  # type: ignore[arg-type]  # the mistake under test


def test_a_trained_token_of_a_sequence_without_length_is_refused() -> None:
    mask_BT, length_BT = torch.tensor([[1, 0]]), torch.tensor([[0, 3]])
    with pytest.raises(ValueError, match="needs the length of every trained sequence"):
        aggregate(
            torch.ones(1, 2), mask_BT, how="seq-mean-token-mean", budget=1, denominator=1, sequence_tokens_BT=length_BT
        )


def test_k3_by_hand_and_zero_at_the_reference() -> None:
    # policy 1/4, reference 1/2: d = log 2, k3 = 2 - log 2 - 1
    got = kl_k3(torch.tensor([math.log(0.25), -1.0]), torch.tensor([math.log(0.5), -1.0]))
    assert got.tolist() == pytest.approx([1 - math.log(2), 0.0], abs=1e-7)


def test_k3_averages_to_the_kl_divergence_over_the_policy() -> None:
    policy, reference = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    estimate = (policy * kl_k3(policy.log(), reference.log())).sum()
    torch.testing.assert_close(estimate, (policy * (policy / reference).log()).sum())
    assert (kl_k3(policy.log(), reference.log()) >= 0).all()
