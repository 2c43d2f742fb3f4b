"""From a process that may do anything to PID 1 of a sandbox, which may do nothing outside it. Order matters."""

import errno
import fcntl
import os
import re
import resource
import signal
import socket
import struct
from collections.abc import Mapping
from typing import Any  # a request is JSON of the trainer's making

from . import linux, rootfs, seccomp

INSIDE = 1000
"""User and group id of everything in a sandbox, as seen inside."""
NOBODY = 65534
MAX_DESCRIPTORS = 512
OLDEST_LINUX = (5, 14)
"""The first that counts RLIMIT_NPROC per user namespace."""
NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def prepare_zygote() -> str:
    """Give this process a mount namespace of its own; "root", or "user" where that took a user namespace."""
    version = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    if version < OLDEST_LINUX:
        raise OSError(errno.ENOSYS, "Linux {}.{} is too old, 5.14 is needed".format(*version))
    if os.geteuid() == 0:
        try:
            linux.unshare(linux.CLONE_NEWNS)
            return "root"
        except PermissionError:
            # Root in a container. Its user id must not enter a sandbox: /proc/sys is writable for it even without
            # capabilities.
            become(NOBODY)
    uid, gid = os.geteuid(), os.getegid()
    linux.prctl(linux.PR_SET_DUMPABLE, 1)
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    write_maps("/proc", inside=0, uid=uid, gid=gid)
    return "user"


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def write_maps(proc: str, *, inside: int, uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {uid} 1"), ("gid_map", f"{inside} {gid} 1")):
        with open(f"{proc}/self/{name}", "w") as file:
            file.write(text)


def enter_sandbox(mode: str, request: Mapping[str, Any]) -> int:
    """Confine this process, PID 1 of a new PID namespace. Returns a descriptor for its own oom_score_adj.

    After this the process has no capability anywhere, one user id, no network but its own loopback, no other files,
    and cannot be traced, read or (as PID 1) signalled by what it starts.
    """
    linux.unshare(NAMESPACES)
    uid = NOBODY if mode == "root" else 0
    rootfs.enter(request["workdir"], request["disk_bytes"], uid)
    _raise_loopback()
    socket.sethostname("sandbox")
    proc = linux.clone_mount("/proc")
    # Read-only for good: /proc/self/oom_score_adj would let a command point the kernel's OOM killer at PID 1,
    # /proc/<pid>/mem would let it write into another one.
    attributes = linux.ATTR_RDONLY | linux.ATTR_NOSUID | linux.ATTR_NODEV | linux.ATTR_NOEXEC
    linux.set_mount_attributes("/proc", attributes)
    if mode == "root":
        become(NOBODY)
        linux.prctl(linux.PR_SET_DUMPABLE, 1)  # else /proc/self/uid_map belongs to root
    linux.unshare(linux.CLONE_NEWUSER)
    write_maps(f"/proc/self/fd/{proc}", inside=INSIDE, uid=uid, gid=uid)
    with open(f"/proc/self/fd/{proc}/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    oom = os.open(f"/proc/self/fd/{proc}/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.close(proc)
    os.chdir("/")
    os.umask(0o022)
    _limit("CORE", 1)  # 0 would still start the host's crash handler where core_pattern names one
    _limit("NOFILE", MAX_DESCRIPTORS)
    _limit("FSIZE", request["disk_bytes"])
    _limit("NPROC", request["processes"] + 1)  # PID 1 is one; the kernel counts the whole user namespace
    linux.leave_session_keyring()
    linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # cleared by every change of identity, so it comes late
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    seccomp.install()
    return oom


def _limit(name: str, value: int) -> None:
    number = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(number)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (value, value))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
