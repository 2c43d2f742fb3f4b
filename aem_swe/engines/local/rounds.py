"""What a training step plays: one round of prompts, or as many as DAPO's dynamic sampling takes (arXiv 2503.14476).

A group whose rewards are all equal has no advantage and teaches nothing. So further rounds of prompts are played until
`sampling.prompts` groups with contrast are there, at most `sampling.max_rounds`. What is too much is left out by the
filter, the later groups first; a step that found too few goes on with what it has. Which prompts a round plays and what
is sampled are functions of (seed, step, round): a step leaves room for all its rounds in the order of the pool, so no
round depends on how many were played before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aem_swe.engines.local.session import TRAINING, Session, play
from aem_swe.engines.problems import data_seed
from aem_swe.engines.update import judge
from aem_swe.errors import RunError
from aem_swe.profiling import Stopwatch
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.source import problems_of_step
from aem_swe.types import Trajectory


@dataclass(frozen=True, slots=True)
class Played:
    """The episodes of a training step."""

    trajectories: list[Trajectory]
    """Of all rounds; the groups of round r have the numbers from r * prompts on."""
    rounds: int


def play_rounds(session: Session, pool: list[Problem], step: int, stopwatch: Stopwatch) -> Played:
    """Play the rounds of a step (1-based). Raises RunError for a round in which nothing could be played or graded."""
    recipe, s = session.recipe, session.recipe.sampling
    trajectories: list[Trajectory] = []
    for rounds in range(1, s.max_rounds + 1):
        problems = problems_of_step(pool, (step - 1) * s.max_rounds + rounds, s.prompts, data_seed(recipe))
        played = play(
            session,
            problems,
            s.rollouts,
            seed=(TRAINING, step),
            version=step - 1,
            stopwatch=stopwatch,
            first_group=len(problems) * (rounds - 1),
        )
        require_survivors(played)
        trajectories += played
        verdict = judge(trajectories, recipe.algorithm, drop_uniform_groups=s.drop_uniform_groups)
        if len(verdict.kept_groups) >= s.prompts:
            break
    return Played(trajectories, rounds)


def require_survivors(trajectories: Sequence[Trajectory]) -> None:
    """A step without a single usable episode is no step: the infrastructure is gone, and going on would hide it."""
    if all(trajectory.reward is None for trajectory in trajectories):
        last = trajectories[-1].retries[-1:] or ("no reason recorded",)
        raise RunError(f"no episode of this step could be played or graded ({last[0]}); mend that, then use --resume")
