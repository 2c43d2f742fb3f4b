"""One local sandbox, seen from the host: requests to its PID 1, with a deadline of the host's own for each."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from aem_swe.errors import SandboxError, SandboxGone, TaskError
from aem_swe.sandboxes._channel import Channel, Reply
from aem_swe.sandboxes._patch import changed_files, make_patch
from aem_swe.sandboxes._tree import Entry, pack, unpack_changes
from aem_swe.sandboxes.base import MAX_DIFF, CommandResult, SandboxEvent, SandboxLimits
from aem_swe.types import Task

GRACE_S = 5.0
"""Beyond a request's own limit, before the host gives the sandbox up."""
_MAX_LISTING = 8 << 20


class LocalSandbox:
    """Made by LocalSandboxes.open. `kill` ends it from outside, `scratch` opens an empty one that works for it."""

    def __init__(
        self,
        channel: Channel,
        *,
        workdir: str,
        limits: SandboxLimits,
        environment: Mapping[str, str],
        kill: Callable[[], None],
        scratch: Callable[[], "LocalSandbox"],
        closed: Callable[[], None],
    ) -> None:
        self.events: list[SandboxEvent] = []
        self._channel, self._workdir, self._limits, self._environment = channel, workdir, limits, environment
        self._kill, self._scratch, self._closed = kill, scratch, closed
        self._files: dict[str, bytes] = {}
        self._owner = os.getpid()
        self._open = True

    def start(self) -> None:
        """Wait until PID 1 is confined and answers."""
        started = time.perf_counter()
        self._guarded(lambda: self._channel.receive(2 * GRACE_S))
        self._record("start", started)

    def prepare(self, task: Task) -> None:
        """Write the task's files; they are what `diff` compares with."""
        started = time.perf_counter()
        self._files = dict(task.files)
        try:
            self._write_all(Entry(path, "file", content) for path, content in task.files)
        except OSError as error:
            raise TaskError(f"{task.id}: its files cannot be written into a sandbox: {error}") from error
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
            reply = self._request(header, stdin, timeout=limit, max_body=2 * cap)
        except OSError as error:
            self.close()
            raise SandboxGone(f"the sandbox could not start a command: {error}") from error
        return _command_result(reply, cap, time.perf_counter() - started)

    def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        header = {"op": "read", "path": os.path.join(self._workdir, path), "max_bytes": max_bytes}
        return self._request(header, max_body=max_bytes).body

    def write(self, path: str, data: bytes) -> None:
        self._write_all([Entry(path, "file", data)])

    def diff(self) -> bytes:
        self.kill_all()
        baseline = {path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in self._files.items()}
        header = {"op": "changes", "root": self._workdir, "baseline": baseline, "max_bytes": MAX_DIFF}
        changes = unpack_changes(self._request(header, max_header=_MAX_LISTING, max_body=MAX_DIFF))
        if not changes:
            return b""
        with self._scratch() as scratch:
            scratch._write_all(changed_files(self._files, changes))
            return make_patch(scratch)

    def kill_all(self) -> None:
        self._request({"op": "kill_all"})

    def alive(self) -> bool:
        try:
            self._request({"op": "ping"})
        except SandboxError:
            return False
        return True

    def close(self) -> None:
        if not self._open or self._owner != os.getpid():
            return
        started = time.perf_counter()
        self._open = False
        if not self._channel.hang_up(1.0):
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

    def _write_all(self, entries: Iterable[Entry]) -> None:
        listed, body = pack(entries)
        self._request({"op": "write", "root": self._workdir, "entries": listed}, body)

    def _request(
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
        except SandboxError:
            if self._open:
                self._kill()
                self.close()
            raise

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
