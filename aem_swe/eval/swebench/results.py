"""What an evaluation leaves behind, and how it is read again.

OUT/evaluation.json    model, arm, training seed, protocol, data set, versions: "can I reproduce this?"
    instances.jsonl    the rows that are graded against, in the form of swebench 5
    results.jsonl      one `Result` per run and instance; where a key occurs twice, the last line counts
    run_K/             preds.jsonl, preds.json, exit_statuses_run_K.yaml, <model>.<run id>.json and logs/ of the harness
    run_K/ID/          ID.traj.json (mini-swe-agent's form) and journal.jsonl (the turns, as they were made)
    report.html

Everything below run_K was written by a policy or by code that it ran: data of any kind.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from aem_swe.errors import RunError
from aem_swe.eval.jsonl import number, read_rows
from aem_swe.eval.statistics import Floats

MOST_RUNS = 10_000
"""More is a damaged file, which should end in one line and not in tables that fill the memory."""
_Count = Annotated[int, Field(ge=0)]


class Status(StrEnum):
    """What became of an instance in one run. Only RESOLVED scores; INFRASTRUCTURE is out of every mean."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    EMPTY = "empty"
    """There is no patch."""
    ERROR = "error"
    """The harness could not finish for the patch's own reason: it does not apply, or its tests reach their limit."""
    INFRASTRUCTURE = "infrastructure"
    """The world failed after every retry (endpoint, container, engine): excluded and counted, never graded as wrong."""


@dataclass(frozen=True, slots=True)
class Result:
    """One instance of one run."""

    instance_id: str
    run: Annotated[int, Field(ge=1)]
    """1-based."""
    status: Status
    reason: str = ""
    """One line: why it is not resolved."""
    termination: str = ""
    """How the episode ended (types.Termination); empty for a patch that somebody else made."""
    patch_sha256: str = ""
    attempts: _Count = 1
    """Episodes that were begun; all but the last ended in an infrastructure error."""
    turns: _Count = 0
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    lost_tokens: _Count = 0
    """Of answers that became no turn: of attempts that were given up, and of requests under way at a kill."""
    lost_requests: _Count = 0
    """Requests under way at a kill, whose cost at the server is not known."""
    cost: FiniteFloat | None = None
    """Of all tokens, the lost ones too, in the currency of the prices given; None without prices."""
    seconds: Mapping[str, FiniteFloat] = field(default_factory=dict)
    """policy, sandbox, tools, grading."""

    @property
    def score(self) -> float:
        """1.0, 0.0, or NaN where the instance is out of every mean."""
        return float("nan") if self.status is Status.INFRASTRUCTURE else float(self.status is Status.RESOLVED)


_CHECKED = TypeAdapter(Result)


@dataclass(frozen=True, slots=True)
class Instance:
    """What tables need of a row."""

    id: str
    repository: str
    difficulty: str
    """As the data set has it, such as '<15 min fix'; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluated checkpoint: K runs over the same instances. Legend: R run, I instance."""

    folder: Path
    about: Mapping[str, Any]  # JSON values of evaluation.json
    instances: tuple[Instance, ...]
    results: Mapping[tuple[int, str], Result]
    """By (run, instance id); only what is finished."""
    unreadable_lines: int = 0

    @property
    def model(self) -> str:
        return str(self.about.get("model", self.folder.name))

    @property
    def arm(self) -> str:
        """What a comparison pools: the method, where --arm named one, else the model."""
        return str(self.about.get("arm") or self.model)

    @property
    def training_seed(self) -> object:
        return self.about.get("training_seed")

    @property
    def runs(self) -> int:
        return int(number(self.about.get("runs")) or 1)

    @property
    def complete(self) -> bool:
        return len(self.results) == self.runs * len(self.instances)

    def scores_RI(self) -> Floats:
        """1 resolved, 0 not, NaN excluded or not finished; [runs, instances] in the order of `instances`."""
        nothing = float("nan")
        table = [
            [self.results[run, one.id].score if (run, one.id) in self.results else nothing for one in self.instances]
            for run in range(1, self.runs + 1)
        ]
        return np.array(table, float).reshape(self.runs, len(self.instances))

    def count(self, run: int | None = None) -> dict[Status, int]:
        """How many results have each status, in one run or in all."""
        chosen = [result for result in self.results.values() if run in (None, result.run)]
        return {status: sum(result.status is status for result in chosen) for status in Status}

    def run_folder(self, run: int) -> Path:
        return self.folder / f"run_{run}"

    def trajectory_file(self, run: int, instance_id: str) -> Path:
        return self.run_folder(run) / instance_id / f"{instance_id}.traj.json"


def is_evaluation(folder: Path) -> bool:
    return (folder / "evaluation.json").is_file()


def load_evaluation(folder: Path) -> Evaluation:
    """Read a folder that `aem-swe eval` or `aem-swe grade` wrote. Raises RunError where it is none, or broken."""
    path = folder / "evaluation.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}); give a folder that `aem-swe eval` or `aem-swe grade` wrote"
        ) from error
    except ValueError as error:
        raise RunError(f"{path} is no JSON ({error}); restore it, or evaluate again") from error
    if not isinstance(about, dict):
        raise RunError(f"{path} holds a {type(about).__name__}, not an object; restore it, or evaluate again")
    if not 1 <= (number(about.get("runs", 1)) or 0) <= MOST_RUNS:
        raise RunError(f"{path} says runs = {about['runs']!r}; it must be 1 to {MOST_RUNS}: restore it")
    instances = []
    for row in read_rows(folder / "instances.jsonl"):
        if row is not None:
            texts = (str(row.get(key) or "") for key in ("instance_id", "repo", "difficulty"))
            instances.append(Instance(*texts))
    known = {one.id for one in instances}
    results: dict[tuple[int, str], Result] = {}
    unreadable = 0
    file = folder / "results.jsonl"
    for row in read_rows(file) if file.exists() else ():
        result = result_of(row) if row is not None else None
        if result is None or result.instance_id not in known:
            unreadable += 1
        else:
            results[result.run, result.instance_id] = result
    return Evaluation(folder, about, tuple(instances), results, unreadable)


def load_evaluations(folders: Sequence[Path]) -> list[Evaluation]:
    return [load_evaluation(folder) for folder in folders]


def result_line(result: Result) -> bytes:
    """One line of results.jsonl."""
    return (json.dumps({**asdict(result), "status": str(result.status)}) + "\n").encode()


def result_of(row: Mapping[str, Any]) -> Result | None:
    """The result in a line of results.jsonl; None where it is none."""
    known = {one.name for one in fields(Result)}
    try:
        return _CHECKED.validate_python({key: value for key, value in row.items() if key in known}, strict=False)
    except ValidationError:
        return None
