"""PID 1 of a container: the same server as in a local sandbox, over the standard streams that the engine attaches.

The engine has already confined this process (namespaces, capabilities, cgroup, seccomp, user limits). What is left to
do here: keep the streams away from commands, be unreadable to them, and end when the host hangs up, so that a trainer
that was killed leaves no running container behind.
"""

import contextlib
import gc
import os
import resource
import select
from types import CodeType

from . import linux, server
from .command import Runner
from .programs import Programs, hide_modules

_CGROUP = "/sys/fs/cgroup/"
"""The container's own, as engines mount it, read-only. A rootless engine may have none: then it shows another one."""


_BOMB = 512


class Streams:
    """Standard input and output as the one connection that `server` and `Runner` expect."""

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)  # not inherited by commands
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1):
            os.dup2(null, standard)
        os.close(null)

    def fileno(self) -> int:
        return self._in

    def recv_into(self, buffer: memoryview) -> int:
        return os.readv(self._in, [buffer])

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._out, rest) :]

    def wait(self) -> None:
        """Return when the first bytes have come, or the host has hung up."""
        select.select([self._in], [], [])


def main(
    codes: dict[str, CodeType], preloaded: frozenset[str], memory_bytes: int, processes: int, file_bytes: int
) -> None:
    host = Streams()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, 4096)
    limited = _is_enforced(("pids.max", "pids/pids.max"), processes)
    if (
        not limited
    ):  # counts all of a rootless user's containers, so it is only a bound for a fork bomb between two looks
        _limit(resource.RLIMIT_NPROC, max(_BOMB, 4 * processes))
    os.chdir("/")
    os.umask(0o022)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    oom_score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    kept = hide_modules(preloaded)
    gc.collect()
    gc.freeze()
    runner = Runner(
        host,
        Programs(codes),
        memory_bytes=memory_bytes,
        oom_score=oom_score,
        own_score=int(os.pread(oom_score, 32, 0)),
        oom_events=_open_oom_events(memory_bytes),
        max_processes=None if limited else processes,
    )
    server.send(host, {})
    server.serve(host, runner)
    server.end(runner)
    del kept


def _limit(number: int, value: int) -> None:
    """For this process and all that it starts: without capabilities, no command can raise it again."""
    hard = resource.getrlimit(number)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (value, value))


def _open_oom_events(memory_bytes: int) -> int | None:
    """Where the engine's own limit counts its kills, or None where there is no such limit."""
    if not _is_enforced(("memory.max", "memory/memory.limit_in_bytes"), memory_bytes):
        return None
    for name in ("memory.events", "memory/memory.oom_control"):
        with contextlib.suppress(OSError):
            file = os.open(_CGROUP + name, os.O_RDONLY | os.O_CLOEXEC)
            if b"oom_kill " in os.read(file, 4096):
                return file
            os.close(file)
    return None


def _is_enforced(names: tuple[str, ...], limit: int) -> bool:
    """Whether a cgroup file, of version 2 or 1, holds this limit or a stricter one."""
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            with open(_CGROUP + name) as file:
                return int(file.read()) <= limit
    return False
