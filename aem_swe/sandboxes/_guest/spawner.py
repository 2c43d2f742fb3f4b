"""Clones one PID 1 for each sandbox that is asked for, and ends those that it is told to end."""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn, Protocol  # Any: messages are JSON of the trainer's making

from . import confine, linux, rootfs, server
from .command import Runner
from .programs import Programs


class Keeper(Protocol):
    """What keeps sandboxes: the spawner itself, or the slots in which several of them work."""

    def open(self, request: dict[str, Any], host: socket.socket) -> None: ...
    def kill(self, name: str) -> None: ...
    def ended(self, pid: int) -> None: ...
    def end(self) -> None: ...


def serve(keeper: Keeper, control: socket.socket, other: int) -> None:
    """Do what the control socket says until it, or the process behind the pidfd `other`, is gone."""
    wake, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    poller = select.poll()
    for source in (wake, other, control.fileno()):
        poller.register(source, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if wake in ready:
            os.read(wake, 4096)
            reap(keeper.ended)
        if other in ready or (control.fileno() in ready and not _answer(keeper, control)):
            return keeper.end()


def _answer(keeper: Keeper, control: socket.socket) -> bool:
    message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
    if not message:
        return False
    request = json.loads(message)
    if request["op"] == "open":
        with socket.socket(fileno=descriptors[0]) as host:
            try:
                keeper.open(request, host)
            except OSError as error:
                server.send(host, server.refusal(error))
    else:
        with contextlib.suppress(OSError):  # it has just ended by itself
            keeper.kill(request["id"])
    return True


def reap(ended: Callable[[int], None], flags: int = os.WNOHANG) -> None:
    try:
        while (pid := os.waitpid(-1, flags)[0]) != 0:
            ended(pid)
    except ChildProcessError:
        return


class Spawner:
    """Keeps sandboxes as its own children. events: descriptor of the OOM counter of the cgroup that it works in."""

    def __init__(
        self, mode: str, programs: Programs, *, events: int | None, report: Callable[[], object] = lambda: None
    ) -> None:
        self._mode, self._programs, self._events, self._report = mode, programs, events, report
        self._pids: dict[str, int] = {}

    def open(self, request: dict[str, Any], host: socket.socket) -> None:
        alive = os.pidfd_open(os.getpid())
        try:
            rootfs.make_workdir(request["workdir"])
            pid = linux.clone(linux.CLONE_NEWPID)
            if pid == 0:
                self._become_pid_1(request, host.fileno(), alive)
            self._pids[request["id"]] = pid
        except OSError:
            self._report()
            raise
        finally:
            os.close(alive)

    def kill(self, name: str) -> None:
        if name in self._pids:
            os.kill(self._pids[name], signal.SIGKILL)

    def ended(self, pid: int) -> None:
        self._pids = {name: other for name, other in self._pids.items() if other != pid}
        self._report()

    def end(self) -> None:
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        reap(lambda pid: None, flags=0)

    def _become_pid_1(self, request: dict[str, Any], channel: int, parent: int) -> NoReturn:
        """The rest of a clone's life. Only the sandbox's own socket and the OOM counter stay open."""
        try:
            signal.set_wakeup_fd(-1)
            linux.close_all_but({0, 1, 2, channel, parent} | ({self._events} if self._events is not None else set()))
            for inherited in (channel, self._events):
                if inherited is not None:
                    os.set_inheritable(inherited, False)  # commands are spawned, not forked: exec closes what is ours
            host = socket.socket(fileno=channel)
            try:
                oom_score = confine.enter_sandbox(self._mode, request)
                runner = Runner(
                    host,
                    self._programs,
                    memory_bytes=request["memory_bytes"],
                    oom_score=oom_score,
                    oom_events=self._events,
                )
            except OSError as error:
                server.send(host, server.refusal(error))
                os._exit(1)
            if select.select([parent], [], [], 0)[0]:
                os._exit(1)  # it ended before PR_SET_PDEATHSIG could tell
            os.close(parent)
            server.send(host, {})
            server.serve(host, runner)
            server.end(runner)
        finally:
            os._exit(1)
