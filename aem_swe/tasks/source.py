"""Where tasks come from: the demo now; rows of R2E-Gym and SWE-bench behind the same two functions later."""

import random

from aem_swe.tasks import demo
from aem_swe.tasks.grading import Problem

_TASKS_PER_SEED = 100_000


def _demo(split: demo.Split, seed: int) -> Problem:
    problem = demo.make_problem(split, seed)
    return Problem(problem.task(), problem.grader())


def training_pool(size: int, seed: int) -> list[Problem]:
    """Return the `size` training problems of a seed."""
    return [_demo("train", seed * _TASKS_PER_SEED + index) for index in range(size)]


def held_out(size: int) -> list[Problem]:
    """Return the first `size` held-out problems: the same for every run."""
    return [_demo("test", index) for index in range(size)]


def problems_of_step(pool: list[Problem], step: int, count: int, seed: int) -> list[Problem]:
    """Return the `count` problems of a step (1-based): the pool in a new order every epoch, none left out."""
    chosen = []
    for position in range((step - 1) * count, step * count):
        epoch, index = divmod(position, len(pool))
        order = list(range(len(pool)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        chosen.append(pool[order[index]])
    return chosen
