"""The memory limit of one sandbox where there is no cgroup: PID 1 adds up what its /proc says.

Counts anonymous, shared and swapped pages of all processes but PID 1 (pages shared after a fork count in each). Files
in memory are bounded by the size of the file system. Not covered: kernel memory (sockets, pipes), which the limits on
processes and descriptors bound, and what a process takes between two looks (25 ms).
"""

import os

_FIELDS = (b"RssAnon:", b"RssShmem:", b"VmSwap:")


def memory_in_use() -> int:
    """Bytes in use by every process of this PID namespace but PID 1."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/status", "rb", buffering=0) as file:
                    status = file.read(8192)
            except OSError:  # it has just ended
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(_FIELDS))
    return total * 1024


def count_processes() -> int:
    """Processes of this PID namespace beside PID 1."""
    return sum(name.isdigit() for name in os.listdir("/proc")) - 1
