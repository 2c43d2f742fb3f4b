"""Derivatives of enumerated policies, by two routes that share nothing.

`slope` moves along a direction with finite differences: what a statement about entropy drift is measured with.
`scores` is the gradient of the log-probabilities by a complex step, exact to rounding: what directions are made from.

Shapes: D parameter, K outcome.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from aem_swe.theory.policies import Family, Floats

STEP: Final = 1e-2
"""Largest move of a coordinate in units of `size`; the error of `slope` is of its sixth power."""
RANK: Final = 1e-9
"""Singular values below this share of the largest count as 0."""


def slope(f: Callable[[Floats], Floats], at: Floats, direction: Floats, *, size: float | None = None) -> float:
    """d/de f(at + e * direction) at 0, by central differences and two Richardson steps.

    f: [N, D] -> [N]. size: how fast the point moves in units in which f is smooth; default max |direction|.
    """
    fastest = float(np.abs(direction).max()) if size is None else size
    if fastest == 0.0:
        return 0.0
    step = STEP * np.array([1.0, 0.5, 0.25])
    # in this order a direction of any length, denormal numbers included, stays finite
    values = f(at + np.concatenate([step, -step])[:, None] * (direction / fastest))
    central = (values[:3] - values[3:]) / (2.0 * step)
    fourth = (4.0 * central[1:] - central[:-1]) / 3.0
    return fastest * float((16.0 * fourth[1] - fourth[0]) / 15.0)


def scores(family: Family, theta: Floats) -> Floats:
    """[K, D]: the gradient of each outcome's log-probability, by a complex step (no cancellation)."""
    tiny = 1e-30
    return np.asarray(family(theta + 1j * tiny * np.eye(len(theta))).imag.T / tiny)


def natural_gradient(scores_KD: Floats, p_K: Floats, gradient_D: Floats) -> Floats:
    """pinv(F) @ gradient, F = sum_k p_k score_k score_k^T, the Fisher matrix.

    Through the singular values of sqrt(p) * score, whose condition number is the root of F's.
    """
    _, sizes, axes = np.linalg.svd(np.sqrt(p_K)[:, None] * scores_KD, full_matrices=False)
    kept = sizes > RANK * sizes[0]
    return np.asarray(axes[kept].T @ ((axes[kept] @ gradient_D) / sizes[kept] ** 2))


def project(scores_KD: Floats, p_K: Floats, values_K: Floats) -> Floats:
    """The closest function of the outcome, in the mean square under p, that is a combination of the scores."""
    weight_K = np.sqrt(p_K)
    solution = np.linalg.lstsq(weight_K[:, None] * scores_KD, weight_K * values_K, rcond=RANK)[0]
    return np.asarray(scores_KD @ solution)


def replicator(p_K: Floats, gradient_K: Floats) -> Floats:
    """The natural gradient on the simplex (Shahshahani metric): p_k * (g_k - sum_j p_j g_j)."""
    return np.asarray(p_K * (gradient_K - p_K @ gradient_K))
