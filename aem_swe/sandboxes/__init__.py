"""Where an agent works and where a grader tests.

with open_sandboxes("local", limits=SandboxLimits(), programs={"/opt/aem/search.py": source}) as sandboxes:
    with sandboxes.open(task) as sandbox:
        result = sandbox.run(["python3", "/opt/aem/search.py", "needle"])
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar  # Any: a row is whatever its file holds

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


@dataclass(frozen=True, slots=True)
class Making:
    """What every kind of sandbox may be told; each takes what concerns it."""

    limits: SandboxLimits
    programs: Mapping[str, str]
    docker: DockerSettings
    run: str
    backend: str
    rows: Mapping[str, Mapping[str, Any]]


def _local(making: Making) -> Sandboxes:
    return LocalSandboxes(limits=making.limits, programs=making.programs)


def _docker(making: Making) -> Sandboxes:
    from aem_swe.sandboxes.docker import DockerSandboxes  # the SDK is slow to import, and local sandboxes need none

    return DockerSandboxes(limits=making.limits, programs=making.programs, settings=making.docker, run=making.run)


def _rllm(making: Making) -> Sandboxes:
    from aem_swe.sandboxes.rllm import RllmSandboxes, rllm_backend

    return RllmSandboxes(rllm_backend(making.backend), limits=making.limits, programs=making.programs)


def _r2egym(making: Making) -> Sandboxes:
    from aem_swe.sandboxes.r2egym import R2EGymSandboxes

    if making.backend not in ("docker", "kubernetes"):
        raise ConfigError(f"sandbox.backend {making.backend!r} is unknown to r2egym; choose docker or kubernetes")
    return R2EGymSandboxes(
        making.rows,
        limits=making.limits,
        programs=making.programs,
        backend="kubernetes" if making.backend == "kubernetes" else "docker",
        run=making.run,
    )


KINDS: Mapping[str, Callable[[Making], Sandboxes]] = {
    "local": _local,
    "docker": _docker,
    "rllm": _rllm,
    "r2egym": _r2egym,
}


def open_sandboxes(
    kind: str,
    *,
    limits: SandboxLimits,
    programs: Mapping[str, str] | None = None,
    docker: DockerSettings = DOCKER_DEFAULTS,
    run: str = "",
    backend: str = "docker",
    rows: Mapping[str, Mapping[str, Any]] | None = None,
) -> Sandboxes:
    """The maker of sandboxes of a kind, to be used as a context manager.

    programs: path -> source of Python programs that every sandbox holds read-only; run(["python3", path, ...]).
    docker, run: settings and the label of containers. backend: of rllm and r2egym. rows: task id -> R2E-Gym's row, for
    r2egym. Raises ConfigError for an unknown kind or a missing package; entering raises SandboxUnavailable where this
    machine cannot make any.
    """
    return _choose(KINDS, kind)(Making(limits, programs or {}, docker, run, backend, rows or {}))


def unavailable_reason(kind: str, docker: DockerSettings = DOCKER_DEFAULTS, backend: str = "docker") -> str | None:
    """None where sandboxes of this kind work here, else why not, with one line per remedy."""
    _choose(KINDS, kind)
    if kind == "local":
        return _local_unavailable_reason()
    if kind == "docker":
        from aem_swe.sandboxes.docker import unavailable_reason as docker_unavailable_reason

        return docker_unavailable_reason(docker)
    if kind == "r2egym":
        from aem_swe.sandboxes.r2egym import unavailable_reason as r2egym_unavailable_reason

        return r2egym_unavailable_reason()
    from aem_swe.sandboxes.rllm import rllm_backend

    try:
        rllm_backend(backend)
    except ConfigError as error:
        return str(error)
    return None


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
