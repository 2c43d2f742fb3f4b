"""Where a run starts: at its first step, or behind its newest usable checkpoint.

A step counts when its row is in metrics.jsonl and, every `save_every` steps, its checkpoint is whole. What a kill left
beyond that (a checkpoint without its row, rows without their checkpoint) is removed and those steps run again, to the
same result. A run that has lost the checkpoints it should have is refused: it is never silently started over.
"""

import shutil
from pathlib import Path
from typing import Any

from aem_swe.config import dump_recipe, load_recipe
from aem_swe.engines.local.checkpoint import checkpoint_step, last_checkpoint
from aem_swe.engines.local.model import model_folder
from aem_swe.errors import ConfigError, RunError
from aem_swe.metrics import RunFolder, manifest
from aem_swe.resources import resource
from aem_swe.schema import Recipe

_MAY_CHANGE = ("trainer.steps", "run_dir", "recipe")


def starting_point(recipe: Recipe, folder: RunFolder, *, resume: bool) -> tuple[Path | None, int]:
    """Return the checkpoint to start from (None: the starting policy) and the first step to run."""
    if not folder.started:
        return None, 1
    if not resume:
        raise RunError(
            f"run_dir {recipe.run_dir!r} holds a run already; continue it with --resume or choose another run_dir"
        )
    _check_same_recipe(recipe, folder)
    recorded = folder.last_step()
    checkpoint = last_checkpoint(folder.path / "checkpoints", recorded=recorded)
    if checkpoint is None:
        if recipe.trainer.save_every and recorded >= recipe.trainer.save_every:
            raise RunError(
                f"run_dir {recipe.run_dir!r} has {recorded} steps but none of its checkpoints;"
                " restore checkpoints/step_* or choose another run_dir"
            )
        return None, 1
    step = checkpoint_step(checkpoint)
    for newer in (folder.path / "checkpoints").glob("step_*"):
        if newer.name > checkpoint.name:  # its row was never written
            shutil.rmtree(newer)
    folder.rewind(step)
    return checkpoint, step + 1


def describe(recipe: Recipe, folder: RunFolder, first: int) -> None:
    """Write config.yaml and manifest.json; a resumed run keeps its manifest and adds where and with what it went on."""
    about = manifest(
        recipe=recipe.recipe,
        seed=recipe.seed,
        model_folder=model_folder(recipe.model.path),
        agent_folder=resource("agents", recipe.agent.definition),
    )
    if first > 1:
        resumed = {"from_step": first, "git_commit": about["git_commit"], "versions": about["versions"]}
        earlier = folder.read_manifest()
        about = {**earlier, "resumed": [*earlier.get("resumed", []), resumed]}
    folder.create(dump_recipe(recipe), about)
    if first == 1:
        folder.rewind(-1)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:  # values of a recipe
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    return {key: value for name in values for key, value in _flat(values[name], f"{prefix}{name}.").items()}


def _check_same_recipe(recipe: Recipe, folder: RunFolder) -> None:
    """A run is resumed with the recipe that it was started with; only trainer.steps may change."""
    path = folder.path / "config.yaml"
    try:
        saved = _flat(load_recipe(str(path)).model_dump(by_alias=True))
    except ConfigError as error:
        raise RunError(f"{path} cannot be used ({error}); restore it or choose another run_dir") from error
    now = _flat(recipe.model_dump(by_alias=True))
    differing = [f"{key}={now[key]}" for key in now if key not in _MAY_CHANGE and now[key] != saved[key]]
    if differing:
        raise ConfigError(
            f"run_dir {recipe.run_dir!r} was started with other settings than {', '.join(differing)};"
            " resume without them or choose another run_dir"
        )
