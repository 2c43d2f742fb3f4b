"""Cgroups that are used again: one process per cgroup, which stays in it and makes one sandbox after the other there.

Moving a process into a cgroup waits for every CPU (7-15 ms here, and it slows every fork of the machine meanwhile),
being forked in one costs nothing. So each slot is moved once, when more sandboxes are open than ever before.
"""

import json
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any, NoReturn  # Any: requests are JSON of the trainer's making

from . import linux
from .cgroups import MemoryCgroups
from .programs import Programs
from .spawner import Spawner, reap, serve


@dataclass
class Slot:
    pid: int
    cgroup: str
    limit_bytes: int
    control: socket.socket


class Slots:
    """Keeps each sandbox in a slot with a cgroup of the right size."""

    def __init__(self, cgroups: MemoryCgroups, mode: str, programs: Programs) -> None:
        self._cgroups, self._mode, self._programs = cgroups, mode, programs
        self._slots: dict[int, Slot] = {}
        self._busy: dict[str, Slot] = {}
        self._count = 0
        # A slot that is killed leaves its sandbox, which dies with it, to this process and not to init.
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)

    def open(self, request: dict[str, Any], host: socket.socket) -> None:
        self._busy = {name: slot for name, slot in self._busy.items() if not _is_free(slot)}
        slot = self._find(request["memory_bytes"] + request["disk_bytes"])
        self._busy[request["id"]] = slot
        socket.send_fds(slot.control, [json.dumps(request).encode()], [host.fileno()])

    def kill(self, name: str) -> None:
        if name in self._busy:
            self._busy[name].control.send(json.dumps({"op": "kill", "id": name}).encode())

    def ended(self, pid: int) -> None:
        """A slot was killed from outside, or one of its orphans has been reaped."""
        slot = self._slots.pop(pid, None)
        if slot is not None:
            self._busy = {name: other for name, other in self._busy.items() if other is not slot}
            slot.control.close()

    def end(self) -> None:
        for pid in self._slots:
            os.kill(pid, signal.SIGKILL)
        reap(lambda pid: None, flags=0)
        self._cgroups.close()

    def _find(self, limit_bytes: int) -> Slot:
        busy = {id(slot) for slot in self._busy.values()}
        for slot in self._slots.values():
            if slot.limit_bytes == limit_bytes and id(slot) not in busy:
                return slot
        return self._make(limit_bytes)

    def _make(self, limit_bytes: int) -> Slot:
        self._count += 1
        name = str(self._count)
        events = self._cgroups.make(name, limit_bytes)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_slot(theirs.fileno(), events, parent)
        theirs.close()
        os.close(events)
        self._cgroups.add(name, pid)
        ours.setblocking(False)
        self._slots[pid] = Slot(pid, name, limit_bytes, ours)
        return self._slots[pid]

    def _become_slot(self, control_fd: int, events: int, parent: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            linux.close_all_but({0, 1, 2, control_fd, events})
            if os.getppid() == parent:
                control = socket.socket(fileno=control_fd)
                spawner = Spawner(self._mode, self._programs, events=events, report=lambda: control.send(b"free"))
                serve(spawner, control, os.pidfd_open(parent))
        finally:
            os._exit(0)


def _is_free(slot: Slot) -> bool:
    """Whether the slot has said that its sandbox ended. Each open is answered by exactly one such message."""
    try:
        return bool(slot.control.recv(16))
    except BlockingIOError:
        return False
    except OSError:
        return True
