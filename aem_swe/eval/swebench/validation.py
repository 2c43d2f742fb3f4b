"""Validation in the middle of training as an evaluation does it: the limits of its protocol, its official grading.

Either engine plays the episodes, because either has the weights of the moment; what an episode may do, what it is
graded by and what is counted are the same as in `aem-swe eval`. The containers that agents work in stay the training's
(limits, time of a command, retries).
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.agents.definition import load_agent
from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.dataset import Selection, load_rows, select
from aem_swe.eval.swebench.harness import OfficialGrader
from aem_swe.eval.swebench.protocol import Grading, Protocol, load_protocol
from aem_swe.eval.swebench.results import Status
from aem_swe.rollout import Setting
from aem_swe.sandboxes.base import DockerSettings, Sandbox
from aem_swe.sandboxes.diagnosis import require_images
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.rows import Row
from aem_swe.tasks.swebench_rows import make_problem
from aem_swe.types import Graded, Task


class HarnessGrader:
    """Judges patches by the official harness, as a PatchGrader. Pickles closed, and opens when it is first asked."""

    def __init__(
        self, rows: Mapping[str, Row], folder: Path, grading: Grading, *, workers: int, engines: Sequence[str] = ()
    ) -> None:
        self._rows, self._folder, self._grading = rows, folder, grading
        self._workers, self._engines = workers, tuple(engines)
        self._lock = threading.Lock()
        self._open: OfficialGrader | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_open")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._open = threading.Lock(), None

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        """The sandbox is not used."""
        return self.grade_patch(task, diff)

    def grade_patch(self, task: Task, diff: bytes) -> Graded:
        """1 for a patch that resolves the instance, 0 with the reason, None where the machine spoilt every try."""
        verdict = self._grader().grade(task.id, diff.decode("utf-8", "replace")).result()
        reward = None if verdict.status is Status.INFRASTRUCTURE else float(verdict.status is Status.RESOLVED)
        return Graded(reward, str(verdict.status), diff, verdict.reason)

    def _grader(self) -> OfficialGrader:
        with self._lock:
            if self._open is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._open = OfficialGrader(
                    self._folder,
                    self._rows,
                    model="policy",
                    run_id="validation",
                    workers=self._workers,
                    timeout_s=self._grading.timeout_s,
                    cache=self._folder / "grades",
                    engines=self._engines,
                    network=self._grading.network,
                    memory_mb=self._grading.memory_mb,
                ).__enter__()
            return self._open

    def close(self) -> None:
        """End the harness's process and containers."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None


@dataclass(frozen=True, slots=True)
class Validation:
    """A slice of instances, and the rules."""

    protocol: Protocol
    problems: list[Problem]
    grader: HarnessGrader

    def setting(self, training: Setting) -> Setting:
        """What its episodes share: the protocol's agent and limits in the sandboxes of the training."""
        play = self.protocol.play
        return replace(
            training,
            definition=load_agent(play.agent),
            limits=play.limits(),
            history=play.history,
            trajectory_timeout_s=play.trajectory_timeout_s,
        )


def load_validation(
    protocol: str, rows: str, size: int, folder: Path, *, workers: int, engines: Sequence[str] = ()
) -> Validation:
    """`size` instances of `rows`, always the same, under a protocol. folder: of the harness's papers and verdicts.

    Raises ConfigError where either cannot be used, or an image is missing.
    """
    rules = load_protocol(protocol)
    rules.grading.require_harness()
    found = select(load_rows(Path(rows)).rows, Selection(shuffle=True, slice_=f":{size}"))
    chosen = {str(row["instance_id"]): row for row in found}
    require_images(DockerSettings(engines=tuple(engines)), [row["image"] for row in chosen.values()], rows)
    grader = HarnessGrader(chosen, folder, rules.grading, workers=workers, engines=engines)
    problems = [replace(make_problem(row, reward="swebench"), grader=grader) for row in chosen.values()]
    return Validation(rules, problems, grader)


def require_context(protocol: Protocol, tokens: int, remedy: str) -> None:
    """Raise ConfigError where a model that holds `tokens` has less context than the protocol wants."""
    if protocol.play.context > tokens:
        raise ConfigError(
            f"protocol {protocol.protocol!r} wants a context of {protocol.play.context} tokens and the policy is "
            f"served with {tokens}; {remedy}"
        )
