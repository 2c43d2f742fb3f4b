"""Sandboxes made of Linux namespaces, without a daemon, an image or root: milliseconds instead of seconds.

Each has its own user, mount, PID, network, IPC and UTS namespace, a read-only view of the host's programs, a
size-limited memory file system, a system call filter and total limits for memory and processes (`_guest/` is the half
that runs apart; its files say how). No file is ever made on the host.

Needs Linux 5.14, and root or unprivileged user namespaces. Not covered: a bug in the kernel itself (for that, run the
trainer in a virtual machine), CPU shares (a command may use every core until its time limit), and the contents of the
host's /usr, which every sandbox can read.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from aem_swe.errors import SandboxError, SandboxGone, SandboxUnavailable, TaskError
from aem_swe.sandboxes._channel import Channel
from aem_swe.sandboxes._guest_sandbox import GRACE_S, GuestSandbox
from aem_swe.sandboxes._local_remedies import explain
from aem_swe.sandboxes._patch import diff_of_contents
from aem_swe.sandboxes._programs import standard_modules
from aem_swe.sandboxes._tree import check_task
from aem_swe.sandboxes.base import Purpose, SandboxEvent, SandboxLimits
from aem_swe.types import Task

MemoryLimit = Literal["auto", "watchdog"]

_GUEST = Path(__file__).parent / "_guest"
_START_S = 20.0
_SCRATCH_LIMITS = SandboxLimits(memory_mb=1024, processes=32, disk_mb=256)


class LocalSandboxes:
    """The owner of one zygote, the process that makes the sandboxes."""

    def __init__(
        self, *, limits: SandboxLimits, programs: Mapping[str, str] | None = None, memory_limit: MemoryLimit = "auto"
    ) -> None:
        """programs: path -> source of Python programs that every sandbox holds read-only and already compiled:
        run(["python3", path, ...]) executes them without starting an interpreter.
        memory_limit: "watchdog" does without cgroups even where they could be used.
        """
        self.limits, self._programs, self._memory_limit = limits, dict(programs or {}), memory_limit
        self._lock = threading.Lock()
        self._opened: dict[str, GuestSandbox] = {}
        self._count = 0
        self._owner = 0
        self.mode = ""
        """Once started: "root" or "user", and in `memory` what enforces the limit."""
        self.memory = ""

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control, self._owner = ours, os.getpid()
            self._zygote = subprocess.Popen(
                [_base_interpreter(), "-I", "-S", "-B", "-X", "utf8", str(_GUEST), "zygote", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={},
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C reaches the trainer, which then ends its sandboxes in order
            )
        settings = {
            "programs": self._programs,
            "modules": standard_modules(self._programs.values()),
            "hidden": [str(_GUEST.parents[2]), *(os.path.abspath(path) for path in sys.path if path)],
            "memory_limit": self._memory_limit,
        }
        try:
            self._start(settings)
        except BaseException:
            self.close()
            raise
        return self

    def _start(self, settings: Mapping[str, object]) -> None:
        assert self._zygote.stdin
        assert self._zygote.stderr
        self._control.settimeout(_START_S)
        try:
            self._zygote.stdin.write(json.dumps(settings).encode())
            self._zygote.stdin.close()
            message = json.loads(self._control.recv(1 << 16) or b"{}")
        except (OSError, ValueError) as error:
            message = {"error": f"its first process did not start: {error}"}
        if "mode" not in message:
            self._zygote.kill()
            reason = message.get("error") or self._zygote.stderr.read()[-500:].decode(errors="replace")
            raise SandboxUnavailable(explain(reason))
        self.mode, self.memory = message["mode"], message["memory"]
        try:
            self._make("/testbed", self.limits).close()
        except SandboxError as error:
            raise SandboxUnavailable(explain(str(error))) from error

    def open(self, task: Task, *, purpose: Purpose = "agent") -> GuestSandbox:
        """Make a sandbox with the task's files. Agent and grading sandboxes are alike; neither sees the other."""
        check_task(task)
        if task.image or task.setup:
            raise TaskError(
                f"{task.id}: needs the image {task.image!r}, which local sandboxes have not; use sandbox=docker"
            )
        sandbox = self._make(task.workdir, self.limits, dict(task.files), dict(task.env))
        try:
            sandbox.prepare(task)
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def expect(self, tasks: Sequence[Task]) -> None:
        """Nothing: a sandbox is made in milliseconds when it is opened."""

    def _make(
        self,
        workdir: str,
        limits: SandboxLimits,
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> GuestSandbox:
        started = time.perf_counter()
        ours, theirs = socket.socketpair()
        with self._lock:
            self._count += 1
            name = str(self._count)
        request = {
            "op": "open",
            "id": name,
            "workdir": workdir,
            "memory_bytes": limits.memory_mb << 20,
            "disk_bytes": limits.disk_mb << 20,
            "processes": limits.processes,
        }
        sandbox = GuestSandbox(
            Channel(ours),
            workdir=workdir,
            limits=limits,
            environment={**_environment(), **(environment or {})},
            kill=lambda: self._tell({"op": "kill", "id": name}),
            closed=lambda: self._forget(name),
            take_diff=lambda changed: diff_of_contents(
                changed, workdir, files or {}, scratch=lambda: self._make("/testbed", _SCRATCH_LIMITS)
            ),
        )
        with self._lock:
            self._opened[name] = sandbox
        try:
            with theirs:
                self._send(request, theirs)
            sandbox.events.append(SandboxEvent("create", started, time.perf_counter() - started))
            sandbox.start()
        except OSError as error:
            sandbox.close()
            raise SandboxError(f"a sandbox could not be made: {error}") from error
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def _send(self, request: Mapping[str, object], passed: socket.socket | None = None) -> None:
        if self._owner != os.getpid():
            raise SandboxError("sandboxes are not open in this process; use `with` here, and again after a fork")
        descriptors = [passed.fileno()] if passed is not None else []
        try:
            with self._lock:
                socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        except OSError as error:
            raise SandboxGone("the process that makes the sandboxes has ended, and they with it") from error

    def _tell(self, request: Mapping[str, object]) -> None:
        try:
            self._send(request)
        except SandboxError:  # then there is nothing left to kill
            return

    def _forget(self, name: str) -> None:
        with self._lock:
            self._opened.pop(name, None)

    def close(self) -> None:
        """End every sandbox and the zygote. In a forked child of the trainer this does nothing."""
        if self._owner != os.getpid():
            return
        self._owner = 0
        self._control.close()
        try:
            self._zygote.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._zygote.kill()  # its sandboxes die with it (PDEATHSIG)
            self._zygote.wait()
        for stream in (self._zygote.stdin, self._zygote.stderr):
            if stream is not None:
                stream.close()
        with self._lock:
            left = list(self._opened.values())
        for sandbox in left:
            sandbox.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def unavailable_reason() -> str | None:
    """None where local sandboxes work on this machine, else why not, with one line per remedy."""
    program = {"/opt/aem/check.py": "print('works')"}
    try:
        with LocalSandboxes(limits=SandboxLimits(), programs=program) as sandboxes:
            with sandboxes.open(Task(id="check", statement=(), files=(("old", b"1\n"),))) as sandbox:
                sandbox.write("new", b"2\n")
                ran = sandbox.run(["python3", "/opt/aem/check.py"]).stdout
                return None if ran == b"works\n" and sandbox.diff() else f"a first command printed {ran!r}"
    except SandboxError as error:
        return str(error)


def _base_interpreter() -> str:
    """The interpreter under a virtual environment: its folders are what a sandbox shows, without installed packages."""
    return getattr(sys, "_base_executable", "") or sys.executable


def _environment() -> dict[str, str]:
    """All that a command sees of an environment; nothing is taken from the trainer's."""
    path = [f"{sys.base_prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
    return {
        "PATH": ":".join(dict.fromkeys(path)),
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
