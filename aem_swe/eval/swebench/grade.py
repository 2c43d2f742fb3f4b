"""Grade somebody's predictions by the official harness, into a folder that all other commands read (results.py).

A prediction that is graded is not graded again, whatever happened to the process; a kill costs what was under way.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.dataset import Selection, load_rows, require_swebench, select
from aem_swe.eval.swebench.folder import about_grading, open_folder
from aem_swe.eval.swebench.harness import MEMORY_MB, OfficialGrader, Verdict
from aem_swe.eval.swebench.papers import require_file_name
from aem_swe.eval.swebench.results import Evaluation, Result, Status, load_evaluation, result_line
from aem_swe.eval.swebench.submission import Submission, gold, no_op, read_submission
from aem_swe.eval.swebench.verdicts import patch_digest
from aem_swe.metrics import held, write_atomically
from aem_swe.sandboxes.base import DockerSettings
from aem_swe.sandboxes.diagnosis import require_images
from aem_swe.sandboxes.grading_engine import Network
from aem_swe.tasks.rows import Row

RUN = 1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What `aem-swe grade` is asked for."""

    dataset: Path
    predictions: Path | str
    """A file or folder, or "gold" or "no-op"."""
    out: Path | None = None
    """Default: runs/grade/MODEL."""
    selection: Selection = field(default_factory=Selection)
    model: str = ""
    run_id: str = f"run_{RUN}"
    workers: int = 2
    timeout_s: float = 1800.0
    network: Network = "none"
    memory_mb: int = MEMORY_MB
    engines: tuple[str, ...] = ()
    retries: int = 2
    redo: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A request that has been checked."""

    request: Request
    rows: Mapping[str, Row]
    submission: Submission
    about: Mapping[str, Any]

    @property
    def out(self) -> Path:
        return self.request.out or Path("runs/grade") / self.submission.model.replace("/", "__")

    @property
    def folder(self) -> Path:
        return self.out / f"run_{RUN}"


def prepare(request: Request, say: Say) -> Work:
    """Read and check all of it before anything is graded. Raises ConfigError, or EngineUnreachable."""
    require_swebench()
    loaded = load_rows(request.dataset, request.selection.split)
    for bad in loaded.bad:
        say(f"left out {bad.id}: {bad.reason}")
    rows = {str(row["instance_id"]): row for row in select(loaded.rows, request.selection)}
    submission = _submission(request, rows)
    unknown = sorted(submission.patches.keys() - {str(row["instance_id"]) for row in loaded.rows})
    if unknown:
        why = next((f": {bad.reason}" for bad in loaded.bad if bad.id == unknown[0]), "")
        raise ConfigError(
            f"{len(unknown)} of {len(submission.patches)} predictions are not in the data set "
            f"{str(request.dataset)!r}, the first is {unknown[0]!r}{why}; give the data set that they are for"
        )
    patches = {identity: patch for identity, patch in submission.patches.items() if identity in rows}
    if not patches:
        raise ConfigError("no prediction is for an instance that was selected; change --subset, --filter or --slice")
    images = [rows[identity]["image"] for identity, patch in patches.items() if patch]
    require_images(DockerSettings(engines=request.engines), images, str(request.dataset))
    require_file_name(submission.model)
    about = _about(request, rows, submission.model)
    return Work(request, rows, Submission(submission.model, patches), about)


def grade(work: Work, observe: Callable[[Result, Verdict | None], None]) -> Evaluation:
    """Grade what is not graded yet; returns all of it. observe: told of each result, those of earlier calls first.

    Raises ConfigError where the folder holds another grading, and RunError where it cannot be used.
    """
    request, patches = work.request, work.submission.patches
    with held(work.out, "--out"):
        done = _begin(work)
        digests = {identity: patch_digest(patch) for identity, patch in patches.items()}
        kept = {
            result.instance_id: result
            for result in done.values()
            if result.status is not Status.INFRASTRUCTURE and result.patch_sha256 == digests.get(result.instance_id, "")
        }
        for result in kept.values():
            observe(result, None)
        left = [identity for identity in work.rows if identity not in kept]
        summaries = list(work.folder.glob(f"*.{request.run_id}.json"))
        if left or not summaries:
            with (work.out / "results.jsonl").open("ab", buffering=0) as file, open_grader(work) as grader:
                for identity in left:
                    if identity not in patches:
                        absent = Result(identity, RUN, Status.EMPTY, "there is no prediction for it")
                        file.write(result_line(absent))
                        observe(absent, None)
                futures = {grader.grade(name, patches[name]): name for name in left if name in patches}
                for future in as_completed(futures):
                    name, verdict = futures[future], future.result()
                    result = _result(name, digests[name], verdict)
                    file.write(result_line(result))
                    observe(result, verdict)
                grader.write_report(patches)
    return load_evaluation(work.out)


def _submission(request: Request, rows: Mapping[str, Row]) -> Submission:
    if isinstance(request.predictions, Path):
        return read_submission(request.predictions, request.model)
    made = gold if request.predictions == "gold" else no_op
    return made(list(rows.values()))


def open_grader(work: Work) -> OfficialGrader:
    """The grader of a piece of work, to be entered."""
    request = work.request
    return OfficialGrader(
        work.folder,
        work.rows,
        model=work.submission.model,
        run_id=request.run_id,
        workers=request.workers,
        timeout_s=request.timeout_s,
        cache=work.out / "grades",
        engines=request.engines,
        network=request.network,
        memory_mb=request.memory_mb,
        retries=request.retries,
    )


def _result(name: str, digest: str, verdict: Verdict) -> Result:
    note = f" (the harness remarks: {verdict.note})" if verdict.note else ""
    return Result(
        name,
        RUN,
        verdict.status,
        reason=verdict.reason + note,
        patch_sha256=digest,
        attempts=max(1, verdict.attempts),
        seconds={"grading": verdict.seconds},
    )


def _about(request: Request, rows: Mapping[str, Row], model: str) -> dict[str, Any]:
    graded = about_grading(
        rows.values(),
        path=str(request.dataset),
        network=request.network,
        memory_mb=request.memory_mb,
        timeout_s=request.timeout_s,
        run_id=request.run_id,
    )
    return {"model": model, "runs": RUN, "predictions": str(request.predictions), **graded}


def _begin(work: Work) -> dict[tuple[int, str], Result]:
    """Go on with the folder, or begin in it; returns the results that stay."""
    done = open_folder(work.out, work.about, work.rows.values())
    predictions = [
        {"instance_id": name, "model_name_or_path": work.submission.model, "model_patch": patch}
        for name, patch in work.submission.patches.items()
    ]
    work.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(work.folder / "preds.jsonl", b"".join(json.dumps(one).encode() + b"\n" for one in predictions))
    if work.request.redo:
        shutil.rmtree(work.out / "grades", ignore_errors=True)
        (work.out / "results.jsonl").unlink(missing_ok=True)
        return {}
    return done
