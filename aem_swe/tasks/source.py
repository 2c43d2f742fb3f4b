"""Where tasks come from: the demo's generator, or a path to rows (R2E-Gym, SWE-bench) or to Harbor's task folders.

What a path holds is told by what is there: folders with a task.toml are Harbor's, rows with an instance_id are
SWE-bench's, all others R2E-Gym's.
"""

import itertools
import os.path
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from aem_swe.errors import ConfigError
from aem_swe.sandboxes.base import Sandbox
from aem_swe.sandboxes.r2egym import R2EGymGrader
from aem_swe.tasks import demo, harbor, hardened, r2e_gym, swebench_rows
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.r2e_gym import Loaded, separated
from aem_swe.tasks.rows import VERIFIED_REPOSITORIES, BadRow, Row, read_rows

DEMO = "demo"
Reward = Literal["hardened", "r2e", "swebench"]
_TASKS_PER_SEED = 100_000


@dataclass(frozen=True, slots=True)
class Source:
    """Which tasks, and how they are graded."""

    name: str = DEMO
    """demo, or a path."""
    reward: Reward = "hardened"
    leave_out_verified: bool = False
    """Without the repositories of SWE-bench Verified, as DeepSWE did."""
    original: bool = False
    """R2E-Gym's rows only: graded by r2egym's own reward, in its own environment (sandboxes/r2egym.py)."""


def load(source: Source) -> Loaded:
    """Read every task of a path. Raises ConfigError where there is none that can be used."""
    path = Path(source.name)
    without = VERIFIED_REPOSITORIES if source.leave_out_verified else ()
    if _is_harbor(path):
        if source.reward != "hardened":
            raise ConfigError(
                f"reward {source.reward!r} is not for Harbor's tasks, which bring their own; leave it out"
            )
        loaded = separated(harbor.read_harbor(path))
    elif _is_swebench(path):
        if source.reward == "r2e":
            raise ConfigError(f"reward 'r2e' is not for SWE-bench's rows; choose one of {list(swebench_rows.REWARDS)}")
        loaded = swebench_rows.load(path, reward=source.reward, without=without)
    else:
        if source.reward == "swebench":
            raise ConfigError(f"reward 'swebench' is not for R2E-Gym's rows; choose one of {list(r2e_gym.REWARDS)}")
        loaded = r2e_gym.load(path, reward=source.reward, without=without)
        if source.original:
            graded = (replace(problem, grader=R2EGymGrader()) for problem in loaded.problems)
            loaded = Loaded(tuple(graded), loaded.bad)
    if not loaded.problems:
        why = f"; the first: {loaded.bad[0].id}: {loaded.bad[0].reason}" if loaded.bad else ""
        raise ConfigError(
            f"{source.name!r} holds no usable task ({len(loaded.bad)} cannot be used{why}); mend its rows"
        )
    return loaded


def original_rows(source: Source) -> dict[str, Row]:
    """{task id: row} of R2E-Gym's rows as they are, for sandboxes that are r2egym's own."""
    rows = (row for row in read_rows(Path(source.name)) if not isinstance(row, BadRow))
    return {f"{row.get('repo_name')}__{str(row.get('commit_hash'))[:12]}": row for row in rows}


def gold_of(source: Source, problem: Problem, sandbox: Sandbox) -> bytes:
    """The reference fix of a task that has it as a program (Harbor's solution/solve.sh), run in a fresh sandbox."""
    path = Path(source.name)
    if not _is_harbor(path):
        return b""
    return harbor.solve(path if (path / "task.toml").is_file() else path / problem.task.id, sandbox)


def training_pool(size: int, seed: int, source: Source = Source()) -> Loaded:
    """The `size` training problems of a seed, or all of a path that holds fewer; and the rows that cannot be used."""
    if source.name == DEMO:
        return Loaded(tuple(_demo("train", seed * _TASKS_PER_SEED + index) for index in range(size)), ())
    loaded = load(source)
    chosen = random.Random(f"{seed}/pool").sample(loaded.problems, min(size, len(loaded.problems)))
    return Loaded(tuple(chosen), loaded.bad)


def held_out(size: int, source: Source = Source()) -> list[Problem]:
    """The first `size` held-out problems: the same for every run."""
    if source.name == DEMO:
        return [_demo("test", index) for index in range(size)]
    return list(itertools.islice(load(source).problems, size))


def grading_programs() -> dict[str, str]:
    """{path inside the sandbox: source} of the trusted programs of all graders."""
    return {**demo.grading_programs(), **hardened.grading_programs(), **harbor.grading_programs()}


def _demo(split: demo.Split, seed: int) -> Problem:
    problem = demo.make_problem(split, seed)
    return Problem(problem.task(), problem.grader())


def _is_swebench(path: Path) -> bool:
    first = next((row for row in read_rows(path, columns=("instance_id",)) if not isinstance(row, BadRow)), {})
    return "instance_id" in first


def _is_harbor(path: Path) -> bool:
    return os.path.isdir(path) and any(itertools.chain(path.glob("task.toml"), path.glob("*/task.toml")))


def problems_of_step(pool: list[Problem], step: int, count: int, seed: int) -> list[Problem]:
    """Return the `count` problems of a step (1-based): the pool in a new order every epoch, none left out."""
    chosen = []
    for position in range((step - 1) * count, step * count):
        epoch, index = divmod(position, len(pool))
        order = list(range(len(pool)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        chosen.append(pool[order[index]])
    return chosen
