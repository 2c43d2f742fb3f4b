"""Linear estimates of entropy changes against backpropagation and real SGD steps. B row, T token, R response."""

import random
from collections.abc import Callable

import pytest
import torch
from written_by_hand import episode, trajectory

from aem_swe.config import load_recipe
from aem_swe.engines.batch import TrainingBatch, build_batch
from aem_swe.engines.local.dynamics.batches import Effects, rule_effects, summary
from aem_swe.engines.local.dynamics.linear import (
    entropy_slope,
    inner,
    moved,
    probe_entropy,
    real_step,
    rule_gradient,
    slope_of_logprobs,
    token_weights,
)
from aem_swe.engines.local.dynamics.setting import Setting
from aem_swe.engines.local.model import LocalModel
from aem_swe.engines.local.step import score_batch
from aem_swe.engines.update import Prepared, judge, prepare, trajectory_advantages
from aem_swe.schema import Aem, Recipe
from aem_swe.types import Trajectory

MakeModel = Callable[..., LocalModel]
AGGREGATIONS = ["seq-sum-over-budget", "token-mean", "seq-mean-token-mean"]


def recipe_of(aggregation: str = "seq-sum-over-budget") -> Recipe:
    return load_recipe(
        "demo", [f"algorithm.aggregation={aggregation}", "agent.response_budget=40", "trainer.micro_batch=3"]
    )


def episodes(seed: int, groups: int = 2) -> list[Trajectory]:
    stream = random.Random(seed)
    return [
        episode(stream, turns=3, group=group, rollout=rollout, reward=float(rollout == 0))
        for group in range(groups)
        for rollout in range(4)
    ]


def prepared_batch(model: LocalModel, trajectories: list[Trajectory], recipe: Recipe) -> tuple[Prepared, Effects]:
    batch = build_batch(trajectories, layout="trajectory")
    scores = score_batch(model, batch, recipe)
    verdict = judge(trajectories, recipe.algorithm, drop_uniform_groups=False)
    advantages_N = trajectory_advantages(trajectories, batch, verdict, recipe.algorithm, budget=40)
    off = Aem(enabled=False)
    prepared = prepare(batch, verdict, advantages_N, scores.logprobs_BT, scores.entropy_BT, recipe.algorithm, off)
    slope_BT = slope_of_logprobs(model, batch, entropy_slope(model, states(), recipe), recipe)
    return prepared, rule_effects(prepared, scores, slope_BT, token_weights(prepared, recipe), Setting())


def states() -> TrainingBatch:
    return build_batch(episodes(99, groups=1), layout="trajectory")


def test_the_slope_predicts_what_a_move_does_to_the_entropy(make_model: MakeModel) -> None:
    model, recipe, probe = make_model(0), recipe_of(), states()
    slope = entropy_slope(model, probe, recipe)
    assert slope.entropy == pytest.approx(probe_entropy(model, probe, recipe), rel=1e-6)
    direction = [torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) for p in model.parameters]
    ends = []
    for length in (1e-4, -1e-4):
        with moved(model, direction, length):
            ends.append(probe_entropy(model, probe, recipe))
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(inner(slope.gradient, direction), rel=0.01)


def test_a_move_is_undone_bit_for_bit(make_model: MakeModel) -> None:
    model = make_model(0)
    before = [parameter.detach().clone() for parameter in model.parameters]
    with moved(model, before, 0.37):
        assert not torch.equal(model.parameters[0], before[0])
    assert all(torch.equal(now, then) for now, then in zip(model.parameters, before, strict=True))


def test_token_weights_are_the_advantage_over_the_denominator(make_model: MakeModel) -> None:
    said = [trajectory(([3], [4, 5, 2]), reward=1.0), trajectory(([3], [6, 2]), rollout=1, reward=0.0)]
    prepared, _ = prepared_batch(make_model(0), said, recipe_of())
    # leave-one-out: +1 and -1; 2 trajectories, budget 40
    expected = [[0, 1 / 80, 1 / 80, 1 / 80], [0, -1 / 80, -1 / 80, 0]]
    torch.testing.assert_close(token_weights(prepared, recipe_of()), torch.tensor(expected))
    by_token = recipe_of("token-mean")
    expected = [[0, 1 / 5, 1 / 5, 1 / 5], [0, -1 / 5, -1 / 5, 0]]
    torch.testing.assert_close(token_weights(prepared, by_token), torch.tensor(expected))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_linear_estimate_of_every_rule_is_what_a_real_sgd_step_does(
    make_model: MakeModel, aggregation: str
) -> None:
    model, recipe = make_model(3), recipe_of(aggregation)
    prepared, effects = prepared_batch(model, episodes(5), recipe)
    slope = entropy_slope(model, states(), recipe)
    before = probe_entropy(model, states(), recipe)
    found = {}
    for rules, effect_U in effects.levels:
        for rule, weight_U in rules.weights.items():
            gradient = rule_gradient(model, prepared, rules.modulation.responses, weight_U, recipe)
            found[rule] = (float((weight_U * effect_U).sum()), inner(gradient, slope.gradient), gradient)
    assert {"aem_4", "batch", "token"} < found.keys()
    scale = max(abs(exact) for _, exact, _ in found.values())
    lr = 1e-4 / scale  # an entropy change of 0.0001 nats at most: further away, curvature shows
    for rule, (linear, exact, gradient) in found.items():
        assert linear == pytest.approx(exact, abs=0.005 * scale), rule
        measured = (
            real_step(model, states(), gradient, lr, recipe) - real_step(model, states(), gradient, -lr, recipe)
        ) / (2 * lr)
        assert linear == pytest.approx(measured, abs=0.03 * scale), rule
    assert real_step(model, states(), gradient, 0.0, recipe) == before


def test_the_summary_adds_up_by_hand(make_model: MakeModel) -> None:
    _, effects = prepared_batch(make_model(3), episodes(5), recipe_of())
    row, ((rules, effect_R), (by_token, effect_U)) = summary(effects), effects.levels
    base = sum(effect_R.tolist())
    assert row["change"]["base"] == pytest.approx(base)
    kept = [e for e, keep in zip(effect_R.tolist(), rules.weights["rise"].tolist(), strict=True) if keep]
    assert row["change"]["rise"] == pytest.approx(sum(kept))
    # the masks leave out disjoint responses, and alpha = 1 or A = 0 stays in both
    both = (rules.weights["rise"] * rules.weights["fall"] * effect_R).sum()
    assert row["change"]["rise"] + row["change"]["fall"] == pytest.approx(base + float(both))
    assert float(effect_U.sum()) == pytest.approx(base)
    assert row["change"]["token"] == pytest.approx(float((by_token.weights["token"] * effect_U).sum()))
    variants = {"surprisal", "batch", "sum", "token"}
    assert set(row["permuted"]) == {"aem_0.5", "aem_1", "aem_2", "aem_4", "inverted", "rise", "fall"} | variants
    assert row["weight_token_mean"]["base"] == 1.0
    assert (row["positive"], row["negative"], row["responses"]) == (6, 18, 24)


def test_a_batch_without_contrast_changes_nothing_and_ranks_nothing(make_model: MakeModel) -> None:
    said = [trajectory(([3], [4, 5, 2]), reward=1.0, rollout=i) for i in range(3)]
    _, effects = prepared_batch(make_model(0), said, recipe_of())
    row = summary(effects)
    assert set(row["change"].values()) == set(row["permuted"].values()) == {0.0}
    assert row["drift_correlation"] is None and row["weight_token_mean"]["aem_1"] is None
