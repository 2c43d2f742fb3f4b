"""Our sandboxes over rLLM's, and rLLM's over ours, so that what runs behind either runs behind both.

rLLM (github.com/rllm-org/rllm) has backends for Docker, Modal, Daytona and, for development, the local machine. Their
protocol is a small one: exec(command) -> text, upload_file, upload_dir, close, is_alive.

    with RllmSandboxes(rllm_backend("modal", memory=4096), limits=limits, programs=programs) as sandboxes:
        with sandboxes.open(task) as sandbox: ...
    rllm_evaluator.sandbox = as_rllm(sandbox)

Not covered: limits of memory, processes and disk are the backend's (give them to rllm_backend in its own words), and so
is the network; a task's `setup` runs in every sandbox, as rLLM has no images of ours; the local backend isolates
nothing. A container of rLLM's Docker backend carries no label: after a `kill -9` of the trainer, or a start that the
engine refused, remove what `docker ps -a --filter name=rllm-sandbox-aem-swe` lists.
"""

import importlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from aem_swe.errors import ConfigError, SandboxError, TaskError
from aem_swe.sandboxes._as_rllm import RllmSandbox, as_rllm
from aem_swe.sandboxes._exec_sandbox import Door, ExecSandbox
from aem_swe.sandboxes._foreign import Pending, with_deadline
from aem_swe.sandboxes._tree import check_task, is_plain
from aem_swe.sandboxes.base import Purpose, SandboxEvent, SandboxLimits
from aem_swe.types import Task

__all__ = ["BACKENDS", "RllmSandbox", "RllmSandboxes", "as_rllm", "rllm_backend"]

BACKENDS = ("daytona", "docker", "local", "modal")
_CLOSE_S = 60.0
_CREATE_S = 1800.0
"""A first start includes the pull of an image of several gigabytes."""


def rllm_backend(name: str, **options: object) -> Callable[[Task], Door]:
    """What makes rLLM's sandbox of a backend for a task's image; `options` are that backend's own.

    Raises ConfigError for an unknown backend, and where rllm is not installed.
    """
    if name not in BACKENDS:
        raise ConfigError(f"rLLM's backend {name!r} is unknown; choose one of {sorted(BACKENDS)}")
    try:
        # by name, because rllm is on no package index and comes with engines/rllm only
        flow = importlib.import_module("rllm.sandbox.sandboxed_flow")
    except ImportError as error:
        raise ConfigError(
            f"rLLM's {name} sandboxes need rllm ({error}); install it with: "
            "pip install 'rllm @ git+https://github.com/rllm-org/rllm'"
        ) from error

    def create(task: Task) -> Door:
        if not task.image and name != "local":
            raise TaskError(f"{task.id}: has no image, and rLLM's {name} sandboxes are made of one; use sandbox=local")
        door: Door = flow.create_sandbox(name, f"aem-swe-{uuid.uuid4().hex[:12]}", task.image, **options)
        return door

    return create


class RllmSandboxes:
    """The maker of sandboxes behind rLLM's. Any thread may open."""

    def __init__(
        self, create: Callable[[Task], Door], *, limits: SandboxLimits, programs: Mapping[str, str] | None = None
    ) -> None:
        """create: makes rLLM's sandbox for a task. programs: path -> source; run(["python3", path, ...]) runs them
        with the Python 3.6 or newer that is found inside."""
        self._create, self.limits, self._programs = create, limits, dict(programs or {})
        self._lock = threading.Lock()
        self._opened: set[ExecSandbox] = set()
        self._closing: list[Pending[None]] = []
        self._owner = 0

    def __enter__(self) -> Self:
        self._owner = os.getpid()
        return self

    def expect(self, tasks: Sequence[Task]) -> None:
        """Nothing: what is started ahead is the backend's business."""

    def open(self, task: Task, *, purpose: Purpose = "agent") -> ExecSandbox:
        """Make a sandbox with the task's files. Agent and grading sandboxes are alike; neither sees the other."""
        if self._owner != os.getpid():
            raise SandboxError("sandboxes are not open in this process; use `with` here, and again after a fork")
        check_files(task)
        started = time.perf_counter()
        door = create_door(lambda: self._create(task), task)
        created = SandboxEvent("create", started, time.perf_counter() - started)
        sandbox = ExecSandbox(
            door, workdir=task.workdir, limits=self.limits, environment=dict(task.env), programs=self._programs,
            closed=lambda closing: self._forget(sandbox, closing),
        )  # fmt: skip
        sandbox.events.append(created)
        with self._lock:
            self._opened.add(sandbox)
        try:
            sandbox.start(task)
            sandbox.prepare(task)
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def _forget(self, sandbox: ExecSandbox, closing: Pending[None]) -> None:
        with self._lock:
            self._opened.discard(sandbox)
            self._closing = [call for call in self._closing if call.wait(0) is None]
            self._closing.append(closing)

    def close(self) -> None:
        """End every sandbox that is still open. In a forked child of the trainer this does nothing."""
        if self._owner != os.getpid():
            return
        self._owner = 0
        with self._lock:
            left = list(self._opened)
        for sandbox in left:
            sandbox.close()
        for closing in self._closing:
            closing.wait(_CLOSE_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_files(task: Task) -> None:
    """Raise TaskError unless the task's files and workdir can be made. Any folder of an image may be the workdir."""
    if not task.workdir.startswith("/") or not is_plain(task.workdir[1:]):
        raise TaskError(f"{task.id}: workdir {task.workdir!r} cannot be made; choose one like '/testbed'")
    check_task(replace(task, workdir="/testbed"))


def create_door(create: Callable[[], Any], task: Task) -> Any:  # a foreign object, of any class with the right methods
    """Call a foreign maker of sandboxes with a deadline, and turn what it raises into ours."""
    outcome = with_deadline(create, _CREATE_S)
    if outcome is None:
        raise SandboxError(f"{task.id}: no sandbox of image {task.image!r} within {_CREATE_S:.0f} s")
    if isinstance(outcome.error, TaskError | ConfigError | SandboxError):
        raise outcome.error
    if outcome.error is not None:
        raise SandboxError(f"{task.id}: no sandbox of image {task.image!r} could be made: {outcome.reason}")
    return outcome.value
