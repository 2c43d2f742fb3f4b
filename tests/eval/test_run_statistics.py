"""The statistics against brute force, hand computation, classical tests where they agree, and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types

from aem_swe.eval import statistics
from aem_swe.eval.statistics import (
    Floats,
    change,
    crossed_difference,
    detectable_difference,
    mean_interval,
    paired_difference,
    sign_flip_p_value,
)


def flipped_means(difference_T: Floats) -> Floats:
    """The mean under every one of the 2^T ways to swap the two sides of tasks."""
    signs = itertools.product((-1.0, 1.0), repeat=difference_T.size)
    means: Floats = np.array([np.mean(difference_T * np.array(sign)) for sign in signs])
    return means


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=1, max_size=9))
def test_sign_flip_p_value_equals_exact_enumeration(eighths: list[int]) -> None:
    difference_T = np.array(eighths) / 8.0
    extreme = np.abs(flipped_means(difference_T)) >= abs(difference_T.mean()) - 1e-12
    assert sign_flip_p_value(difference_T) == pytest.approx(extreme.mean())


def test_sign_flip_p_value_by_hand() -> None:
    # Of 8 sign patterns of (1, 1, 1) only +++ and --- are as far from 0 as the one observed.
    assert sign_flip_p_value(np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(2 / 8)


def test_ties_do_not_make_an_exact_p_value_random() -> None:
    assert sign_flip_p_value(np.array([0.5] * 6 + [0.0] * 50)) == pytest.approx(2 / 64)


def test_bootstrap_interval_equals_the_quantiles_of_all_resamples() -> None:
    values_T = np.array([0.0, 0.125, 0.25, 0.5, 1.0])
    means = [np.mean(draw) for draw in itertools.product(values_T, repeat=5)]
    level = statistics._expanded_level(5)
    expected = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    interval = mean_interval(values_T)
    assert interval.value == pytest.approx(0.375)
    assert [interval.low, interval.high] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("tasks", [1, 10, 60])
def test_no_success_at_all_gets_the_exact_binomial_limit(tasks: int) -> None:
    limits = stats.binomtest(0, tasks).proportion_ci(0.95, method="exact")
    interval = mean_interval(np.zeros(tasks))
    assert [interval.low, interval.high] == pytest.approx([0.0, limits.high])
    mirrored = mean_interval(np.ones(tasks))
    assert [mirrored.low, mirrored.high] == pytest.approx([1.0 - limits.high, 1.0])


def test_two_equal_evaluations_differ_by_zero_but_not_certainly() -> None:
    values_RT = np.array([[0.0, 0.5, 1.0, 0.25]])
    found = paired_difference(values_RT, values_RT)
    assert (found.value, found.p_value, found.detectable) == (0.0, 1.0, None)
    assert found.low == pytest.approx(-found.high) and found.high > 0.3


def test_same_seed_gives_the_same_interval() -> None:
    values_T = np.random.default_rng(1).random(40)
    assert mean_interval(values_T, seed=3) == mean_interval(values_T, seed=3)
    assert mean_interval(values_T, seed=3) != mean_interval(values_T, seed=4)


@pytest.mark.parametrize(("tasks", "rollouts"), [(16, 8), (64, 1), (64, 8)])
def test_task_bootstrap_covers_about_95_percent(tasks: int, rollouts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        chance_T = random.beta(1.0, 2.0, tasks)  # mean 1/3, tasks from hopeless to easy
        interval = mean_interval(random.binomial(rollouts, chance_T) / rollouts)
        hits += interval.low <= 1 / 3 <= interval.high
    assert 0.90 <= hits / 400 <= 0.99


def test_episodes_of_a_task_are_not_counted_as_independent() -> None:
    outcome_T = np.random.default_rng(0).integers(0, 2, 20).astype(float)
    repeated_RT = np.tile(outcome_T, (8, 1))  # eight copies of the same answers hold no more information than one
    one, eight = (paired_difference(values, np.zeros((1, 20))) for values in (outcome_T[None], repeated_RT))
    assert one == eight


def additive(run_effects: list[float], task_effects: list[float]) -> Floats:
    table: Floats = np.array(run_effects)[:, None] + np.array(task_effects)[None, :]
    return table


def test_with_equal_tasks_the_gain_is_the_t_test_over_seeds() -> None:
    gains_R = [0.10, 0.25, 0.20]
    found = crossed_difference(additive(gains_R, [0.0] * 6), np.zeros((3, 6)), same_runs=True)
    reference = stats.ttest_1samp(gains_R, 0.0)
    assert found is not None and found.unit == "task and seed"
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_with_equal_tasks_the_difference_is_the_t_test_over_the_seeds_of_both_arms() -> None:
    plus_R, minus_R = [0.50, 0.42, 0.46], [0.40, 0.37]
    flat = [0.0] * 5
    found = crossed_difference(additive(plus_R, flat), additive(minus_R, flat), same_runs=False)
    reference = stats.ttest_ind(plus_R, minus_R)
    assert found is not None
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_with_equal_seeds_the_gain_is_the_t_test_over_tasks() -> None:
    gains_T = [0.0, 0.25, 0.5, 0.125, 0.375]
    found = crossed_difference(additive([0.0, 0.0, 0.0], gains_T), np.zeros((3, 5)), same_runs=True)
    reference = stats.ttest_1samp(gains_T, 0.0)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def mean_squares(table_RT: Floats) -> tuple[float, float, float]:
    """Two-way analysis of variance by slow loops: sums of squares of runs, tasks and residual."""
    runs, tasks, grand = table_RT.shape[0], table_RT.shape[1], table_RT.mean()
    of_runs = sum((table_RT[r].mean() - grand) ** 2 for r in range(runs))
    of_tasks = sum((table_RT[:, t].mean() - grand) ** 2 for t in range(tasks))
    residual = sum(
        (table_RT[r, t] - table_RT[r].mean() - table_RT[:, t].mean() + grand) ** 2
        for r, t in itertools.product(range(runs), range(tasks))
    )
    return float(of_runs), float(of_tasks), float(residual)


def test_crossed_gain_equals_slow_variance_components() -> None:
    # Large run and task effects, so that no component is cut off at its floor.
    gains_RT = additive([0.1, 0.3, 0.2], [0.0, 0.4, 0.2, 0.1]) + 0.05 * np.random.default_rng(0).random((3, 4))
    of_runs, of_tasks, of_residual = mean_squares(gains_RT)
    runs, tasks, residual = of_runs / 2 / 3, of_tasks / 3 / 4, of_residual / 6 / 12
    variance = runs + tasks - residual
    freedom = variance**2 / (runs**2 / 2 + tasks**2 / 3 + residual**2 / 6)
    found = crossed_difference(gains_RT, np.zeros((3, 4)), same_runs=True)
    assert found is not None
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5)
    assert found.detectable == pytest.approx(stats.t.ppf([0.975, 0.8], freedom).sum() * variance**0.5)


def test_one_run_per_arm_supports_no_claim_about_seeds() -> None:
    values_RT = np.random.default_rng(0).random((2, 1, 9))
    assert crossed_difference(values_RT[0], values_RT[1], same_runs=False) is None
    assert crossed_difference(values_RT[0], values_RT[1], same_runs=True) is None


def simulated_gains(random: np.random.Generator, seed_spread: float, runs: int) -> Floats:
    """Gains with mean 0 of `runs` runs on 48 tasks: seeds, tasks and sampling noise each add their part."""
    seeds, tasks = random.normal(0.0, seed_spread, (runs, 1)), random.normal(0.0, 0.15, (1, 48))
    gains: Floats = seeds + tasks + random.normal(0.0, 0.4, (runs, 48))
    return gains


@pytest.mark.parametrize("seed_spread", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("same_runs", [True, False])
def test_crossed_interval_covers_about_95_percent(seed_spread: float, same_runs: bool) -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        plus, minus = simulated_gains(random, seed_spread, 3), simulated_gains(random, seed_spread, 3)
        found = crossed_difference(plus, 0.0 * minus if same_runs else minus, same_runs=same_runs)
        hits += found is not None and found.holds_zero
    assert 0.91 <= hits / 600 <= 1.0


def test_resampling_three_seeds_would_cover_far_less_than_it_says() -> None:
    # The reason for variance components in crossed_difference: this is what its docstring warns of.
    random = np.random.default_rng(0)
    draws = random.integers(0, 3, (500, 3))
    limits = [np.quantile(random.normal(size=3)[draws].mean(axis=1), [0.025, 0.975]) for _ in range(500)]
    assert np.mean([low <= 0.0 <= high for low, high in limits]) < 0.85


def test_detectable_difference_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(0)
    true = detectable_difference(0.3 / 30**0.5, degrees_of_freedom=29)
    samples = random.normal(true, 0.3, (2000, 30))
    assert np.mean(stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05) == pytest.approx(0.80, abs=0.03)


def test_detectable_difference_of_paired_tasks_by_hand() -> None:
    found = paired_difference(
        np.array([[0.0, 0.5, 1.0]]), np.zeros((1, 3))
    )  # standard deviation 0.5, standard error 0.289
    assert found.detectable == pytest.approx((4.302653 + 1.060660) * 0.5 / 3**0.5, rel=1e-5)


def test_learning_gain_by_hand() -> None:
    found = change(np.arange(20.0))
    assert found is not None
    assert (found.first, found.last, found.gain, found.window) == (3.5, 15.5, 12.0, 8)


def test_short_runs_are_cut_in_half_and_one_step_has_no_gain() -> None:
    found = change(np.array([1.0, 2.0, 9.0, 3.0, 5.0]))
    assert found is not None
    assert (found.first, found.last, found.window) == (1.5, 4.0, 2)
    assert change(np.array([1.0])) is None
