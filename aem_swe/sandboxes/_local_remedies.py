"""What to do where local sandboxes do not work."""

import os
from pathlib import Path

_SWITCHES = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000"),
}
"""Files that say whether an ordinary user may make user namespaces: (the value that forbids it, remedy)."""


def explain(reason: str) -> str:
    """The reason, and one line for each thing that can be done about it."""
    lines = [f"local sandboxes do not work on this machine: {reason.strip()}"]
    for path, (value, remedy) in _SWITCHES.items():
        if os.path.exists(path) and Path(path).read_text().strip() == value:
            lines.append(f"- as root: {remedy}")
    lines.append("- in a container: run it with user namespaces allowed (docker run --security-opt seccomp=unconfined)")
    lines.append("- or work in containers: sandbox=docker (see aem-swe sandbox --help)")
    return "\n".join(lines)
