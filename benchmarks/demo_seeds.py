"""Train both arms of the demo over several seeds and write down what came out: the results table of the README.

    python benchmarks/demo_seeds.py --seeds 1 2 3 --out runs/demo_seeds --json benchmarks/results/demo_seeds.json

Runs `aem-swe train` once per seed and arm, two at a time, with 512 held-out episodes before and after, one per task.
A finished run is kept. `reward gain` is the mean training reward of the last 8 steps minus that of the first 8;
`held-out gain` is pooled over the seeds of an arm, paired by task, with a 95% interval.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aem_swe.eval.comparison import compare
from aem_swe.eval.outcomes import Outcome
from aem_swe.eval.statistics import Difference

ARMS = {"deepswe": "demo", "deepswe_aem": "demo_aem"}
Json = dict[str, Any]  # JSON values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--eval-tasks", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/demo_seeds"))
    parser.add_argument("--json", type=Path, help="result file; the table goes beside it as .md")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    jobs = [(arm, seed) for seed in arguments.seeds for arm in ARMS]

    def folder(arm: str, seed: int) -> Path:
        return Path(arguments.out) / f"{arm}_seed{seed}"

    def run(job: tuple[str, int]) -> None:
        arm, seed = job
        settings = [f"run_dir={folder(arm, seed)}", f"seed={seed}", f"trainer.eval_tasks={arguments.eval_tasks}"]
        command = [sys.executable, "-m", "aem_swe.cli", "train", ARMS[arm], *settings, *arguments.overrides, "--resume"]
        subprocess.run(command, check=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, jobs))
    comparison = compare([folder(arm, seed) for arm, seed in jobs])
    result: Json = {
        "command": "python " + " ".join(sys.argv),
        "arms": {arm: _arm(outcome) for arm, outcome in zip(ARMS, comparison.outcomes, strict=True)},
        "contrast": [
            {"verdict": item.verdict, "numbers": item.numbers, "claim": item.claim} for item in comparison.contrasts
        ],
    }
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
        arguments.json.with_suffix(".md").write_text(table(result) + "\n")


def _arm(outcome: Outcome) -> Json:
    runs = []
    for run, learning in zip(outcome.arm.runs, outcome.learning, strict=True):
        truncation = run.series("rollout/truncation_rate").values
        assert learning is not None
        runs.append(
            {
                "seed": run.seed,
                "reward_first": learning.first,
                "reward_last": learning.last,
                "reward_gain": learning.gain,
                "truncation_mean": float(truncation.mean()),
                "truncation_last": float(truncation[-8:].mean()),
                "seconds_per_step": float(run.series("timing_s/step").values.mean()),
            }
        )
    assert outcome.gain is not None
    return {
        "runs": runs,
        "held_out": [
            {"step": point.step, "success": point.interval.value, "episodes": point.episodes} for point in outcome.curve
        ],
        "held_out_gain": _difference(outcome.gain),
        "held_out_gain_with_seeds": _difference(outcome.gain_with_seeds) if outcome.gain_with_seeds else None,
    }


def _difference(difference: Difference) -> Json:
    return {"value": difference.value, "low": difference.low, "high": difference.high, "p": difference.p_value}


def table(result: Json) -> str:
    """Return the result as a Markdown table."""
    rows = [
        "| arm | seed | reward, first 8 → last 8 steps | gain | truncated, mean / last 8 |",
        "|---|---|---|---|---|",
    ]
    for arm, found in result["arms"].items():
        for run in found["runs"]:
            reward = f"{run['reward_first']:.2f} → {run['reward_last']:.2f} | {run['reward_gain']:+.2f}"
            cut = f"{run['truncation_mean']:.0%} / {run['truncation_last']:.0%}"
            rows.append(f"| {arm} | {run['seed']} | {reward} | {cut} |")
    rows += [
        "",
        "| arm | held-out pass@1, before → after | gain, paired by task (95% interval) | episodes |",
        "|---|---|---|---|",
    ]
    for arm, found in result["arms"].items():
        first, last, gain = found["held_out"][0], found["held_out"][-1], found["held_out_gain"]
        rows.append(
            f"| {arm} | {first['success']:.3f} → {last['success']:.3f} |"
            f" {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}) | {last['episodes']} |"
        )
    rows += [""] + [f"{item['verdict']}: {item['numbers']} {item['claim']}" for item in result["contrast"]]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
