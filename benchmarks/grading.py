"""Official grading as we run it against the official command, on the same predictions, in one run on one machine.

    python benchmarks/grading.py --json benchmarks/results/grading.json

    stock    `python -m swebench.harness.run_evaluation`, from the start of the process to its summary
    ours     OfficialGrader with an empty cache and the same number of workers, from its start to the same summary

Both grade the reference patches of the project's own instances in SWE-bench's form, and their summaries must be equal.
Needs a Docker engine and swebench; builds what is missing. The bound: ours / stock <= 0.5.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import docker

from aem_swe.eval.swebench.dataset import load_rows
from aem_swe.eval.swebench.harness import OfficialGrader
from aem_swe.tasks.r2e_build import build as build_r2e
from aem_swe.tasks.rows import Row
from aem_swe.tasks.swebench_build import build

BOUND = 0.5
TIMEOUT_S = 300


def stock(folder: Path, rows: list[Row], workers: int) -> tuple[float, Any]:
    """Seconds, and the summary."""
    predictions = [
        {"instance_id": row["instance_id"], "model_name_or_path": "m", "model_patch": row["patch"]} for row in rows
    ]
    for name, content in (("rows.jsonl", rows), ("preds.jsonl", predictions)):
        (folder / name).write_text("".join(json.dumps(dict(one)) + "\n" for one in content))
    command = [sys.executable, "-m", "swebench.harness.run_evaluation", "-d", "rows.jsonl", "-p", "preds.jsonl"]
    command += ["-id", "r", "--max_workers", str(workers), "--timeout", str(TIMEOUT_S)]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started, json.loads((folder / "m.r.json").read_text())


def ours(folder: Path, rows: list[Row], workers: int) -> tuple[float, Any]:
    """The same."""
    patches = {row["instance_id"]: row["patch"] for row in rows}
    table = {row["instance_id"]: row for row in rows}
    names: dict[str, Any] = {"model": "m", "run_id": "r", "timeout_s": float(TIMEOUT_S), "cache": folder / "grades"}
    started = time.perf_counter()
    with OfficialGrader(folder, table, workers=workers, **names) as grader:
        futures = [grader.grade(name, patch) for name, patch in patches.items()]
        assert not any(future.result().cached for future in futures)
        summary = grader.write_report(patches)
    return time.perf_counter() - started, json.loads(summary.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=Path("data/swe-bench-demo"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with contextlib.closing(docker.from_env(timeout=120)) as client:
        build(client, build_r2e(client, Path("data/r2e-demo")), arguments.rows)
    rows = load_rows(arguments.rows / "rows.jsonl").rows[: arguments.instances]
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, name) for name in ("stock", "ours")]
        for place in places:
            place.mkdir()
        theirs_s, theirs = stock(places[0], rows, arguments.workers)
        ours_s, mine = ours(places[1], rows, arguments.workers)
    assert theirs == mine and len(mine["resolved_ids"]) == len(rows), (theirs, mine)
    result = {
        "command": "python " + " ".join(sys.argv),
        "gradings": len(rows),
        "workers": arguments.workers,
        "seconds": {"stock": theirs_s, "ours": ours_s},
        f"ours / stock (bound {BOUND})": ours_s / theirs_s,
    }
    print(f"{len(rows)} gradings, {arguments.workers} workers: stock {theirs_s:.1f} s, ours {ours_s:.1f} s")
    print(f"ours / stock {ours_s / theirs_s:.3f} (bound {BOUND}); both summaries are the same")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
