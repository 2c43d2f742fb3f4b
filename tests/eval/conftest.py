"""Synthetic run folders in the form that the trainer writes. Their numbers are made up and mean nothing."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any  # JSON rows hold anything

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types
from browser_tab import BROWSER, Tab

EVALUATED = (0, 8, 16)
WriteRun = Callable[..., Path]


def config_of(aem: bool, seed: int, folder: Path, steps: int) -> dict[str, Any]:
    return {
        "recipe": "demo_aem" if aem else "demo",
        "seed": seed,
        "run_dir": str(folder),
        "aem": {"enabled": aem, "lambda": 1.0, "group": "trained"},
        "algorithm": {"advantage": "leave_one_out", "clip_low": 0.2},
        "trainer": {"steps": steps},
    }


def metrics_row(step: int, share: float, aem: bool, noise: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {
        "step": step,
        "critic/rewards/mean": min(1.0, max(0.0, 0.3 + 0.4 * share + noise.gauss(0.0, 0.05))),
        "actor/entropy": 0.6 - 0.2 * share + noise.gauss(0.0, 0.01),
        "actor/grad_norm": 0.4,
        "rollout/truncation_rate": 0.1 + 0.02 * noise.random(),
        "rollout/trajectories": 32,
        "rollout/turns_mean": 5.5,
        "response/length_mean": 17.0,
        "filter/kept": 29,
        "filter/max_steps": 2,
        "filter/token_budget": 1,
        "filter/timeout": 0,
        "timing_s/step": 2.0,
        "timing_s/rollout": 1.1,
        "timing_s/rollout_policy": 0.9,
        "timing_s/rollout_tools": 0.5,
        "timing_s/rollout_reward": 0.3,
        "timing_s/old_log_prob": 0.2,
        "timing_s/advantage": 0.001,
        "timing_s/update": 0.6,
    }
    if aem:
        row |= {
            "aem/alpha_positive_mean": 1.02 + noise.gauss(0.0, 0.01),
            "aem/alpha_negative_mean": 0.96 + noise.gauss(0.0, 0.01),
            "aem/alpha_token_mean": 0.98,
            "timing_s/aem": 0.002,
        }
    return row


def build_episode(task: str, rollout: int, reward: float | None, **changes: Any) -> dict[str, Any]:
    call = "<function=file_editor><parameter=command>view</parameter></function>"
    turns = [
        {
            "text": f"I look at the function that the issue names first.\n{call}",
            "action": {"name": "file_editor", "arguments": {"command": "view", "path": "/testbed/rank.py"}},
            "observation": "1\tdef rank(n):\n2\t    return n // 6",
            "tokens": 17,
            "entropy": 0.412,
            "alpha": 1.031,
        },
        {
            "text": "No call here, only words.",
            "action": {"error": "no function call was found; write exactly one"},
            "observation": "no function call was found; write exactly one",
            "tokens": 9,
            "entropy": None,
            "alpha": None,
        },
        {
            "text": "Done.\n<function=finish></function>",
            "action": {"name": "finish", "arguments": {}},
            "observation": None,
            "tokens": 5,
            "entropy": 0.05,
            "alpha": 1.4,
        },
    ]
    row = {"task_id": task, "group": 0, "rollout": rollout, "reward": reward, "reason": "tests", "retries": []}
    row |= {"termination": "finished", "verdict": "kept", "advantage": 0.5, "turns": turns}
    row["diff"] = (
        "--- a/rank.py\n+++ b/rank.py\n@@ -1,2 +1,2 @@\n def rank(n):\n-    return n // 6\n+    return n // 7\n"
    )
    return row | changes


def write_json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def episode() -> Callable[..., dict[str, Any]]:
    """episode(task, rollout, reward, **changes) -> one line of a trajectories file."""
    return build_episode


@pytest.fixture
def write_lines() -> Callable[[Path, Sequence[dict[str, Any]]], None]:
    return write_json_lines


@pytest.fixture
def write_run() -> WriteRun:
    """write_run(folder, aem=, seed=, steps=, gain=, tasks=, rollouts=, changes=, without=) -> the folder."""

    def write(
        folder: Path, *, aem: bool = False, seed: int = 1, steps: int = 16, gain: float = 0.2, tasks: int = 24,
        rollouts: int = 4, changes: dict[str, Any] | None = None, without: Sequence[str] = (),
    ) -> Path:  # fmt: skip
        noise = random.Random(f"{seed} {aem}")
        folder.mkdir(parents=True)
        config = config_of(aem, seed, folder, 16) | (changes or {})
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        versions = {"torch": "2.10.0", "transformers": "5.0.0"}
        manifest = {"recipe": config["recipe"], "git_commit": "0123456789abcdef", "versions": versions, "seed": seed}
        (folder / "manifest.json").write_text(json.dumps(manifest | {"model_sha256": "feedc0de" * 8}), encoding="utf-8")
        rows: list[dict[str, Any]] = [{"step": 0}]
        rows += [metrics_row(step, step / 16, aem, noise) for step in range(1, steps + 1)]
        chances = [(task, random.Random(task).betavariate(1.0, 2.5)) for task in range(tasks)]
        for step in [step for step in EVALUATED if step <= steps]:
            draw = noise if step else random.Random(0)  # every run starts from the same policy
            rewards = [
                (task, rollout, int(draw.random() < chance + gain * step / 16))
                for task, chance in chances
                for rollout in range(rollouts)
            ]
            held_out = [{"task_id": f"heldout-{t}", "rollout": r, "reward": reward} for t, r, reward in rewards]
            write_json_lines(folder / f"trajectories/eval_{step:06d}.jsonl", held_out)
            rows[step]["val/pass@1"] = sum(reward for _, _, reward in rewards) / len(rewards)
        for step in range(1, steps + 1):
            training = [build_episode(f"train-{step}", rollout, int(rollout == 1)) for rollout in range(2)]
            write_json_lines(folder / f"trajectories/step_{step:06d}.jsonl", training)
        write_json_lines(folder / "metrics.jsonl", [{k: v for k, v in row.items() if k not in without} for row in rows])
        return folder

    return write


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    if BROWSER is None:
        pytest.skip("chromium is missing; apt-get install chromium")
    made = Tab(tmp_path)
    yield made
    made.close()
