"""Where an agent works and where a grader tests.

with open_sandboxes("local", limits=SandboxLimits(), programs={"/opt/aem/search.py": source}) as sandboxes:
    with sandboxes.open(task) as sandbox:
        result = sandbox.run(["python3", "/opt/aem/search.py", "needle"])
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from aem_swe.errors import ConfigError
from aem_swe.sandboxes.base import (
    GIT_APPLY,
    MAX_DIFF,
    CommandResult,
    Purpose,
    Sandbox,
    Sandboxes,
    SandboxEvent,
    SandboxLimits,
)
from aem_swe.sandboxes.local import LocalSandboxes
from aem_swe.sandboxes.local import unavailable_reason as _local_unavailable_reason

_T = TypeVar("_T")

KINDS: Mapping[str, Callable[[SandboxLimits, Mapping[str, str]], Sandboxes]] = {
    "local": lambda limits, programs: LocalSandboxes(limits=limits, programs=programs),
}
_UNAVAILABLE_REASONS: Mapping[str, Callable[[], str | None]] = {"local": _local_unavailable_reason}


def open_sandboxes(kind: str, *, limits: SandboxLimits, programs: Mapping[str, str] | None = None) -> Sandboxes:
    """The maker of sandboxes of a kind, to be used as a context manager.

    programs: path -> source of Python programs that every sandbox holds read-only; run(["python3", path, ...]).
    Raises ConfigError for an unknown kind; entering raises SandboxUnavailable where this machine cannot make any.
    """
    return _choose(KINDS, kind)(limits, programs or {})


def unavailable_reason(kind: str) -> str | None:
    """None where sandboxes of this kind work here, else why not, with one line per remedy."""
    return _choose(_UNAVAILABLE_REASONS, kind)()


def _choose(table: Mapping[str, _T], kind: str) -> _T:
    if kind not in table:
        raise ConfigError(f"sandbox {kind!r} is unknown; choose one of {sorted(table)}")
    return table[kind]


__all__ = [
    "GIT_APPLY",
    "KINDS",
    "MAX_DIFF",
    "CommandResult",
    "Purpose",
    "Sandbox",
    "SandboxEvent",
    "SandboxLimits",
    "Sandboxes",
    "open_sandboxes",
    "unavailable_reason",
]
