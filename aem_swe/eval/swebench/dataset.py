"""The instances that an evaluation is about: rows in the form of swebench 5, and which of them are chosen.

    loaded = load_rows(Path("swe_bench_lite_dev.json"))
    chosen = select(loaded.rows, Selection(slice_="0:5", filter_="pvlib"))

Rows made before swebench 5 lack image, eval_script, log_parser and eval_type. swebench 5 no longer knows how such rows
were tested, beyond their parser; for repositories that are tested with plain pytest the script is written anew, the
others are refused with the reason.
"""

import hashlib
import importlib.metadata
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.errors import ConfigError, TaskError
from aem_swe.tasks.rows import SUFFIXES, BadRow, Row, read_rows, readable, text
from aem_swe.tasks.swebench_grading import HardenedSweBench, OfficialSweBench, harness
from aem_swe.tasks.swebench_rows import make_problem
from aem_swe.tasks.swebench_script import eval_script

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""What an instance id or a run id looks like: part of file names and of containers' names."""
_SEED = 42
_TAKEN = re.compile(r"logs|harness\.log|(preds|dataset|exit_statuses).*|.*\.json")
"""What a run's folder has beside the folders of its instances."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The usable rows in swebench-5 form, and the others."""

    rows: list[Row]
    bad: list[BadRow]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which instances, in mini-swe-agent's words."""

    split: str = ""
    """Of a folder: only its files whose names begin so. For `load_rows`."""
    subset: Path | None = None
    """A file of instance ids."""
    slice_: str = ""
    """Python's, such as 0:5; after all else."""
    filter_: str = ""
    """A regular expression that an id has to begin with."""
    shuffle: bool = False
    """Before the slice, the same order every time."""


def require_swebench() -> str:
    """The version of the swebench package. Raises ConfigError where it is missing."""
    harness("constants")
    return importlib.metadata.version("swebench")


def load_rows(path: Path, split: str = "") -> Dataset:
    """Read a file or a folder of rows. Raises ConfigError for what cannot be read, or holds no usable row, and where
    swebench is missing."""
    rows: list[Row] = []
    bad: list[BadRow] = []
    seen: set[str] = set()
    found = read_rows(path) if not split else (row for file in _of_split(path, split) for row in read_rows(file))
    for number, row in enumerate(found):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        identity = str(row.get("instance_id") or f"row {number}")
        try:
            if identity in seen:
                raise TaskError("column 'instance_id' has the same value as an earlier row")
            rows.append(present_form(row))
            seen.add(identity)
        except TaskError as error:
            bad.append(BadRow(identity, str(error)))
    if not rows:
        why = f"; the first: {bad[0].id}: {bad[0].reason}" if bad else ""
        raise ConfigError(
            f"data set {str(path)!r} holds no usable row of SWE-bench's form ({len(bad)} cannot be used{why}); "
            "give another file or folder"
        )
    return Dataset(rows, bad)


def _of_split(path: Path, split: str) -> list[Path]:
    with readable(path):
        files = sorted(path.iterdir())
    chosen = [file for file in files if file.suffix in SUFFIXES and file.name.startswith(split)]
    if not chosen:
        raise ConfigError(f"--split {split!r} fits no file of {str(path)!r}; it holds {[file.name for file in files]}")
    return chosen


def present_form(row: Row) -> Row:
    """A row with all that swebench 5 reads. Raises TaskError where it lacks something that cannot be made."""
    identity = text(row, "instance_id")
    if not NAME.fullmatch(identity) or _TAKEN.fullmatch(identity):
        raise TaskError(f"column 'instance_id' is {identity!r}, which cannot be part of a file name")
    problem = make_problem(row, reward="swebench" if row.get("eval_script") else "hardened")
    grader = problem.grader
    if isinstance(grader, OfficialSweBench):
        return {**row, **json.loads(grader.row)}
    assert isinstance(grader, HardenedSweBench)  # else make_problem has refused the row
    oracle = grader.oracle
    base, tests = text(row, "base_commit"), text(row, "test_patch")
    return {
        **row,
        "version": str(row.get("version") or ""),
        "image": problem.task.image,
        "eval_script": eval_script(base, tests, grader.run.arguments[1:]),
        "log_parser": oracle.log_parser,
        "eval_type": oracle.eval_type,
        "FAIL_TO_PASS": list(oracle.fail_to_pass),
        "PASS_TO_PASS": list(oracle.pass_to_pass),
    }


def select(rows: Sequence[Row], wanted: Selection) -> list[Row]:
    """The rows that are wanted: the subset, shuffled, filtered, and of what is left the slice. Raises ConfigError for
    what is no subset, filter or slice, and where nothing is left."""
    subset, filter_, slice_ = wanted.subset, wanted.filter_, wanted.slice_
    chosen = list(rows)
    if subset is not None:
        listed = read_ids(subset)
        unknown = sorted(listed - {row["instance_id"] for row in rows})
        if unknown:
            raise ConfigError(
                f"subset {str(subset)!r} names {len(unknown)} instances that the data set lacks, the first "
                f"{unknown[0]!r}; give the data set that it belongs to"
            )
        chosen = [row for row in chosen if row["instance_id"] in listed]
    if wanted.shuffle:
        chosen.sort(key=lambda row: str(row["instance_id"]))  # the same order whatever the file's is
        random.Random(_SEED).shuffle(chosen)
    try:
        chosen = [row for row in chosen if re.match(filter_, row["instance_id"])]
    except re.error as error:
        raise ConfigError(f"--filter {filter_!r} is no regular expression ({error}); try 'boltons'") from error
    if slice_:
        if not re.fullmatch(r"-?\d*(:-?\d*){1,2}", slice_):
            raise ConfigError(f"--slice {slice_!r} is no slice; write 0:5, 10: or :20")
        parts = [int(part) if part else None for part in slice_.split(":")]
        if parts[2:] == [0]:
            raise ConfigError(f"--slice {slice_!r} has a step of 0; write 0:5, 10: or :20")
        chosen = chosen[slice(*parts)]
    if not chosen:
        raise ConfigError(
            f"no instance of {len(rows)} is left by --subset, --filter {filter_!r} and --slice {slice_!r}"
        )
    return chosen


def read_ids(path: Path) -> set[str]:
    """Instance ids from a JSON list, or from a text with one in each line (# begins a remark). Raises ConfigError."""
    with readable(path):
        content = path.read_text("utf-8", "replace")
    if path.suffix == ".json":
        try:
            listed = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"subset {str(path)!r} is no JSON ({error}); give a list of instance ids") from error
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise ConfigError(f'subset {str(path)!r} is no JSON list of instance ids; write ["a__b-1", ...]')
        return set(listed)
    return {name for line in content.splitlines() if (name := line.partition("#")[0].strip())}


def dataset_sha256(rows: Iterable[Row]) -> str:
    """Hash of rows, the same whatever file they came from; their order counts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()
