"""Where an agent works and where a grader tests.

with open_sandboxes("local", limits=SandboxLimits(), programs={"/opt/aem/search.py": source}) as sandboxes:
    with sandboxes.open(task) as sandbox:
        result = sandbox.run(["python3", "/opt/aem/search.py", "needle"])
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from aem_swe.errors import ConfigError
from aem_swe.sandboxes.base import (
    DOCKER_DEFAULTS,
    GIT_APPLY,
    MAX_DIFF,
    CommandResult,
    DockerSettings,
    Purpose,
    Sandbox,
    Sandboxes,
    SandboxEvent,
    SandboxLimits,
)
from aem_swe.sandboxes.local import LocalSandboxes
from aem_swe.sandboxes.local import unavailable_reason as _local_unavailable_reason

_T = TypeVar("_T")

Make = Callable[[SandboxLimits, Mapping[str, str], DockerSettings, str], Sandboxes]


def _local(limits: SandboxLimits, programs: Mapping[str, str], _: DockerSettings, __: str) -> Sandboxes:
    return LocalSandboxes(limits=limits, programs=programs)


def _docker(limits: SandboxLimits, programs: Mapping[str, str], settings: DockerSettings, run: str) -> Sandboxes:
    from aem_swe.sandboxes.docker import DockerSandboxes  # the SDK is slow to import, and local sandboxes need none

    return DockerSandboxes(limits=limits, programs=programs, settings=settings, run=run)


KINDS: Mapping[str, Make] = {"local": _local, "docker": _docker}


def open_sandboxes(
    kind: str,
    *,
    limits: SandboxLimits,
    programs: Mapping[str, str] | None = None,
    docker: DockerSettings = DOCKER_DEFAULTS,
    run: str = "",
) -> Sandboxes:
    """The maker of sandboxes of a kind, to be used as a context manager.

    programs: path -> source of Python programs that every sandbox holds read-only; run(["python3", path, ...]).
    docker, run: settings and the label of containers.
    Raises ConfigError for an unknown kind; entering raises SandboxUnavailable where this machine cannot make any.
    """
    return _choose(KINDS, kind)(limits, programs or {}, docker, run)


def unavailable_reason(kind: str, docker: DockerSettings = DOCKER_DEFAULTS) -> str | None:
    """None where sandboxes of this kind work here, else why not, with one line per remedy."""
    _choose(KINDS, kind)
    if kind == "local":
        return _local_unavailable_reason()
    from aem_swe.sandboxes.docker import unavailable_reason as docker_unavailable_reason

    return docker_unavailable_reason(docker)


def _choose(table: Mapping[str, _T], kind: str) -> _T:
    if kind not in table:
        raise ConfigError(f"sandbox {kind!r} is unknown; choose one of {sorted(table)}")
    return table[kind]


__all__ = [
    "GIT_APPLY",
    "KINDS",
    "MAX_DIFF",
    "CommandResult",
    "DockerSettings",
    "Purpose",
    "Sandbox",
    "SandboxEvent",
    "SandboxLimits",
    "Sandboxes",
    "open_sandboxes",
    "unavailable_reason",
]
