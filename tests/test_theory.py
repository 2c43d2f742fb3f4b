"""The theorems by hand on the smallest policies, then as properties of random ones; and what the checks would catch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aem_swe.algorithms import modulate, response_ids
from aem_swe.algorithms.entropy import token_logprobs_and_entropy
from aem_swe.theory import calculus, checks, controls, instances, statements
from aem_swe.theory.policies import (
    Floats,
    Network,
    ResponseTree,
    Turn,
    entropy,
    log_softmax,
    response_tree,
    trajectories,
)
from aem_swe.theory.run import BOUND, CONTROL_BOUND, Result, verify

HALF = math.log(2)
random_logits = st.floats(-2.5, 2.5, allow_subnormal=False)
advantages = st.floats(-3.0, 3.0, allow_subnormal=False)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=60, deadline=None)


@st.composite
def choices(draw: st.DrawFn) -> tuple[Floats, int]:
    """Logits of 2 to 7 actions, and one of them."""
    logits = draw(st.lists(random_logits, min_size=2, max_size=7))
    return np.array(logits), draw(st.integers(0, len(logits) - 1))


@st.composite
def trees(draw: st.DrawFn) -> tuple[ResponseTree, Floats, int]:
    """A tree, logits of all its prefixes, and one of its responses."""
    tree = draw(st.sampled_from(instances.TREES[:5]))
    _, prefixes, vocabulary = tree.takes_KPV.shape
    size = prefixes * vocabulary
    logits = draw(st.lists(st.floats(-1.0, 1.0, allow_subnormal=False), min_size=size, max_size=size))
    return tree, np.array(logits), draw(st.integers(0, len(tree.responses) - 1))


def tokens(tree: ResponseTree, theta: Floats) -> Floats:
    return np.asarray(log_softmax(theta.reshape(tree.takes_KPV.shape[1:])))


# by hand


def coin_tree(stop: float, second: float) -> tuple[ResponseTree, Floats]:
    """At most two tokens of {end, go on}: the first ends with probability `stop`, the second with `second`."""
    return response_tree(2, 2), np.log(np.array([[stop, 1 - stop], [second, 1 - second]]))


def test_the_tree_holds_every_response_once() -> None:
    tree = response_tree(2, 2)
    assert tree.prefixes == ((), (1,))
    assert tree.responses == ((0,), (1, 0), (1, 1))
    assert tree.length_K.tolist() == [1, 2, 2]
    for vocabulary, longest in ((2, 4), (3, 3), (4, 2)):
        tree = response_tree(vocabulary, longest)
        assert len(set(tree.responses)) == len(tree.responses)
        assert len(tree.responses) == 1 + (vocabulary - 1) * len(tree.prefixes)
        assert all(0 not in response[:-1] and len(response) <= longest for response in tree.responses)


def test_response_entropy_by_hand() -> None:
    tree, tokens_PV = coin_tree(0.5, 0.5)
    # probabilities 1/2, 1/4, 1/4: H = 1.5 log 2; tokens: log 2 at the start, and log 2 after half of the starts
    both = statements.response_entropy(tree, tokens_PV)
    assert float(both.left) == pytest.approx(1.5 * HALF)
    assert float(both.right) == pytest.approx(1.5 * HALF)
    assert np.allclose(statements.predictable_part(tree, tokens_PV), [HALF, 2 * HALF, 2 * HALF])


def test_a_trajectory_by_hand() -> None:
    tree, tokens_PV = coin_tree(0.5, 0.5)
    last = Turn(tree, tokens_PV, (((1.0, None),),) * 3)
    # the first response ends the episode, the two others lead to `last`, one of them by a fair coin
    fair = ((0.5, last), (0.5, None))
    first = Turn(tree, tokens_PV, (((1.0, None),), ((1.0, last),), fair))
    whole = list(trajectories(first))
    assert len(whole) == 1 + 3 + 3 + 1
    assert sum(math.exp(one.policy_logprob + one.environment_logprob) for one in whole) == pytest.approx(1.0)
    reach = 1 / 4 + 1 / 8  # of the second turn
    policy = statements.policy_entropy(first)
    assert float(policy.left) == pytest.approx(1.5 * HALF * (1 + reach))
    assert float(policy.right) == pytest.approx(1.5 * HALF * (1 + reach))
    everything = statements.trajectory_entropy(first)
    assert float(everything.left) == pytest.approx(1.5 * HALF * (1 + reach) + HALF / 4)
    assert float(everything.right) == pytest.approx(1.5 * HALF * (1 + reach) + HALF / 4)


@pytest.mark.parametrize(("outcome", "advantage"), [(0, 1.0), (1, 1.0), (1, -2.0)])
def test_the_drift_of_two_actions_by_hand(outcome: int, advantage: float) -> None:
    p = np.array([0.8, 0.2])
    # dp = A (e_a - p) moves p_0 by A (1 - p_0) or -A p_0, and dH/dp_0 = log(p_1 / p_0)
    moved = advantage * (0.2 if outcome == 0 else -0.8)
    expected = moved * math.log(0.2 / 0.8)
    for both in (
        statements.sampled_drift(log_softmax, np.log(p), outcome, advantage),
        statements.simplex_drift(np.log(p), outcome, advantage),
    ):
        assert float(both.left) == pytest.approx(expected, abs=1e-10)
        assert float(both.right) == pytest.approx(expected, abs=1e-12)


def test_the_sign_that_aem_relies_on() -> None:
    """A predictable action that is punished raises entropy, one that is rewarded lowers it; a rare one the reverse."""
    theta = np.log(np.array([0.7, 0.2, 0.1]))
    for outcome, sign in ((0, -1), (1, 1), (2, 1)):
        for advantage in (1.0, -1.0):
            measured = statements.sampled_drift(log_softmax, theta, outcome, advantage).left
            assert np.sign(measured) == sign * advantage


def test_an_entropy_bonus_alone_by_hand() -> None:
    p = np.array([0.8, 0.2])
    # the flow of the bonus is p (S - H): p_0 moves by 0.16 log(0.2 / 0.8), so dH = 0.16 log(4)^2, the variance of S
    uniform = np.log(np.array([0.5, 0.5]))
    for bonus, penalty in ((1.0, 0.0), (0.0, 1.0), (0.25, 0.75)):
        # a penalty towards the uniform policy is an entropy bonus
        both = statements.regularised_drift(
            log_softmax, np.log(p), 0, 0.0, bonus=bonus, penalty=penalty, reference_K=uniform
        )
        assert float(both.left) == pytest.approx(0.16 * math.log(4) ** 2, abs=1e-9)
        assert float(both.right) == pytest.approx(0.16 * math.log(4) ** 2)


def test_a_penalty_towards_the_policy_itself_changes_nothing() -> None:
    theta = np.array([0.3, -0.4, 1.0])
    same = statements.regularised_drift(
        log_softmax, theta, 1, 0.7, bonus=0.0, penalty=2.0, reference_K=np.asarray(log_softmax(theta))
    )
    alone = statements.sampled_drift(log_softmax, theta, 1, 0.7)
    assert float(same.left) == pytest.approx(float(alone.left), abs=1e-10)


def test_the_martingale_by_hand() -> None:
    tree, tokens_PV = coin_tree(0.8, 0.5)
    first, second = -0.8 * math.log(0.8) - 0.2 * math.log(0.2), HALF
    steps_KP = statements.increments(tree, tokens_PV)
    expected = [[-math.log(0.8) - first, 0], [-math.log(0.2) - first, HALF - second], [-math.log(0.2) - first, 0]]
    assert np.allclose(steps_KP, expected)
    assert np.allclose(statements.conditional_means(tree, tokens_PV).left, 0)


def test_a_gain_is_what_the_condition_needs_and_a_frozen_scale_breaks_it() -> None:
    """Two parameters, three actions: the direction of the logits themselves is enough, any other is not."""
    base = np.array([[1.0, 0.0, -0.5]])
    head = np.array([[0.0], [1.0], [0.3]])
    theta = np.array([0.4, 1.2])  # hidden, gain
    with_gain = Network(np.ones((1, 1)), base, head, train_gain=True)
    without = Network(np.ones((1, 1)), base, head)
    for outcome in range(3):
        assert statements.sampled_drift(with_gain.choice, theta, outcome, 1.0).error < BOUND
        assert statements.sampled_drift(without.choice, theta[:1], outcome, 1.0).error > 0.01
        assert statements.projected_drift(without.choice, theta[:1], outcome, 1.0).error < BOUND


# the tools


def test_slope_and_scores_agree_with_calculus() -> None:
    found = calculus.slope(lambda x: np.sin(x[:, 0]) * np.exp(x[:, 1]), np.array([0.3, -0.2]), np.array([2.0, 5.0]))
    assert found == pytest.approx(math.exp(-0.2) * (2 * math.cos(0.3) + 5 * math.sin(0.3)), abs=1e-11)
    for length in (0.0, 5e-324, 1e-300, 1e300):
        assert calculus.slope(lambda x: x[:, 0], np.zeros(1), np.array([length])) == pytest.approx(length)
    theta = np.array([0.5, -1.0, 2.0])
    p = np.exp(log_softmax(theta))
    assert np.allclose(calculus.scores(log_softmax, theta), np.eye(3) - p, atol=1e-15)


def test_the_natural_gradient_of_a_bandit_by_hand() -> None:
    """F = diag(p) - p p^T, so F v = e_a - p has v = e_a / p_a up to a constant; the pseudo-inverse has mean 0."""
    p = np.array([0.5, 0.3, 0.2])
    scores = calculus.scores(log_softmax, np.log(p))
    direction = calculus.natural_gradient(scores, p, scores[1])
    assert np.allclose(direction, np.array([0, 1 / 0.3, 0]) - 1 / 0.9)
    fisher = np.diag(p) - np.outer(p, p)
    assert np.allclose(direction, np.linalg.pinv(fisher) @ scores[1])


def test_a_projection_is_the_nearest_combination() -> None:
    draw = np.random.default_rng(0)
    scores, p, values = draw.normal(size=(6, 2)), np.full(6, 1 / 6), draw.normal(size=6)
    near = calculus.project(scores, p, values)
    assert np.allclose(scores.T @ (p * (values - near)), 0)
    assert np.allclose(calculus.project(scores, p, near), near)


def test_a_network_that_finite_differences_cannot_resolve_is_drawn_again_as_a_whole() -> None:
    """With an input next to 0 no weights would do: this ended never when only the weights were drawn again."""
    head = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, -1.0]])
    bad = Network(np.array([[1e-6]]), np.array([[0.1, 0.7, -0.2]]), head, train_gain=True)
    good = instances.gain_network(np.random.default_rng(0))
    drawn = iter([instances.Policy(bad.choice, np.array([0.3, -0.8, 1.0])), good])
    assert instances._settled(lambda: next(drawn)) is good


# properties of random policies


@few
@given(trees())
def test_theorem_321_for_any_tree(drawn: tuple[ResponseTree, Floats, int]) -> None:
    tree, theta, _ = drawn
    assert statements.response_entropy(tree, tokens(tree, theta)).error < 1e-12


@few
@given(seeds, st.booleans())
def test_theorem_321_for_any_world(seed: int, stochastic: bool) -> None:
    first = instances.world(np.random.default_rng(seed), stochastic=stochastic)
    assert statements.trajectory_entropy(first).error < 1e-12
    assert statements.policy_entropy(first).error < 1e-12
    without = statements.trajectory_entropy(first, environment=False).error
    assert (without > 0.01) is stochastic


@few
@given(choices(), advantages)
def test_theorem_322_for_any_bandit(drawn: tuple[Floats, int], advantage: float) -> None:
    theta, outcome = drawn
    assert statements.sampled_drift(log_softmax, theta, outcome, advantage).error < BOUND
    assert statements.simplex_drift(np.asarray(log_softmax(theta)), outcome, advantage).error < BOUND


@few
@given(trees(), advantages)
def test_theorem_322_for_any_response(drawn: tuple[ResponseTree, Floats, int], advantage: float) -> None:
    tree, theta, outcome = drawn
    assert statements.sampled_drift(tree.tabular, theta, outcome, advantage).error < BOUND
    assert statements.simplex_drift(tree.tabular(theta), outcome, advantage).error < BOUND


@few
@given(choices(), st.lists(advantages, min_size=7, max_size=7), st.floats(-5, 5))
def test_the_expected_drift_is_a_covariance_and_baselines_do_not_matter(
    drawn: tuple[Floats, int], given_advantages: list[float], baseline: float
) -> None:
    theta, _ = drawn
    advantage_K = np.array(given_advantages[: len(theta)])
    both = statements.expected_drift(log_softmax, theta, advantage_K)
    shifted = statements.expected_drift(log_softmax, theta, advantage_K - baseline)
    assert both.error < BOUND
    assert float(both.right) == pytest.approx(float(shifted.right), abs=1e-9)


@few
@given(choices(), advantages, st.floats(0, 1), st.floats(0, 1), st.lists(random_logits, min_size=7, max_size=7))
def test_c31_for_any_bandit(
    drawn: tuple[Floats, int], advantage: float, bonus: float, penalty: float, reference: list[float]
) -> None:
    theta, outcome = drawn
    reference_K = np.asarray(log_softmax(np.array(reference[: len(theta)])))
    both = statements.regularised_drift(
        log_softmax, theta, outcome, advantage, bonus=bonus, penalty=penalty, reference_K=reference_K
    )
    assert both.error < BOUND


@few
@given(trees())
def test_c41_for_any_tree(drawn: tuple[ResponseTree, Floats, int]) -> None:
    tree, theta, _ = drawn
    for check in (
        statements.conditional_means,
        statements.stopped_martingale,
        statements.total_expectation,
        statements.martingale_variance,
    ):
        assert check(tree, tokens(tree, theta)).error < 1e-12


@few
@given(seeds, advantages)
def test_c51_for_any_network(seed: int, advantage: float) -> None:
    draw = np.random.default_rng(seed)
    for policy in (instances.rich_network(draw), instances.gain_network(draw)):
        assert statements.sampled_drift(policy.family, policy.theta, 0, advantage).error < BOUND
    shared = instances.shared_network(draw)
    for policy in (instances.poor_network(draw), shared):
        assert statements.projected_drift(policy.family, policy.theta, 1, advantage).error < BOUND
        assert statements.drift_along(policy.family, policy.theta, draw.normal(size=len(policy.theta))).error < BOUND
    assert statements.shared_drift(shared.tree, shared.token_family, shared.theta, 2, advantage).error < BOUND


# what the product uses


@few
@given(trees(), st.floats(0.0, 4.0))
def test_the_entropies_that_modulate_uses_are_the_predictable_part_over_the_length(
    drawn: tuple[ResponseTree, Floats, int], lam: float
) -> None:
    """Eq. 13 through the package's own forward statistics, spans and modulation, against the enumeration."""
    tree, theta, _ = drawn
    logits_PV = torch.from_numpy(theta).reshape(tree.takes_KPV.shape[1:])
    rows = [[tree.prefixes.index(response[:at]) for at in range(len(response))] for response in tree.responses]
    longest, count = max(map(len, rows)), len(rows)
    entropy_BT = torch.full((count, longest), math.nan, dtype=torch.float64)  # outside of responses: never read
    for row, (at, response) in enumerate(zip(rows, tree.responses, strict=True)):
        found = token_logprobs_and_entropy(logits_PV[at], torch.tensor(response), temperature=1.0)
        entropy_BT[row, : len(at)] = found.entropy_N
    ids_BT = response_ids(
        torch.arange(count), torch.zeros(count, dtype=torch.long), torch.tensor([len(at) for at in rows]),
        shape=(count, longest),
    )  # fmt: skip
    advantages_BT = torch.ones(count, longest, dtype=torch.float64)
    out = modulate(advantages_BT, entropy_BT, ids_BT, torch.zeros(count, dtype=torch.long), lam=lam)
    h_K = statements.predictable_part(tree, tokens(tree, theta)) / tree.length_K
    assert np.allclose(out.entropy_R.numpy(), h_K, atol=1e-13)
    spread = h_K.max() - h_K.min()
    weight_K = np.exp(-lam * (h_K - h_K.min()) / spread) if spread > 1e-8 else np.ones(count)
    assert np.allclose(out.alpha_R.numpy(), weight_K / weight_K.mean(), atol=1e-6)  # spread may be next to 0


# the table, and what it would catch


def test_every_theorem_has_statements_and_a_control() -> None:
    for kind in ("statement", "control"):
        assert {check.claim for check in checks.CHECKS if check.kind == kind} == {
            "3.2.1", "3.2.2", "C.3.1", "C.4.1", "C.5.1",
        }  # fmt: skip
    assert len({(check.claim, check.compared) for check in checks.CHECKS}) == len(checks.CHECKS)


def test_a_seed_gives_the_same_errors_and_another_one_gives_others() -> None:
    some = tuple(check for check in checks.CHECKS if check.claim == "3.2.2")[:2]
    assert verify(3, some) == verify(3, some)
    assert verify(3, some)[0].max_error != verify(4, some)[0].max_error
    assert verify(3, some[1:]) == verify(3, some)[1:]


@pytest.mark.parametrize("kind", ["statement", "control"])
def test_nothing_passes_on_nan_or_on_the_wrong_side_of_its_bound(kind: checks.Kind) -> None:
    def passed(error: float) -> bool:
        return Result("x", "y", kind, 1, error, error).passed

    assert not passed(math.nan)
    small, large = BOUND / 2, CONTROL_BOUND * 2
    assert (passed(small), passed(large)) == ((True, False) if kind == "statement" else (False, True))


def test_one_bad_instance_fails_a_statement_and_half_good_ones_fail_a_control() -> None:
    errors = iter([0.0, 1e-6, 0.0, 0.0])
    bad = checks.Check("x", "y", lambda _: statements.sides(next(errors), 0.0), instances=4)
    assert not verify(0, (bad,))[0].passed
    errors = iter([1.0, 0.0, 0.0, 1.0, 0.0])
    weak = checks.Check("x", "y", lambda _: statements.sides(next(errors), 0.0), "control", 5)
    assert not verify(0, (weak,))[0].passed


SLIPS: dict[str, tuple[str, Callable[..., object]]] = {
    "the sign of S - H": ("relative_surprisal", lambda logprobs: logprobs + entropy(logprobs)),
    "S in place of S - H": ("relative_surprisal", lambda logprobs: -logprobs),
    "the plain gradient": ("natural_gradient", lambda scores, p, gradient: gradient),
    "a replicator that forgets the mean": ("replicator", lambda p, gradient: p * gradient),
    "a second moment for a covariance": ("covariance", lambda p, one, other: p @ (one * other)),
    "a projection that does nothing": ("project", lambda scores, p, values: values),
    "entropies of the next prefix": ("predictable_part", lambda tree, tokens: tree.length_K * entropy(tokens).max()),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_formula_is_caught(monkeypatch: pytest.MonkeyPatch, slip: str) -> None:
    name, wrong = SLIPS[slip]
    monkeypatch.setattr(statements, name, wrong)
    few_each = tuple(
        checks.Check(one.claim, one.compared, one.instance, one.kind, 20)
        for one in checks.CHECKS
        if one.kind == "statement"
    )
    assert [result for result in verify(0, few_each) if not result.passed]


def test_a_best_step_size_saves_the_plain_gradient_of_two_actions_and_no_more() -> None:
    """Why controls take three actions: with two, natural and plain gradient share their only direction."""
    assert controls.plain_gradient(log_softmax, np.array([0.9, -0.3])).error < 1e-9
    assert controls.plain_gradient(log_softmax, np.array([0.9, -0.3, 0.1])).error > 0.01
