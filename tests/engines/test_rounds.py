"""Dynamic sampling: which rounds are played, which groups are used, and that it can be interrupted anywhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import metrics, same_weights, train, weights

from aem_swe.config import load_recipe
from aem_swe.engines.local.model import LocalModel
from aem_swe.engines.local.trainer import _minibatches
from aem_swe.engines.problems import load_problems
from aem_swe.tasks.source import problems_of_step

ROUNDS = ("sampling.drop_uniform_groups=true", "sampling.max_rounds=3", "data.pool=6", "trainer.eval_every=0")
"""Up to three rounds of two prompts."""


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    run_dir = tmp_path_factory.mktemp("rounds") / "run"
    train(run_dir, *ROUNDS)
    return run_dir


def trajectories(run_dir: Path, step: int) -> list[dict[str, Any]]:
    """The lines of a step's file."""
    path = run_dir / "trajectories" / f"step_{step:06d}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def verdicts(rewards: list[list[float]], wanted: int) -> list[str]:
    """One per group, by hand: rounds of `wanted` groups are all that is known."""
    found, kept = [], 0
    for group in rewards:
        contrast = len(set(group)) > 1
        found.append("uniform_group" if not contrast else "kept" if kept < wanted else "surplus_group")
        kept += contrast
    return found


@pytest.mark.parametrize("step", [1, 2])
def test_rounds_go_on_until_enough_groups_have_contrast_and_every_episode_is_accounted_for(
    rounds: Path, step: int
) -> None:
    row, lines = metrics(rounds)[step - 1], trajectories(rounds, step)
    assert [(line["group"], line["rollout"]) for line in lines] == [
        (group, rollout) for group in range(2 * row["sampling/rounds"]) for rollout in range(4)
    ]
    rewards = [[line["reward"] for line in lines[start : start + 4]] for start in range(0, len(lines), 4)]
    expected = verdicts(rewards, 2)
    assert [line["verdict"] for line in lines[::4]] == expected
    assert [line["verdict"] for line in lines] == [verdict for verdict in expected for _ in range(4)]
    assert expected[:-2].count("kept") < 2, "the last round was needed"
    assert row["sampling/kept_groups"] == expected.count("kept")
    assert row["sampling/kept_groups"] == 2 or row["sampling/rounds"] == 3
    for reason in ("kept", "uniform_group", "surplus_group"):
        assert row[f"filter/{reason}"] == 4 * expected.count(reason)
    assert row["rollout/trajectories"] == 8 * row["sampling/rounds"]
    for line in lines:
        assert (line["advantage"] != 0) == (line["verdict"] == "kept")


def test_these_steps_had_something_to_leave_out(rounds: Path) -> None:
    found = {line["verdict"] for step in (1, 2) for line in trajectories(rounds, step)}
    assert {"kept", "uniform_group"} <= found
    assert max(row["sampling/rounds"] for row in metrics(rounds)) > 1


def test_the_tasks_of_a_round_are_those_of_seed_step_and_round(rounds: Path) -> None:
    recipe = load_recipe("demo", ["sampling.prompts=2", "data.seed=15", *ROUNDS])
    pool = load_problems(recipe).pool
    for step in (1, 2):
        lines = trajectories(rounds, step)
        for number in range(len(lines) // 8):
            expected = [problem.task.id for problem in problems_of_step(pool, 3 * (step - 1) + number + 1, 2, 15)]
            assert [line["task_id"] for line in lines[8 * number : 8 * number + 8 : 4]] == expected
        assert len({line["task_id"] for line in lines}) == len(lines) // 4, "no task is played twice in a step"


def test_a_run_that_was_resumed_between_steps_is_the_same_run(rounds: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train(run_dir, *ROUNDS, "trainer.steps=1")
    train(run_dir, *ROUNDS, resume=True)
    assert metrics(run_dir) == metrics(rounds)
    assert same_weights(run_dir, rounds)
    for step in (1, 2):
        assert trajectories(run_dir, step) == trajectories(rounds, step)


def test_a_step_without_any_contrast_plays_all_rounds_and_updates_nothing(tmp_path: Path, shipped: LocalModel) -> None:
    (row,) = train(tmp_path / "run", *ROUNDS, "trainer.steps=1", "agent.max_steps=1")
    assert (row["sampling/rounds"], row["sampling/kept_groups"], row["actor/updates"]) == (3, 0, 0)
    assert row["filter/uniform_group"] == row["rollout/trajectories"] == 24
    before = shipped.network.state_dict()
    for name, tensor in weights(tmp_path / "run", 1).items():
        assert torch.equal(tensor, before[name].to(tensor.dtype)), name


def test_without_further_rounds_a_step_is_what_it_was(whole: Path) -> None:
    """One round, as ever: all groups are used, uniform ones too."""
    for row in metrics(whole)[1:]:
        assert (row["sampling/rounds"], row["sampling/kept_groups"]) == (1, 2)


def test_minibatches_hold_equally_many_groups_and_a_poor_step_has_fewer_of_them() -> None:
    recipe = load_recipe("demo", ["sampling.prompts=4", "trainer.minibatches=2"])
    for groups, sizes in (([0, 1, 2, 3], [2, 2]), ([1, 4, 6], [2, 1]), ([5, 7], [2]), ([9], [1]), ([], [])):
        parts = _minibatches(recipe, 3, list(groups))
        assert [len(part) for part in parts] == sizes
        assert sorted(group for part in parts for group in part.tolist()) == groups
    orders = {tuple(_minibatches(recipe, step, [0, 1, 2, 3])[0].tolist()) for step in range(20)}
    assert len(orders) > 3
