"""One container of r2egym's: its runtime as a door for our commands, and its reward."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self  # Any: r2egym has no types

from aem_swe.errors import SandboxError, SandboxGone, SandboxTimeout
from aem_swe.sandboxes._exec_sandbox import ExecSandbox
from aem_swe.sandboxes._foreign import with_deadline
from aem_swe.sandboxes.base import CommandResult, SandboxEvent


class RuntimeDoor:
    """exec(command) -> text over r2egym's runtime, which returns failures as text."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str:
        # the runtime puts `timeout N` in front, which only a simple command may follow
        said, code = self._runtime.run(f"bash -c {shlex.quote(command)}", timeout=math.ceil(timeout or 60.0))
        if code != "0":
            raise RuntimeError(f"{code}: {said[-300:]}")
        return str(said)

    def close(self) -> None:
        try:
            if self._runtime.backend == "docker":
                self._runtime.container.kill()  # its shell would let a stop wait for 10 seconds
        finally:
            self._runtime.close()

    def is_alive(self) -> bool:
        if self._runtime.backend == "docker":
            self._runtime.container.reload()
            return bool(self._runtime.container.status == "running")
        pod = self._runtime.client.read_namespaced_pod(self._runtime.container_name, "default")
        return bool(pod.status.phase == "Running")


@dataclass(frozen=True, slots=True)
class R2EGymSandbox:
    """A container of r2egym's. `lent`: it is an agent's, and closing it means giving it back."""

    task_id: str
    _inner: ExecSandbox
    _runtime: Any
    _of_this_thread: Any  # a threading.local with the entry `diffed`
    lent: bool = False

    @property
    def events(self) -> list[SandboxEvent]:
        return [] if self.lent else self._inner.events

    def run(
        self,
        command: Sequence[str] | str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> CommandResult:
        return self._inner.run(command, cwd=cwd, env=env, stdin=stdin, timeout=timeout, max_output=max_output)

    def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        return self._inner.read(path, max_bytes=max_bytes)

    def write(self, path: str, data: bytes) -> None:
        self._inner.write(path, data)

    def diff(self) -> bytes:
        """The patch, for the record. Kills nothing: in r2egym the agent's processes live on during the tests."""
        if not self.lent:
            self._of_this_thread.diffed = self
        return self._inner.patch()

    def kill_all(self) -> None:
        self._inner.kill_all()

    def alive(self) -> bool:
        return self._inner.alive()

    def close(self) -> None:
        if not self.lent:
            self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reward(self, timeout_s: float) -> tuple[float, str]:
        """r2egym's own reward, and the output of the tests."""
        done = with_deadline(
            lambda: self._runtime._calculate_reward(get_test_output=True, timeout=math.ceil(timeout_s)), timeout_s + 60
        )
        if done is None:
            raise SandboxTimeout(f"{self.task_id}: r2egym computed no reward within {timeout_s + 60:.0f} s")
        if not self.alive():
            raise SandboxGone(f"{self.task_id}: the container ended while r2egym computed its reward")
        if done.error is not None or done.value is None:
            raise SandboxError(f"{self.task_id}: r2egym could not compute a reward: {done.reason}")
        self._of_this_thread.diffed = None
        value, output = done.value
        return float(value), str(output)
