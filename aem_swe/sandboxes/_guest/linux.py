"""The Linux calls that Python's standard library lacks, by ctypes. Every failure is an OSError that names the call.

Covers x86_64 and aarch64. `os.unshare` exists only from Python 3.12 on, so it is not used.
"""

import contextlib
import ctypes
import functools
import os
import platform

MACHINE = platform.machine()

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 22, 36, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

_NUMBERS = {  # (x86_64, aarch64)
    "clone": (56, 220),
    "capset": (126, 91),
    "pivot_root": (155, 41),
    "keyctl": (250, 219),
    "open_tree": (428, 428),
    "close_range": (436, 436),
    "mount_setattr": (442, 442),
}
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_gil = ctypes.PyDLL(None)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def _check(result: int, what: str) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    number = _NUMBERS[name][MACHINE == "aarch64"]
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words), name)


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    encoded = [os.fsencode(source), os.fsencode(target), kind.encode() if kind else None]
    _check(_libc.mount(*encoded, flags, options.encode() or None), f"mount {kind or 'bind'} on {target}")


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def unmount(target: str) -> None:
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    _syscall("pivot_root", os.fsencode(new), os.fsencode(old))


def set_mount_attributes(path: str, attributes: int, *, recursive: bool = False) -> None:
    """mount_setattr(2), Linux 5.12: the only call that makes a whole tree of mounts read-only at once."""
    structure = ctypes.create_string_buffer(attributes.to_bytes(8, "little").ljust(32, b"\0"), 32)
    flags = _AT_RECURSIVE if recursive else 0
    _syscall("mount_setattr", _AT_FDCWD, os.fsencode(path), flags, structure, 32)


def clone_mount(path: str) -> int:
    """A file descriptor of a detached copy of the mount at `path`."""
    return _syscall("open_tree", _AT_FDCWD, os.fsencode(path), 1 | os.O_CLOEXEC)


def prctl(option: int, value: int = 0, pointer: int = 0) -> None:
    _check(_libc.prctl(option, value, pointer, 0, 0), f"prctl({option})")


def drop_capabilities() -> None:
    """Empty every capability set of this process, the bounding set included."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # EINVAL: past the last one that this kernel knows
            break
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4), 8)
    _syscall("capset", header, ctypes.create_string_buffer(24))


def leave_session_keyring() -> None:
    """Swap the inherited session keyring for a fresh one. Kernels without keyrings have nothing to hide."""
    try:
        _syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError:
        return


def close_all_but(kept: set[int]) -> None:
    """Close every descriptor that is not in `kept`."""
    if not _has_close_range():
        for descriptor in set(map(int, os.listdir("/proc/self/fd"))) - kept:
            with contextlib.suppress(OSError):  # the one that read the folder
                os.close(descriptor)
        return
    first = 0
    for descriptor in sorted(kept):
        if first < descriptor:
            _syscall("close_range", first, descriptor - 1, 0)
        first = descriptor + 1
    _syscall("close_range", first, 0x7FFF_FFFF, 0)


@functools.cache
def _has_close_range() -> bool:
    """Older engines' system call filters refuse it."""
    try:
        _syscall("close_range", 0x7FFF_FFFE, 0x7FFF_FFFF, 0)
    except OSError:
        return False
    return True


def clone(flags: int) -> int:
    """fork() with namespace flags: 0 in the child. Only for a process with one thread.

    The interpreter is told as os.fork() tells it; the GIL is held, so the child finds it as the parent left it.
    """
    api = ctypes.pythonapi
    number = _NUMBERS["clone"][MACHINE == "aarch64"]
    arguments = [ctypes.c_long(value) for value in (number, flags | 17, 0, 0, 0, 0)]  # 17: SIGCHLD
    api.PyOS_BeforeFork()
    pid = int(_libc_with_gil.syscall(*arguments))
    if pid == 0:
        api.PyOS_AfterFork_Child()
        return 0
    api.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(f"clone({flags:#x}) failed")
    return pid
