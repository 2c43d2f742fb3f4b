"""One number per batch, however it is cut: micro-batches, rows per turn; and the KL estimate. B row, T token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import LOSSES, aggregate, kl_k3, ppo_loss

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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.permutations(range(6)), st.integers(1, 6), st.sampled_from(sorted(LOSSES)))
def test_micro_batches_of_any_rows_add_up_to_the_batch(seed: int, order: list[int], size: int, name: str) -> None:
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(seed, rows=6)

    def total(rows: list[int], how: str) -> Tensor:
        loss_BT = LOSSES[name](
            logprobs_BT[rows], old_BT[rows], advantages_BT[rows], unit_BT[rows], clip_low=0.2, clip_high=0.28
        ).loss_BT
        denominator = 30 if how == "token-mean" else 7
        return aggregate(loss_BT, unit_BT[rows] >= 0, how=how, budget=50, denominator=denominator)  # type: ignore[arg-type]  # a str from the loop below

    for how in ("token-mean", "seq-sum-over-budget"):
        parts = [total(order[start : start + size], how) for start in range(0, 6, size)]
        torch.testing.assert_close(torch.stack(parts).sum(), total(list(range(6)), how))


def test_one_row_per_turn_has_the_loss_and_gradient_of_one_growing_row() -> None:
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(8, rows=2)
    logprobs_BT.requires_grad_()

    def loss(rows: Tensor, ids_BT: Tensor) -> Tensor:
        per_token = ppo_loss(
            logprobs_BT[rows], old_BT[rows], advantages_BT[rows], ids_BT, clip_low=0.2, clip_high=0.28
        ).loss_BT
        return aggregate(per_token, ids_BT >= 0, how="seq-sum-over-budget", budget=7, denominator=2)

    growing = loss(torch.tensor([0, 1]), unit_BT)
    rows = torch.tensor([0, 0, 1, 1])
    turn_BT = torch.where(unit_BT[rows] == torch.arange(4).unsqueeze(1), unit_BT[rows], -1)
    per_turn = loss(rows, turn_BT)
    torch.testing.assert_close(per_turn, growing)
    torch.testing.assert_close(torch.autograd.grad(per_turn, logprobs_BT), torch.autograd.grad(growing, logprobs_BT))


@pytest.mark.parametrize(
    ("how", "budget", "denominator", "message"),
    [
        ("mean", 1, 1, "choose 'token-mean' or 'seq-sum-over-budget'"),
        ("token-mean", 1, 0, "token-mean would divide by 0"),
        ("seq-sum-over-budget", 0, 8, "would divide by 0"),
        ("seq-sum-over-budget", -5, 8, "would divide by -40"),
    ],
)
def test_unknown_aggregations_and_empty_divisors_are_refused(
    how: str, budget: int, denominator: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate(torch.ones(1, 1), torch.ones(1, 1), how=how, budget=budget, denominator=denominator)  # type: ignore[arg-type]  # the mistake under test


def test_k3_by_hand_and_zero_at_the_reference() -> None:
    # policy 1/4, reference 1/2: d = log 2, k3 = 2 - log 2 - 1
    got = kl_k3(torch.tensor([math.log(0.25), -1.0]), torch.tensor([math.log(0.5), -1.0]))
    assert got.tolist() == pytest.approx([1 - math.log(2), 0.0], abs=1e-7)


def test_k3_averages_to_the_kl_divergence_over_the_policy() -> None:
    policy, reference = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    estimate = (policy * kl_k3(policy.log(), reference.log())).sum()
    torch.testing.assert_close(estimate, (policy * (policy / reference).log()).sum())
    assert (kl_k3(policy.log(), reference.log()) >= 0).all()
