"""What an official grading means, and its cache: a verdict belongs to a patch, not to a run.

The harness itself keeps its results by run id, model and instance, whatever the patch. Here the key is a hash of all
that can change a verdict: the row's grading columns, the image's id, the patch, the harness's version, the limits. What
the machine is to blame for is never kept.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any  # reports are JSON

from aem_swe.eval.swebench.results import Status
from aem_swe.sandboxes.grading_engine import ContainerLimits
from aem_swe.tasks.rows import Row

GRADING_COLUMNS = (
    "instance_id",
    "repo",
    "version",
    "eval_script",
    "log_parser",
    "eval_type",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
    "image_assets",
)
"""The columns of a row that a verdict depends on, beside its image."""
_FORMAT = "1"
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a patch."""

    status: Status
    reason: str
    """One line: why it is not resolved."""
    seconds: float
    """Of the grading that decided."""
    cached: bool
    attempts: int
    """Gradings that were begun."""
    note: str = ""
    """What the harness remarks without deciding by it, such as a log that looks like a broken environment."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One grading, judged. status None: the machine failed, try again."""

    status: Status | None
    reason: str
    note: str = ""
    timed_out: bool = False
    suspect: bool = False
    """It failed after code of the patch had run, on an engine that answers: it may have been the patch."""


@dataclass(frozen=True, slots=True)
class Graded:
    """What the cache keeps: a verdict and the harness's own papers."""

    status: Status
    reason: str
    note: str
    seconds: float
    report: Mapping[str, Any] | None
    test_output: str


def judge(said: Mapping[str, Any]) -> Judged:
    """Say what an answer of harness_child.py means. A text that code under test has printed decides nothing here."""
    kind, detail = said.get("kind"), _line(str(said.get("detail", "")))
    alive = said.get("container") == "running"
    suspect = bool(said.get("testing")) and bool(said.get("answers"))
    if kind == "graded" and alive and not (said.get("works") or said["report"].get("tests_status")):
        return Judged(None, "nothing could be run in the container when its tests had ended", suspect=suspect)
    if kind == "graded" and alive:
        return _read_report(said["report"])
    if kind == "graded":
        return Judged(None, f"the container was {said.get('container')} when its tests had ended", suspect=suspect)
    if kind == "does_not_apply" and alive and said.get("works"):
        return Judged(Status.ERROR, f"the patch does not apply: {detail}")
    if kind == "timeout" and alive:
        return Judged(Status.ERROR, "the tests reached their time limit", timed_out=True)
    if kind == "harness" and alive:
        return Judged(Status.ERROR, f"the harness could not finish: {detail}")
    return Judged(None, detail or "the harness gave no reason", suspect=suspect)


def give_up(tries: list[Judged]) -> Judged:
    """What it is after the last try: a patch that ends its own container every time does not get out of the score."""
    if all(one.suspect for one in tries):
        return Judged(Status.ERROR, f"its container did not outlive its tests, {len(tries)} times: {tries[-1].reason}")
    return Judged(Status.INFRASTRUCTURE, tries[-1].reason)


def _read_report(report: Mapping[str, Any]) -> Judged:
    if report["resolved"]:
        return Judged(Status.RESOLVED, "")
    note = str(report.get("infra_failure_reason") or "")
    tests = report.get("tests_status")
    if not tests:
        return Judged(Status.UNRESOLVED, "the log holds no results that the harness accepts", note)
    lists = [tests[name][side] for name in ("FAIL_TO_PASS", "PASS_TO_PASS") for side in ("failure", "success")]
    failed = [*lists[0], *lists[2]]
    first = f", first {failed[0]!r}" if failed else ""
    return Judged(Status.UNRESOLVED, f"{len(failed)} of {sum(map(len, lists))} tests did not pass{first}", note)


def _line(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def key_of(row: Row, image_id: str, patch: str, *, swebench: str, timeout_s: float, limits: ContainerLimits) -> str:
    """The name of a verdict. Two gradings with the same key would be the same grading."""
    told = {column: row.get(column) for column in GRADING_COLUMNS}
    bounds = asdict(limits) | {"lifetime_s": None}  # when others may clean up decides nothing
    said = json.dumps([_FORMAT, told, image_id, patch, swebench, timeout_s, bounds], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()


def patch_digest(patch: str) -> str:
    """The first 16 characters of the SHA-256; empty where there is no patch."""
    return hashlib.sha256(patch.encode("utf-8", "surrogatepass")).hexdigest()[:16] if patch else ""


class GradeCache:
    """A folder of verdicts, one file each. Any number of processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Graded | None:
        """None where there is none, or where the file is not what was written."""
        try:
            said = json.loads(self._path(key).read_text("utf-8"))
            kept = said["kept"]
            if said["check"] != _check(kept):
                return None
            return Graded(**{**kept, "status": Status(kept["status"])})
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def put(self, key: str, graded: Graded) -> None:
        """Keep a verdict, whole or not at all. What the machine is to blame for is refused."""
        assert graded.status is not Status.INFRASTRUCTURE
        kept = json.loads(json.dumps({**asdict(graded), "status": str(graded.status)}))
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f".{key}.{secrets.token_hex(4)}"
        new.write_text(json.dumps({"check": _check(kept), "kept": kept}), "utf-8")
        os.replace(new, self._path(key))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _check(kept: object) -> str:
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
