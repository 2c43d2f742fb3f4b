"""The memory limit of one sandbox as a cgroup (v2, or the v1 memory hierarchy), where this process may make one.

A cgroup counts everything, kernel memory and files in memory included, and the kernel enforces it. Where none can be
made (the usual case for an ordinary user), PID 1 watches its own /proc instead (watchdog.py).
Only memory: RLIMIT_NPROC counts processes per user namespace since Linux 5.14, so each sandbox has its own count.
"""

import contextlib
import os
import re

_NAME = "aem-swe-{pid}-{own}"
_PATTERN = re.compile(r"aem-swe-(\d+)-\d+")


class MemoryCgroups:
    """The folder of cgroups of one zygote. Held by descriptors, so it works after the host's files are unmounted."""

    def __init__(self, folder: str, *, unified: bool) -> None:
        self.kind = "cgroup v2" if unified else "cgroup v1"
        self._unified = unified
        self._base = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._remove_stale()
        self._name = _NAME.format(pid=os.getppid(), own=os.getpid())
        os.mkdir(self._name, 0o755, dir_fd=self._base)
        self._parent = os.open(self._name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._base)
        if unified:
            self._write("cgroup.subtree_control", "+memory")

    def make(self, name: str, limit_bytes: int) -> int:
        """Make a cgroup; returns a descriptor from which its count of OOM kills can be read."""
        os.mkdir(name, 0o755, dir_fd=self._parent)
        if self._unified:
            self._write(f"{name}/memory.max", str(limit_bytes))
            self._write(f"{name}/memory.swap.max", "0", optional=True)
            self._write(f"{name}/memory.oom.group", "0", optional=True)
        else:
            self._write(f"{name}/memory.limit_in_bytes", str(limit_bytes))
            self._write(f"{name}/memory.memsw.limit_in_bytes", str(limit_bytes), optional=True)  # else swap doubles it
        events = "memory.events" if self._unified else "memory.oom_control"
        return os.open(f"{name}/{events}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._parent)

    def add(self, name: str, pid: int) -> None:
        self._write(f"{name}/cgroup.procs", str(pid))

    def close(self) -> None:
        """Remove all of them. Their processes have ended."""
        _remove_tree(self._base, self._name)

    def _write(self, path: str, text: str, *, optional: bool = False) -> None:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._parent)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)
        except OSError:
            if not optional:
                raise

    def _remove_stale(self) -> None:
        """Remove what trainers that no longer run left behind (their zygote was killed before it could)."""
        for entry in os.listdir(self._base):
            match = _PATTERN.fullmatch(entry)
            if match and not os.path.exists(f"/proc/{match[1]}"):
                _remove_tree(self._base, entry)


def _remove_tree(base: int, name: str) -> None:
    """Remove a folder of cgroups. Its files cannot be removed and need not be; a cgroup in use stays."""
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=base)
    for below in os.listdir(folder):
        with contextlib.suppress(OSError):
            os.rmdir(below, dir_fd=folder)
    os.close(folder)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=base)


def find_memory_cgroups() -> MemoryCgroups | None:
    """The first place below which this process can make cgroups with a memory limit, or None."""
    for folder, unified in _candidates():
        try:
            return MemoryCgroups(folder, unified=unified)
        except OSError:
            continue
    return None


def _candidates() -> list[tuple[str, bool]]:
    """(folder, is v2): the own v1 cgroup, or the nearest v2 ancestor that gives memory limits to its children."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    with open("/proc/self/cgroup") as file:
        own = [line.rstrip("\n").split(":", 2) for line in file]
    found: list[tuple[str, bool]] = []
    for fields in mounts:
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        for _, controllers, path in own:
            below = os.path.relpath(path, fields[3])
            folder = os.path.normpath(os.path.join(fields[4], below if not below.startswith("..") else "."))
            if kind == "cgroup" and "memory" in options and "memory" in controllers.split(","):
                found.append((folder, False))
            elif kind == "cgroup2" and not controllers:
                found += [(place, True) for place in _ancestors(folder, fields[4]) if _delegates_memory(place)]
    return found


def _ancestors(folder: str, top: str) -> list[str]:
    places = [folder]
    while places[-1] != top and len(places[-1]) > len(top):
        places.append(os.path.dirname(places[-1]))
    return places


def _delegates_memory(folder: str) -> bool:
    try:
        with open(folder + "/cgroup.subtree_control") as file:
            return "memory" in file.read().split()
    except OSError:
        return False


def count_oom_kills(events: int) -> int:
    match = re.search(rb"^oom_kill (\d+)", os.pread(events, 4096, 0), re.MULTILINE)
    return int(match[1]) if match else 0
