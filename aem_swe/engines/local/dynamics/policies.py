"""The units of the probe: independently warm-started policies, each of them early and, after some training, late."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.engines.local.checkpoint import last_checkpoint
from aem_swe.engines.local.dynamics.setting import Setting
from aem_swe.engines.local.make_policy import RESULT, make_policy
from aem_swe.engines.local.model import model_folder
from aem_swe.engines.local.trainer import train
from aem_swe.errors import ConfigError, RunError
from aem_swe.metrics import RunFolder

Say = Callable[[str], None]
_JUDGED_ON = 64
"""Held-out episodes of a policy that is made here; its success only describes it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A warm-started policy. `seed` is that of its warm start; the probe's episodes and its training use it too."""

    path: str
    seed: int

    @property
    def name(self) -> str:
        return f"seed_{self.seed}"


def find_policies(paths: Sequence[str]) -> list[Policy]:
    """Read each folder's own seed. Raises ConfigError for a folder without one, and for a seed that occurs twice."""
    policies = [Policy(path, _seed(path)) for path in paths]
    require_distinct([policy.seed for policy in policies])
    return policies


def require_distinct(seeds: Sequence[int]) -> None:
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if twice:
        raise ConfigError(f"seed {twice[0]} is given twice; two policies of one seed are one, so give different ones")


def _seed(path: str) -> int:
    try:
        seed = json.loads((model_folder(path) / RESULT).read_text())["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path!r} has no {RESULT} with a seed; use a folder that aem-swe warm-start made") from error
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"{path!r} has the seed {seed!r} in {RESULT}; use a folder that aem-swe warm-start made")
    return seed


def make_policies(seeds: Sequence[int], folder: Path, setting: Setting, say: Say) -> list[Policy]:
    """Make the policies that are not there yet in folder/policies; what a kill left half made is made again."""
    require_distinct(seeds)
    made = []
    for seed in seeds:
        out = folder / "policies" / f"seed_{seed}"
        if not (out / RESULT).is_file():
            shutil.rmtree(out, ignore_errors=True)
            lines = make_policy(out, seed=seed, steps=setting.warm_start_steps, threads=1, episodes=_JUDGED_ON)
            for line in lines:
                say(f"seed {seed}: {line}")
        made.append(Policy(str(out), seed))
    return made


def late_policy(policy: Policy, folder: Path, setting: Setting, say: Say) -> str:
    """Train `policy` for setting.late_steps steps in folder/late, or finish what is there; return the checkpoint."""
    run = RunFolder(folder / "late" / policy.name)
    recipe = setting.training_recipe(policy.path, policy.seed, str(run.path))
    say(f"{policy.name}: training {setting.late_steps} steps for the late regime")
    train(recipe, resume=run.started, observe=lambda row: None)
    checkpoint = last_checkpoint(run.path / "checkpoints", recorded=setting.late_steps)
    if checkpoint is None:
        raise RunError(f"{run.path} has no checkpoint after its last step; remove this folder and run again")
    return str(checkpoint)
