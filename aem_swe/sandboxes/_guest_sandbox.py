"""A sandbox whose PID 1 is our own guest program (`_guest/`), seen from the host: requests with a deadline each.

Local sandboxes and containers differ in how PID 1 comes to life, how it is killed, and where a patch is made; these
three are given to the constructor.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from aem_swe.errors import SandboxError, SandboxGone, TaskError
from aem_swe.sandboxes._channel import Channel, Reply
from aem_swe.sandboxes._tree import Entry, pack
from aem_swe.sandboxes.base import CommandResult, SandboxEvent, SandboxLimits
from aem_swe.types import Task

GRACE_S = 5.0
"""Beyond a request's own limit, before the host gives the sandbox up."""


class GuestSandbox:
    """`kill` ends it from outside, `closed` is called once it has ended, `take_diff` makes its patch.

    `explain` may turn the error of a broken conversation into a better one, asked before the sandbox is killed.
    linger_s: how long closing waits for PID 1 to end by itself; 0 where `closed` ends it anyway.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        workdir: str,
        limits: SandboxLimits,
        environment: Mapping[str, str],
        kill: Callable[[], None],
        closed: Callable[[], None],
        take_diff: Callable[["GuestSandbox"], bytes],
        explain: Callable[[SandboxError], SandboxError] = lambda error: error,
        linger_s: float = 1.0,
    ) -> None:
        self.events: list[SandboxEvent] = []
        self._channel, self._workdir, self._limits, self._environment = channel, workdir, limits, environment
        self._kill, self._closed, self._take_diff, self._explain = kill, closed, take_diff, explain
        self._linger_s = linger_s
        self._owner = os.getpid()
        self._open = True

    def start(self) -> None:
        """Wait until PID 1 is confined and answers."""
        started = time.perf_counter()
        self._guarded(lambda: self._channel.receive(2 * GRACE_S))
        self._record("start", started)

    def prepare(self, task: Task, then: Callable[[], None] = lambda: None) -> None:
        """Write the task's files, do what else belongs to the preparation, and record the time."""
        started = time.perf_counter()
        try:
            self.write_all(Entry(path, "file", content) for path, content in task.files)
        except OSError as error:
            raise TaskError(f"{task.id}: its files cannot be written into a sandbox: {error}") from error
        then()
        self._record("prepare", started)

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
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        assert argv, "an empty command"
        limit = self._limits.command_timeout_s if timeout is None else timeout
        cap = self._limits.max_output if max_output is None else max_output
        header = {
            "op": "run",
            "argv": argv,
            "cwd": os.path.join(self._workdir, cwd or ""),
            "env": {**self._environment, **(env or {})},
            "timeout": limit,
            "max_output": cap,
        }
        started = time.perf_counter()
        try:
            reply = self.request(header, stdin, timeout=limit, max_body=2 * cap)
        except OSError as error:
            self.close()
            raise SandboxGone(f"the sandbox could not start a command: {error}") from error
        return _command_result(reply, cap, time.perf_counter() - started)

    def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        header = {"op": "read", "path": os.path.join(self._workdir, path), "max_bytes": max_bytes}
        return self.request(header, max_body=max_bytes).body

    def write(self, path: str, data: bytes) -> None:
        self.write_all([Entry(path, "file", data)])

    def diff(self) -> bytes:
        self.kill_all()
        return self._take_diff(self)

    def kill_all(self) -> None:
        self.request({"op": "kill_all"})

    def alive(self) -> bool:
        try:
            self.request({"op": "ping"})
        except SandboxError:
            return False
        return True

    def close(self) -> None:
        if not self._open or self._owner != os.getpid():
            return
        started = time.perf_counter()
        self._open = False
        if self._linger_s and not self._channel.hang_up(self._linger_s):
            self._kill()
            self._channel.hang_up(GRACE_S)
        self._channel.close()
        self._closed()
        self._record("close", started)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write_all(self, entries: Iterable[Entry]) -> None:
        listed, body = pack(entries)
        self.request({"op": "write", "root": self._workdir, "entries": listed}, body)

    def request(
        self, header: Mapping[str, object], body: bytes = b"", *, timeout: float = GRACE_S, max_header: int = 1 << 16,
        max_body: int = 0,
    ) -> Reply:  # fmt: skip
        return self._guarded(
            lambda: self._channel.request(
                header, body, timeout=timeout + GRACE_S, max_header=max_header, max_body=max_body
            )
        )

    def _guarded(self, ask: Callable[[], Reply]) -> Reply:
        """A sandbox that failed once is ended at once: what it may still do is nobody's business any more."""
        if self._owner != os.getpid():
            raise SandboxError("a sandbox belongs to the process that opened it; open another one after a fork")
        try:
            return ask()
        except SandboxError as error:
            if not self._open:
                raise
            explained = self._explain(error)
            self._kill()
            self.close()
            raise explained from error

    def _record(self, name: str, started: float) -> None:
        self.events.append(SandboxEvent(name, started, time.perf_counter() - started))


def _command_result(reply: Reply, cap: int, seconds: float) -> CommandResult:
    """Only what an honest PID 1 could have sent; the time is the host's."""
    exit_code, size = reply.field("exit_code", int), reply.field("stdout_size", int)
    if not (-64 <= exit_code <= 255 and 0 <= size <= min(cap, len(reply.body)) and len(reply.body) - size <= cap):
        raise SandboxGone("the sandbox sent a result that no command can have")
    return CommandResult(
        exit_code=exit_code,
        stdout=reply.body[:size],
        stderr=reply.body[size:],
        truncated=reply.field("truncated", bool),
        timed_out=reply.field("timed_out", bool),
        out_of_memory=reply.field("out_of_memory", bool),
        seconds=seconds,
    )
