"""One update, end to end: what may change it, what may not, and what it is. B row, T token, N trajectory."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from equations import plain_advantages, plain_loss
from torch import Tensor
from written_by_hand import END, VOCABULARY, episode, trajectory

from aem_swe.engines.batch import TrainingBatch, build_batch
from aem_swe.engines.local.model import LocalModel
from aem_swe.engines.local.step import score_batch, update
from aem_swe.engines.update import Prepared, batch_loss, denominator, judge, prepare, trajectory_advantages
from aem_swe.schema import Recipe
from aem_swe.types import Termination, Trajectory

Change = Callable[[TrainingBatch], TrainingBatch]
BUDGET = 40
LOSSES = [
    {"loss": "ppo"},
    {"loss": "gspo", "gspo_unit": "response"},
    {"loss": "gspo", "gspo_unit": "trajectory"},
]
AGGREGATIONS = ["token-mean", "seq-mean-token-mean", "seq-sum-over-budget"]
ALGORITHMS = [
    {**loss, "aggregation": aggregation, "advantage": advantage}
    for loss, aggregation, advantage in product(LOSSES, AGGREGATIONS, ["leave_one_out", "grpo"])
]


def name_of(algorithm: dict[str, object]) -> str:
    return "-".join(str(value) for value in algorithm.values())


every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=name_of)
some_algorithms = pytest.mark.parametrize("algorithm", [ALGORITHMS[i] for i in (0, 5, 8, 10, 13, 15)], ids=name_of)
"""Every loss and advantage at least once, and every aggregation twice."""


@pytest.fixture(scope="module")
def old(make_model: Callable[..., LocalModel]) -> LocalModel:
    """The weights that sampled."""
    return make_model(1)


@pytest.fixture(scope="module")
def now(make_model: Callable[..., LocalModel]) -> LocalModel:
    """The weights that are trained: a few steps away from `old`, so that ratios are not 1 and some are clipped."""
    model, noise = make_model(1), torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weights in model.parameters:
            weights.add_(0.03 * torch.randn(weights.shape, generator=noise))
    return model


def recipe_of(
    algorithm: dict[str, object], *, aem: dict[str, object] | None = None, micro_batch: int = 16, lr: float = 0.01
) -> Recipe:
    return Recipe.model_validate(
        {
            "agent": {"response_budget": BUDGET},
            "algorithm": {"clip_low": 0.1, "clip_high": 0.15, **algorithm},
            "aem": aem if aem is not None else {"enabled": True, "lambda": 1.0},
            "optimizer": {"lr": lr, "grad_clip": 1e9},
            "trainer": {"micro_batch": micro_batch},
            "sampling": {"temperature": 0.8},
        }
    )


@dataclass(frozen=True)
class Step:
    loss: float
    gradient: Tensor
    prepared: Prepared


def prepared_batch(
    old: LocalModel, made: Sequence[Trajectory], recipe: Recipe, change: Change = lambda batch: batch
) -> Prepared:
    """Everything before the update, done by the package."""
    batch = change(build_batch(made, layout=recipe.algorithm.layout))
    scores = score_batch(old, batch, recipe)
    verdict = judge(made, recipe.algorithm, drop_uniform_groups=recipe.sampling.drop_uniform_groups)
    advantages_N = trajectory_advantages(made, batch, verdict, recipe.algorithm, budget=BUDGET)
    return prepare(batch, verdict, advantages_N, scores.logprobs_BT, scores.entropy_BT, recipe.algorithm, recipe.aem)


def groups_of(made: Sequence[Trajectory]) -> Tensor:
    return torch.tensor(sorted({t.group for t in made}))


def gradient_of(model: LocalModel) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters if p.grad is not None])


def step(
    old: LocalModel,
    now: LocalModel,
    made: Sequence[Trajectory],
    recipe: Recipe,
    *,
    reference: LocalModel | None = None,
    change: Change = lambda batch: batch,
) -> Step:
    """The update's loss and gradient, as the optimiser gets to see it; the weights stay."""
    prepared = prepared_batch(old, made, recipe, change)
    reference_BT = score_batch(reference, prepared.batch, recipe).logprobs_BT if reference else None
    seen: list[Tensor] = []
    optimizer = torch.optim.SGD(now.parameters, lr=0.0)
    optimizer.register_step_pre_hook(lambda *_: seen.append(gradient_of(now)))
    statistics = update(now, optimizer, prepared, reference_BT, [groups_of(made)], recipe)
    assert len(seen) == statistics.updates == 1
    return Step(statistics.loss, seen[0], prepared)


def assert_same(one: Step, other: Step, *, tolerance: float = 1e-5) -> None:
    assert one.loss == pytest.approx(other.loss, rel=tolerance, abs=tolerance * 1e-2)
    scale = other.gradient.norm()
    assert scale > 1e-4
    assert (one.gradient - other.gradient).norm() <= tolerance * scale


def episodes(seed: int, *, groups: int = 2, rollouts: int = 4) -> list[Trajectory]:
    """Random episodes of 1 to 4 turns; the first rollout of a group succeeds, so every group has a contrast."""
    stream = random.Random(seed)
    return [
        episode(
            stream,
            turns=stream.randrange(1, 5),
            group=group,
            rollout=rollout,
            reward=1.0 if rollout == 0 else float(stream.random() < 0.4) * float(rollout != 1),
        )
        for group in range(groups)
        for rollout in range(rollouts)
    ]


def with_all_terminations(made: Sequence[Trajectory]) -> list[Trajectory]:
    """One truncated, one failed, one with format errors; the rest as they are."""
    changed = list(made)
    changed[1] = replace(changed[1], termination=Termination.MAX_STEPS, reward=0.0)
    changed[2] = replace(changed[2], termination=Termination.INFRASTRUCTURE_ERROR, reward=None)
    changed[5] = replace(changed[5], termination=Termination.FORMAT_ERRORS, reward=0.0)
    return changed


@some_algorithms
def test_one_row_per_turn_changes_nothing(old: LocalModel, now: LocalModel, algorithm: dict[str, object]) -> None:
    made = with_all_terminations(episodes(2))
    rows = step(old, now, made, recipe_of({**algorithm, "layout": "trajectory"}))
    turns = step(old, now, made, recipe_of({**algorithm, "layout": "turn"}))
    assert len(turns.prepared.batch.tokens_BT) > len(rows.prepared.batch.tokens_BT)
    assert_same(turns, rows)


@some_algorithms
@pytest.mark.parametrize("layout", ["trajectory", "turn"])
def test_the_size_of_micro_batches_changes_nothing(
    old: LocalModel, now: LocalModel, algorithm: dict[str, object], layout: str
) -> None:
    made = with_all_terminations(episodes(3))
    whole = step(old, now, made, recipe_of({**algorithm, "layout": layout}, micro_batch=64))
    for size in (1, 3):
        assert_same(step(old, now, made, recipe_of({**algorithm, "layout": layout}, micro_batch=size)), whole)


@some_algorithms
def test_the_order_of_trajectories_changes_nothing(
    old: LocalModel, now: LocalModel, algorithm: dict[str, object]
) -> None:
    made = with_all_terminations(episodes(4))
    shuffled = random.Random(1).sample(made, len(made))
    recipe = recipe_of(algorithm, micro_batch=3)
    assert_same(step(old, now, shuffled, recipe), step(old, now, made, recipe))


def more_padding(batch: TrainingBatch) -> TrainingBatch:
    """Nine more columns."""
    rows = len(batch.tokens_BT)

    def wider(values_BT: Tensor, fill: float) -> Tensor:
        return torch.cat([values_BT, values_BT.new_full((rows, 9), fill)], dim=1)

    return replace(
        batch,
        tokens_BT=wider(batch.tokens_BT, 0),
        response_mask_BT=wider(batch.response_mask_BT, False),
        response_id_BT=wider(batch.response_id_BT, -1),
        rollout_logprobs_BT=wider(batch.rollout_logprobs_BT, 0),
        policy_version_BT=wider(batch.policy_version_BT, -1),
    )


def garbage_padding(batch: TrainingBatch) -> TrainingBatch:
    """Ids that mean something behind the end of every row."""
    tokens_BT = batch.tokens_BT.clone()
    columns = torch.arange(tokens_BT.shape[1])
    tokens_BT[columns[None] >= batch.length_B[:, None]] = 33
    return replace(batch, tokens_BT=tokens_BT)


@some_algorithms
@pytest.mark.parametrize("change", [more_padding, garbage_padding])
@pytest.mark.parametrize("layout", ["trajectory", "turn"])
def test_padding_changes_not_one_bit(
    old: LocalModel, now: LocalModel, algorithm: dict[str, object], change: Change, layout: str
) -> None:
    made, recipe = episodes(5), recipe_of({**algorithm, "layout": layout})
    plain, padded = step(old, now, made, recipe), step(old, now, made, recipe, change=change)
    assert padded.loss == plain.loss
    assert torch.equal(padded.gradient, plain.gradient)


def test_a_sampled_pad_id_is_trained(old: LocalModel, now: LocalModel) -> None:
    made = [trajectory(([5, 6], [0, 0, END]), reward=1.0), trajectory(([5, 6], [7, END]), rollout=1)]
    prepared = step(old, now, made, recipe_of({"loss": "ppo"})).prepared
    assert prepared.loss_mask_BT.tolist() == [[False, False, True, True, True], [False, False, True, True, False]]
    assert (prepared.old_logprobs_BT[prepared.loss_mask_BT] < 0).all()


@every_algorithm
def test_lambda_zero_is_aem_off_bit_for_bit(
    make_model: Callable[..., LocalModel], algorithm: dict[str, object]
) -> None:
    made = with_all_terminations(episodes(6))
    weights = []
    for aem in ({"enabled": False}, {"enabled": True, "lambda": 0.0}, {"enabled": True, "lambda": 1.0}):
        recipe, model = recipe_of(algorithm, aem=aem, micro_batch=3), make_model(7)
        optimizer = torch.optim.AdamW(model.parameters, lr=recipe.optimizer.lr)
        for _ in range(2):
            prepared = prepared_batch(model, made, recipe)
            update(model, optimizer, prepared, None, list(groups_of(made).chunk(2)), recipe)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_mean_alpha_of_a_group_is_one(old: LocalModel) -> None:
    made = with_all_terminations(episodes(7, groups=5))
    modulation = prepared_batch(old, made, recipe_of({})).modulation
    assert modulation is not None
    for group in range(5):
        alpha_R = modulation.alpha_R[modulation.group_R == group]
        assert len(alpha_R) > 2
        assert alpha_R.mean().item() == pytest.approx(1.0, abs=1e-6)
        assert alpha_R.std() > 0.01


@pytest.mark.parametrize(("keep", "against"), [("rise", 1), ("fall", -1)])
def test_the_masks_of_analysis_a_train_the_advantages_of_the_base_or_nothing(
    old: LocalModel, keep: str, against: int
) -> None:
    made = with_all_terminations(episodes(7))
    base = prepared_batch(old, made, recipe_of({}, aem={"enabled": False}))
    masked = prepared_batch(old, made, recipe_of({}, aem={"enabled": True, "analysis": keep}))
    modulation = masked.modulation
    assert modulation is not None
    dropped = 0
    for number, alpha in enumerate(modulation.alpha_R.tolist()):
        here_BT = masked.batch.response_id_BT == modulation.responses.id_R[number]
        before = base.advantages_BT[here_BT]
        away = float(before[0]) * (alpha - 1) * against > 0
        assert torch.equal(masked.advantages_BT[here_BT], torch.zeros_like(before) if away else before)
        dropped += away
    assert 0 < dropped < len(modulation.alpha_R)
    assert torch.equal(masked.loss_mask_BT, base.loss_mask_BT)


@some_algorithms
@pytest.mark.parametrize("aem", [{"enabled": False}, {"enabled": True}], ids=["off", "aem"])
def test_one_dead_sandbox_of_eight_leaves_the_other_seven_exactly_like_a_group_of_seven(
    old: LocalModel, now: LocalModel, algorithm: dict[str, object], aem: dict[str, object]
) -> None:
    eight = episodes(8, groups=1, rollouts=8)
    eight[3] = replace(eight[3], termination=Termination.INFRASTRUCTURE_ERROR, reward=None)
    seven = [t for t in eight if t is not eight[3]]
    recipe = recipe_of(algorithm, aem=aem, micro_batch=1)  # one row a pass, so that not even the shapes differ
    got, expected = step(old, now, eight, recipe), step(old, now, seven, recipe)
    assert got.loss == expected.loss
    assert torch.equal(got.gradient, expected.gradient)
    recipe = recipe_of(algorithm, aem=aem)
    assert_same(step(old, now, eight, recipe), step(old, now, seven, recipe))


def test_a_group_that_is_dead_but_for_one_is_left_out(old: LocalModel, now: LocalModel) -> None:
    made = episodes(9)
    dead = [replace(t, termination=Termination.INFRASTRUCTURE_ERROR, reward=None) for t in made[1:4]]
    recipe = recipe_of({"aggregation": "seq-sum-over-budget"}, micro_batch=1)
    got, expected = step(old, now, [made[0], *dead, *made[4:]], recipe), step(old, now, made[4:], recipe)
    assert torch.equal(got.gradient, expected.gradient)


def test_groups_beyond_the_number_wanted_change_nothing(old: LocalModel, now: LocalModel) -> None:
    """Dynamic sampling that played three prompts for two: as if the third had never been played."""
    made = with_all_terminations(episodes(15, groups=3))
    recipe = recipe_of({"aggregation": "seq-mean-token-mean"}, micro_batch=1)
    batch = build_batch(made, layout="trajectory")
    scores = score_batch(old, batch, recipe)
    verdict = judge(made, recipe.algorithm, drop_uniform_groups=True, most_groups=2)
    assert verdict.kept_groups == [0, 1] and set(verdict.reason[8:]) == {"surplus_group"}
    advantages_N = trajectory_advantages(made, batch, verdict, recipe.algorithm, budget=BUDGET)
    arguments = (scores.logprobs_BT, scores.entropy_BT, recipe.algorithm, recipe.aem)
    prepared = prepare(batch, verdict, advantages_N, *arguments)
    seen: list[Tensor] = []
    optimizer = torch.optim.SGD(now.parameters, lr=0.0)
    optimizer.register_step_pre_hook(lambda *_: seen.append(gradient_of(now)))
    update(now, optimizer, prepared, None, [torch.tensor([0, 1])], recipe)
    assert torch.equal(seen[0], step(old, now, made[:8], recipe).gradient)


def test_when_every_sandbox_died_nothing_is_updated(old: LocalModel, now: LocalModel) -> None:
    made = [trajectory(group=g, rollout=r, reward=None, termination=Termination.INFRASTRUCTURE_ERROR)
            for g in range(2) for r in range(4)]  # fmt: skip
    recipe = recipe_of({})
    prepared = prepared_batch(old, made, recipe)
    optimizer = torch.optim.SGD(now.parameters, lr=1.0)
    assert update(now, optimizer, prepared, None, [groups_of(made)], recipe).updates == 0


def four(last: Termination) -> list[Trajectory]:
    """A group with the rewards 1, 0, 0, and 0 for a last trajectory that ended like `last`."""
    rewards = [1.0, 0.0, 0.0, 0.0]
    made = [episode(random.Random(i), turns=2, rollout=i, reward=reward) for i, reward in enumerate(rewards)]
    return [*made[:3], replace(made[3], termination=last)]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("cut", [Termination.MAX_STEPS, Termination.TOKEN_BUDGET, Termination.TIMEOUT])
def test_mask_keeps_a_truncated_trajectory_in_baseline_and_denominator_but_not_in_the_gradient(
    old: LocalModel, now: LocalModel, cut: Termination, aggregation: str
) -> None:
    made = four(cut)
    recipe = recipe_of({"filter": "mask", "aggregation": aggregation}, aem={"enabled": False}, micro_batch=1)
    got = step(old, now, made, recipe)
    said = [sum(len(turn.response_ids) for turn in t.turns) for t in made]
    divisor = sum(said[:3]) if aggregation == "token-mean" else 4
    assert denominator(got.prepared, torch.tensor([0]), recipe.algorithm) == divisor
    # 1 - 0, and 0 - 1/3 for the others: with the reward 0 of the truncated one
    rows = got.prepared.advantages_BT
    assert [rows[i][rows[i] != 0].unique().tolist() for i in range(3)] == [
        [1.0],
        [pytest.approx(-1 / 3)],
        [pytest.approx(-1 / 3)],
    ]
    other = episode(random.Random(99), turns=3, rollout=3, reward=0.0, termination=cut)
    assert torch.equal(step(old, now, [*made[:3], other], recipe).gradient, got.gradient)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_drop_makes_a_group_of_three(old: LocalModel, now: LocalModel, aggregation: str) -> None:
    made = four(Termination.MAX_STEPS)
    recipe = recipe_of({"filter": "drop", "aggregation": aggregation}, micro_batch=1)
    got, expected = step(old, now, made, recipe), step(old, now, made[:3], recipe)
    assert torch.equal(got.gradient, expected.gradient)
    assert got.loss == expected.loss


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_off_trains_a_truncated_trajectory_like_a_finished_one(
    old: LocalModel, now: LocalModel, aggregation: str
) -> None:
    recipe = recipe_of({"filter": "off", "aggregation": aggregation})
    got = step(old, now, four(Termination.TIMEOUT), recipe)
    assert torch.equal(got.gradient, step(old, now, four(Termination.FINISHED), recipe).gradient)


def test_groups_without_contrast_leave_loss_and_denominator_when_asked(old: LocalModel, now: LocalModel) -> None:
    made = episodes(10)
    flat = [replace(t, reward=0.0) if t.group == 1 else t for t in made]
    recipe = recipe_of({"aggregation": "seq-sum-over-budget"})
    recipe = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"drop_uniform_groups": True})})
    assert_same(step(old, now, flat, recipe), step(old, now, made[:4], recipe))


@pytest.mark.parametrize("advantage", ["leave_one_out", "grpo", "mean_baseline"])
@pytest.mark.parametrize("group", ["trained", "all"])
@pytest.mark.parametrize("mode", ["mask", "drop", "off"])
@pytest.mark.parametrize("layout", ["trajectory", "turn"])
def test_the_advantage_of_every_token_equals_a_slow_loop(
    old: LocalModel, advantage: str, group: str, mode: str, layout: str
) -> None:
    made = with_all_terminations(episodes(11, groups=3))
    recipe = recipe_of(
        {"advantage": advantage, "filter": mode, "layout": layout}, aem={"enabled": True, "group": group}
    )
    prepared = prepared_batch(old, made, recipe)
    entropy_BT = score_batch(old, prepared.batch, recipe).entropy_BT
    entropies = {}
    for response, (index, number) in enumerate(prepared.batch.turn_of_response):
        entropies[index, number] = entropy_BT[prepared.batch.response_id_BT == response].tolist()
    expected = plain_advantages(made, entropies, recipe)
    for response, (index, number) in enumerate(prepared.batch.turn_of_response):
        got = prepared.advantages_BT[prepared.batch.response_id_BT == response].tolist()
        trained = prepared.loss_mask_BT[prepared.batch.response_id_BT == response].tolist()
        if (index, number) in expected:
            assert got == pytest.approx([expected[index, number]] * len(got), rel=1e-6, abs=1e-7)
            assert all(trained)
        else:
            assert not any(trained)
    assert not prepared.loss_mask_BT[prepared.batch.response_id_BT < 0].any()


@every_algorithm
@pytest.mark.parametrize("kl", [0.0, 0.7])
def test_loss_and_gradient_equal_the_equations_written_out(
    make_model: Callable[..., LocalModel], old: LocalModel, now: LocalModel, algorithm: dict[str, object], kl: float
) -> None:
    made, reference = with_all_terminations(episodes(12)), make_model(5) if kl else None
    recipe = recipe_of({**algorithm, "kl_coefficient": kl, "layout": "turn"}, micro_batch=3)
    got = step(old, now, made, recipe, reference=reference)
    now.network.zero_grad(set_to_none=True)
    loss = plain_loss(now.network, old.network, reference.network if reference else None, made, recipe)
    loss.backward()
    gradient = gradient_of(now)
    now.network.zero_grad(set_to_none=True)
    assert got.loss == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert (got.gradient - gradient).norm() <= 1e-5 * gradient.norm()


def test_the_kl_loss_is_felt_by_groups_without_contrast_too(
    make_model: Callable[..., LocalModel], old: LocalModel, now: LocalModel
) -> None:
    made = [replace(t, reward=0.0) if t.group == 1 else t for t in episodes(12)]
    recipe, reference = recipe_of({"kl_coefficient": 0.7}), make_model(5)
    got = step(old, now, made, recipe, reference=reference)
    loss = plain_loss(now.network, old.network, reference.network, made, recipe)
    assert got.loss == pytest.approx(loss.item(), rel=1e-5)
    without = plain_loss(now.network, old.network, reference.network, made[:4], recipe)
    assert got.loss != pytest.approx(without.item() / 2, rel=1e-2)


def test_a_minibatch_is_an_update_over_its_groups_alone(old: LocalModel, now: LocalModel) -> None:
    made, recipe = episodes(14, groups=3), recipe_of({"aggregation": "token-mean"})
    seen: list[Tensor] = []
    optimizer = torch.optim.SGD(now.parameters, lr=0.0)
    optimizer.register_step_pre_hook(lambda *_: seen.append(gradient_of(now)))
    minibatches = [torch.tensor([2]), torch.tensor([0, 1])]
    statistics = update(now, optimizer, prepared_batch(old, made, recipe), None, minibatches, recipe)
    assert statistics.updates == 2
    for gradient, groups in zip(seen, ([2], [0, 1]), strict=True):
        alone = step(old, now, [t for t in made if t.group in groups], recipe).gradient
        assert (gradient - alone).norm() <= 1e-5 * alone.norm()


def test_clipping_is_at_work_in_these_tests(old: LocalModel, now: LocalModel) -> None:
    prepared = prepared_batch(old, episodes(12), recipe_of({}))
    logprobs_BT = score_batch(now, prepared.batch, recipe_of({})).logprobs_BT
    policy = batch_loss(prepared, torch.arange(8), logprobs_BT, None, 1, recipe_of({}).algorithm, budget=BUDGET).policy
    assert 0.01 < policy.clip_low_fraction < 0.6
    assert 0.01 < policy.clip_high_fraction < 0.6


def test_the_kl_loss_and_its_gradient_are_zero_at_the_reference(old: LocalModel, now: LocalModel) -> None:
    made = episodes(13)
    without = step(old, now, made, recipe_of({"kl_coefficient": 0.0}))
    at_reference = step(old, now, made, recipe_of({"kl_coefficient": 50.0}), reference=now)
    assert_same(at_reference, without)
    elsewhere = step(old, now, made, recipe_of({"kl_coefficient": 50.0}), reference=old)
    assert elsewhere.loss > without.loss
    assert (elsewhere.gradient - without.gradient).norm() > 0.1 * without.gradient.norm()


def test_gspo_units_are_responses_or_whole_trajectories(old: LocalModel) -> None:
    made = [trajectory(([5, 6], [7, END]), ([5, 6, 7, END, 8], [9, END]), reward=1.0),
            trajectory(([5, 6], [11, END]), rollout=1)]  # fmt: skip
    by_response = prepared_batch(old, made, recipe_of({"loss": "gspo", "gspo_unit": "response"}))
    assert by_response.unit_id_BT.tolist() == [[-1, -1, 0, 0, -1, 1, 1], [-1, -1, 2, 2, -1, -1, -1]]
    by_trajectory = prepared_batch(old, made, recipe_of({"loss": "gspo", "gspo_unit": "trajectory"}))
    assert by_trajectory.unit_id_BT.tolist() == [[-1, -1, 0, 0, -1, 0, 0], [-1, -1, 1, 1, -1, -1, -1]]
    turns = prepared_batch(old, made, recipe_of({"loss": "gspo", "gspo_unit": "trajectory", "layout": "turn"}))
    assert turns.unit_id_BT.tolist() == [
        [-1, -1, 0, 0, -1, -1, -1],
        [-1, -1, -1, -1, -1, 0, 0],
        [-1, -1, 1, 1, -1, -1, -1],
    ]


@pytest.mark.parametrize("layout", ["trajectory", "turn"])
def test_a_sequence_is_a_trajectory_or_a_gspo_response_in_any_layout(old: LocalModel, layout: str) -> None:
    """A trajectory of two responses (2 + 3 tokens), one of 2 tokens, and one that was cut off and is masked."""
    made = [trajectory(([5, 6], [7, END]), ([5, 6, 7, END, 8], [9, 9, END]), reward=1.0),
            trajectory(([5, 6], [11, END]), rollout=1),
            trajectory(([5], [7]), ([5, 7, 8], [9]), rollout=2, termination=Termination.MAX_STEPS)]  # fmt: skip
    mean = {"aggregation": "seq-mean-token-mean", "filter": "mask", "layout": layout}
    for algorithm, lengths, sequences in (
        ({"loss": "ppo", "gspo_unit": "response"}, {0: 5, 1: 5, 2: 2}, 3),
        ({"loss": "gspo", "gspo_unit": "trajectory"}, {0: 5, 1: 5, 2: 2}, 3),
        ({"loss": "gspo", "gspo_unit": "response"}, {0: 2, 1: 3, 2: 2}, 5),
    ):
        recipe = recipe_of({**mean, **algorithm})
        prepared = prepared_batch(old, made, recipe)
        assert denominator(prepared, torch.tensor([0]), recipe.algorithm) == sequences
        for response, length in lengths.items():
            assert set(prepared.unit_tokens_BT[prepared.batch.response_id_BT == response].tolist()) == {length}
        assert not prepared.unit_tokens_BT[~prepared.loss_mask_BT].any()


def test_the_overlong_punishment_counts_what_the_budget_counts_in_any_layout(old: LocalModel) -> None:
    # budget 40, buffer 36: of 5 tokens after the first prompt (an observation of 1 included) 1 is punished, of 13 nine
    short = trajectory(([5], [7, END]), ([5, 7, END, 8], [9, END]), reward=1.0)
    long = trajectory(([5], [7] * 12 + [END]), rollout=1)
    for layout in ("trajectory", "turn"):
        recipe = recipe_of({"overlong_buffer": 36, "layout": layout}, aem={"enabled": False})
        prepared = prepared_batch(old, [short, long], recipe)
        first = prepared.advantages_BT[prepared.batch.response_id_BT == 0]
        assert first.tolist() == pytest.approx([1 - 1 / 36 + 9 / 36] * 2)


def test_ids_of_the_hand_made_episodes_are_in_the_vocabulary(old: LocalModel) -> None:
    assert old.network.get_output_embeddings().weight.shape[0] == VOCABULARY
