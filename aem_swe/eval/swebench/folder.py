"""How a folder of results is begun, or gone on with: the same for `aem-swe eval` and `aem-swe grade`."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.dataset import dataset_sha256
from aem_swe.eval.swebench.results import Result, load_evaluation
from aem_swe.metrics import drop_torn_line, git_commit, package_version, write_atomically
from aem_swe.sandboxes.grading_engine import CPUS, PROCESSES
from aem_swe.tasks.rows import Row

SAME = ("model", "identity", "protocol_sha256", "dataset_sha256", "harness", "seed", "arm", "training_seed")
"""What results in one folder have to share; there may be more runs."""
_VERSIONS = ("aem-swe", "swebench", "vllm", "transformers", "openai", "docker")


def about_grading(
    rows: Iterable[Row], *, path: str, network: str, memory_mb: int, timeout_s: float, **more: Any
) -> dict[str, Any]:
    """What evaluation.json says of every kind of grading. more: of the harness."""
    rows = list(rows)
    digest = dataset_sha256(rows)
    return {
        "dataset": {"path": path, "sha256": digest, "instances": len(rows)},
        "dataset_sha256": digest,
        "harness": {
            "swebench": package_version("swebench"),
            "network": network,
            "memory_mb": memory_mb,
            "processes": PROCESSES,
            "cpus": CPUS,
            "timeout_s": timeout_s,
            **more,
        },
        **_process(),
    }


def _process() -> dict[str, Any]:
    return {
        "versions": {name: package_version(name) for name in _VERSIONS},
        "git_commit": git_commit(),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def open_folder(folder: Path, about: Mapping[str, Any], rows: Iterable[Row]) -> dict[tuple[int, str], Result]:
    """Write evaluation.json and instances.jsonl, or go on with what is there; returns the results that are there.

    Raises ConfigError where the folder holds something else, and RunError where it cannot be used.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        lines = b"".join(json.dumps(dict(row), default=str).encode() + b"\n" for row in rows)
        write_atomically(folder / "instances.jsonl", lines)
        write_atomically(path, (json.dumps(dict(about), indent=2) + "\n").encode())
        return {}
    earlier = load_evaluation(folder)
    differing = [key for key in SAME if _plain(earlier.about.get(key)) != _plain(about.get(key))]
    if differing:
        said = ", ".join(f"{key} {earlier.about.get(key)!r}, not {about.get(key)!r}" for key in differing)
        raise ConfigError(
            f"--out {str(folder)!r} holds an evaluation with {said}; give the same again, or choose another --out"
        )
    if earlier.runs > about["runs"]:
        raise ConfigError(
            f"--out {str(folder)!r} was begun with {earlier.runs} runs, more than {about['runs']}; "
            f"use --runs {earlier.runs}, or choose another --out"
        )
    continued = [*earlier.about.get("continued", []), _process()]
    now = {**earlier.about, **{key: about[key] for key in ("runs", "protocol") if key in about}, "continued": continued}
    write_atomically(path, (json.dumps(now, indent=2) + "\n").encode())
    drop_torn_line(folder / "results.jsonl")
    return dict(earlier.results)


def _plain(value: object) -> object:
    """As JSON has it: a tuple is a list."""
    return json.loads(json.dumps(value, default=str))
