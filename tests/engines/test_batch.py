"""From turns to rows, token by token. Shapes: B row, T token."""

import random
from dataclasses import replace

import pytest
import torch
from written_by_hand import END, episode, trajectory, turn

from aem_swe.engines.batch import Layout, build_batch


def test_a_growing_row_by_hand() -> None:
    first = trajectory(([5, 6], [7, END]), ([5, 6, 7, END, 8, 9], [10, END]))
    second = trajectory(([5], [11, 12, END]), rollout=1)
    batch = build_batch([first, second], layout="trajectory")
    assert batch.tokens_BT.tolist() == [[5, 6, 7, END, 8, 9, 10, END], [5, 11, 12, END, 0, 0, 0, 0]]
    assert batch.response_id_BT.tolist() == [[-1, -1, 0, 0, -1, -1, 1, 1], [-1, 2, 2, 2, -1, -1, -1, -1]]
    assert batch.response_mask_BT.tolist() == (batch.response_id_BT >= 0).tolist()
    assert batch.length_B.tolist() == [8, 4]
    assert batch.trajectory_B.tolist() == [0, 1]
    assert batch.turn_of_response == ((0, 0), (0, 1), (1, 0))
    expected_BT = [[0, 0, -0.1, -0.2, 0, 0, -0.1, -0.2], [0, -0.1, -0.2, -0.3, 0, 0, 0, 0]]
    torch.testing.assert_close(batch.rollout_logprobs_BT, torch.tensor(expected_BT))


def test_one_row_per_turn_by_hand() -> None:
    first = trajectory(([5, 6], [7, END]), ([5, 6, 7, END, 8], [10, END]))
    second = trajectory(([5], [11, END]), rollout=1)
    batch = build_batch([first, second], layout="turn")
    assert batch.tokens_BT.tolist() == [[5, 6, 7, END, 0, 0, 0], [5, 6, 7, END, 8, 10, END], [5, 11, END, 0, 0, 0, 0]]
    assert batch.response_id_BT.tolist() == [
        [-1, -1, 0, 0, -1, -1, -1],
        [-1, -1, -1, -1, -1, 1, 1],
        [-1, 2, 2, -1, -1, -1, -1],
    ]
    assert batch.length_B.tolist() == [4, 7, 3]
    assert batch.trajectory_B.tolist() == [0, 0, 1]
    assert batch.turn_of_response == ((0, 0), (0, 1), (1, 0))


def test_two_responses_with_nothing_between_them_stay_two() -> None:
    batch = build_batch([trajectory(([5], [6, 7]), ([5, 6, 7], [8, END]))], layout="trajectory")
    assert batch.tokens_BT.tolist() == [[5, 6, 7, 8, END]]
    assert batch.response_id_BT.tolist() == [[-1, 0, 0, 1, 1]]


def test_a_prompt_that_does_not_continue_the_row_starts_a_new_row() -> None:
    said = ([5, 6], [7, END]), ([5, 9], [10, END]), ([5, 9, 10, END, 11], [12, END])
    batch = build_batch([trajectory(*said)], layout="trajectory")
    assert batch.tokens_BT.tolist() == [[5, 6, 7, END, 0, 0, 0], [5, 9, 10, END, 11, 12, END]]
    assert batch.response_id_BT.tolist() == [[-1, -1, 0, 0, -1, -1, -1], [-1, -1, 1, 1, -1, 2, 2]]
    assert batch.trajectory_B.tolist() == [0, 0]


def test_a_prompt_shorter_than_the_row_starts_a_new_row() -> None:
    batch = build_batch([trajectory(([5, 6], [7, END]), ([5, 6], [8, END]))], layout="trajectory")
    assert batch.tokens_BT.tolist() == [[5, 6, 7, END], [5, 6, 8, END]]


def test_an_empty_response_owns_no_token_and_keeps_its_number() -> None:
    batch = build_batch([trajectory(([5], []), ([5, 6], [7, END]))], layout="trajectory")
    assert batch.tokens_BT.tolist() == [[5, 6, 7, END]]
    assert batch.response_id_BT.tolist() == [[-1, -1, 1, 1]]
    assert batch.turn_of_response == ((0, 0), (0, 1))


def test_a_sampled_pad_id_is_a_token_like_any_other() -> None:
    batch = build_batch([trajectory(([5], [0, 0])), trajectory(([5, 6], [7, 8, END]), rollout=1)], layout="trajectory")
    assert batch.tokens_BT.tolist() == [[5, 0, 0, 0, 0], [5, 6, 7, 8, END]]
    assert batch.response_id_BT.tolist() == [[-1, 0, 0, -1, -1], [-1, -1, 1, 1, 1]]
    assert batch.response_mask_BT.sum(1).tolist() == [2, 3]
    assert batch.length_B.tolist() == [3, 5]
    torch.testing.assert_close(batch.rollout_logprobs_BT[0], torch.tensor([0, -0.1, -0.2, 0, 0]))


def test_policy_versions_are_per_token() -> None:
    mixed = trajectory(turn([5], [6, END], version=3), turn([5, 6, END, 7], [8], version=4))
    assert build_batch([mixed], layout="trajectory").policy_version_BT.tolist() == [[-1, 3, 3, -1, 4]]


def test_trajectories_without_turns_have_no_row_and_keep_their_index() -> None:
    batch = build_batch([trajectory(), trajectory(([5], [6, END]), rollout=1)], layout="trajectory")
    assert batch.trajectory_B.tolist() == [1]
    nothing = build_batch([trajectory()], layout="turn")
    assert nothing.tokens_BT.shape == (0, 1)
    assert nothing.turn_of_response == ()


@pytest.mark.parametrize("layout", ["trajectory", "turn"])
def test_log_probs_that_do_not_match_the_ids_are_named(layout: Layout) -> None:
    torn = trajectory(replace(turn([5], [6, END]), logprobs=(-0.5,)))
    with pytest.raises(ValueError, match="trajectory 1 turn 0 has 2 ids and 1 log-probs"):
        build_batch([trajectory(([5], [6])), torn], layout=layout)


@pytest.mark.parametrize("layout", ["trajectory", "turn"])
def test_every_sampled_token_is_in_the_batch_exactly_once(layout: Layout) -> None:
    stream = random.Random(4)
    made = [episode(stream, turns=stream.randrange(0, 5), rollout=i) for i in range(12)]
    batch = build_batch(made, layout=layout)
    for response, (index, number) in enumerate(batch.turn_of_response):
        said = made[index].turns[number]
        rows, columns = (batch.response_id_BT == response).nonzero(as_tuple=True)
        assert batch.tokens_BT[rows, columns].tolist() == list(said.response_ids)
        assert set(batch.trajectory_B[rows].tolist()) == {index}
        assert batch.tokens_BT[rows[0], : int(columns[0])].tolist() == list(said.prompt_ids)
    assert batch.response_mask_BT.sum() == sum(len(said.response_ids) for t in made for said in t.turns)
