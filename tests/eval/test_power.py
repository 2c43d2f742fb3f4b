"""The power calculator against the figures worked out by hand, and against simulated evaluations."""

from collections.abc import Callable

import numpy as np
import pytest
import typer
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types
from typer.testing import CliRunner

from aem_swe import cli_compare
from aem_swe.errors import ConfigError
from aem_swe.eval.statistics import Floats
from aem_swe.eval.swebench.power import (
    Plan,
    checkpoints_error,
    checkpoints_power,
    method_error,
    method_power,
    power_lines,
    run_error,
    runs_for_power,
    runs_to_exclude_zero,
    seeds_for_power,
)

PLAN = Plan(rate=0.42, difference=0.014, seed_spread=0.01, runs=16, seeds=3)


def test_one_run_of_500_tasks_at_42_percent_has_a_standard_error_of_2_2_points() -> None:
    assert run_error(0.42, 500) == pytest.approx((0.42 * 0.58 / 500) ** 0.5)
    assert 100 * run_error(0.42, 500) == pytest.approx(2.207, abs=5e-4)


def test_runs_per_checkpoint_by_hand() -> None:
    # 1.96^2 x 2 x 0.11 / (500 x 0.014^2) = 8.62; with 1.96 + 0.842 for the quantiles 17.6
    assert runs_to_exclude_zero(PLAN) == 9
    assert runs_for_power(PLAN) == 18


def test_three_seeds_with_16_runs_each_have_a_standard_error_of_0_87_points() -> None:
    # 2 / 3 x (1 + 10^4 x 0.11 / 8000) = 0.758 square points
    assert 100 * method_error(PLAN, 3) == pytest.approx(0.871, abs=5e-4)


def test_a_method_is_not_seen_better_with_more_runs_beyond_its_seeds() -> None:
    many = Plan(rate=0.42, difference=0.014, seed_spread=0.01, runs=10**6, seeds=3)
    assert 100 * method_error(many, 3) == pytest.approx((2 / 3) ** 0.5, abs=1e-4)
    assert checkpoints_power(many) == pytest.approx(1.0) and method_power(many, 3) < 0.3


def test_the_numbers_asked_for_are_the_fewest_that_do() -> None:
    for spread in (0.0, 0.005, 0.01, 0.03):
        plan = Plan(rate=0.42, difference=0.014, seed_spread=spread, runs=16, seeds=3)
        needed = seeds_for_power(plan)
        assert needed is not None and method_power(plan, needed) >= 0.8 > method_power(plan, needed - 1)
    runs = runs_for_power(PLAN)
    powers = [checkpoints_power(Plan(0.42, 0.014, 0.01, number, 3)) for number in (runs - 1, runs)]
    assert powers[0] < 0.8 <= powers[1]
    halves = [checkpoints_power(Plan(0.42, 0.014, 0.01, number, 3)) for number in (8, 9)]
    assert halves[0] < 0.5 <= halves[1]  # what "excludes 0" means: every second time


def test_one_seed_per_arm_has_no_power_about_the_method() -> None:
    assert method_power(PLAN, 1) == 0.0
    lines = power_lines(Plan(rate=0.42, difference=0.014, seed_spread=0.01, runs=16, seeds=1))
    assert any("with one seed per arm nothing can be said about the method" in line for line in lines)


def test_without_any_noise_one_run_and_two_seeds_are_enough() -> None:
    plan = Plan(rate=0.42, difference=0.014, seed_spread=0.0, runs=1, seeds=2, task_variance=0.0)
    assert (runs_for_power(plan), seeds_for_power(plan), checkpoints_power(plan)) == (1, 2, 1.0)


def test_a_difference_that_no_number_of_seeds_shows_is_said() -> None:
    plan = Plan(rate=0.42, difference=1e-5, seed_spread=0.1, runs=1, seeds=3)
    assert seeds_for_power(plan) is None
    assert any("more than 10,000 seeds per arm" in line for line in power_lines(plan))


# 500 tasks: 100 always solved, 180 never, 220 half of the time; p (1 - p) is 0.25 on those, 0.11 on average
TASKS_P = np.array([1.0] * 100 + [0.0] * 180 + [0.5] * 220)
assert TASKS_P.mean() == pytest.approx(0.42) and (TASKS_P * (1 - TASKS_P)).mean() == pytest.approx(0.11)


def evaluate(random: np.random.Generator, shift_S: Floats, runs: int) -> Floats:
    """pass@1 of checkpoints on the 500 tasks, each better than TASKS_P by its shift: [shift]."""
    middle = TASKS_P == 0.5
    chance_SI = np.tile(TASKS_P, (shift_S.size, 1))
    chance_SI[:, middle] += shift_S[:, None] * TASKS_P.size / middle.sum()
    scores: Floats = random.binomial(runs, chance_SI).mean(axis=1) / runs
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("runs", [9, 18])
def test_two_checkpoints_are_told_apart_as_often_as_calculated(runs: int) -> None:
    random, simulations = np.random.default_rng(runs), 3000
    plan = Plan(rate=0.42, difference=0.014, seed_spread=0.01, runs=runs, seeds=3)
    first, other = (evaluate(random, np.full(simulations, shift), runs) for shift in (0.0, 0.014))
    error = checkpoints_error(0.11, 500, runs)
    assert np.std(other - first) == pytest.approx(error, rel=0.05)
    found = np.mean(np.abs(other - first) > stats.norm.ppf(0.975) * error)
    assert found == pytest.approx(checkpoints_power(plan), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 11])
def test_two_methods_are_told_apart_as_often_as_calculated(seeds: int) -> None:
    random, simulations = np.random.default_rng(seeds), 1500
    plan = Plan(rate=0.42, difference=0.014, seed_spread=0.01, runs=16, seeds=seeds)
    shifts = random.normal(0.0, 0.01, (2, simulations * seeds)) + np.array([[0.0], [0.014]])
    first, other = (evaluate(random, shift_S, 16).reshape(simulations, seeds) for shift_S in shifts)
    differences = other.mean(axis=1) - first.mean(axis=1)
    assert np.std(differences) == pytest.approx(method_error(plan, seeds), rel=0.06)
    found = np.mean(stats.ttest_ind(other, first, axis=1).pvalue < 0.05)
    assert found == pytest.approx(method_power(plan, seeds), abs=0.035)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 42.0}, "--rate 42 cannot be used; give a fraction"),
        ({"rate": float("nan")}, "--rate nan"),
        ({"difference": 0.0}, "--difference 0 cannot be used; give points above 0"),
        ({"difference": float("inf")}, "--difference inf"),
        ({"seed_spread": -0.01}, "--seed-sd -1 cannot be used"),
        ({"runs": 0}, "--runs 0"),
        ({"seeds": 0}, "--seeds 0"),
        ({"tasks": 0}, "--tasks 0"),
        ({"task_variance": 0.3}, "--task-variance 0.3 cannot be used; give 0 to 0.244"),
        ({"power": 1.0}, "--power 1 cannot"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line(change: dict[str, float], said: str) -> None:
    known = {"rate": 0.42, "difference": 0.014, "seed_spread": 0.01, "runs": 16, "seeds": 3}
    with pytest.raises(ConfigError) as refused:
        Plan(**(known | change))  # type: ignore[arg-type]  # wrong numbers are what this is about
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


@pytest.fixture
def power() -> Callable[..., str]:
    """The command as a user types it."""
    app = typer.Typer()
    app.command()(cli_compare.power)

    def call(*options: str) -> str:
        done = CliRunner().invoke(app, options, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return call


def test_the_command_prints_both_answers(power: Callable[..., str]) -> None:
    lines = power("--seed-sd", "1", "--difference", "1.4", "--rate", "0.42").splitlines()
    assert lines[0] == "One run on 500 tasks at 42.0% has a standard error of 2.2 points."
    assert lines[3].startswith("   9 runs per checkpoint until the 95% interval")
    assert lines[4] == "   18 runs per checkpoint for 80% power."
    assert lines[8].startswith("   With 3 seeds per arm: standard error 0.87 points, power ")


def test_the_command_asks_for_the_spread_between_seeds(power: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"^--seed-sd is missing: .*for example --seed-sd 1$"):
        power("--difference", "1.4")
