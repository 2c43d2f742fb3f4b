"""Losses and gradients by hand, by slow formulas and by finite differences. B row, T token."""

import math

import pytest
import torch
from torch import Tensor

from aem_swe.algorithms import LOSSES, gspo_loss, ppo_loss

NAN, NEVER = float("nan"), float("-inf")


def example(seed: int, rows: int = 3, tokens: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(logprobs, old_logprobs, advantages, unit ids) in float64; units are two runs per row with a gap."""
    generator = torch.Generator().manual_seed(seed)
    old_BT = -3 * torch.rand(rows, tokens, generator=generator, dtype=torch.float64)
    logprobs_BT = old_BT + 0.4 * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    advantages_BT = torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    unit_BT = torch.arange(rows).unsqueeze(1) * 2 + torch.tensor([0, 0, 0, -99, 1, 1, -99])
    return logprobs_BT, old_BT, advantages_BT, unit_BT.clamp(min=-1)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of)[0]


def test_ppo_by_hand() -> None:
    # ratios 2, 2, 1/2, 1/2, 1; clip to [0.8, 1.28]
    log_ratio_BT = torch.tensor([[math.log(2), math.log(2), -math.log(2), -math.log(2), 0.0]])
    advantages_BT = torch.tensor([[1.0, -1.0, 1.0, -1.0, 3.0]])
    got = ppo_loss(
        log_ratio_BT,
        torch.zeros(1, 5),
        advantages_BT,
        torch.zeros(1, 5, dtype=torch.long),
        clip_low=0.2,
        clip_high=0.28,
    )
    torch.testing.assert_close(got.loss_BT, torch.tensor([[-1.28, 2.0, -0.5, 0.8, -3.0]]))
    assert got.clip_high_fraction.item() == pytest.approx(1 / 5)
    assert got.clip_low_fraction.item() == pytest.approx(1 / 5)


def test_at_the_old_policy_the_ppo_gradient_is_minus_the_advantage() -> None:
    logprobs_BT, _, advantages_BT, unit_BT = example(0)
    logprobs_BT.requires_grad_()
    got = ppo_loss(logprobs_BT, logprobs_BT.detach(), advantages_BT, unit_BT, clip_low=0.2, clip_high=0.28)
    expected_BT = torch.where(unit_BT >= 0, -advantages_BT, 0.0)
    torch.testing.assert_close(gradient(got.loss_BT.sum(), logprobs_BT), expected_BT)


@pytest.mark.parametrize("seed", range(3))
def test_the_ppo_gradient_agrees_with_finite_differences(seed: int) -> None:
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(seed)

    def loss(x_BT: Tensor) -> Tensor:
        return ppo_loss(x_BT, old_BT, advantages_BT, unit_BT, clip_low=0.2, clip_high=0.28).loss_BT

    assert torch.autograd.gradcheck(loss, logprobs_BT.requires_grad_())


@pytest.mark.parametrize("seed", range(4))
def test_gspo_equals_a_slow_formula_in_value_and_gradient(seed: int) -> None:
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(seed)
    low, high = 0.1, 0.2
    logprobs_BT.requires_grad_()
    got = gspo_loss(logprobs_BT, old_BT, advantages_BT, unit_BT, clip_low=low, clip_high=high)
    expected_BT, expected_gradient_BT = torch.zeros_like(old_BT), torch.zeros_like(old_BT)
    cut_low = cut_high = 0
    for unit in range(6):
        member_BT = unit_BT == unit
        s = (logprobs_BT - old_BT)[member_BT].mean().exp().item()
        for row, token in member_BT.nonzero().tolist():
            a = advantages_BT[row, token].item()
            clipped = min(max(s, 1 - low), 1 + high)
            expected_BT[row, token] = -min(s * a, clipped * a)
            if s * a <= clipped * a:  # s itself is the minimum, so the gradient is that of s * logprob
                expected_gradient_BT[row, token] = -s * a
            cut_low += s < 1 - low and a < 0
            cut_high += s > 1 + high and a > 0
    torch.testing.assert_close(got.loss_BT.detach(), expected_BT)
    torch.testing.assert_close(gradient(got.loss_BT.sum(), logprobs_BT), expected_gradient_BT)
    assert got.clip_low_fraction.item() == pytest.approx(cut_low / 15)
    assert got.clip_high_fraction.item() == pytest.approx(cut_high / 15)


def test_the_token_mean_of_gspo_has_the_gradient_of_the_sequence_objective() -> None:
    """GSPO's own objective: s * A with the gradient through s = exp(mean log ratio), by finite differences."""
    logprobs_BT, old_BT, _, _ = example(5, rows=1)
    unit_BT, advantages_BT = torch.zeros(1, 7, dtype=torch.long), torch.full((1, 7), -0.7, dtype=torch.float64)
    logprobs_BT.requires_grad_()
    got = gspo_loss(logprobs_BT, old_BT, advantages_BT, unit_BT, clip_low=0.99, clip_high=9.0).loss_BT.mean()
    slope_BT, step = gradient(got, logprobs_BT), 1e-6
    for token in range(7):
        shift_BT = torch.zeros_like(old_BT)
        shift_BT[0, token] = step
        up, down = ((sign * shift_BT + logprobs_BT - old_BT).mean().exp().item() for sign in (1, -1))
        assert slope_BT[0, token].item() == pytest.approx(0.7 * (up - down) / (2 * step), rel=1e-8)


def test_a_gspo_unit_may_span_rows_and_equals_one_growing_row() -> None:
    logprobs_BT, old_BT, advantages_BT, _ = example(6, rows=1)
    whole_BT = torch.tensor([[4, 4, 4, -1, 4, 4, -1]])
    one = gspo_loss(logprobs_BT, old_BT, advantages_BT, whole_BT, clip_low=0.1, clip_high=0.1).loss_BT
    split_BT = torch.tensor([[4, 4, 4, -1, -1, -1, -1], [-1, -1, -1, -1, 4, 4, -1]])
    two = gspo_loss(
        logprobs_BT.repeat(2, 1), old_BT.repeat(2, 1), advantages_BT.repeat(2, 1), split_BT, clip_low=0.1, clip_high=0.1
    ).loss_BT
    torch.testing.assert_close(two.sum(0, keepdim=True), one)


def test_one_response_as_a_unit_differs_from_the_trajectory_as_a_unit() -> None:
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(7)
    by_response = gspo_loss(logprobs_BT, old_BT, advantages_BT, unit_BT, clip_low=9.0, clip_high=9.0).loss_BT
    trajectory_BT = torch.where(unit_BT >= 0, unit_BT // 2, -1)
    by_trajectory = gspo_loss(logprobs_BT, old_BT, advantages_BT, trajectory_BT, clip_low=9.0, clip_high=9.0).loss_BT
    assert not torch.allclose(by_response, by_trajectory)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("garbage", [NAN, NEVER, float("inf")])
def test_garbage_outside_of_the_mask_reaches_neither_loss_nor_gradient(name: str, garbage: float) -> None:
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(1)
    outside_BT = unit_BT < 0
    clean_BT = logprobs_BT.clone().requires_grad_()
    dirty_BT = logprobs_BT.masked_fill(outside_BT, garbage).requires_grad_()
    clean = LOSSES[name](clean_BT, old_BT, advantages_BT, unit_BT, clip_low=0.2, clip_high=0.28)
    dirty = LOSSES[name](
        dirty_BT,
        old_BT.masked_fill(outside_BT, garbage),
        advantages_BT.masked_fill(outside_BT, garbage),
        unit_BT,
        clip_low=0.2,
        clip_high=0.28,
    )
    assert torch.equal(dirty.loss_BT, clean.loss_BT)
    assert torch.equal(gradient(dirty.loss_BT.sum(), dirty_BT), gradient(clean.loss_BT.sum(), clean_BT))
    assert (dirty.loss_BT[outside_BT] == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_micro_batch_without_trained_tokens_has_loss_zero(name: str) -> None:
    logprobs_BT, old_BT, advantages_BT, unit_BT = example(1)
    got = LOSSES[name](logprobs_BT, old_BT, advantages_BT, unit_BT.fill_(-1), clip_low=0.2, clip_high=0.28)
    assert got.loss_BT.abs().sum().item() == 0
    assert (got.clip_low_fraction.item(), got.clip_high_fraction.item()) == (0.0, 0.0)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_new_tensors_follow_the_device_of_the_inputs(name: str) -> None:
    inputs = example(9)
    with torch.device("meta"):  # whatever is made without a device lands there, and mixing devices fails
        got = LOSSES[name](*inputs, clip_low=0.2, clip_high=0.28)
    assert got.loss_BT.device.type == "cpu"
