"""Evaluations with given outcomes, in memory or as folders; their models and numbers are made up.

The runs of an instance are one character each: 1 resolved, 0 unresolved, e empty, E error, x infrastructure, - not
finished.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any  # JSON values hold anything

from aem_swe.eval.swebench.arms import Arm
from aem_swe.eval.swebench.results import Evaluation, Instance, Result, Status, result_line

OUTCOMES = {
    "1": Status.RESOLVED,
    "0": Status.UNRESOLVED,
    "e": Status.EMPTY,
    "E": Status.ERROR,
    "x": Status.INFRASTRUCTURE,
}


def make_evaluation(runs_of: Mapping[str, str], name: str = "a", **about: Any) -> Evaluation:
    """make_evaluation({"django__django-1": "101"}, "a", training_seed=1): three runs of one instance."""
    instances = [Instance(one, one.rsplit("-", 1)[0].replace("__", "/"), "") for one in runs_of]
    return of_instances(instances, runs_of, name, **about)


def of_instances(
    instances: Sequence[Instance], runs_of: Mapping[str, str], name: str = "a", **about: Any
) -> Evaluation:
    results = {
        (run, one): Result(one, run, OUTCOMES[outcome])
        for one, outcomes in runs_of.items()
        for run, outcome in enumerate(outcomes, 1)
        if outcome != "-"
    }
    runs = max((len(outcomes) for outcomes in runs_of.values()), default=1)
    return Evaluation(Path(name), {"model": name, "runs": runs} | about, tuple(instances), results)


def make_arm(*evaluations: Evaluation, label: str = "") -> Arm:
    return Arm(label or evaluations[0].arm, evaluations)


def numbered(*outcomes: str) -> dict[str, str]:
    """The runs of instances of one repository: numbered("1", "0") is django__django-0 and -1."""
    return {f"django__django-{number}": runs for number, runs in enumerate(outcomes)}


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """As `aem-swe eval` leaves it, without the runs' own folders."""
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(dict(evaluation.about)))
    keys = ("instance_id", "repo", "difficulty")
    rows = [dict(zip(keys, (one.id, one.repository, one.difficulty), strict=True)) for one in evaluation.instances]
    (folder / "instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "results.jsonl").write_bytes(b"".join(map(result_line, evaluation.results.values())))
    return folder
