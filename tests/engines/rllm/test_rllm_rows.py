"""Rows, borders and attention of rLLM's batches, from the steps alone. No rllm needed; hand-computed numbers."""

from dataclasses import dataclass, field

import pytest
import torch

from aem_swe.algorithms.aem import modulate
from aem_swe.engines.rllm.rows import RowPlan, attention_by_length, lay_out, plan_rows
from aem_swe.engines.rllm.staleness import staleness_metrics
from aem_swe.errors import RunError


@dataclass
class Output:
    prompt_ids: list[int] | None
    completion_ids: list[int] | None


@dataclass
class Step:
    model_output: Output | None = None
    weight_version: int | None = field(default=None)


def step(prompt: list[int], action: list[int]) -> Step:
    return Step(Output(prompt, action))


def test_a_growing_prompt_makes_one_row_and_adjacent_actions_keep_their_border() -> None:
    steps = [step([1, 2], [3, 4]), step([1, 2, 3, 4], [5]), step([1, 2, 3, 4, 5, 9, 9], [6, 7])]
    assert plan_rows(steps) == [RowPlan(2, 7, ((0, 2, 0), (2, 3, 1), (5, 7, 2)))]


def test_a_prompt_that_forgets_begins_a_row_of_its_own() -> None:
    steps = [step([1], [2, 3]), step([1, 9], [4]), step([1, 9, 4, 8], [5])]
    assert plan_rows(steps) == [RowPlan(1, 2, ((0, 2, 0),)), RowPlan(2, 3, ((0, 1, 1), (2, 3, 2)))]


def test_steps_without_a_model_output_are_left_out_and_keep_the_numbers_of_the_others() -> None:
    assert plan_rows([Step(), step([1], [2]), Step(Output(None, None)), step([1, 2], [3])]) == [
        RowPlan(1, 2, ((0, 1, 1), (1, 2, 3)))
    ]
    assert plan_rows([]) == []


def mask_of(*spans: tuple[int, int], columns: int = 8) -> list[int]:
    return [int(any(start <= column < end for start, end in spans)) for column in range(columns)]


def test_rows_are_matched_to_groups_and_the_filter_masks_without_leaving_the_group() -> None:
    plans = {
        "a": [RowPlan(2, 4, ((0, 2, 0), (2, 4, 1)))],
        "b": [RowPlan(2, 1, ((0, 1, 0),)), RowPlan(3, 2, ((0, 2, 1),))],
        "dropped": [RowPlan(2, 3, ((0, 3, 0),))],
    }
    mask_BT = torch.tensor([mask_of((0, 4)), mask_of((0, 1)), mask_of((0, 2)), mask_of((0, 3))])
    layout, plan_B = lay_out(["a", "b", "b", "dropped"], plans, [["a", "b"]], ["b"], mask_BT)
    assert layout.response_id_BT.tolist() == [
        [0, 0, 1, 1, -1, -1, -1, -1],
        [2, -1, -1, -1, -1, -1, -1, -1],
        [3, 3, -1, -1, -1, -1, -1, -1],
        [4, 4, 4, -1, -1, -1, -1, -1],
    ]
    assert layout.group_B.tolist() == [0, 0, 0, -1]
    assert layout.trained_B.tolist() == [True, False, False, False]
    assert layout.step_of_response[3] == ("b", 1)
    assert layout.rows_by_mask == 0
    assert [plan and plan.prompt_tokens for plan in plan_B] == [2, 2, 3, 2]


def test_where_the_mask_says_something_else_its_runs_are_used_and_counted() -> None:
    plans = {"a": [RowPlan(2, 4, ((0, 2, 0), (2, 4, 1)))], "b": [RowPlan(2, 2, ((0, 2, 0),))]}
    mask_BT = torch.tensor([mask_of((0, 1), (5, 7)), mask_of((0, 2))])
    layout, _ = lay_out(["a", "b"], plans, [["a", "b"]], [], mask_BT)
    assert layout.rows_by_mask == 1
    first, second = layout.response_id_BT.tolist()
    assert [number >= 0 for number in first] == [bool(bit) for bit in mask_of((0, 1), (5, 7))]
    assert first[0] != first[5] and first[5] == first[6]
    assert set(first).isdisjoint(set(second) - {-1})


def test_attention_comes_from_lengths_so_a_sampled_pad_stays() -> None:
    pad = 0
    ids = torch.tensor([[pad, pad, 7, 7, 5, pad, 6, pad, pad, pad]])
    stock = (ids != pad).long()
    mended = attention_by_length([RowPlan(2, 3, ((0, 3, 0),))], stock, prompt_columns=4)
    assert mended.tolist() == [[0, 0, 1, 1, 1, 1, 1, 0, 0, 0]]
    assert stock[0, 5] == 0


def test_a_row_without_a_plan_keeps_its_attention() -> None:
    stock = torch.tensor([[0, 1, 1, 1, 0]])
    assert attention_by_length([None], stock, prompt_columns=2).tolist() == stock.tolist()


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (RowPlan(5, 2, ((0, 2, 0),)), "prompt of 5 tokens was cut to 4.*max_prompt_tokens"),
        (RowPlan(4, 7, ((0, 7, 0),)), "episode of 7 tokens after its prompt was cut to 6.*response_budget"),
    ],
)
def test_a_row_that_was_cut_is_refused(plan: RowPlan, said: str) -> None:
    with pytest.raises(RunError, match=said):
        attention_by_length([plan], torch.ones(1, 10), prompt_columns=4)


def test_alpha_is_reported_by_the_age_of_the_weights() -> None:
    entropy_BT = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.9, 0.9, 0.9, 0.9]])
    id_BT = torch.tensor([[0, 0, 1, 1], [2, 2, -1, -1]])
    modulation = modulate(torch.ones(2, 4), entropy_BT, id_BT, torch.zeros(2, dtype=torch.long), lam=1.0)
    metrics = staleness_metrics(modulation, {0: 0, 1: 2, 2: 2})
    alpha = modulation.alpha_R.tolist()
    assert metrics["staleness/mean"] == pytest.approx(4 / 3)
    assert metrics["staleness/max"] == 2.0
    assert metrics["aem/alpha_mean/staleness_0"] == pytest.approx(alpha[0])
    assert metrics["aem/alpha_mean/staleness_2"] == pytest.approx((alpha[1] + alpha[2]) / 2)
    assert staleness_metrics(modulation, {}) == {}
