"""Run the probe over policies, regimes and batches. One line per batch is appended, so a kill loses one batch."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aem_swe.engines.local.dynamics.batches import draw_states, measure_batch
from aem_swe.engines.local.dynamics.policies import Policy, Say, late_policy
from aem_swe.engines.local.dynamics.setting import Regime, Setting
from aem_swe.engines.local.model import load_model, model_folder
from aem_swe.engines.local.session import open_session
from aem_swe.engines.problems import Problems, load_problems
from aem_swe.errors import ConfigError, RunError
from aem_swe.metrics import drop_torn_line, read_rows, write_atomically

ROWS, SETTING = "batches.jsonl", "setting.json"
Row = dict[str, Any]  # JSON values


def claim_folder(folder: Path, setting: Setting) -> None:
    """Tie `folder` to a setting. Raises ConfigError where it belongs to another one."""
    path = folder / SETTING
    if not path.exists():
        write_atomically(path, (json.dumps(setting.as_json(), indent=2) + "\n").encode())
        return
    try:
        there = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(f"{path} cannot be read ({error}); choose another --out") from error
    now = setting.as_json()
    differing = [key for key in now if not isinstance(there, dict) or there.get(key) != now[key]]
    if differing:
        raise ConfigError(
            f"--out {str(folder)!r} has results with another {', '.join(differing)}; choose another --out"
        )


def recorded_rows(folder: Path) -> list[Row]:
    """The rows that were finished."""
    path = folder / ROWS
    return read_rows(path) if path.exists() else []


def probe_policies(policies: Sequence[Policy], folder: Path, setting: Setting, say: Say) -> list[Row]:
    """Measure every batch that has no row yet, and return the rows of these policies.

    The caller holds `folder`. Raises ConfigError or RunError with one line for the user.
    """
    torch.set_num_threads(1)
    claim_folder(folder, setting)
    drop_torn_line(folder / ROWS)
    for policy in policies:
        for regime in setting.regimes:
            _probe(policy, regime, folder, setting, say)
    names = {policy.name for policy in policies}
    return [row for row in recorded_rows(folder) if row["policy"] in names]


def _probe(policy: Policy, regime: Regime, folder: Path, setting: Setting, say: Say) -> None:
    weights = fingerprint(policy.path)
    mine = [row for row in recorded_rows(folder) if (row["policy"], row["regime"]) == (policy.name, regime)]
    if any(row["weights"] != weights for row in mine):
        raise ConfigError(
            f"--out {str(folder)!r} has rows of another policy with seed {policy.seed}; choose another --out"
        )
    done = {row["batch"] for row in mine}
    missing = [number for number in range(setting.batches) if number not in done]
    if not missing:
        return
    path = policy.path if regime == "early" else late_policy(policy, folder, setting, say)
    recipe = setting.probe_recipe(path, policy.seed)
    about = {"policy": policy.name, "seed": policy.seed, "weights": weights, "regime": regime}
    model = load_model(path, device=recipe.model.device)
    pool = load_problems(recipe).pool
    with open_session(recipe, model, Problems(pool, [])) as session:
        states = draw_states(session, pool, setting)
        for number in missing:
            row = measure_batch(session, pool, states, number, setting)
            _append(folder / ROWS, {**about, **row})
            say(f"{policy.name}, {regime}: batch {number + 1} of {setting.batches}")


def fingerprint(path: str) -> str:
    """The beginning of a hash over the weights of a policy, so that two policies are never taken for one."""
    total = hashlib.sha256()
    for file in sorted(model_folder(path).glob("*.safetensors")):
        total.update(file.read_bytes())
    return total.hexdigest()[:12]


def _append(path: Path, row: Row) -> None:
    try:
        with path.open("ab") as file:
            file.write((json.dumps(row, allow_nan=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); free space, then run the command again"
        ) from error
