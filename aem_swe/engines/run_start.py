"""How a run begins in its folder, on either engine: may it begin or go on, and what does it say of itself."""

from pathlib import Path
from typing import Any

from aem_swe.config import dump_recipe, load_recipe
from aem_swe.errors import ConfigError, RunError
from aem_swe.metrics import RunFolder, manifest
from aem_swe.resources import resource
from aem_swe.schema import Recipe

_MAY_CHANGE = ("trainer.steps", "run_dir", "recipe", "cluster.ray_address", "cluster.logger", "sandbox.engines")
"""How long, where and watched by whom: another allocation of machines continues a run."""


def may_resume(recipe: Recipe, folder: RunFolder, *, resume: bool) -> bool:
    """Whether there is a run to go on with; False: a fresh one. Raises RunError or ConfigError where it must not."""
    if not folder.started:
        return False
    if not resume:
        raise RunError(
            f"run_dir {recipe.run_dir!r} holds a run already; continue it with --resume or choose another run_dir"
        )
    _require_same_recipe(recipe, folder)
    return True


def describe(recipe: Recipe, folder: RunFolder, first: int, *, model_folder: Path) -> None:
    """Write config.yaml and manifest.json; a resumed run keeps its manifest and adds where and with what it went on."""
    about = manifest(
        recipe=recipe.recipe,
        seed=recipe.seed,
        model_folder=model_folder,
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


def _require_same_recipe(recipe: Recipe, folder: RunFolder) -> None:
    """A run is resumed with the recipe that it was started with; only how long it runs may change."""
    path = folder.path / "config.yaml"
    try:
        saved = _flat(load_recipe(str(path)).model_dump(by_alias=True))
    except ConfigError as error:
        raise RunError(f"{path} cannot be used ({error}); restore it or choose another run_dir") from error
    now = _flat(recipe.model_dump(by_alias=True))
    keys = sorted(now.keys() | saved.keys())  # cluster.verl and cluster.rllm have keys of their own
    differing = [f"{key}={now.get(key)}" for key in keys if key not in _MAY_CHANGE and now.get(key) != saved.get(key)]
    if differing:
        raise ConfigError(
            f"run_dir {recipe.run_dir!r} was started with other settings than {', '.join(differing)};"
            " resume without them or choose another run_dir"
        )
