"""AEM sees responses, not rows: layouts, adjacent turns, dead and masked trajectories. R response, B row, T token."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from aem_swe.algorithms import aem_metrics, leave_one_out, modulate, response_ids, to_rows

Spans = list[tuple[int, int, int]]


def id_tensor(spans: Spans, shape: tuple[int, int]) -> Tensor:
    row_R, start_R, end_R = torch.tensor(spans, dtype=torch.long).reshape(-1, 3).unbind(1)
    return response_ids(row_R, start_R, end_R, shape=shape)


def test_one_growing_row_and_one_row_per_turn_give_the_same_alpha() -> None:
    generator = torch.Generator().manual_seed(1)
    entropy_BT = 2 * torch.rand(2, 50, generator=generator)
    spans = [(0, 3, 11), (0, 15, 30), (0, 30, 41), (1, 2, 9), (1, 20, 50)]
    growing = modulate(
        torch.ones(2, 50), entropy_BT, id_tensor(spans, (2, 50)), torch.zeros(2, dtype=torch.long), lam=1.0
    )
    turn_BT = torch.stack([entropy_BT[row] for row, _, _ in spans])
    turn_spans = [(k, start, end) for k, (_, start, end) in enumerate(spans)]
    group_B = to_rows(torch.tensor([0, 0]), torch.tensor([0, 0, 0, 1, 1]))
    per_turn = modulate(torch.ones(5, 50), turn_BT, id_tensor(turn_spans, (5, 50)), group_B, lam=1.0)
    assert torch.equal(per_turn.entropy_R, growing.entropy_R)
    assert torch.equal(per_turn.alpha_R, growing.alpha_R)


def test_adjacent_responses_get_one_alpha_each() -> None:
    entropy_BT = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.5, 0.5]])
    got = modulate(torch.ones(1, 6), entropy_BT, torch.tensor([[0, 0, 1, 1, 2, 2]]), torch.tensor([0]), lam=1.0)
    assert got.entropy_R.tolist() == [0.0, 1.0, 0.5]
    assert len(set(got.alpha_R.tolist())) == 3
    assert torch.equal(got.advantages_BT[0, 0::2], got.advantages_BT[0, 1::2])


@pytest.mark.parametrize("tokens", [37, 64])
def test_a_dead_trajectory_of_eight_leaves_the_other_seven_bit_for_bit(tokens: int) -> None:
    generator = torch.Generator().manual_seed(2)
    entropy_BT = 2 * torch.rand(8, tokens, generator=generator)
    rewards_B = torch.rand(8, generator=generator)
    spans = [(row, start, start + 9 + row) for row in range(8) for start in (1, 20)]
    alive_B = torch.arange(8) != 5
    group_B = torch.where(alive_B, 0, -1)
    advantages_BT = leave_one_out(rewards_B, group_B).unsqueeze(1).expand(8, tokens)
    got = modulate(advantages_BT, entropy_BT, id_tensor(spans, (8, tokens)), group_B, lam=1.0)

    seven = [(row - (row > 5), start, end) for row, start, end in spans if row != 5]
    zeros_B = torch.zeros(7, dtype=torch.long)
    base_BT = leave_one_out(rewards_B[alive_B], zeros_B).unsqueeze(1).expand(7, tokens)
    expected = modulate(base_BT, entropy_BT[alive_B], id_tensor(seven, (7, tokens)), zeros_B, lam=1.0)
    assert torch.equal(got.advantages_BT[alive_B], expected.advantages_BT)
    assert torch.equal(got.alpha_R[got.group_R >= 0], expected.alpha_R)


def test_masked_rows_are_outside_of_g_and_all_rows_are_in_it_without_a_mask() -> None:
    entropy_BT = torch.tensor([[1.0], [2.0], [5.0]])
    id_BT, group_B = torch.tensor([[0], [1], [2]]), torch.zeros(3, dtype=torch.long)
    trained_B = torch.tensor([True, True, False])
    got = modulate(torch.ones(3, 1), entropy_BT, id_BT, group_B, lam=1.0, trained_of_row_B=trained_B)
    pair = modulate(torch.ones(2, 1), entropy_BT[:2], id_BT[:2], group_B[:2], lam=1.0)
    assert torch.equal(got.alpha_R, torch.cat([pair.alpha_R, torch.ones(1, dtype=torch.float64)]))
    assert got.group_R.tolist() == [0, 0, -1]
    everyone = modulate(torch.ones(3, 1), entropy_BT, id_BT, group_B, lam=1.0)
    weight_R = torch.exp(-torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    torch.testing.assert_close(everyone.alpha_R, 3 * weight_R / weight_R.sum())


def test_new_tensors_follow_the_device_of_the_inputs() -> None:
    # Whatever is made without a device lands on meta here, and mixing devices fails.
    entropy_BT, id_BT = torch.rand(2, 40), torch.arange(2).unsqueeze(1).repeat(1, 40)
    advantages_BT, group_B, trained_B = torch.ones(2, 40), torch.tensor([0, 0]), torch.tensor([True, True])
    with torch.device("meta"):
        got = modulate(advantages_BT, entropy_BT, id_BT, group_B, lam=1.0, trained_of_row_B=trained_B)
        aem_metrics(got)
    tensors = [getattr(got, field.name) for field in fields(got) if field.name != "responses"]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
