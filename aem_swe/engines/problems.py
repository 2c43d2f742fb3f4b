"""The problems of a recipe, on either engine: what is trained on, and what is held out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aem_swe.agents.definition import load_agent
from aem_swe.errors import ConfigError
from aem_swe.schema import Recipe
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.source import DEMO, Source, held_out, training_pool
from aem_swe.worlds import is_world
from aem_swe.worlds.source import held_out_games, training_games

if TYPE_CHECKING:  # evaluations by a protocol need packages that the others do not
    from aem_swe.eval.swebench.validation import Validation


@dataclass(frozen=True, slots=True)
class Problems:
    """Both sets; `held_out` is empty where the recipe makes no evaluations."""

    pool: list[Problem]
    held_out: list[Problem]
    validation: "Validation | None" = None
    """The rules by which `held_out` is played, where they are not the training's own."""


def data_seed(recipe: Recipe) -> int:
    return recipe.seed if recipe.data.seed is None else recipe.data.seed


def source_of(recipe: Recipe, name: str) -> Source:
    return Source(name, recipe.data.reward, recipe.data.leave_out_verified, original=recipe.sandbox.kind == "r2egym")


def load_problems(recipe: Recipe, say: Callable[[str], None] = lambda line: None) -> Problems:
    """Load a recipe's problems and say which rows cannot be used. Raises ConfigError where too few are left."""
    if is_world(recipe.data.source):
        return _games(recipe)
    loaded = training_pool(recipe.data.pool, data_seed(recipe), source_of(recipe, recipe.data.source))
    for row in loaded.bad:
        say(f"left out {row.id}: {row.reason}")
    if len(loaded.problems) < recipe.sampling.prompts:
        raise ConfigError(
            f"data.source {recipe.data.source!r} has {len(loaded.problems)} usable tasks and sampling.prompts wants "
            f"{recipe.sampling.prompts}; lower sampling.prompts"
        )
    tests: list[Problem] = []
    if recipe.trainer.eval_every and recipe.trainer.eval_protocol:
        from aem_swe.eval.swebench.validation import load_validation

        validation = load_validation(
            recipe.trainer.eval_protocol,
            recipe.data.held_out,
            recipe.trainer.eval_tasks,
            Path(recipe.run_dir) / "validation",
            workers=recipe.sandbox.starts,
            engines=recipe.sandbox.engines,
        )
        return Problems(list(loaded.problems), validation.problems, validation)
    if recipe.trainer.eval_every:
        tests = held_out(recipe.trainer.eval_tasks, source_of(recipe, recipe.data.held_out or DEMO))
    return Problems(list(loaded.problems), tests)


def _games(recipe: Recipe) -> Problems:
    """Games instead of repositories; the agent's tool says whether their observations list what they admit."""
    definition = load_agent(recipe.agent.definition, recipe.agent.action_format)
    data, tests = recipe.data, recipe.trainer.eval_tasks if recipe.trainer.eval_every else 0
    tool = next(iter(definition.tools.values()))
    if tool.shell is None or len(definition.tools) != 1:
        raise ConfigError(f"agent.definition {definition.name!r} cannot play games; use agent.definition=alfworld")
    if recipe.sandbox.kind != "local" or recipe.trainer.eval_protocol:
        raise ConfigError(f"data.source {data.source!r} brings processes of its own; use sandbox=local, no protocol")
    if tests and not is_world(data.held_out):
        raise ConfigError(f"data.held_out {data.held_out!r} is no world as data.source is; use data.held_out=alfworld")
    shown = tool.options.get("admissible", False)
    pool = training_games(data.source, data.pool, data_seed(recipe), admissible=shown)
    if len(pool) < recipe.sampling.prompts:
        raise ConfigError(f"data.source {data.source!r} has {len(pool)} games; lower sampling.prompts")
    return Problems(pool, held_out_games(data.held_out, tests, admissible=shown) if tests else [])
