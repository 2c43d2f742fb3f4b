"""Serve a local checkpoint with vLLM for the time of an evaluation: on the loopback, with its log kept."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aem_swe.child import ended_with_parent
from aem_swe.errors import ConfigError, PolicyError

STARTUP_S = 3600.0
"""A large checkpoint from a network file system takes that long; a server that dies is noticed at once."""
_MARK = "AEM_SWE_SERVER"
"""A variable whose value only the processes of one server share: vLLM's workers have sessions of their own."""
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that has answered."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def why_dead(self) -> str:
        """Empty while it runs."""
        code = self.process.poll()
        return "" if code is None else f"vLLM ended with code {code} ({_last_line(self.log)}); see {self.log}"


@contextmanager
def serving(
    model: str,
    *,
    name: str,
    log: Path,
    context: int,
    tensor_parallel: int = 1,
    arguments: Sequence[str] = (),
    startup_s: float = STARTUP_S,
) -> Iterator[Server]:
    """Start `vllm serve` for the checkpoint `model` under `name`, wait until it is healthy, and end it afterwards.

    arguments: more of vLLM's own, last, so that they win. Raises ConfigError where vLLM is not installed, PolicyError
    where the server does not come up.
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{model!r} would be served with vLLM, which is not installed here; install it, serve the model yourself "
            "and give --endpoint URL, or use --embedded for a small one"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]
    command += ["--served-model-name", name, "--max-model-len", str(context)]
    command += ["--tensor-parallel-size", str(tensor_parallel), "--generation-config", "vllm"]
    command += ["--host", "127.0.0.1", "--port", str(port), *arguments]
    mark = uuid.uuid4().hex
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {_MARK: mark, "VLLM_NO_USAGE_STATS": os.environ.get("VLLM_NO_USAGE_STATS", "1")},
            start_new_session=True,  # Ctrl-C is for us; we end the server when its answers are no longer needed
            preexec_fn=ended_with_parent(),
        )
    try:
        server = Server(f"http://127.0.0.1:{port}/v1", process, log)
        _wait(server, f"http://127.0.0.1:{port}/health", startup_s)
        yield server
    finally:
        _end(process, mark)


def _wait(server: Server, url: str, startup_s: float) -> None:
    deadline = time.monotonic() + startup_s
    while time.monotonic() < deadline:
        if why := server.why_dead():
            raise PolicyError(why)
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise PolicyError(f"vLLM did not answer within {startup_s:g} s; see {server.log}")


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        lines = deque((line for line in file if line.strip()), maxlen=1)
    return lines[0].decode("utf-8", "replace").strip()[:300] if lines else "it wrote nothing"


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """End the server and all that it started."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_S)
    wanted = f"{_MARK}={mark}".encode()
    for number in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        with suppress(OSError):
            if wanted in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                os.kill(number, signal.SIGKILL)
    process.wait(timeout=_GRACE_S)
