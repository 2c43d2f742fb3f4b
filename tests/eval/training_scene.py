"""Run folders of a small plan, written by hand: no training, every number chosen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types

from aem_swe.config import dump_recipe
from aem_swe.eval.training_plan import Plan, read_plan
from aem_swe.eval.training_result import About, Result, make_result, sort_into_arms
from aem_swe.eval.training_values import RunValues

Row = dict[str, Any]  # JSON values
COMMIT = "abc1234"
PLAN: Row = {
    "seeds": [1, 2, 3, 4, 5],
    "overrides": ["trainer.steps=16", "trainer.eval_every=16"],
    "arms": {"plain": ["demo"], "aem": ["demo_aem"], "drop": ["demo", "algorithm.filter=drop"]},
    "contrasts": {
        "aem_plain": {"arm": "aem", "against": "plain", "of": ["held_out", "reward", "entropy"], "paper": "higher"},
        "filter_drop": {"arm": "drop", "against": "plain", "of": ["held_out", "truncation"]},
    },
}


def write_plan(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**PLAN, **changes}, sort_keys=False))
    return path


def make_plan(folder: Path, **changes: Any) -> Plan:
    return read_plan(write_plan(folder / "plan.yaml", **changes))


def write_run(plan: Plan, out: Path, arm: str, seed: int, *, held_out: float = 0.5, **series: Sequence[float]) -> Path:
    """A finished run. series: reward, truncation, entropy, one value per step, else constant."""
    recipe = plan.recipe(arm, seed, out)
    folder = Path(recipe.run_dir)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_recipe(recipe))
    (folder / "manifest.json").write_text(json.dumps({"git_commit": COMMIT}))
    steps = recipe.trainer.steps
    given = {"reward": [0.25] * steps, "truncation": [0.0] * steps, "entropy": [0.5] * steps} | series
    rows: list[Row] = [{"step": 0, "val/pass@1": 0.25}]
    for step in range(steps):
        rows.append(
            {
                "step": step + 1,
                "critic/rewards/mean": given["reward"][step],
                "rollout/truncation_rate": given["truncation"][step],
                "actor/entropy": given["entropy"][step],
                "timing_s/step": 2.0,
                **({"aem/alpha_token_mean": 0.75} if recipe.aem.enabled else {}),
            }
        )
    rows[-1]["val/pass@1"] = held_out
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def change_rows(folder: Path, edit: Any) -> None:
    """edit(rows) changes the list of rows in place."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    edit(rows)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


HELD_OUT = {
    "plain": (0.30, 0.32, 0.34, 0.36, 0.38),
    "aem": (0.41, 0.42, 0.45, 0.46, 0.49),  # + 0.11, 0.10, 0.11, 0.10, 0.11
    "drop": (0.30, 0.30, 0.36, 0.36, 0.38),  # + 0, -0.02, +0.02, 0, 0
}


def write_all(plan: Plan, out: Path) -> None:
    """All runs of the plan, with HELD_OUT by seed."""
    for arm, values in HELD_OUT.items():
        for seed, held_out in enumerate(values, 1):
            write_run(plan, out, arm, seed, held_out=held_out, truncation=[0.1 * seed * (arm == "drop")] * 16)


ABOUT = About(aem_swe="0", command="aem-swe verify training", date="2026-01-02")


def result_of(plan: Plan, values: Mapping[str, Mapping[int, Row]]) -> Result:
    """A result without run folders: the runs of values[arm][seed], which may set what `_run` takes."""
    steps = plan.recipe(next(iter(plan.arms)), plan.seeds[0], Path("runs")).trainer.steps
    found: dict[tuple[str, int], RunValues | int] = {(arm, seed): 0 for arm in plan.arms for seed in plan.seeds}
    found |= {(arm, seed): _run(seed, steps, **one) for arm, runs in values.items() for seed, one in runs.items()}
    return make_result(ABOUT, plan, sort_into_arms(plan, found, Path("runs")), plan.family())


def _run(
    seed: int, steps: int, *, held_out: float = 0.5, reward: float = 0.25, truncation: float = 0.0,
    entropy: float = 0.5, commit: str | None = COMMIT,
) -> RunValues:  # fmt: skip
    series = {"reward": reward, "truncation": truncation, "entropy": entropy}
    return RunValues(
        seed=seed, steps=steps, held_out_first=0.25, held_out=held_out, reward_first=reward, reward=reward,
        truncation=truncation, truncation_max=truncation, entropy=entropy, alpha=None, step_seconds=2.0 * steps,
        commit=commit, series={name: (value,) * steps for name, value in series.items()},
    )  # fmt: skip
