"""Where tasks come from: the same for the same seed, none left out within an epoch."""

from collections import Counter

import pytest

from aem_swe.tasks.grading import Problem
from aem_swe.tasks.source import held_out, problems_of_step, training_pool


def pool_of(size: int, seed: int) -> list[Problem]:
    return list(training_pool(size, seed).problems)


def test_pools_of_different_seeds_differ_and_the_held_out_set_is_always_the_same() -> None:
    first, again, other = pool_of(8, 1), pool_of(8, 1), pool_of(8, 2)
    assert first == again
    assert not {problem.task.id for problem in first} & {problem.task.id for problem in other}
    assert held_out(8) == held_out(16)[:8]
    assert not {problem.task.id for problem in held_out(8)} & {problem.task.id for problem in first}


@pytest.mark.parametrize(("size", "count"), [(8, 4), (8, 3), (5, 4), (4, 6)])
def test_every_epoch_shows_every_problem_once(size: int, count: int) -> None:
    pool = pool_of(size, 3)
    shown = [problem.task.id for step in range(1, 2 * size + 1) for problem in problems_of_step(pool, step, count, 3)]
    assert len(shown) == 2 * size * count
    for epoch in range(len(shown) // size):
        assert Counter(shown[epoch * size : (epoch + 1) * size]) == Counter(problem.task.id for problem in pool)


def test_the_order_depends_on_the_seed_and_the_epoch_alone() -> None:
    pool = pool_of(8, 3)

    def order(step: int, seed: int) -> list[str]:
        return [problem.task.id for problem in problems_of_step(pool, step, 8, seed)]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(step, seed)) for step in (1, 2) for seed in (0, 1)}) == 4
