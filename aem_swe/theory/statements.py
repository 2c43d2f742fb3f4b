"""Both sides of every statement, for a policy that the caller gives.

`left` is measured (a sum over all outcomes, or a finite difference), `right` is what the paper states. H is the entropy
of the response, S = -log pi its surprisal, A the advantage. Nothing here draws random numbers: instances.py does.

Shapes: D parameter, K outcome (response), P prefix, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np

from aem_swe.theory.calculus import natural_gradient, project, replicator, scores, slope
from aem_swe.theory.policies import Family, Floats, Numbers, ResponseTree, Turn, entropy, trajectories


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """What was measured and what is stated; scalars or arrays of one shape."""

    left: Floats
    right: Floats

    @property
    def error(self) -> float:
        """The largest absolute difference; NaN if anything is."""
        return float(np.max(np.abs(self.left - self.right)))


def as_floats(values: Numbers | float) -> Floats:
    return np.asarray(values, dtype=np.float64)


def sides(left: float | Floats, right: float | Floats) -> Sides:
    return Sides(as_floats(left), as_floats(right))


def drift(family: Family, theta: Floats, direction: Floats) -> float:
    """dH along a direction of the parameters, by finite differences."""
    return slope(lambda points: entropy(family(points)), theta, direction)


def response_entropy(tree: ResponseTree, token_logprobs_PV: Floats) -> Sides:
    """Theorem 3.2.1: H(Y) = E[sum over the prefixes of Y of the token entropy there]."""
    logprobs_K = tree.response_logprobs(token_logprobs_PV)
    return sides(entropy(logprobs_K), np.exp(logprobs_K) @ predictable_part(tree, token_logprobs_PV))


def trajectory_entropy(first: Turn, *, environment: bool = True) -> Sides:
    """Theorem 3.2.1: the entropy of the trajectory = E[sum of response entropies] + E[sum of the environment's].

    The second term is 0 where the environment is deterministic. environment=False leaves it out.
    """
    whole = list(trajectories(first))
    logprob = np.array([one.policy_logprob + one.environment_logprob for one in whole])
    passed = np.array([one.response_entropies + environment * one.environment_entropies for one in whole])
    return sides(entropy(logprob), np.exp(logprob) @ passed)


def policy_entropy(first: Turn) -> Sides:
    """Theorem 3.2.1, the policy's part, whatever the environment: E[-sum log pi] = E[sum of response entropies]."""
    whole = list(trajectories(first))
    p = np.exp([one.policy_logprob + one.environment_logprob for one in whole])
    surprisal = np.array([-one.policy_logprob for one in whole])
    return sides(p @ surprisal, p @ np.array([one.response_entropies for one in whole]))


def sampled_drift(family: Family, theta: Floats, outcome: int, advantage: float) -> Sides:
    """Theorem 3.2.2 (and C.5.1): a natural-gradient step on A log pi(a) changes H at the rate A (S(a) - H)."""
    logprobs_K, scores_KD = family(theta), scores(family, theta)
    direction = natural_gradient(scores_KD, np.exp(logprobs_K), advantage * scores_KD[outcome])
    return sides(drift(family, theta, direction), stated_drift(logprobs_K, outcome, advantage))


def simplex_drift(logprobs_K: Floats, outcome: int, advantage: float) -> Sides:
    """Theorem 3.2.2 on the simplex: the flow dp = A (e_a - p)."""
    p_K = np.exp(logprobs_K)
    gradient_K = np.zeros_like(p_K)
    gradient_K[outcome] = advantage / p_K[outcome]
    return sides(simplex_slope(p_K, replicator(p_K, gradient_K)), stated_drift(logprobs_K, outcome, advantage))


def expected_drift(family: Family, theta: Floats, advantage_K: Floats) -> Sides:
    """Theorem 3.2.2 in expectation: the natural gradient of E[A] changes H at the rate Cov(A, S)."""
    logprobs_K, scores_KD = family(theta), scores(family, theta)
    p_K = np.exp(logprobs_K)
    direction = natural_gradient(scores_KD, p_K, scores_KD.T @ (p_K * advantage_K))
    return sides(drift(family, theta, direction), covariance(p_K, advantage_K, -logprobs_K))


def regularised_drift(
    family: Family, theta: Floats, outcome: int, advantage: float, *, bonus: float, penalty: float,
    reference_K: Floats,
) -> Sides:  # fmt: skip
    """C.3.1: A log pi(a) + bonus * H - penalty * KL(pi || reference); reference_K are log-probabilities.

    The rate is A (S(a) - H) + (bonus + penalty) Var(S) - penalty Cov(S_reference, S).
    """
    logprobs_K, scores_KD = family(theta), scores(family, theta)
    p_K = np.exp(logprobs_K)
    # grad H = -E[score log pi] and grad KL = E[score log(pi / reference)]: E[score] = 0 removes the other terms
    pull_K = -bonus * logprobs_K - penalty * (logprobs_K - reference_K)
    gradient_D = advantage * scores_KD[outcome] + scores_KD.T @ (p_K * pull_K)
    spread = covariance(p_K, logprobs_K, logprobs_K)
    stated = stated_drift(logprobs_K, outcome, advantage) + (bonus + penalty) * spread
    stated -= penalty * covariance(p_K, reference_K, logprobs_K)
    return sides(drift(family, theta, natural_gradient(scores_KD, p_K, gradient_D)), stated)


def conditional_means(tree: ResponseTree, token_logprobs_PV: Floats) -> Sides:
    """C.4.1: the increment S_t - H_t of the martingale has mean 0 given every prefix, over the responses through it."""
    p_K, step_KP = np.exp(tree.response_logprobs(token_logprobs_PV)), increments(tree, token_logprobs_PV)
    return sides((p_K @ step_KP) / (p_K @ tree.visits_KP), np.zeros(len(tree.prefixes)))


def stopped_martingale(tree: ResponseTree, token_logprobs_PV: Floats) -> Sides:
    """C.4.1, responses of different lengths: given a prefix, the mean of the final martingale is its value there."""
    p_K, step_KP = np.exp(tree.response_logprobs(token_logprobs_PV)), increments(tree, token_logprobs_PV)
    final, there = [], []
    for column, prefix in enumerate(tree.prefixes):
        through = np.flatnonzero(tree.visits_KP[:, column])
        before = [tree.prefixes.index(prefix[:length]) for length in range(len(prefix))]
        final.append(p_K[through] @ step_KP[through].sum(axis=-1) / p_K[through].sum())
        there.append(step_KP[through[0], before].sum())
    return sides(np.array(final), np.array(there))


def total_expectation(tree: ResponseTree, token_logprobs_PV: Floats) -> Sides:
    """C.4.1: E[S] = E[predictable part] = H(Y)."""
    logprobs_K = tree.response_logprobs(token_logprobs_PV)
    predictable = np.exp(logprobs_K) @ predictable_part(tree, token_logprobs_PV)
    return sides(np.array([predictable, np.exp(logprobs_K) @ -logprobs_K]), np.full(2, entropy(logprobs_K)))


def martingale_variance(tree: ResponseTree, token_logprobs_PV: Floats) -> Sides:
    """A consequence of C.4.1: increments are uncorrelated, so Var(S - predictable) = E[sum of token variances]."""
    logprobs_K, step_KP = tree.response_logprobs(token_logprobs_PV), increments(tree, token_logprobs_PV)
    p_PV = np.exp(token_logprobs_PV)
    variance_P = (p_PV * (token_logprobs_PV + entropy(token_logprobs_PV)[:, None]) ** 2).sum(axis=-1)
    p_K = np.exp(logprobs_K)
    return sides(p_K @ step_KP.sum(axis=-1) ** 2, p_K @ (tree.visits_KP @ variance_P))


def drift_along(family: Family, theta: Floats, direction: Floats) -> Sides:
    """C.5.1, any parametrisation and any direction v: dH = <grad H, v> with grad H = E[(S - H) score]."""
    logprobs_K, scores_KD = family(theta), scores(family, theta)
    gradient_D = scores_KD.T @ (np.exp(logprobs_K) * relative_surprisal(logprobs_K))
    return sides(drift(family, theta, direction), gradient_D @ direction)


def projected_drift(family: Family, theta: Floats, outcome: int, advantage: float) -> Sides:
    """C.5.1, any parametrisation, natural gradient: A times the projection of S - H on the scores, at the sample.

    It is A (S - H) exactly where S - H itself is a combination of the scores.
    """
    logprobs_K, scores_KD = family(theta), scores(family, theta)
    p_K = np.exp(logprobs_K)
    direction = natural_gradient(scores_KD, p_K, advantage * scores_KD[outcome])
    reachable_K = project(scores_KD, p_K, relative_surprisal(logprobs_K))
    return sides(drift(family, theta, direction), advantage * reachable_K[outcome])


def shared_drift(tree: ResponseTree, token_logprobs: Family, theta: Floats, outcome: int, advantage: float) -> Sides:
    """C.5.1 with C.4.1, prefixes that share a network with a trained gain: A (martingale + projected rest).

    token_logprobs: [..., D] -> [..., P, V]. The gain's score is minus the martingale (over the gain), so that part of
    S - H is always reachable; of the rest, predictable part - H, only a projection is.
    """

    def family(points: Numbers) -> Numbers:
        return tree.response_logprobs(token_logprobs(points))

    tokens_PV, logprobs_K, scores_KD = token_logprobs(theta), family(theta), scores(family, theta)
    p_K = np.exp(logprobs_K)
    direction = natural_gradient(scores_KD, p_K, advantage * scores_KD[outcome])
    rest_K = project(scores_KD, p_K, predictable_part(tree, tokens_PV) - entropy(logprobs_K))
    stated = advantage * (increments(tree, tokens_PV).sum(axis=-1) + rest_K)[outcome]
    return sides(drift(family, theta, direction), stated)


def predictable_part(tree: ResponseTree, token_logprobs_PV: Floats) -> Floats:
    """[K]: the sum of token entropies along each response; over its length it is H of eq. 13."""
    return np.asarray(tree.visits_KP @ entropy(token_logprobs_PV))


def increments(tree: ResponseTree, token_logprobs_PV: Floats) -> Floats:
    """[K, P]: token surprisal minus token entropy where response k passes prefix p, else 0."""
    surprisal_KP = -np.einsum("kpv,pv->kp", tree.takes_KPV, token_logprobs_PV)
    return np.asarray(surprisal_KP - tree.visits_KP * entropy(token_logprobs_PV))


def relative_surprisal(logprobs_K: Floats) -> Floats:
    """S - H of every outcome."""
    return np.asarray(-logprobs_K - entropy(logprobs_K))


def stated_drift(logprobs_K: Floats, outcome: int, advantage: float) -> float:
    """A (S(a) - H): eq. 9-11."""
    return float(advantage * relative_surprisal(logprobs_K)[outcome])


def simplex_slope(p_K: Floats, direction_K: Floats) -> float:
    """dH along a direction on the simplex. Relative changes count: p log p bends on the scale of p."""
    size = float(np.abs(direction_K / p_K).max())
    return slope(lambda points: entropy(np.log(points)), p_K, direction_K, size=size)


def covariance(p_K: Floats, one_K: Floats, other_K: Floats) -> float:
    return float(p_K @ ((one_K - p_K @ one_K) * (other_K - p_K @ other_K)))
