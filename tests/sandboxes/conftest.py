"""Shared sandboxes: one zygote per session and kind of memory limit, one fresh sandbox per test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scene import LIMITS, PROGRAMS

from aem_swe.sandboxes.local import LocalSandboxes, unavailable_reason


@pytest.fixture(scope="session")
def works() -> None:
    """Skip where this machine cannot make local sandboxes."""
    reason = unavailable_reason()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def auto(works: None) -> Iterator[LocalSandboxes]:
    """Memory limited by a cgroup where this user may make one."""
    with LocalSandboxes(limits=LIMITS, programs=PROGRAMS) as sandboxes:
        yield sandboxes


@pytest.fixture(scope="session")
def watchdog(works: None) -> Iterator[LocalSandboxes]:
    with LocalSandboxes(limits=LIMITS, programs=PROGRAMS, memory_limit="watchdog") as sandboxes:
        yield sandboxes


@pytest.fixture
def processes_of() -> Callable[[str], list[int]]:
    """Host pids of living processes whose command line holds a mark: what a sandbox should not leave behind."""

    def find(mark: str) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found

    return find
