"""The same patches judged three ways, to see whether the reward that trains agrees with the harness that reports.

- `hardened`: the training reward, in a fresh sandbox, with the policy of docs/grading.md
- `official`: the SWE-bench harness
- `swebench`: the row's eval_script in a sandbox of ours, believed, with nothing of the patch left out

Where `hardened` says 0 and `official` says 1, either a forgery was caught or an honest patch was cut short; where it is
the other way round, the patch spoils what the harness leans on. `swebench` tells which half of the difference is the
sandbox and which is the policy.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal  # Any: JSON values

from aem_swe.errors import SandboxError, TaskError
from aem_swe.eval.swebench.grade import Work, open_grader
from aem_swe.eval.swebench.results import Status
from aem_swe.eval.swebench.verdicts import Verdict
from aem_swe.metrics import held, write_atomically
from aem_swe.sandboxes import DockerSettings, Sandboxes, SandboxLimits, open_sandboxes
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.rows import Row
from aem_swe.tasks.source import grading_programs
from aem_swe.tasks.swebench_grading import OfficialSweBench
from aem_swe.tasks.swebench_rows import make_problem

Way = Literal["hardened", "official", "swebench"]
WAYS: tuple[Way, ...] = ("hardened", "official", "swebench")
_TRIES = 3
_PROCESSES, _DISK_MB = 1024, 2048
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Opinion:
    """One way's verdict on one patch."""

    score: float | None
    """1 or 0; None: the machine failed."""
    reason: str


@dataclass(frozen=True, slots=True)
class Audited:
    """One patch, three times."""

    instance_id: str
    opinions: Mapping[Way, Opinion]

    @property
    def scores(self) -> tuple[float | None, ...]:
        """In the order of WAYS."""
        return tuple(self.opinions[way].score for way in WAYS)

    @property
    def agree(self) -> bool:
        return len(set(self.scores) - {None}) <= 1


@dataclass(frozen=True, slots=True)
class Audit:
    """All patches of a submission."""

    patches: Sequence[Audited]
    seconds: float

    def table(self) -> dict[tuple[float | None, ...], int]:
        """{(hardened, official, swebench): number of patches}, the most frequent first."""
        return dict(Counter(one.scores for one in self.patches).most_common())

    def confusion(self) -> dict[tuple[int, int], int]:
        """{(hardened, official): number of patches} of those that both could judge."""
        pairs = [one.scores[:2] for one in self.patches]
        return {(h, o): pairs.count((float(h), float(o))) for h in (1, 0) for o in (1, 0)}

    @property
    def disagreements(self) -> list[Audited]:
        return [one for one in self.patches if not one.agree]


def audit(work: Work, observe: Callable[[Audited], None]) -> Audit:
    """Judge every patch of a submission three ways; writes audit.json beside the harness's files. Raises like
    `grade.grade`."""
    started = time.perf_counter()
    request, patches = work.request, work.submission.patches
    limits = SandboxLimits(
        memory_mb=request.memory_mb or 1 << 20,
        processes=_PROCESSES,
        disk_mb=_DISK_MB,
        command_timeout_s=request.timeout_s,
    )
    sandboxes = open_sandboxes(
        "docker",
        limits=limits,
        programs=grading_programs(),
        docker=DockerSettings(engines=request.engines),
        run=f"audit {work.out}",
    )
    audited: list[Audited] = []
    with held(work.out, "--out"), sandboxes, open_grader(work) as grader, ThreadPoolExecutor(request.workers) as pool:
        official = {name: grader.grade(name, patch) for name, patch in patches.items()}
        ours = {name: pool.submit(_ours, work.rows[name], patch, work, sandboxes) for name, patch in patches.items()}
        try:
            for name in patches:
                one = Audited(name, {**ours[name].result(), "official": _official(official[name].result())})
                audited.append(one)
                observe(one)
            grader.write_report(patches)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            sandboxes.close()  # so that what is under way ends now
            raise
    found = Audit(tuple(audited), time.perf_counter() - started)
    write_atomically(work.out / "audit.json", (json.dumps(_said(work, found), indent=2) + "\n").encode())
    return found


def lines(found: Audit) -> list[str]:
    """What a person wants to read: the two tables and every disagreement."""
    both = found.confusion()
    total = sum(both.values())
    rows = [f"{'':16}official 1  official 0"]
    rows += [f"hardened {hardened:<7}{both[hardened, 1]:10}  {both[hardened, 0]:10}" for hardened in (1, 0)]
    rows += [f"hardened and official agree on {both[1, 1] + both[0, 0]} of {total} patches", ""]
    rows += ["  ".join(f"{name:8}" for name in (*WAYS, "patches")).rstrip()]
    for scores, number in found.table().items():
        rows.append("  ".join(f"{_word(score):8}" for score in scores) + f"  {number}")
    for one in found.disagreements:
        rows.append("")
        for way in WAYS:
            opinion = one.opinions[way]
            rows.append(f"{one.instance_id} {way} {_word(opinion.score)}: {opinion.reason}")
    return rows


def _ours(row: Row, patch: str, work: Work, sandboxes: Sandboxes) -> dict[Way, Opinion]:
    timeout = work.request.timeout_s
    believing = make_problem(row, reward="swebench", timeout_s=timeout)
    assert isinstance(believing.grader, OfficialSweBench)  # what this reward always is
    ways: dict[Way, Problem] = {
        "hardened": make_problem(row, reward="hardened", timeout_s=timeout),
        "swebench": replace(believing, grader=replace(believing.grader, trusting=True)),
    }
    return {way: _opinion(problem, patch, sandboxes) for way, problem in ways.items()}


def _opinion(problem: Problem, patch: str, sandboxes: Sandboxes) -> Opinion:
    if not patch:
        return Opinion(0.0, "there is no patch")
    error: Exception | None = None
    for _ in range(_TRIES):
        try:
            with sandboxes.open(problem.task, purpose="grading") as sandbox:
                graded = problem.grader.grade(problem.task, patch.encode("utf-8", "surrogateescape"), sandbox)
            said = " ".join(graded.output.split())[:_SHOWN]
            return Opinion(graded.reward, f"{graded.reason}: {said}" if said else graded.reason)
        except (SandboxError, TaskError) as failed:
            error = failed
    return Opinion(None, str(error))


def _official(verdict: Verdict) -> Opinion:
    if verdict.status is Status.INFRASTRUCTURE:
        return Opinion(None, verdict.reason)
    score = float(verdict.status is Status.RESOLVED)
    return Opinion(score, f"{verdict.status}: {verdict.reason}" if verdict.reason else str(verdict.status))


def _said(work: Work, found: Audit) -> dict[str, Any]:
    return {
        **work.about,
        "seconds": found.seconds,
        "table": [dict(zip(WAYS, scores, strict=True)) | {"patches": n} for scores, n in found.table().items()],
        "disagreements": [one.instance_id for one in found.disagreements],
        "patches": [
            {"instance_id": one.instance_id, **{way: asdict(one.opinions[way]) for way in WAYS}}
            for one in found.patches
        ],
    }


def _word(score: float | None) -> str:
    return "-" if score is None else f"{score:g}"


def default_out(model: str) -> Path:
    """Where an audit goes that was told nowhere."""
    return Path("runs/audit") / model.replace("/", "__")
