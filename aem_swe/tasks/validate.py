"""Is a task fit for training? Its reference fix must earn 1 and no change must earn 0, every time it is tried.

Each trial takes a fresh sandbox and is one line of a jsonl file, so a validation can be stopped and go on. A trial
whose sandbox failed is tried again at the next start; a task is judged by its finished trials alone.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from aem_swe.errors import ConfigError, SandboxError, TaskError
from aem_swe.sandboxes.base import Sandbox, Sandboxes
from aem_swe.tasks.grading import Problem

Check = Literal["gold", "no-op"]
CHECKS: tuple[Check, ...] = ("gold", "no-op")
Verdict = Literal["good", "flaky", "broken", "unjudged"]
Gold = Callable[[Problem, Sandbox], bytes]
"""Makes the reference fix in a fresh sandbox, where a task has it as a program and not as a patch."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One grading of one task."""

    id: str
    digest: str
    """Of the task, its grader and its gold: a trial of an older version of a row does not count."""
    check: Check
    repeat: int
    reward: float | None
    """None: the sandbox failed, or the task cannot be set up."""
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Judged:
    """A task and what its trials say."""

    id: str
    gold: tuple[float | None, ...]
    no_op: tuple[float | None, ...]
    reasons: tuple[str, ...]
    """Of the trials that were not as they should be, each once."""
    gold_seconds: float
    """The longest grading of the gold patch."""

    @property
    def verdict(self) -> Verdict:
        if not self.gold or None in (*self.gold, *self.no_op):
            return "unjudged"
        if set(self.gold) == {1.0} and set(self.no_op) == {0.0}:
            return "good"
        return "flaky" if len(set(self.gold)) > 1 or len(set(self.no_op)) > 1 else "broken"


def validate(
    problems: Sequence[Problem],
    sandboxes: Sandboxes,
    *,
    repeats: int,
    workers: int,
    record: Path,
    gold: Gold | None = None,
    observe: Callable[[Trial], None] = lambda trial: None,
) -> list[Judged]:
    """Try every problem `repeats` times each way; finished trials in `record` are not repeated. In the given order."""
    digests = {problem.task.id: digest_of(problem) for problem in problems}
    done = {(t.id, t.check, t.repeat): t for t in read_trials(record) if digests.get(t.id) == t.digest}
    done = {key: trial for key, trial in done.items() if trial.reward is not None}
    wanted = [
        (problem, check, repeat)
        for repeat in range(repeats)
        for problem in problems
        for check in CHECKS
        if (problem.task.id, check, repeat) not in done
    ]
    record.parent.mkdir(parents=True, exist_ok=True)
    _drop_torn_line(record)
    sandboxes.expect([problem.task for problem, _, _ in wanted])
    with ThreadPoolExecutor(workers) as pool, record.open("a") as out:
        futures = [pool.submit(_try, *unit, digests[unit[0].task.id], sandboxes, gold) for unit in wanted]
        try:
            for future in as_completed(futures):
                trial = future.result()
                done[trial.id, trial.check, trial.repeat] = trial
                out.write(json.dumps(asdict(trial)) + "\n")
                out.flush()
                observe(trial)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            sandboxes.close()  # so that trials under way end now, and not with their tests
            raise
    return [_judge(problem, done, repeats) for problem in problems]


def digest_of(problem: Problem) -> str:
    """The same for the same row in every process."""
    return hashlib.sha256(repr(problem).encode()).hexdigest()[:16]


def read_trials(record: Path) -> Iterator[Trial]:
    """The trials of an earlier validation. A torn last line, from a kill, is left out; ConfigError for another file."""
    if not record.exists():
        return
    lines = record.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield Trial(**json.loads(line))
            except (ValueError, TypeError) as error:
                if number == len(lines):
                    return
                raise ConfigError(
                    f"{str(record)!r}, line {number}, is no trial ({error}); name another file"
                ) from error


def _drop_torn_line(record: Path) -> None:
    """What a kill left of a last line would otherwise become the beginning of the next one."""
    if record.exists() and not (content := record.read_bytes()).endswith(b"\n"):
        record.write_bytes(content[: content.rfind(b"\n") + 1])


def _try(problem: Problem, check: Check, repeat: int, digest: str, sandboxes: Sandboxes, gold: Gold | None) -> Trial:
    started = time.perf_counter()
    task = problem.task
    reward: float | None = None
    try:
        patch = b""
        if check == "gold":
            patch = problem.gold
            if not patch and gold is not None:
                with sandboxes.open(task) as sandbox:
                    patch = gold(problem, sandbox)
            if not patch:
                raise TaskError(f"{task.id}: has no reference fix")
        with sandboxes.open(task, purpose="grading") as sandbox:
            graded = problem.grader.grade(task, patch, sandbox)
        reward, reason = graded.reward, graded.reason + (f": {graded.output.strip()[-300:]}" if graded.output else "")
    except (SandboxError, TaskError, OSError) as error:
        reason = str(error)
    return Trial(task.id, digest, check, repeat, reward, reason, time.perf_counter() - started)


def _judge(problem: Problem, done: dict[tuple[str, Check, int], Trial], repeats: int) -> Judged:
    trials = [done[problem.task.id, check, repeat] for check in CHECKS for repeat in range(repeats)]
    gold, no_op = trials[:repeats], trials[repeats:]
    odd = [f"{t.check}: {t.reason}" for t in trials if t.reward != (1.0 if t.check == "gold" else 0.0)]
    return Judged(
        problem.task.id,
        tuple(t.reward for t in gold),
        tuple(t.reward for t in no_op),
        tuple(dict.fromkeys(odd)),
        max((t.seconds for t in gold), default=0.0),
    )
