"""A stand-in for a sandbox: commands run here, in a folder. Only for code of our own, there is no border at all."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aem_swe.sandboxes.base import CommandResult, SandboxEvent

PYVENV = "home = {home}\ninclude-system-site-packages = false\n"


class FolderSandbox:
    """Sandbox over `workdir`; `programs` are what a real one has preloaded."""

    def __init__(
        self, workdir: Path, programs: Mapping[str, str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.events: list[SandboxEvent] = []
        self.workdir, self.programs = workdir, programs
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(workdir.parent), **(environment or {})}
        self.commands: list[Sequence[str] | str] = []

    def run(
        self,
        command: Sequence[str] | str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> CommandResult:
        self.commands.append(command)
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        if argv[0] == "python3" and argv[1] in self.programs:
            argv = [sys.executable, "-I", "-c", self.programs[argv[1]], *argv[2:]]
        started = time.perf_counter()
        with subprocess.Popen(
            argv, cwd=self.workdir / (cwd or ""), env={**self.environment, **(env or {})}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(stdin, timeout=timeout)
                late = False
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                out, err = process.communicate()
                late = True
        cap = max_output or 1 << 20
        more = len(out) > cap or len(err) > cap
        seconds = time.perf_counter() - started
        return CommandResult(process.returncode, out[:cap], err[:cap], more, late, False, seconds)

    def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        return (self.workdir / path).read_bytes()[:max_bytes]

    def write(self, path: str, data: bytes) -> None:
        (self.workdir / path).parent.mkdir(parents=True, exist_ok=True)
        (self.workdir / path).write_bytes(data)

    def diff(self) -> bytes:
        raise AssertionError("a grader takes no diff")

    def kill_all(self) -> None: ...

    def alive(self) -> bool:
        return True

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


PACKAGES = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")


def make_environment(folder: Path) -> Path:
    """A virtual environment at folder/.venv that has pytest and nothing else; return its Python."""
    packages = folder / f".venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    for name in PACKAGES:
        source = importlib.import_module(name).__file__
        assert source is not None
        found = Path(source).parent if Path(source).name == "__init__.py" else Path(source)
        for path in (found, *found.parent.glob(f"{name}-*.dist-info")):
            (packages / path.name).symlink_to(path)
    (folder / ".venv/bin").mkdir()
    base = Path(getattr(sys, "_base_executable", sys.executable))
    (folder / ".venv/bin/python").symlink_to(base)
    (folder / ".venv/pyvenv.cfg").write_text(PYVENV.format(home=base.parent))
    return folder / ".venv/bin/python"
