"""One verdict per trajectory: every mode by hand, and what must hold for any batch. B trajectory."""

from enum import StrEnum
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aem_swe.algorithms import (
    REASONS,
    TERMINATIONS,
    TRUNCATIONS,
    FilterVerdict,
    Mode,
    filter_trajectories,
    leave_one_out,
)

NAN = float("nan")
ENDS = ["finished", "max_steps", "finished", "token_budget", "infrastructure_error", "timeout", "format_errors"]


def judge(
    ends: list[str], rewards: list[float], groups: list[int], mode: Mode = "mask", drop_uniform_groups: bool = False
) -> FilterVerdict:
    return filter_trajectories(
        ends, torch.tensor(rewards), torch.tensor(groups), mode=mode, drop_uniform_groups=drop_uniform_groups
    )


def bits(values_B: Tensor) -> str:
    return "".join("1" if value else "0" for value in values_B.tolist())


@pytest.mark.parametrize(
    ("mode", "baseline", "trained", "kept"),
    [("mask", "1111011", "1010001", False), ("drop", "1010001", "1010001", False), ("off", "1111011", "1111011", True)],
)
def test_modes_by_hand(mode: Mode, baseline: str, trained: str, kept: bool) -> None:
    got = judge(ENDS, [1.0, 0.0, 0.0, 0.0, NAN, 0.0, 0.0], [3] * 7, mode)
    assert bits(got.in_baseline_B) == baseline == bits(got.counted_B)
    assert bits(got.trained_B) == trained
    assert got.group_B.tolist() == [3 if bit == "1" else -1 for bit in baseline]
    cut = ["kept"] * 3 if kept else ["max_steps", "token_budget", "timeout"]
    assert list(got.reason) == ["kept", cut[0], "kept", cut[1], "infrastructure_error", cut[2], "kept"]


def test_the_ledger_counts_every_reason_zeros_included() -> None:
    assert judge(ENDS, [1.0, 0.0, 0.0, 0.0, NAN, 0.0, 0.0], [3] * 7).ledger() == {
        "filter/kept": 3,
        "filter/infrastructure_error": 1,
        "filter/max_steps": 1,
        "filter/token_budget": 1,
        "filter/timeout": 1,
        "filter/small_group": 0,
        "filter/uniform_group": 0,
        "filter/surplus_group": 0,
    }


def test_a_group_with_one_survivor_is_dropped_and_counted() -> None:
    got = judge(
        ["finished", "infrastructure_error", "finished", "finished", "infrastructure_error"],
        [1.0, NAN, 1.0, 0.0, NAN],
        [9, 9, 2, 2, 5],
    )
    assert got.reason == ("small_group", "infrastructure_error", "kept", "kept", "infrastructure_error")
    assert bits(got.in_baseline_B) == bits(got.trained_B) == bits(got.counted_B) == "00110"
    assert got.small_groups == 2  # group 5 has no survivor at all


def test_masked_trajectories_survive_and_dropped_ones_do_not() -> None:
    ends, rewards = ["finished", "timeout"], [1.0, 0.0]
    assert judge(ends, rewards, [0, 0], "mask").reason == ("kept", "timeout")
    dropped = judge(ends, rewards, [0, 0], "drop")
    assert dropped.reason == ("small_group", "timeout")
    assert bits(dropped.counted_B) == "00"


@pytest.mark.parametrize("drop", [False, True])
def test_uniform_groups_are_counted_and_dropped_only_on_demand(drop: bool) -> None:
    got = judge(["finished"] * 4, [1.0, 1.0, 0.0, 1.0], [0, 0, 1, 1], drop_uniform_groups=drop)
    assert got.uniform_groups == 1
    assert got.reason == (("uniform_group",) * 2 if drop else ("kept",) * 2) + ("kept", "kept")
    assert bits(got.trained_B) == bits(got.counted_B) == ("0011" if drop else "1111")
    assert got.group_B.tolist() == ([-1, -1, 1, 1] if drop else [0, 0, 1, 1])


def test_a_masked_trajectory_of_a_uniform_group_keeps_its_own_reason_and_leaves_the_batch() -> None:
    got = judge(["finished", "max_steps"], [0.0, 0.0], [0, 0], drop_uniform_groups=True)
    assert got.reason == ("uniform_group", "max_steps")
    assert bits(got.in_baseline_B) == "00"


def test_of_the_groups_with_contrast_the_first_ones_stay() -> None:
    ends = ["finished"] * 8 + ["infrastructure_error", "timeout"]
    rewards, groups = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, NAN, 0.0], [7, 7, 0, 0, 3, 3, 9, 9, 9, 9]
    got = filter_trajectories(
        ends, torch.tensor(rewards), torch.tensor(groups), mode="mask", drop_uniform_groups=True, most_groups=2
    )
    assert got.kept_groups == [3, 7]
    uniform, surplus = ("uniform_group",) * 2, ("surplus_group",) * 2
    assert got.reason == ("kept", "kept", *uniform, "kept", "kept", *surplus, "infrastructure_error", "timeout")
    assert bits(got.in_baseline_B) == bits(got.trained_B) == bits(got.counted_B) == "1100110000"
    assert got.uniform_groups == 1


@pytest.mark.parametrize("most", [4, 5, None])
def test_enough_room_for_all_groups_changes_no_verdict(most: int | None) -> None:
    ends, rewards, groups = ["finished"] * 8, [1.0, 0.0] * 4, [0, 0, 1, 1, 2, 2, 3, 3]
    got = filter_trajectories(
        ends, torch.tensor(rewards), torch.tensor(groups), mode="off", drop_uniform_groups=True, most_groups=most
    )
    assert got.reason == ("kept",) * 8 and got.kept_groups == [0, 1, 2, 3]


def test_a_dead_container_does_not_hide_that_its_group_is_uniform() -> None:
    assert judge(["finished"] * 2 + ["infrastructure_error"], [1.0, 1.0, 0.0], [0] * 3).uniform_groups == 1


def test_only_the_baseline_needs_rewards() -> None:
    ends = ["finished", "finished", "timeout", "infrastructure_error"]
    assert judge(ends, [1.0, 0.0, NAN, NAN], [0] * 4, "drop").reason == (
        "kept",
        "kept",
        "timeout",
        "infrastructure_error",
    )
    with pytest.raises(ValueError, match=r"trajectories 2 \(timeout\) have no finite reward"):
        judge(ends, [1.0, 0.0, NAN, NAN], [0] * 4, "mask")
    with pytest.raises(ValueError, match=r"trajectories 0 \(finished\), 2 \(timeout\) have no"):
        judge(ends, [NAN, 0.0, float("inf"), NAN], [0] * 4, "off")


@pytest.mark.parametrize(
    ("ends", "groups", "mode", "message"),
    [
        (["finished", "oom"], [0, 0], "mask", r"terminations \['oom'\] are unknown; choose from \['finished'"),
        (["finished", "finished"], [0, 0], "skip", r"filter mode is 'skip'; choose one of \['mask', 'drop', 'off'\]"),
        (["finished"], [0, 0], "mask", "1 terminations, 2 rewards, 2 groups"),
        (["finished", "finished"], [0, -1], "mask", r"trajectories \[1\] have a negative group"),
    ],
)
def test_mistakes_are_named_with_the_choices(ends: list[str], groups: list[int], mode: Mode, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(ends, [0.0, 0.0], groups, mode)


def test_terminations_may_be_members_of_a_string_enum() -> None:
    class Termination(StrEnum):
        FINISHED = "finished"
        TIMEOUT = "timeout"

    got = judge([Termination.FINISHED, Termination.TIMEOUT], [1.0, 0.0], [0, 0])
    assert got.reason == ("kept", "timeout")


def test_an_empty_batch_is_judged() -> None:
    got = judge([], [], [])
    assert (got.reason, got.small_groups, got.uniform_groups, sum(got.ledger().values())) == ((), 0, 0, 0)


def slow(
    ends: list[str], rewards: list[float], groups: list[int], mode: str, drop: bool
) -> list[tuple[str, bool, bool]]:
    """(reason, in the baseline, trained), one trajectory at a time."""
    gone = [e == "infrastructure_error" or (mode == "drop" and e in TRUNCATIONS) for e in ends]
    verdicts = []
    for end, group, is_gone in zip(ends, groups, gone, strict=True):
        mates = [r for r, g, out in zip(rewards, groups, gone, strict=True) if g == group and not out]
        small, uniform = len(mates) < 2, drop and len(set(mates)) == 1
        own = end if end == "infrastructure_error" or (end in TRUNCATIONS and mode != "off") else None
        reason = own or ("small_group" if small else "uniform_group" if uniform else "kept")
        baseline = not (is_gone or small or uniform)
        verdicts.append((reason, baseline, baseline and not (mode == "mask" and end in TRUNCATIONS)))
    return verdicts


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(TERMINATIONS), st.sampled_from([0.0, 1.0]), st.integers(0, 3)), max_size=14),
    st.sampled_from(["mask", "drop", "off"]),
    st.booleans(),
)
def test_verdicts_equal_a_loop(
    batch: list[tuple[str, float, int]], mode: Literal["mask", "drop", "off"], drop: bool
) -> None:
    ends, groups = [end for end, _, _ in batch], [group for _, _, group in batch]
    rewards = [NAN if end == "infrastructure_error" else reward for end, reward, _ in batch]
    got = filter_trajectories(
        ends,
        torch.tensor(rewards, dtype=torch.float64),
        torch.tensor(groups, dtype=torch.long),
        mode=mode,
        drop_uniform_groups=drop,
    )
    assert list(zip(got.reason, got.in_baseline_B.tolist(), got.trained_B.tolist(), strict=True)) == slow(
        ends, rewards, groups, mode, drop
    )
    assert list(got.ledger()) == [f"filter/{reason}" for reason in REASONS]
    assert sum(got.ledger().values()) == len(batch)
    assert torch.equal(got.group_B >= 0, got.in_baseline_B)
    leave_one_out(torch.tensor(rewards, dtype=torch.float64), got.group_B)  # never a group of one, never a NaN


def test_new_tensors_follow_the_device_of_the_inputs() -> None:
    rewards_B, group_B = torch.tensor([0.0, 1.0]), torch.tensor([0, 0])
    with torch.device("meta"):  # whatever is made without a device lands there, and mixing devices fails
        got = filter_trajectories(["finished"] * 2, rewards_B, group_B, mode="mask", drop_uniform_groups=True)
    assert got.trained_B.device.type == "cpu"
