"""`aem-swe warm-start`: make a starting policy from nothing and say how good it is; the demo's ships, so compare it."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from scipy.stats import binomtest

from aem_swe.config import load_recipe
from aem_swe.engines.local.model import load_model, model_folder
from aem_swe.engines.local.session import evaluate, open_session
from aem_swe.engines.local.warm_start import DEMO, Teaching, WarmStart, train_policy
from aem_swe.engines.problems import Problems, load_problems
from aem_swe.errors import ConfigError
from aem_swe.metrics import write_atomically
from aem_swe.schema import Recipe
from aem_swe.worlds.layouts import require_installed

RESULT = "warm_start.json"
"""Beside the weights: the settings and the held-out result of a policy."""
_REPORT_EVERY = 100


World = Literal["demo", "alfworld"]


def _lesson(world: World) -> tuple[WarmStart, Teaching, str]:
    """Settings, what is taught, and the recipe that the policy is judged by."""
    if world == "demo":
        return WarmStart(), DEMO, "demo"
    require_installed()
    from aem_swe.engines.local.game_policy import GAMES, SETTINGS

    return SETTINGS, GAMES, "demo_alfworld"


def make_policy(
    out: Path, *, seed: int, steps: int | None, threads: int, episodes: int, world: World = "demo"
) -> Iterator[str]:
    """Train, save and judge a policy in `out`; yields lines for the user. Raises ConfigError where `out` is in use."""
    settings, teaching, recipe = _lesson(world)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {str(out)!r} cannot be made ({error.strerror}); choose a new folder") from error
    if any(out.iterdir()):
        raise ConfigError(f"--out {str(out)!r} is not empty; choose a new folder")
    torch.set_num_threads(threads)
    settings = replace(settings, seed=seed, steps=settings.steps if steps is None else steps)
    yield f"training a policy of 0.6M parameters on demonstrations: {settings.steps} steps, {threads} threads"
    started = time.monotonic()
    losses: list[float] = []
    for step, loss in train_policy(settings, out, teaching):
        losses.append(loss)
        if step % _REPORT_EVERY == 0 or step == settings.steps:
            recent = losses[-_REPORT_EVERY:]
            seconds = time.monotonic() - started
            yield f"step {step}/{settings.steps}  loss {sum(recent) / len(recent):.3f}  {seconds:.0f} s"
    result = judge_policy(str(out), episodes, recipe)
    write_atomically(
        out / RESULT, (json.dumps({"steps": settings.steps, "seed": seed, **result}, indent=2) + "\n").encode()
    )
    yield f"held-out success {_said(result)}; saved in {out}"
    if world != "demo":
        return
    shipped = json.loads((model_folder("builtin/demo-policy") / RESULT).read_text())
    low, high = result["interval"]
    agrees = low <= shipped["success"] <= high
    yield f"the shipped policy has {_said(shipped)}: {'the two agree' if agrees else 'the two DIFFER'}"


def _said(result: dict[str, Any]) -> str:  # JSON values
    low, high = result["interval"]
    return f"{result['success']:.3f} (95% interval {low:.3f} to {high:.3f}, {result['episodes']} episodes)"


def judge_policy(path: str, episodes: int, name: str = "demo") -> dict[str, Any]:  # JSON values
    """Play one episode of each of the first `episodes` held-out tasks with the agent of a recipe."""
    overrides = [f"model.path={path}", f"trainer.eval_tasks={episodes}", "trainer.eval_rollouts=1"]
    recipe: Recipe = load_recipe(name, overrides)
    held_out = load_problems(recipe).held_out
    with open_session(recipe, load_model(path), Problems([], held_out)) as session:
        metrics, _ = evaluate(session, held_out, version=0)
    count = metrics["val/episodes"]
    interval = binomtest(round(metrics["val/pass@1"] * count), count).proportion_ci()
    return {
        "success": metrics["val/pass@1"],
        "interval": [float(interval.low), float(interval.high)],
        "episodes": count,
    }
