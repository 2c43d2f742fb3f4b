"""Grading by the official SWE-bench harness, asynchronously, with a verdict for every patch.

    settings = {"workers": 4, "timeout_s": 1800, "cache": out / "grades"}
    with OfficialGrader(out / "run_1", rows, model="m", run_id="r1", **settings) as grader:
        print(grader.grade("boltons__boltons-1", patch).result().status)
        grader.write_report({"boltons__boltons-1": patch})

The harness runs in a child (harness_child.py) that is kept alive. A patch whose verdict is known is not graded again. A
grading that the machine spoilt is repeated, and after the last try it is INFRASTRUCTURE, which is never a wrong answer.
"""

import contextlib
import itertools
import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self  # Any: answers of the harness are JSON

from aem_swe.errors import ConfigError, SandboxError
from aem_swe.eval.swebench.dataset import NAME, require_swebench
from aem_swe.eval.swebench.grading_engines import Engines
from aem_swe.eval.swebench.harness_process import HarnessDied, HarnessProcess
from aem_swe.eval.swebench.papers import Papers, require_file_name
from aem_swe.eval.swebench.results import Status
from aem_swe.eval.swebench.verdicts import GradeCache, Graded, Judged, Verdict, give_up, judge, key_of
from aem_swe.sandboxes.grading_engine import ContainerLimits, remove_left
from aem_swe.tasks.rows import Row

__all__ = ["OfficialGrader", "Verdict", "require_swebench"]
MEMORY_MB = 8192
_SETUP_S = 900.0
"""Of a grading, beside its tests: engines under load take long to start and to remove a container."""
_PAUSES_S = (1.0, 4.0, 15.0)
_REPORT_S = 600.0
_FRESH, _AGAIN = 0, 1


@dataclass(slots=True)
class _Job:
    instance_id: str
    patch: str
    future: "Future[Verdict]"
    tries: list[Judged] = field(default_factory=list)
    timeouts: int = 0
    alone: bool = False
    """It was being graded when the harness died: only one such at a time may go on."""


class OfficialGrader:
    """Grades patches of one model in one run. Any thread may call."""

    def __init__(
        self,
        folder: Path,
        rows: Mapping[str, Row],
        *,
        model: str,
        run_id: str,
        workers: int,
        timeout_s: float,
        cache: Path,
        engines: Sequence[str] = (),
        network: Literal["none", "bridge"] = "none",
        memory_mb: int = MEMORY_MB,
        retries: int = 2,
    ) -> None:
        """folder: where logs/ and <model>.<run id>.json go. rows: in swebench-5 form (dataset.py), by instance id.
        retries: of a grading that the machine spoilt. Raises ConfigError for names that cannot be file names, and
        where swebench is missing."""
        if not NAME.fullmatch(run_id):
            raise ConfigError(f"run id {run_id!r} is part of file names; use letters, digits, '_', '-' and '.'")
        require_file_name(model)
        self._version = require_swebench()
        self._folder, self._rows, self._model, self._run_id = folder.resolve(), rows, model, run_id
        self._papers = Papers(self._folder, model, run_id)
        self._timeout_s, self._retries, self._cache = timeout_s, retries, GradeCache(cache)
        self._limits = ContainerLimits(network=network, memory_mb=memory_mb, lifetime_s=timeout_s + 2 * _SETUP_S)
        self._engines = Engines(engines, [row["image"] for row in rows.values()])
        self._workers = workers
        self._run = f"grade {self._folder} {run_id}"
        self._numbers, self._jobs = itertools.count(), queue.PriorityQueue[tuple[int, int, _Job | None]]()
        self._locks = {identity: threading.Lock() for identity in rows}
        self._alone = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        settings = {
            "run": self._run,
            "run_id": self._run_id,
            "model": self._model,
            "timeout_s": int(self._timeout_s) if self._timeout_s == int(self._timeout_s) else self._timeout_s,
            "workers": self._workers,
            "limits": asdict(self._limits),
        }
        for url in self._engines.urls:
            remove_left(url, self._run)
        self._process = HarnessProcess(self._folder, settings, self._engines.urls)
        self._threads = [
            threading.Thread(target=self._work, name=f"aem-swe-grade-{number}", daemon=True)
            for number in range(self._workers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    @property
    def process(self) -> HarnessProcess:  # the child, for those who look after it
        return self._process

    def grade(self, instance_id: str, patch: str) -> "Future[Verdict]":
        """Begin to grade a patch. Raises ConfigError for an unknown instance; the future: HarnessDied once closed."""
        if instance_id not in self._rows:
            raise ConfigError(f"instance {instance_id!r} is not in the data set; give the one that it belongs to")
        job = _Job(instance_id, patch, Future())
        self._put(_FRESH, job)
        return job.future

    def write_report(self, predictions: Mapping[str, str]) -> Path:
        """Write the harness's own summary, <model>.<run id>.json, of graded patches; return its path. Raises
        HarnessDied, and ConfigError without predictions."""
        if not predictions:
            raise ConfigError("there are no predictions to report on; grade at least one")
        for identity, patch in predictions.items():
            with self._locks[identity]:
                self._papers.restore(identity, patch, self._known(identity, patch))
        rows = self._folder / "dataset.jsonl"
        rows.write_text("".join(json.dumps(dict(row), default=str) + "\n" for row in self._rows.values()), "utf-8")
        request = {"kind": "report", "rows": str(rows), "dataset": rows.name, "predictions": dict(predictions)}
        said = self._process.ask(request, _REPORT_S)
        if said["kind"] != "reported":
            raise HarnessDied(f"the harness could not write its summary: {said.get('detail')}")
        return self._folder / str(said["file"])

    def close(self) -> None:
        """End everything now; what is not graded yet never will be."""
        self._closing.set()
        self._process.close()
        for _ in self._threads:
            self._jobs.put((-1, next(self._numbers), None))
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            job = self._jobs.get()[2]
            if job is not None and not job.future.done():
                job.future.set_exception(HarnessDied("the grading was closed"))
        for url in self._engines.urls:
            remove_left(url, self._run)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, priority: int, job: _Job) -> None:
        self._jobs.put((priority, next(self._numbers), job))

    def _work(self) -> None:
        while (job := self._jobs.get()[2]) is not None:
            if self._closing.is_set():
                job.future.set_exception(HarnessDied("the grading was closed"))
                continue
            try:
                with self._alone if job.alone else contextlib.nullcontext(), self._locks[job.instance_id]:
                    verdict = self._verdict(job)
            except BaseException as error:  # a full disk, say: whoever waits for the future has to hear of it
                job.future.set_exception(error)
                continue
            if verdict is not None:
                job.future.set_result(verdict)
            elif self._closing.is_set():
                job.future.set_exception(HarnessDied("the grading was closed"))
            else:
                self._put(_AGAIN, job)

    def _verdict(self, job: _Job) -> Verdict | None:
        """None: to be tried again when nothing fresh waits."""
        if job.patch == "":
            return Verdict(Status.EMPTY, "there is no patch", 0.0, cached=False, attempts=0)
        started = time.perf_counter()
        report, attempts = None, len(job.tries) + job.timeouts + 1
        try:
            key = self._key(job.instance_id, job.patch)
            if (known := self._cache.get(key)) is not None:
                self._papers.restore(job.instance_id, job.patch, known)
                return Verdict(known.status, known.reason, known.seconds, True, attempts - 1, known.note)
            said = self._once(job)
            judged, report = judge(said), said.get("report")
        except HarnessDied as error:
            judged, job.alone = Judged(None, str(error)), True
        except SandboxError as error:
            judged = Judged(None, str(error))
        if self._closing.is_set():  # which ends containers, and tests in them
            return None
        seconds = time.perf_counter() - started
        if judged.timed_out and not job.timeouts:
            job.timeouts = 1
            return None
        if judged.status is None:
            job.tries.append(judged)
            if len(job.tries) <= self._retries:
                self._closing.wait(_PAUSES_S[min(len(job.tries), len(_PAUSES_S)) - 1])
                return None
            judged = give_up(job.tries)
        elif judged.status is not Status.INFRASTRUCTURE:
            output = self._papers.test_output(job.instance_id)
            self._cache.put(key, Graded(judged.status, judged.reason, judged.note, seconds, report, output))
        return Verdict(judged.status or Status.INFRASTRUCTURE, judged.reason, seconds, False, attempts, judged.note)

    def _once(self, job: _Job) -> dict[str, Any]:
        """Let the harness grade once, with no paper of an earlier patch in its way."""
        row = self._rows[job.instance_id]
        self._papers.clear(job.instance_id)
        url = self._engines.take(row["image"])
        answers = True
        try:
            request = {"kind": "grade", "engine": url, "row": _plain(row), "patch": job.patch}
            said = self._process.ask(request, self._timeout_s + _SETUP_S)
            answers = bool(said.get("answers", said["kind"] != "world"))
            return said
        finally:
            self._engines.give_back(url, answers=answers)

    def _known(self, identity: str, patch: str) -> Graded | None:
        if patch == "":
            return None
        with contextlib.suppress(SandboxError):
            return self._cache.get(self._key(identity, patch))
        return None

    def _key(self, identity: str, patch: str) -> str:
        row = self._rows[identity]
        return key_of(
            row,
            self._engines.image_id(row["image"]),
            patch,
            swebench=self._version,
            timeout_s=self._timeout_s,
            limits=self._limits,
        )


def _plain(row: Row) -> dict[str, Any]:
    """A row as JSON can say it; dates of a parquet file become text."""
    return dict(json.loads(json.dumps(dict(row), default=str)))
