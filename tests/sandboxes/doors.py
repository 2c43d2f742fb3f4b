"""A door of our own to this machine, as rLLM's local backend is one, and a maker of sandboxes that moves their tasks.

Nothing is isolated: only commands that are harmless here.
"""

import itertools
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from aem_swe.sandboxes import Sandbox, SandboxLimits
from aem_swe.sandboxes.base import Purpose
from aem_swe.sandboxes.rllm import RllmSandboxes
from aem_swe.types import Task

LIMITS = SandboxLimits()


class HostDoor:
    """exec(command) -> text with a shell of this machine. `on` counts calls and may raise or take its time."""

    def __init__(self, on: Callable[[int, str], None] = lambda count, command: None) -> None:
        self._on, self._alive, self.calls = on, True, 0

    def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str:
        self.calls += 1
        self._on(self.calls, command)
        if not self._alive:
            raise ConnectionResetError("the container is not running")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"Command failed (exit {done.returncode})")
        return done.stdout

    def close(self) -> None:
        self._alive = False

    def is_alive(self) -> bool:
        return self._alive


class Moved:
    """Every sandbox gets a workdir of its own below `folder` instead of its task's."""

    def __init__(self, sandboxes: RllmSandboxes, folder: Path) -> None:
        self._sandboxes, self._folder, self._numbers = sandboxes, folder, itertools.count()

    def open(self, task: Task, *, purpose: Purpose = "agent") -> Sandbox:
        moved = replace(task, workdir=str(self._folder / str(next(self._numbers))))
        return self._sandboxes.open(moved, purpose=purpose)


def running(mark: str) -> list[int]:
    """Pids of this machine's living processes whose command line holds a mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def soon(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
