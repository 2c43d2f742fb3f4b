"""Advantages by hand and against slow loops. B trajectory."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import ADVANTAGES, grpo, leave_one_out, mean_baseline, overlong_penalty, to_rows

NAN = float("nan")


def slow(name: str, rewards: list[float], groups: list[int]) -> list[float]:
    result = []
    for index, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        mates = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        others = [r for k, (r, g) in enumerate(zip(rewards, groups, strict=True)) if g == group and k != index]
        if group < 0:
            result.append(0.0)
        elif name == "leave_one_out":
            result.append(reward - statistics.fmean(others))
        elif name == "grpo":
            result.append((reward - statistics.fmean(mates)) / (statistics.stdev(mates) + 1e-6))
        else:
            result.append(reward - statistics.fmean(mates))
    return result


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    sizes = draw(st.lists(st.integers(2, 6), min_size=1, max_size=4))
    names = draw(st.lists(st.integers(0, 99), min_size=len(sizes), max_size=len(sizes), unique=True))
    groups = [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
    groups = draw(st.permutations(groups + [-1] * draw(st.integers(0, 3))))
    reward = st.floats(-2, 2, width=32) if draw(st.booleans()) else st.sampled_from([0.0, 1.0])
    return draw(st.lists(reward, min_size=len(groups), max_size=len(groups))), groups


def test_leave_one_out_of_one_success_in_four_by_hand() -> None:
    got_B = leave_one_out(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([7, 7, 7, 7]))
    torch.testing.assert_close(got_B, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


def test_grpo_divides_by_the_unbiased_std_by_hand() -> None:
    # mean 1/4, variance (9/16 + 3/16) / 3 = 1/4, std 1/2
    got_B = grpo(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.long), epsilon=0.0)
    torch.testing.assert_close(got_B, torch.tensor([1.5, -0.5, -0.5, -0.5]))
    got_B = grpo(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.long), epsilon=0.25)
    torch.testing.assert_close(got_B, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


def test_mean_baseline_by_hand() -> None:
    got_B = mean_baseline(torch.tensor([1.0, 0.0, 5.0]), torch.tensor([0, 0, 3]))
    assert got_B.tolist() == [0.5, -0.5, 0.0]


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.sampled_from(sorted(ADVANTAGES)))
def test_every_estimator_equals_a_loop_in_any_order(cohort: tuple[list[float], list[int]], name: str) -> None:
    rewards, groups = cohort
    got_B = ADVANTAGES[name](torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups))
    assert got_B.tolist() == pytest.approx(slow(name, rewards, groups), rel=1e-6, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.sampled_from(sorted(ADVANTAGES)))
def test_advantages_of_a_group_sum_to_zero(cohort: tuple[list[float], list[int]], name: str) -> None:
    rewards, groups = torch.tensor(cohort[0], dtype=torch.float64), torch.tensor(cohort[1])
    got_B = ADVANTAGES[name](rewards, groups)
    for group in torch.unique(groups):
        assert abs(got_B[groups == group].sum().item()) < 1e-9


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_leave_one_out_is_n_over_n_minus_one_times_the_mean_baseline(cohort: tuple[list[float], list[int]]) -> None:
    rewards, groups = torch.tensor(cohort[0], dtype=torch.float64), torch.tensor(cohort[1])
    size_B = (groups[:, None] == groups[None, :]).sum(1)
    expected_B = mean_baseline(rewards, groups) * size_B / (size_B - 1).clamp(min=1)
    torch.testing.assert_close(leave_one_out(rewards, groups), expected_B, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
def test_a_dead_trajectory_of_eight_leaves_a_group_of_seven_bit_for_bit(name: str) -> None:
    rewards_B = torch.rand(8, generator=torch.Generator().manual_seed(3))
    alive_B = torch.arange(8) != 2
    expected_B = ADVANTAGES[name](rewards_B[alive_B], torch.zeros(7, dtype=torch.long))
    got_B = ADVANTAGES[name](torch.where(alive_B, rewards_B, NAN), torch.where(alive_B, 0, -1))
    assert torch.equal(got_B[alive_B], expected_B)
    assert got_B[2].item() == 0


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
def test_equal_rewards_have_advantages_of_exactly_zero(name: str) -> None:
    assert ADVANTAGES[name](torch.full((7,), 0.1), torch.zeros(7, dtype=torch.long)).tolist() == [0.0] * 7


@pytest.mark.parametrize("name", ["leave_one_out", "grpo"])
def test_a_group_of_one_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(ValueError, match=r"groups \[5\] have one trajectory each"):
        ADVANTAGES[name](torch.tensor([0.0, 1.0, 1.0]), torch.tensor([2, 5, 2]))


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
@pytest.mark.parametrize("bad", [NAN, float("inf")])
def test_rewards_that_are_not_finite_are_named(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=r"trajectories \[1, 3\] are not finite"):
        ADVANTAGES[name](torch.tensor([0.0, bad, 1.0, bad]), torch.tensor([0, 0, 1, 1]))


def test_integer_rewards_give_float_advantages_and_an_empty_batch_gives_none() -> None:
    assert leave_one_out(torch.tensor([1, 0]), torch.tensor([0, 0])).tolist() == [1.0, -1.0]
    assert leave_one_out(torch.zeros(0), torch.zeros(0, dtype=torch.long)).tolist() == []


def test_overlong_penalty_falls_linearly_over_the_buffer() -> None:
    got_B = overlong_penalty(torch.tensor([0, 80, 85, 95, 100, 250]), budget=100, buffer=20)
    torch.testing.assert_close(got_B, torch.tensor([0.0, 0.0, -0.25, -0.75, -1.0, -1.0]))


@pytest.mark.parametrize("buffer", [0, -1, 101])
def test_a_buffer_must_fit_into_the_budget(buffer: int) -> None:
    with pytest.raises(ValueError, match=f"buffer is {buffer} and budget 100"):
        overlong_penalty(torch.tensor([1]), budget=100, buffer=buffer)


@pytest.mark.parametrize(
    ("values_B", "padding", "expected"),
    [
        (torch.tensor([0.5, -0.5]), 0, [0.5, 0.5, -0.5, 0.0]),
        (torch.tensor([4, 9]), -1, [4, 4, 9, -1]),
        (torch.tensor([True, True]), 0, [True, True, True, False]),
    ],
)
def test_rows_get_the_value_of_their_trajectory_and_padding_rows_the_padding(
    values_B: Tensor, padding: float, expected: list[float]
) -> None:
    got = to_rows(values_B, torch.tensor([0, 0, 1, -1]), padding=padding)
    assert got.tolist() == expected
    assert got.dtype == values_B.dtype


def test_a_row_of_no_trajectory_is_named() -> None:
    with pytest.raises(ValueError, match=r"rows \[1, 2\] belong to no trajectory"):
        to_rows(torch.zeros(2), torch.tensor([0, 2, -2]))


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
def test_new_tensors_follow_the_device_of_the_inputs(name: str) -> None:
    rewards_B, group_B, row_B = torch.tensor([0.0, 1.0]), torch.tensor([0, 0]), torch.tensor([0, 1, -1])
    with torch.device("meta"):  # whatever is made without a device lands there, and mixing devices fails
        got = to_rows(ADVANTAGES[name](rewards_B, group_B), row_B)
    assert got.device.type == "cpu"
