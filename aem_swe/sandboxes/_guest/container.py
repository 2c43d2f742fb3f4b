"""PID 1 of a container: the same server as in a local sandbox, over the standard streams that the engine attaches.

The engine has already confined this process (namespaces, capabilities, cgroup, seccomp, user limits). What is left to
do here: keep the streams away from commands, be unreadable to them, and end when the host hangs up, so that a trainer
that was killed leaves no running container behind.
"""

import contextlib
import gc
import os
import select
import signal
from types import CodeType

from . import linux, server
from .command import Runner
from .programs import Programs, hide_modules

_OOM_EVENTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
"""The container's own cgroup, v2 or v1, as engines mount it, read-only."""


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


def main(codes: dict[str, CodeType], preloaded: frozenset[str], memory_bytes: int) -> None:
    host = Streams()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # an engine's `stop` would otherwise wait for ten seconds
    os.chdir("/")
    os.umask(0o022)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    oom_score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    kept = hide_modules(preloaded)
    gc.collect()
    gc.freeze()
    runner = Runner(
        host,
        Programs(codes),
        memory_bytes=memory_bytes,
        oom_score=oom_score,
        oom_events=_open_oom_events(),
    )
    server.send(host, {})
    server.serve(host, runner)
    server.end(runner)
    del kept


def _open_oom_events() -> int | None:
    for path in _OOM_EVENTS:
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if b"oom_kill " in os.read(file, 4096):
                return file
            os.close(file)
    return None
