"""Which containers are ours and which of them nobody needs any more.

Every container carries the run that made it, the process that owns it (machine, pid and the pid's start time, since
pids are used again) and when it expires. A container is removed once its owner has ended, on the owner's own machine,
or once it has expired, from any machine.
"""

import functools
import os
import time
from collections.abc import Mapping
from pathlib import Path

LABEL = "org.aem-swe"
"""Present on everything that this package makes; its value is the kind: container, volume, prepared, image."""
_RUN, _OWNER, _EXPIRES = f"{LABEL}.run", f"{LABEL}.owner", f"{LABEL}.expires"


def labels_of_this_process(run: str, lifetime_s: float) -> dict[str, str]:
    """The labels of a container that this process makes now."""
    return {LABEL: "container", _RUN: run, _OWNER: _owner(os.getpid()), _EXPIRES: str(int(time.time() + lifetime_s))}


def is_stale(labels: Mapping[str, str], *, now: float) -> bool:
    """Whether a container with these labels may be removed by anybody."""
    if labels.get(LABEL) != "container":
        return False
    try:
        if float(labels[_EXPIRES]) < now:
            return True
        machine, pid, started = labels[_OWNER].split(":")
    except (KeyError, ValueError):  # labels of another version of this package, or of nobody
        return False
    return machine == _machine() and not _lives(int(pid), started)


def _lives(pid: int, started: str) -> bool:
    """Whether the process still runs. Where another user's /proc is hidden, any process with that pid counts."""
    owner = _owner(pid)
    if owner.endswith(":"):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return False  # ours, so its /proc is not hidden: a zombie
    return owner == f"{_machine()}:{pid}:{started}"


def _owner(pid: int) -> str:
    """machine:pid:start time of a running process, or machine:pid: where none has that pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{_machine()}:{pid}:"
    return f"{_machine()}:{pid}:{fields[19]}" if fields[0] not in "ZX" else f"{_machine()}:{pid}:"


@functools.cache
def _machine() -> str:
    """This boot of this machine, in this PID namespace: elsewhere the same pid is another process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid').removeprefix('pid:')}"
