"""The trusted parent of all sandboxes of one trainer: single-threaded, without environment, with one control socket.

Every message on the control socket is one JSON object: {"op": "open", "id", ...} with the sandbox's own socket as a
passed descriptor, or {"op": "kill", "id"}. Only the first message goes the other way: {"mode", "memory"} or {"error"}.
It ends, and all sandboxes with it, when the trainer hangs up or dies; the trainer is watched by pidfd, since a forked
worker of it may hold a copy of the socket for longer.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from typing import Any  # settings are JSON of the trainer's making

from . import confine, rootfs, seccomp
from .cgroups import find_memory_cgroups
from .programs import Programs, compiled, hide_modules
from .slots import Slots
from .spawner import Spawner, serve

BEHIND = 5
"""Nice value of everything in a sandbox: the policy's forward passes are what a step waits for."""


def give_way() -> None:
    """Yield the processor to the trainer. Where the kernel shares it out by session, nice counts inside one only, and
    the session as a whole has to yield as well."""
    os.nice(BEHIND)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:  # not every kernel has it
        file.write(str(BEHIND))


def main(settings: dict[str, Any], preloaded: frozenset[str], control_fd: int) -> None:
    control = socket.socket(fileno=control_fd)
    trainer = os.pidfd_open(os.getppid())
    null = os.open("/dev/null", os.O_RDWR)
    give_way()
    try:
        seccomp.compiled()
        mode = confine.prepare_zygote()
        cgroups = find_memory_cgroups() if settings["memory_limit"] != "watchdog" else None
        rootfs.build(sys.base_prefix, settings["hidden"], settings["programs"])
        programs = Programs(compiled(settings["programs"]))
    except (OSError, SyntaxError) as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept = hide_modules(preloaded)
    gc.collect()
    gc.freeze()
    spawner = Spawner(mode, programs, events=None)
    keeper = spawner if cgroups is None else Slots(cgroups, mode, programs)
    control.send(json.dumps({"mode": mode, "memory": cgroups.kind if cgroups else "watchdog"}).encode())
    serve(keeper, control, trainer)
    del kept
