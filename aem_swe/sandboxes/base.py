"""What a sandbox is: the place an episode works in, behind the fewest methods that an agent and a grader need.

Paths inside are absolute or relative to the task's `workdir`. Everything that comes back is DATA made by an untrusted
program: bytes, capped, never decoded here. `run` reports what the command did (exit code, time limit, output cap);
it raises only when the sandbox itself failed (errors.py: SandboxGone, SandboxTimeout), so a dead sandbox can become
neither an observation nor a reward. Where the agent's own doing is in the way (no such file, disk full, a diff of more
than MAX_DIFF bytes), read, write and diff raise a plain OSError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from aem_swe.types import Task

Purpose = Literal["agent", "grading"]

MAX_DIFF = 10 * 1024 * 1024
"""Bytes of a diff, and of the changed files that it is made of."""

BASE_IMAGE = "aem-swe/base:latest"
"""Made from this host's own files by `aem-swe sandbox build`; holds Python, git, bash and pytest."""

GIT_APPLY = ("git", "apply", "-p1", "--whitespace=nowarn", "-")
"""The command that applies what `diff` returned: run(GIT_APPLY, stdin=patch). All of it or nothing."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """One finished command. `exit_code` is -signal when a signal ended it, as in subprocess."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    """More than `max_output` bytes were written to stdout or stderr; the rest was read and thrown away."""
    timed_out: bool
    """The time limit was reached; every process in the sandbox was killed."""
    out_of_memory: bool
    """The sandbox's total memory limit was reached and its processes were killed."""
    seconds: float
    over: bool = False
    """The place itself ended the episode, as a game does that is won; nothing where commands run does that."""


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """One stage of a sandbox's life, for the profile: start and seconds.

    name: image (pulled or set up), queue (for one of the engine's starts), create, start, prepare, close.
    """

    name: str
    started_at: float
    """time.perf_counter() of the host process."""
    seconds: float


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Limits of one sandbox in total, not per process."""

    memory_mb: int = 512
    """Of processes. Files in memory are counted by `disk_mb` (local), or here as well (containers)."""
    processes: int = 64
    """Threads included."""
    disk_mb: int = 64
    """Of everything that can be written (local); of /tmp, of /dev/shm and of every single file (containers)."""
    command_timeout_s: float = 10.0
    max_output: int = 65_536


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """What containers have beside the limits of every sandbox."""

    engines: tuple[str, ...] = ()
    """unix://, tcp:// or ssh:// addresses, one pool; empty: DOCKER_HOST (a list with commas), else the default."""
    image: str = BASE_IMAGE
    """For tasks that bring files and no image."""
    cpus: float = 0.0
    """0: no limit."""
    warm: int = 8
    """Containers that are kept started ahead."""
    starts: int = 4
    """Containers that one engine starts at a time."""
    engine_wait_s: float = 60.0
    """How long an open waits for an engine that has gone away."""
    lifetime_s: float = 86_400.0
    """After this anybody may remove a container."""


DOCKER_DEFAULTS = DockerSettings()


class Sandbox(Protocol):
    """An open sandbox: `with sandboxes.open(task) as sandbox:`. One thread at a time."""

    @property
    def events(self) -> list[SandboxEvent]:
        """What has happened to it so far, in order."""

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
        """Run argv, or a string through `bash -c`. stdin is closed after `stdin`. None = the sandbox's own limit."""

    def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Return the first `max_bytes` of a regular file. FileNotFoundError if it is none (the agent's doing)."""

    def write(self, path: str, data: bytes) -> None:
        """Create or replace a file, with its parent folders. OSError where the sandbox has no room or no such place."""

    def diff(self) -> bytes:
        """Return what changed in `workdir` since it was prepared, as a binary-safe git patch (a/ b/ prefixes).

        Kills every process first. OSError with errno EFBIG above MAX_DIFF bytes: the agent's doing, never a cut patch.
        """

    def kill_all(self) -> None:
        """Kill every process that commands left behind."""

    def alive(self) -> bool:
        """Whether the sandbox still answers."""

    def close(self) -> None:
        """End everything in it. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sandboxes(Protocol):
    """The maker of sandboxes of one kind: `with open_sandboxes("local", ...) as sandboxes:`. Any thread may open."""

    def open(self, task: Task, *, purpose: Purpose = "agent") -> Sandbox:
        """Make a sandbox with the task's files in its workdir. TaskError where the task is malformed."""

    def expect(self, tasks: Sequence[Task]) -> None:
        """Make ready what helps to open these tasks soon, each as often as it is listed, in about this order."""

    def close(self) -> None:
        """End every sandbox that is still open."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
