"""What an evaluation is to do, and how it begins: in a new folder, or in one where the same was begun before."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.protocol import Protocol
from aem_swe.eval.swebench.results import Result, load_evaluation
from aem_swe.metrics import write_atomically
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.rows import Row

Unit = tuple[int, str]
"""(run, instance id)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    folder: Path
    model: str
    protocol: Protocol
    rows: Mapping[str, Row]
    """By instance id, in the form of swebench 5."""
    problems: Sequence[Problem]
    """The same instances, in the order in which they are played."""
    workers: int
    grading_workers: int
    engines: tuple[str, ...] = ()
    prices: tuple[float, float] | None = None
    """Of a million prompt and completion tokens."""
    give_up_after: int = 10
    """Infrastructure errors in a row that stop the evaluation."""

    @property
    def units(self) -> list[Unit]:
        return [(run, one.task.id) for run in range(1, self.protocol.runs + 1) for one in self.problems]


_SAME = ("model", "protocol_sha256", "dataset_sha256", "seed", "arm", "training_seed")
"""What an evaluation that goes on has to share with the one that was begun; there may be more runs."""


def begin(plan: Plan, about: Mapping[str, Any]) -> dict[Unit, Result]:
    """Write evaluation.json and instances.jsonl, or find them written; returns the results that are there.

    about: what evaluation.json should say. Raises ConfigError where another evaluation was begun in the folder, and
    RunError where the folder cannot be used.
    """
    path = plan.folder / "evaluation.json"
    if not path.exists():
        rows = b"".join(json.dumps(plan.rows[problem.task.id]).encode() + b"\n" for problem in plan.problems)
        write_atomically(plan.folder / "instances.jsonl", rows)
        write_atomically(path, (json.dumps(dict(about), indent=2) + "\n").encode())
        return {}
    earlier = load_evaluation(plan.folder)
    differing = [key for key in _SAME if earlier.about.get(key) != about.get(key)]
    if differing:
        said = ", ".join(f"{key} {earlier.about.get(key)!r}, not {about.get(key)!r}" for key in differing)
        raise ConfigError(
            f"--out {str(plan.folder)!r} holds an evaluation with {said}; give the same again, or choose another --out"
        )
    if earlier.runs < plan.protocol.runs:
        amended = {**earlier.about, "runs": plan.protocol.runs}
        write_atomically(path, (json.dumps(amended, indent=2) + "\n").encode())
    elif earlier.runs > plan.protocol.runs:
        raise ConfigError(
            f"--out {str(plan.folder)!r} was begun with {earlier.runs} runs, more than {plan.protocol.runs}; "
            f"use --runs {earlier.runs}, or choose another --out"
        )
    _drop_torn_line(plan.folder / "results.jsonl")
    return dict(earlier.results)


def _drop_torn_line(path: Path) -> None:
    """What a kill left of a last line would become the beginning of the next one."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
