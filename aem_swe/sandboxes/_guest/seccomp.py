"""The system calls that no command in a sandbox may make, as one BPF filter (a second wall behind the namespaces).

It closes what namespaces leave open: vsock (which no network namespace covers), namespaces and mounts of one's own,
tracing, keyrings, io_uring and bpf as attack surface, memory that a process owns without showing it (memfd, System V),
and changing the limits or the priority of PID 1, which runs under the same user.
Not covered: other machines than x86_64 and aarch64 (no sandbox there).
"""

import ctypes
import errno
import functools
import struct

from . import linux

_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_REFUSED = {  # (x86_64, aarch64)
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "syslog": (103, 116), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
}  # fmt: skip
_ABSENT = {  # ENOSYS, so that the C library and programs take their other way
    "clone3": (435, 435), "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
}  # fmt: skip
_NOT_ON_PID_1 = {  # their first argument is the process
    "prlimit64": (302, 261), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
}  # fmt: skip
_SETPRIORITY, _CLONE, _SOCKET = (141, 140), (56, 220), (41, 198)
_NAMESPACE_FLAGS = 0x7E02_0000
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_Instruction = tuple[int, int, int, int]


def _argument(index: int) -> _Instruction:
    return (_LOAD, 0, 0, 16 + 8 * index)  # struct seccomp_data, low half of a word (both machines are little-endian)


def _refuse(code: int) -> _Instruction:
    return (_RETURN, 0, 0, _ERRNO | code)


def _case(number: int, block: list[_Instruction]) -> list[_Instruction]:
    """Run `block` for this system call only; a block always returns."""
    return [(_EQUAL, 0, len(block), number), *block]


def instructions(machine: str) -> list[_Instruction]:
    column = list(_ARCHITECTURES).index(machine)
    allow: _Instruction = (_RETURN, 0, 0, _ALLOW)
    eperm, enosys = _refuse(errno.EPERM), _refuse(errno.ENOSYS)
    program: list[_Instruction] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), enosys, (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, 0x4000_0000), enosys]  # the x32 numbering would go round the list
    for numbers in _REFUSED.values():
        program += _case(numbers[column], [eperm])
    for numbers in _ABSENT.values():
        program += _case(numbers[column], [enosys])
    for numbers in _NOT_ON_PID_1.values():
        program += _case(numbers[column], [_argument(0), (_EQUAL, 0, 1, 1), eperm, allow])
    # setpriority(PRIO_PROCESS, not PID 1) only: a group or a user would include PID 1
    program += _case(
        _SETPRIORITY[column],
        [_argument(0), (_EQUAL, 0, 2, 0), _argument(1), (_EQUAL, 0, 1, 1), eperm, allow],
    )
    program += _case(_CLONE[column], [_argument(0), (_ANY_BIT, 0, 1, _NAMESPACE_FLAGS), eperm, allow])
    families = [(_EQUAL, 5, 0, _UNIX), (_EQUAL, 4, 0, _INET), (_EQUAL, 3, 0, _INET6)]
    netlink = [(_EQUAL, 0, 3, _NETLINK), _argument(2), (_EQUAL, 0, 1, 0)]  # NETLINK_ROUTE, for getifaddrs()
    program += _case(_SOCKET[column], [_argument(0), *families, *netlink, allow, _refuse(errno.EAFNOSUPPORT)])
    return [*program, allow]


@functools.cache
def compiled() -> bytes:
    """The filter as the kernel reads it. OSError on a machine that it is not written for."""
    if linux.MACHINE not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call filter for {linux.MACHINE}")
    return b"".join(struct.pack("=HBBI", *line) for line in instructions(linux.MACHINE))


def install() -> None:
    """Filter this process and all that it forks. Needs no_new_privs."""
    program = compiled()
    code = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    linux.prctl(linux.PR_SET_SECCOMP, linux.SECCOMP_MODE_FILTER, ctypes.addressof(header))
