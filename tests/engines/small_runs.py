"""Training runs of a few seconds: real sandboxes, the shipped policy, two prompts with four rollouts each."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from aem_swe.config import load_recipe
from aem_swe.engines.local import trainer

# warmup_steps=0: the first update already moves the weights; data.seed=15: tasks that the policy sometimes solves
SMALL = (
    "sampling.prompts=2", "sampling.rollouts=4", "data.pool=2", "data.seed=15", "optimizer.warmup_steps=0",
    "agent.max_steps=8", "trainer.steps=2", "trainer.eval_every=2", "trainer.eval_tasks=4", "trainer.save_every=1",
)  # fmt: skip
Row = dict[str, Any]  # JSON values


def train(run_dir: Path, *overrides: str, recipe: str = "demo", resume: bool = False) -> list[Row]:
    """Run to the end and return what was observed."""
    observed: list[Row] = []
    settings = load_recipe(recipe, [*SMALL, f"run_dir={run_dir}", *overrides])
    trainer.train(settings, resume=resume, observe=observed.append)
    return observed


def metrics(run_dir: Path, *, without: tuple[str, ...] = ("timing_s/",)) -> list[Row]:
    """The rows of metrics.jsonl, keys with such a start left out."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(without)} for row in rows]


def weights(run_dir: Path, step: int = 2) -> dict[str, Tensor]:
    return load_file(run_dir / "checkpoints" / f"step_{step:06d}" / "model.safetensors")


def same_weights(one: Path, other: Path, step: int = 2) -> bool:
    left, right = weights(one, step), weights(other, step)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def updates(run_dir: Path) -> float:
    """How many updates the run made: a comparison of runs that learnt nothing would prove nothing."""
    return sum(row.get("actor/updates", 0) for row in metrics(run_dir))
