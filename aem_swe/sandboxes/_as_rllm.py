"""An open sandbox of ours in the form that rLLM's flows, harnesses and evaluators use."""

import io
import os
import tarfile
from pathlib import Path
from typing import Protocol

from aem_swe.sandboxes.base import MAX_DIFF, CommandResult, Sandbox

_TIMEOUT_S = 300.0
"""rLLM's own where a call names none."""


class RllmSandbox(Protocol):
    """rLLM's sandbox protocol (rllm/sandbox/protocol.py)."""

    def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str: ...

    def upload_file(self, local_path: str, remote_path: str) -> None: ...

    def upload_dir(self, local_path: str, remote_path: str) -> None: ...

    def close(self) -> None: ...

    def is_alive(self) -> bool: ...


def as_rllm(sandbox: Sandbox) -> RllmSandbox:
    """The sandbox as rLLM's. A command that fails raises RuntimeError, as in rLLM's own backends."""
    return _AsRllm(sandbox)


class _AsRllm:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str:
        """Run a bash command in the task's workdir. `user` is ignored, as most of rLLM's backends do."""
        result = self._sandbox.run(command, timeout=timeout or _TIMEOUT_S, max_output=MAX_DIFF)
        if result.exit_code != 0 or result.timed_out:
            how = "reached its time limit" if result.timed_out else f"failed (exit {result.exit_code})"
            raise RuntimeError(f"Command {how}: {command}\nstderr (tail):\n{_tail(result)}")
        return result.stdout.decode("utf-8", "replace")

    def upload_file(self, local_path: str, remote_path: str) -> None:
        """Copy one file, with its permissions, to an absolute path."""
        self._unpack(Path(local_path), remote_path)

    def upload_dir(self, local_path: str, remote_path: str) -> None:
        """Copy a folder, so that `remote_path` holds what `local_path` holds."""
        self._unpack(Path(local_path), remote_path)

    def close(self) -> None:
        self._sandbox.close()

    def is_alive(self) -> bool:
        return self._sandbox.alive()

    def _unpack(self, local: Path, remote: str) -> None:
        folder, name = os.path.split(remote.rstrip("/"))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(local, arcname=name)
        script = 'mkdir -p -- "$1" && exec tar -x --no-same-owner -f - -C "$1"'
        result = self._sandbox.run(
            ["sh", "-c", script, "sh", folder or "/"], stdin=packed.getvalue(), timeout=_TIMEOUT_S
        )
        if result.exit_code != 0:
            raise RuntimeError(f"Upload of {local} to {remote} failed (exit {result.exit_code}): {_tail(result)}")


def _tail(result: CommandResult) -> str:
    return (result.stderr or result.stdout)[-600:].decode("utf-8", "replace")
