"""The statements with one wrong ingredient. Their sides have to differ, or the checks could not fail.

Shapes: D parameter, K outcome (response), P prefix, V vocabulary.
"""

import numpy as np

from aem_swe.theory.calculus import natural_gradient, scores
from aem_swe.theory.policies import Family, Floats, ResponseTree, entropy
from aem_swe.theory.statements import (
    Sides,
    covariance,
    drift,
    increments,
    predictable_part,
    relative_surprisal,
    sides,
    simplex_slope,
    stated_drift,
)


def mean_times_length(tree: ResponseTree, token_logprobs_PV: Floats) -> Sides:
    """Theorem 3.2.1 with E[mean token entropy] * E[length]: a length-normalised entropy does not determine H(Y)."""
    logprobs_K = tree.response_logprobs(token_logprobs_PV)
    p_K, length_K = np.exp(logprobs_K), tree.length_K
    mean = p_K @ (predictable_part(tree, token_logprobs_PV) / length_K)
    return sides(entropy(logprobs_K), mean * (p_K @ length_K))


def plain_gradient(family: Family, theta: Floats) -> Sides:
    """Theorem 3.2.2 with the plain gradient, for every outcome and the one step size that fits them best."""
    logprobs_K, scores_KD = family(theta), scores(family, theta)
    drift_K = np.array([drift(family, theta, score) for score in scores_KD])
    stated_K = relative_surprisal(logprobs_K)
    return sides(drift_K * (drift_K @ stated_K) / (drift_K @ drift_K), stated_K)


def plain_simplex_gradient(logprobs_K: Floats) -> Sides:
    """Theorem 3.2.2 on the simplex with the Euclidean gradient, for every outcome and its best step size."""
    p_K = np.exp(logprobs_K)
    directions_KK = (np.eye(len(p_K)) - 1.0 / len(p_K)) / p_K[:, None]
    drift_K = np.array([simplex_slope(p_K, direction) for direction in directions_KK])
    stated_K = relative_surprisal(logprobs_K)
    return sides(drift_K * (drift_K @ stated_K) / (drift_K @ drift_K), stated_K)


def token_terms(tree: ResponseTree, theta: Floats, token_logprobs_PV: Floats, outcome: int, advantage: float) -> Sides:
    """Theorem 3.2.2 with the sum of A (S_t - H_t) over tokens in place of the response's A (S - H)."""
    scores_KD = scores(tree.tabular, theta)
    p_K = np.exp(tree.tabular(theta))
    direction = natural_gradient(scores_KD, p_K, advantage * scores_KD[outcome])
    return sides(drift(tree.tabular, theta, direction), advantage * increments(tree, token_logprobs_PV)[outcome].sum())


def forward_kl(
    family: Family, theta: Floats, outcome: int, advantage: float, *, penalty: float, reference_K: Floats
) -> Sides:
    """C.3.1 with a step on KL(reference || pi) against the rate of KL(pi || reference)."""
    logprobs_K, scores_KD = family(theta), scores(family, theta)
    p_K = np.exp(logprobs_K)
    gradient_D = advantage * scores_KD[outcome] + penalty * (scores_KD.T @ np.exp(reference_K))
    stated = stated_drift(logprobs_K, outcome, advantage)
    stated += penalty * covariance(p_K, logprobs_K - reference_K, logprobs_K)
    return sides(drift(family, theta, natural_gradient(scores_KD, p_K, gradient_D)), stated)


def mode_as_compensator(tree: ResponseTree, token_logprobs_PV: Floats) -> Sides:
    """C.4.1 with the surprisal of the most likely token, predictable as well, in place of the token entropy."""
    p_K = np.exp(tree.response_logprobs(token_logprobs_PV))
    surprisal_KP = -np.einsum("kpv,pv->kp", tree.takes_KPV, token_logprobs_PV)
    step_KP = surprisal_KP + tree.visits_KP * token_logprobs_PV.max(axis=-1)
    return sides((p_K @ step_KP) / (p_K @ tree.visits_KP), np.zeros(len(tree.prefixes)))
