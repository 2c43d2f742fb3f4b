"""DAPO's overlong punishment on its way through rLLM: from our flow to the advantages, as on the embedded engine."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aem_swe.config import load_recipe
from aem_swe.engines.batch import build_batch
from aem_swe.engines.rllm.versions import INSTALL
from aem_swe.engines.update import judge, trajectory_advantages
from aem_swe.schema import Recipe
from aem_swe.types import Termination, ToolCall, Trajectory, Turn

pytestmark = [pytest.mark.rllm, pytest.mark.filterwarnings("default")]  # verl's and Ray's own warnings
BUDGET = 40
DYNAMIC = ("cluster.mode=fully_async", "cluster.gpus_per_node=2", "sampling.drop_uniform_groups=true")


def recipe_of(*overrides: str) -> Recipe:
    """A recipe whose punishment begins after 10 of 40 tokens."""
    keys = ("engine=rllm", f"agent.response_budget={BUDGET}", "algorithm.overlong_buffer=30", "aem.enabled=false")
    return load_recipe("deepswe_smoke_1gpu", [*keys, *overrides])


def played(group: int, rollout: int, reward: float, tokens: int) -> Trajectory:
    turn = Turn((1, 2), (3,) * tokens, (0.0,) * tokens, "stop", 0, "", ToolCall("finish", {}))
    return Trajectory(f"task{group}", group, rollout, (turn,), Termination.FINISHED, reward, "")


CONTRAST = [played(0, 0, 1.0, 5), played(0, 1, 1.0, 25), played(0, 2, 0.0, 40)]
"""Punished by 0, 15/30 and 1."""
UNIFORM = [played(1, 0, 1.0, 5), played(1, 1, 1.0, 25)]


def handed_over(recipe: Recipe, groups: list[list[Trajectory]]) -> list[Any]:
    """What rLLM's trainer gets: our flow's episodes, as its groups."""
    pytest.importorskip("rllm", reason=f"rllm is missing: {INSTALL}", exc_type=ImportError)
    from rllm.types import TrajectoryGroup

    from aem_swe.engines.rllm.flow import SweFlow

    flow = SweFlow(recipe)
    task, config = SimpleNamespace(metadata={}), SimpleNamespace(base_url="http://x/sessions/y", session_uid="a:0")
    return [
        TrajectoryGroup(
            group_id=f"task{number}:swe",
            trajectories=[flow._episode_of(one, task, config, {}).trajectories[0] for one in group],
        )
        for number, group in enumerate(groups)
    ]


def advantages_of(recipe: Recipe, groups: list[list[Trajectory]]) -> list[list[float]]:
    """By the estimator that rLLM calls, from the rewards that rLLM sees."""
    import numpy

    given = handed_over(recipe, groups)
    from rllm.trainer.algorithms.advantage import get_rllm_adv_estimator

    from aem_swe.engines.rllm.estimators import estimator_of

    rewards = [numpy.array([trajectory.reward for trajectory in group.trajectories]) for group in given]
    assert [values.tolist() for values in rewards] == [[t.reward for t in group] for group in groups]
    estimate = get_rllm_adv_estimator(estimator_of(recipe.algorithm.advantage)["swe"])
    found, _ = estimate(rewards=rewards, algorithm_config=None, traj_groups=given)
    return [values.tolist() for values in found]


@pytest.mark.parametrize("advantage", ["leave_one_out", "grpo", "mean_baseline"])
@pytest.mark.parametrize("overrides", [(), DYNAMIC], ids=["sync", "dynamic"])
def test_the_advantages_are_the_embedded_engines(advantage: str, overrides: tuple[str, ...]) -> None:
    recipe = recipe_of(f"algorithm.advantage={advantage}", *overrides)
    made = [*CONTRAST, *UNIFORM]
    verdict = judge(made, recipe.algorithm, drop_uniform_groups=recipe.sampling.drop_uniform_groups)
    batch = build_batch(made, layout="trajectory")
    expected = trajectory_advantages(made, batch, verdict, recipe.algorithm, budget=BUDGET)
    got = torch.tensor([value for group in advantages_of(recipe, [CONTRAST, UNIFORM]) for value in group])
    torch.testing.assert_close(got.float(), expected)


def test_by_hand() -> None:
    """1, 1 - 15/30 and 0 - 1, each against the mean of the others."""
    (got,) = advantages_of(recipe_of("algorithm.advantage=leave_one_out"), [CONTRAST])
    assert got == pytest.approx([1 - (0.5 - 1) / 2, 0.5 - (1 - 1) / 2, -1 - (1 + 0.5) / 2])


def test_lengths_make_no_contrast_for_dynamic_sampling() -> None:
    """rLLM drops a group whose advantages are all 0; without dynamic sampling such a group is trained to be shorter."""
    assert advantages_of(recipe_of(*DYNAMIC), [UNIFORM]) == [[0.0, 0.0]]
    assert advantages_of(recipe_of("algorithm.advantage=leave_one_out"), [UNIFORM]) == [[0.5, -0.5]]


def test_without_a_buffer_nothing_is_noted() -> None:
    (group,) = handed_over(recipe_of("algorithm.overlong_buffer=0"), [CONTRAST])
    assert not [key for one in group.trajectories for key in one.metadata if "overlong" in key or "contrast" in key]
