"""How PID 1 runs one command: fork, move its bytes, wait, and kill everything where a limit is reached."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Literal, NoReturn, Protocol

from . import linux
from .cgroups import count_oom_kills
from .programs import Programs
from .streams import Streams, open_early
from .watchdog import count_processes, memory_in_use

_LOOK_EVERY_S = 0.025

Ending = Literal["exited", "timed_out", "out_of_memory"]


class Host(Protocol):
    """The connection to the trainer: a socket, or the two streams of a container."""

    def fileno(self) -> int: ...

    def recv_into(self, buffer: memoryview) -> int: ...

    def sendall(self, data: bytes) -> None: ...


@dataclass(frozen=True)
class Command:
    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    stdin: bytes
    timeout: float
    max_output: int


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    ending: Ending


class Runner:
    """Runs commands, one at a time, and reaps every orphan of its PID namespace."""

    def __init__(
        self,
        host: Host,
        programs: Programs,
        *,
        memory_bytes: int,
        oom_score: int,
        oom_events: int | None,
        max_processes: int | None = None,
        own_score: int = 0,
    ) -> None:
        """oom_score: descriptor of the own /proc/self/oom_score_adj. oom_events: None = watch the memory oneself.
        max_processes: None = the kernel limits them. own_score: what this process inherited; none may go below that."""
        open_early()
        self._max_processes, self._own_score = max_processes, b"%d" % own_score
        self._host, self._programs, self._memory = host, programs, memory_bytes
        self._oom_score, self._oom_events = oom_score, oom_events
        self._wake, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # for PID 1 the default is: ignored
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        self._main = 0
        self._exit_code: int | None = None
        """Of the command that runs. Other processes' are not kept: there may be any number of them."""

    def run(self, command: Command) -> Outcome:
        deadline = time.monotonic() + command.timeout
        kills_before = self._oom_kills()
        self._exit_code = None
        streams = Streams(command.stdin, command.max_output)
        try:
            self._main = self._start(command, streams.child_ends)
        except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in what the policy wrote
            streams.close()
            reason = f"{command.argv[0]}: {error}\n".encode(errors="backslashreplace")
            exit_code = 127 if isinstance(error, FileNotFoundError) else 126
            return Outcome(exit_code, b"", reason[: command.max_output], False, "exited")
        ending = self._wait(streams, deadline, kills_before)
        if ending != "exited":
            self.kill_all()
        streams.close()
        truncated = streams.out.truncated or streams.err.truncated
        return Outcome(self._code(ending), bytes(streams.out.kept), bytes(streams.err.kept), truncated, ending)

    def _code(self, ending: Ending) -> int:
        return -signal.SIGKILL if self._exit_code is None or ending == "timed_out" else self._exit_code

    def kill_all(self) -> None:
        """End every process but this one, and return when the last has been reaped."""
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            if not self._reap():
                return
            time.sleep(0.0005)

    def idle(self) -> None:
        """Return when the host has something to say; until then reap, and watch what daemons take."""
        poller = select.poll()
        poller.register(self._host, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while True:
            watched = self._oom_events is None and self._reap()
            ready = dict(poller.poll(_LOOK_EVERY_S * 1000 if watched else None))
            if self._wake in ready:
                self._forget_wakes()
                self._reap()
            if self._host.fileno() in ready:
                return
            if watched and memory_in_use() > self._memory:
                self.kill_all()

    def _start(self, command: Command, ends: tuple[int, ...]) -> int:
        """The pid of the started command. An OSError is the command's own: no such program, folder, free process."""
        os.chdir(command.cwd)
        # Children inherit 1000, so the OOM killer takes them first; they cannot lower it, /proc is read-only.
        os.pwrite(self._oom_score, b"1000", 0)
        try:
            code = self._programs.find(command.argv)
            if code is None:
                return _spawn(command, ends)
            self._programs.set_environment(command.env)
            pid = os.fork()
            if pid == 0:
                self._become(code, command, ends)
            return pid
        finally:
            os.pwrite(self._oom_score, self._own_score, 0)
            os.chdir("/")

    def _become(self, code: CodeType, command: Command, ends: tuple[int, ...]) -> NoReturn:
        try:
            os.setpgid(0, 0)  # no session: the kernel would give each its own share of the processor (see zygote.py)
            signal.set_wakeup_fd(-1)
            for target, end in enumerate(ends):
                os.dup2(end, target)
            linux.close_all_but({0, 1, 2})
            linux.prctl(linux.PR_SET_DUMPABLE, 1)  # as exec would: /proc/self is the program's own
            self._programs.execute(code, command.argv)
        finally:
            os._exit(126)

    def _wait(self, streams: Streams, deadline: float, kills_before: int) -> Ending:
        """Move bytes until the command ends or a limit is reached."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        poller.register(self._host, select.POLLRDHUP)
        streams.register(poller)
        look_at = time.monotonic() + _LOOK_EVERY_S
        while True:
            now, ended = time.monotonic(), self._exit_code is not None
            if ended or now >= look_at:
                look_at = now + _LOOK_EVERY_S
                self._kill_too_many()
                if self._is_out_of_memory(kills_before, ended):
                    return "out_of_memory"
            if ended:
                return "exited"
            if now >= deadline:
                return "timed_out"
            for source, _ in poller.poll(max(0.0, min(deadline, look_at) - now) * 1000 + 0.5):
                if source == self._wake:
                    self._forget_wakes()
                    self._reap()
                elif source == self._host.fileno():
                    os._exit(0)  # the host hung up
                else:
                    streams.move(source)

    def _kill_too_many(self) -> None:
        if self._max_processes is not None and count_processes() > self._max_processes:
            self.kill_all()

    def _is_out_of_memory(self, kills_before: int, ended: bool) -> bool:
        if self._oom_events is None:
            return not ended and memory_in_use() > self._memory
        return self._oom_kills() != kills_before

    def _reap(self) -> bool:
        """Collect what has ended; True while other processes remain."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._main:
                    self._main, self._exit_code = 0, os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return False

    def _forget_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _oom_kills(self) -> int:
        return count_oom_kills(self._oom_events) if self._oom_events is not None else 0


def _spawn(command: Command, ends: tuple[int, ...]) -> int:
    """Start a program file. posix_spawn copies nothing of this process, which is what makes fork slow."""
    return os.posix_spawn(
        _find_file(command.argv[0], command.env.get("PATH", os.defpath)),
        list(command.argv),
        dict(command.env),
        file_actions=[(os.POSIX_SPAWN_DUP2, end, target) for target, end in enumerate(ends)],
        setpgroup=0,  # as in _become
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
    )


def _find_file(name: str, path: str) -> str:
    """As execvp looks for it; the working directory is the command's."""
    if "/" not in name:
        for folder in path.split(":"):
            candidate = os.path.join(folder, name)
            if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                return candidate
    return name if "/" in name else f"/{name}"
