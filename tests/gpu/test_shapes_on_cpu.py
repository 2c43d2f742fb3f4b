"""The GPU measurements with tiny shapes on the CPU, so that they still run when a machine with a GPU turns up."""

import math

import pytest
import torch
from gpu_figures import FIGURES, MEASUREMENTS
from gpu_meter import Figures
from gpu_precision import discordant_share, spearman
from gpu_scene import H200, TINY, make_trajectories, network_config
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def figures() -> Figures:
    return {key: value for measure in MEASUREMENTS for key, value in measure(TINY, CPU).items()}


def test_every_figure_of_the_table_is_measured_in_its_order(figures: Figures) -> None:
    assert list(figures) == list(FIGURES)


def test_a_cpu_measures_everything_but_memory(figures: Figures) -> None:
    assert {key for key, value in figures.items() if math.isnan(value)} == {
        k for k in FIGURES if k.endswith("peak_gib")
    }


def test_the_step_has_a_loss_and_moves_weights(figures: Figures) -> None:
    assert math.isfinite(figures["step/loss"]) and figures["step/grad_norm"] > 0
    assert figures["step/moved_share"] > 0.9


def test_sampler_and_score_agree_in_bfloat16(figures: Figures) -> None:
    assert figures["sampler/error_mean"] < 0.05
    assert figures["sampler/error_max"] < 0.3


def test_one_device_gives_one_alpha_of_mean_one(figures: Figures) -> None:
    assert figures["aem/device_error"] == 0
    assert figures["aem/mean_error"] < 1e-12


def test_bfloat16_errors_are_small_and_not_zero(figures: Figures) -> None:
    assert 0 < figures["precision/entropy_error_mean"] <= figures["precision/entropy_error_max"] < 0.05
    assert 0.9 < figures["precision/spearman"] <= 1


def test_swapping_one_of_three_neighbours_makes_one_of_three_pairs_discordant() -> None:
    a_M, b_M = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])
    assert discordant_share(a_M, b_M) == pytest.approx(1 / 3)
    assert spearman(a_M, b_M) == pytest.approx(0.5)


def test_synthetic_episodes_fill_their_rows_and_each_turn_continues_the_last() -> None:
    trajectories = make_trajectories(TINY, rows=TINY.rows, tokens=TINY.tokens, turns=TINY.turns)
    for trajectory in trajectories:
        seen: tuple[int, ...] = ()
        for turn in trajectory.turns:
            assert turn.prompt_ids[: len(seen)] == seen
            seen = turn.prompt_ids + turn.response_ids
        assert len(seen) == TINY.tokens
    assert [t.reward for t in trajectories if t.group == 0] == [0, 1, 1, 0, 1, 0, 0, 0]


def test_the_full_network_has_the_parameters_of_qwen3_0_6b() -> None:
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(network_config(H200))  # type: ignore[no-untyped-call]  # theirs
    assert sum(parameter.numel() for parameter in network.parameters()) == 596_049_920
