"""The environment that DeepSWE was trained in, by its own package (r2e-gym, in the fork of the DeepSWE release).

It exists to compare: containers, set-up, paths and reward are r2egym's, flaws included. The hidden tests and the fix in
git's history are within the agent's reach, containers have a network and no limits, and the reward is computed in the
agent's OWN container, with whatever the agent did to it. `sandbox=docker` is the environment to train in.

    rows = {make_problem(row).task.id: row for row in ...}         # R2E-Gym's rows, as they are
    with R2EGymSandboxes(rows, limits=limits, programs=programs) as sandboxes: ...
    problem = replace(problem, grader=R2EGymGrader())

How this fits an episode, which takes its diff and then opens another sandbox for grading: in the thread that took the
diff, the next grading sandbox of that task IS the agent's own, lent. The diff is only recorded then. A grading sandbox
that no diff came before (`tasks validate`) is a new container, and the patch is applied to it first.

Three things are not r2egym's: commands go through our own script, which separates stdout from stderr and ends all of a
command's processes at its time limit; a container that died is an error here, where r2egym returns a reward of 0;
and a container carries our labels, so that `aem-swe sandbox gc` finds it (Docker; a Kubernetes pod has none).
"""

import importlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self  # Any: r2egym has no types

from aem_swe.errors import ConfigError, SandboxError, SandboxGone, TaskError
from aem_swe.sandboxes._exec_sandbox import ExecSandbox
from aem_swe.sandboxes._foreign import Pending
from aem_swe.sandboxes._r2egym_sandbox import R2EGymSandbox, RuntimeDoor
from aem_swe.sandboxes.base import GIT_APPLY, Purpose, Sandbox, SandboxLimits
from aem_swe.sandboxes.reaper import labels_of_this_process
from aem_swe.sandboxes.rllm import create_door
from aem_swe.types import Graded, Task

Backend = Literal["docker", "kubernetes"]

SOURCE = "git+https://github.com/agentica-project/R2E-Gym@353348a0ff690f2592025eff41b3fef4201a4d8b"
"""The fork that DeepSWE was trained with, as it was on the day of the release."""
INSTALL = f"pip install 'aem-swe[r2egym]' (or only: pip install 'r2e-gym @ {SOURCE}')"
_CLOSE_S = 120.0
_LOGGER = "aem_swe.r2egym"


class R2EGymSandboxes:
    """The maker of r2egym's containers. Any thread may open; an episode stays in one thread from diff to grading."""

    def __init__(
        self,
        rows: Mapping[str, Mapping[str, Any]],
        *,
        limits: SandboxLimits,
        programs: Mapping[str, str] | None = None,
        backend: Backend = "docker",
        run: str = "",
        lifetime_s: float = 86_400.0,
    ) -> None:
        """rows: task id -> row. programs: as in RllmSandboxes. run, lifetime_s: what the labels say."""
        self._rows, self.limits, self._programs, self._backend = rows, limits, dict(programs or {}), backend
        self._run, self._lifetime_s = run, lifetime_s
        self._lock = threading.Lock()
        self._opened: set[ExecSandbox] = set()
        self._closing: list[Pending[None]] = []
        self._of_this_thread = threading.local()
        self._owner = 0

    def __enter__(self) -> Self:
        """Raises ConfigError where r2egym is missing."""
        self._runtime_class = _load()
        self._owner = os.getpid()
        return self

    def expect(self, tasks: Sequence[Task]) -> None:
        """Nothing: what is started ahead is the backend's business."""

    def open(self, task: Task, *, purpose: Purpose = "agent") -> R2EGymSandbox:
        """Make r2egym's container of a task; for grading, lend the one whose diff this thread took last."""
        if self._owner != os.getpid():
            raise SandboxError("sandboxes are not open in this process; use `with` here, and again after a fork")
        diffed: R2EGymSandbox | None = getattr(self._of_this_thread, "diffed", None)
        if purpose == "grading" and diffed is not None and diffed.task_id == task.id:
            if not diffed.alive():
                raise SandboxGone("the agent's container has ended, and r2egym computes the reward nowhere else")
            return replace(diffed, lent=True)
        if purpose == "agent":
            self._of_this_thread.diffed = None
        return self._new(task)

    def _new(self, task: Task) -> R2EGymSandbox:
        row = self._rows.get(task.id)
        if row is None:
            raise TaskError(f"{task.id}: is no row of R2E-Gym; sandbox=r2egym takes R2E-Gym's tasks only")
        started = time.perf_counter()
        labels = {"labels": labels_of_this_process(self._run, self._lifetime_s)} if self._backend == "docker" else {}
        runtime = create_door(lambda: self._runtime(task, dict(row), labels), task)
        inner = ExecSandbox(
            RuntimeDoor(runtime), workdir=task.workdir, limits=self.limits, environment={}, programs=self._programs,
            closed=lambda closing: self._forget(inner, closing),
        )  # fmt: skip
        inner.record("create", started)
        with self._lock:
            self._opened.add(inner)
        try:
            inner.start(task)
            inner.prepare(replace(task, setup=""))  # r2egym has its own set-up
        except BaseException:
            inner.close()
            raise
        return R2EGymSandbox(task.id, inner, runtime, self._of_this_thread)

    def _runtime(self, task: Task, row: dict[str, Any], options: Mapping[str, Any]) -> Any:
        """What r2egym's RepoEnv does."""
        try:
            return self._runtime_class(
                ds=row, command=["/bin/bash", "-l"], logger=_quiet_logger(), backend=self._backend, **options
            )
        except (LookupError, ValueError) as error:  # pydantic's and JSON's errors are ValueErrors
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise TaskError(f"{task.id}: its row is not one that r2egym can use: {reason}") from error

    def _forget(self, inner: ExecSandbox, closing: Pending[None]) -> None:
        with self._lock:
            self._opened.discard(inner)
            self._closing = [call for call in self._closing if call.wait(0) is None]
            self._closing.append(closing)

    def close(self) -> None:
        """End every container. In a forked child of the trainer this does nothing."""
        if self._owner != os.getpid():
            return
        self._owner = 0
        with self._lock:
            left = list(self._opened)
        for inner in left:
            inner.close()
        for closing in self._closing:
            closing.wait(_CLOSE_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class R2EGymGrader:
    """r2egym's reward: its test script, its reading of the log. What the agent left in the container can forge it."""

    timeout_s: float = 300.0

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        if not isinstance(sandbox, R2EGymSandbox):
            raise ConfigError("the reward r2egym is computed by r2egym's own runtime; set sandbox=r2egym with it")
        if diff and not sandbox.lent:
            applied = sandbox.run(GIT_APPLY, stdin=diff)
            if applied.exit_code != 0:
                return Graded(0.0, "patch_does_not_apply", output=applied.stderr.decode("utf-8", "replace"))
        reward, output = sandbox.reward(self.timeout_s)
        return Graded(reward, "tests_passed" if reward == 1.0 else "tests_failed", output=output[-3000:])


def unavailable_reason() -> str | None:
    """None where r2egym can be imported, else how to get it."""
    try:
        _load()
    except ConfigError as error:
        return str(error)
    return None


def _load() -> Any:  # r2egym's class DockerRuntime, which is its Kubernetes runtime too
    """Import r2egym without what it does to the process: it removes the root logger's handlers."""
    root = logging.getLogger()
    kept = root.handlers[:]
    try:
        hub = importlib.import_module("huggingface_hub")
        if not hasattr(hub, "HfFolder"):  # gone since 1.0; r2egym imports the name and never needs it here
            hub.HfFolder = None  # type: ignore[attr-defined]  # a name that the module used to have
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its code
            runtime = importlib.import_module("r2egym.agenthub.runtime.docker")
    except ImportError as error:
        raise ConfigError(f"sandbox=r2egym needs the package r2egym ({error}); install it with: {INSTALL}") from error
    finally:
        root.handlers[:] = kept
    if not hasattr(runtime, "kubernetes"):
        raise ConfigError(
            "the installed r2egym is not the one that DeepSWE was trained with (it has no Kubernetes runtime); "
            f"install that with: {INSTALL}"
        )
    return runtime.DockerRuntime


def _quiet_logger() -> logging.Logger:
    """r2egym logs every command that fails as an error."""
    logger = logging.getLogger(_LOGGER)
    logger.setLevel(logging.CRITICAL)
    return logger
