"""Borders between turns in verl's rows, by hand; and the estimators that a V1 session with many outputs rules out."""

import pytest
import torch

from aem_swe.engines.verl.borders import find_borders

MASK = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])


def test_turns_that_touch_stay_two_where_their_lengths_are_known() -> None:
    ids, exact = find_borders(MASK, [[2, 1], [1, 3], [4]])
    assert exact
    assert ids[0, 0] == ids[0, 1] != ids[0, 3]
    assert ids[1, 0] != ids[1, 1] == ids[1, 2] == ids[1, 3]
    assert (ids[MASK == 0] == -1).all()
    assert len(ids[MASK == 1].unique()) == 4


def test_rows_without_lengths_fall_back_to_runs_and_say_so() -> None:
    ids, exact = find_borders(MASK, [None, [1, 3], None])
    assert not exact
    assert len(ids[0][[0, 1]].unique()) == 1 and ids[0, 3] != ids[0, 0]
    assert len(ids[1].unique()) == 2
    assert len(ids[MASK == 1].unique()) == 4


def test_a_masked_row_needs_no_lengths_to_be_exact() -> None:
    assert find_borders(MASK, [[2, 1], [4], None])[1]


def test_a_row_that_verl_cut_keeps_the_start_of_its_last_turn_and_empty_turns_own_nothing() -> None:
    ids, exact = find_borders(MASK, [[2, 0, 9], [3, 30], []])
    assert exact
    assert len(ids[0][MASK[0] == 1].unique()) == 2
    assert ids[1, 2] != ids[1, 3]


def test_lengths_that_leave_out_a_turn_are_an_error_that_names_the_row() -> None:
    with pytest.raises(ValueError, match=r"row 1 has 4 sampled tokens and turn_lengths \[1, 2\] of only 3"):
        find_borders(MASK, [[3], [1, 2], []])
