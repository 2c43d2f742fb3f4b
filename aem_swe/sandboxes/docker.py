"""Sandboxes in containers of one or several engines (Docker, Podman), for tasks that bring an image.

PID 1 of every container is our own guest program (`_guest/container.py`), so a tool call is one message instead of one
`docker exec`. Containers start from a prepared image (_fleet.py), are started ahead (pool.py), and are removed whatever
becomes of this process (reaper.py).

Not covered: a limit on the disk space of a whole container (one file can have `disk_mb`, /tmp as well; more needs a
storage driver with quotas), and bugs of the kernel or the engine.
"""

import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

from aem_swe.errors import SandboxError, SandboxGone, TaskError
from aem_swe.sandboxes._bundle import make_bundle
from aem_swe.sandboxes._connect import engine_urls
from aem_swe.sandboxes._fleet import Fleet, Prepared
from aem_swe.sandboxes._git import add_files, diff_in_place
from aem_swe.sandboxes._guest_sandbox import GuestSandbox
from aem_swe.sandboxes._prepare import Key
from aem_swe.sandboxes._tree import check_task
from aem_swe.sandboxes.base import DOCKER_DEFAULTS, DockerSettings, Purpose, SandboxLimits
from aem_swe.sandboxes.pool import WarmPool
from aem_swe.types import Task

_REAP_EVERY_S = 60.0


class DockerSandboxes:
    """The maker of container sandboxes. Any thread may open."""

    def __init__(
        self,
        *,
        limits: SandboxLimits,
        programs: Mapping[str, str] | None = None,
        settings: DockerSettings = DOCKER_DEFAULTS,
        run: str = "",
    ) -> None:
        """programs: as in LocalSandboxes. run: a label, so that `docker ps` tells whose containers these are."""
        self.limits, self.settings = limits, settings
        self._fleet = Fleet(
            engine_urls(settings), make_bundle(programs or {}), settings, limits, run or uuid.uuid4().hex[:12]
        )
        self._lock = threading.Lock()
        self._live: dict[str, tuple[Prepared, GuestSandbox]] = {}
        self._owner = 0
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._owner = os.getpid()
        self._fleet.connect()
        self._fleet.reap()
        threads = self.settings.starts * len(self._fleet.members)
        self._pool = WarmPool(self._fleet.start, size=self.settings.warm, threads=threads)
        self._closers = ThreadPoolExecutor(threads, thread_name_prefix="aem-swe-remove")
        self._reaper = threading.Thread(target=self._reap_now_and_then, name="aem-swe-reaper", daemon=True)
        self._reaper.start()
        return self

    def expect(self, tasks: Sequence[Task]) -> None:
        """Start containers ahead for these tasks, each of which will be opened as often as it is listed."""
        self._pool.expect([self._key(task) for task in tasks])

    def open(self, task: Task, *, purpose: Purpose = "agent") -> GuestSandbox:
        """Make a sandbox with the task's files in it. Agent and grading sandboxes are alike; neither sees the other.

        Raises TaskError where the task's setup fails, ImageMissing, EngineUnreachable, or another SandboxError.
        """
        if self._owner != os.getpid():
            raise SandboxError("sandboxes are not open in this process; use `with` here, and again after a fork")
        check_task(task)
        try:
            prepared = self._pool.take(self._key(task))
        except TaskError as error:
            raise TaskError(f"{task.id}: {error}") from error
        container, tree = prepared.container, prepared.tree
        sandbox = GuestSandbox(
            container.channel,
            workdir=task.workdir,
            limits=self.limits,
            environment={**prepared.environment, **dict(task.env)},
            kill=lambda: None,
            closed=lambda: self._close(prepared),
            take_diff=lambda changed: diff_in_place(changed, tree),
            explain=container.explain,
            linger_s=0.0,  # the container is removed, running or not
        )
        with self._lock:
            closed = self._ended.is_set()
            if not closed:
                self._live[container.id] = (prepared, sandbox)
        if closed:
            prepared.remove()
            raise SandboxGone("the sandboxes were closed")
        sandbox.events += container.events

        def record_files() -> None:
            nonlocal tree
            if task.files:
                tree = add_files(sandbox, task)

        try:
            sandbox.prepare(task, record_files)
        except TaskError as error:
            sandbox.close()
            raise error if str(error).startswith(task.id) else TaskError(f"{task.id}: {error}") from error
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def _key(self, task: Task) -> Key:
        return Key(task.image or self.settings.image, task.setup, task.workdir)

    def _close(self, prepared: Prepared) -> None:
        with self._lock:
            self._live.pop(prepared.container.id, None)
        try:
            self._closers.submit(prepared.remove)
        except RuntimeError:  # all of this is being closed
            prepared.remove()

    def _reap_now_and_then(self) -> None:
        while not self._ended.wait(_REAP_EVERY_S):
            self._fleet.reap()

    def close(self) -> None:
        """Remove every container of this process. In a forked child of the trainer this does nothing."""
        if self._owner != os.getpid():
            return
        with self._lock:
            self._ended.set()
            left = [sandbox for _, sandbox in self._live.values()]
        self._fleet.stop()
        for sandbox in left:
            sandbox.close()
        self._owner = 0
        self._pool.close()
        self._closers.shutdown(wait=True)
        self._fleet.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_CHECK = Task(id="check", statement=(), files=(("old", b"1\n"),))


def unavailable_reason(settings: DockerSettings = DOCKER_DEFAULTS, task: Task = _CHECK) -> str | None:
    """None where a sandbox of `task` can be opened and makes a patch, else why not, with the remedy."""
    try:
        with DockerSandboxes(limits=SandboxLimits(), settings=replace(settings, engine_wait_s=0.0, warm=0)) as made:
            with made.open(task) as sandbox:
                sandbox.write("aem-check", b"2\n")
                return None if sandbox.diff() else "a first container made no patch"
    except (SandboxError, TaskError) as error:
        return str(error)
