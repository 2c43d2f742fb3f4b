"""Official grading as we run it against the official command, on the same predictions, in one run on one machine.

    python benchmarks/grading.py --json benchmarks/results/grading.json

    stock    `python -m swebench.harness.run_evaluation`, from the start of the process to its summary
    ours     OfficialGrader with an empty cache and the same number of workers, from its start to the same summary

Both grade the reference patches of the project's own instances in SWE-bench's form, and their summaries must be equal.
Needs a Docker engine and swebench; builds what is missing. The bound: ours / stock <= 0.5.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import docker
from ratios import Result, divided, lacking, parse, report

from aem_swe.eval.swebench.dataset import load_rows
from aem_swe.eval.swebench.harness import OfficialGrader
from aem_swe.tasks.r2e_build import build as build_r2e
from aem_swe.tasks.rows import Row
from aem_swe.tasks.swebench_build import build

BOUND = 0.5
TIMEOUT_S = 300
SIZES = {"instances": (16, 2), "workers": (2, 2), "repeats": (1, 1)}


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


def main() -> int:
    arguments = parse(__doc__, SIZES, {"rows": "data/swe-bench-demo"})
    if reason := lacking("docker", "swebench"):
        return report(Result("grading", skipped=reason), arguments)
    folder = Path(arguments.rows)
    with contextlib.closing(docker.from_env(timeout=120)) as client:
        build(client, build_r2e(client, Path("data/r2e-demo")), folder)
    rows = load_rows(folder / "rows.jsonl").rows[: arguments.instances]
    theirs_s, ours_s = [], []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as temporary:
            places = [Path(temporary, name) for name in ("stock", "ours")]
            for place in places:
                place.mkdir()
            their_seconds, theirs = stock(places[0], rows, arguments.workers)
            our_seconds, mine = ours(places[1], rows, arguments.workers)
        assert theirs == mine and len(mine["resolved_ids"]) == len(rows), (theirs, mine)
        theirs_s.append(their_seconds)
        ours_s.append(our_seconds)
        print(f"{len(rows)} gradings: stock {their_seconds:.1f} s, ours {our_seconds:.1f} s, the same summaries")
    ratio = divided("grading", "ours", "the stock command", ours_s, theirs_s, BOUND)
    details = {"gradings": len(rows), "workers": arguments.workers, "seconds": {"stock": theirs_s, "ours": ours_s}}
    return report(Result("grading", (ratio,), details), arguments)


if __name__ == "__main__":
    sys.exit(main())
