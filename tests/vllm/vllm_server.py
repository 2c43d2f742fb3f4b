"""A real `vllm serve` on the CPU, in a process of its own: loopback, a free port, and nothing of it left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

LIFETIME_S = 1500
"""After this long `timeout` ends the server and its workers, whatever became of the tests."""
STARTUP_S = 600
"""A minute alone on two cores, nearly all of it imports; the rest is for a busy machine."""
NAME = "demo"
MARK = "AEM_SWE_TEST_PROCESS"
"""A variable whose value only the processes of one server or one run share."""


def environment() -> dict[str, str]:
    """This process's, and what vLLM needs on a small machine without a network."""
    return os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        MARK: uuid.uuid4().hex,
    }


@contextmanager
def serving(model: Path, folder: Path, *flags: str) -> Iterator[str]:
    """Serve the checkpoint `model` as NAME; yields the base URL. The log goes to folder/vllm.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limit = ["timeout", "--kill-after=10", str(LIFETIME_S)]
    serve = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--served-model-name", NAME]
    size = ["--dtype", "float32", "--max-model-len", "1024", "--gpu-memory-utilization", "0.3", "--enforce-eager"]
    command = [*limit, *serve, *size, "--host", "127.0.0.1", "--port", str(port), *flags]
    env = environment()
    with open(folder / "vllm.log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", folder / "vllm.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            end(process, env)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"vLLM did not come up:\n{log.read_text(errors='replace')[-3000:]}")


def end(process: "subprocess.Popen[bytes]", env: Mapping[str, str]) -> None:
    """End a process started with `env`, and all that it started: workers have sessions of their own, but the mark."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    for number in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        with suppress(OSError):
            if f"{MARK}={env[MARK]}".encode() in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                os.kill(number, signal.SIGKILL)
    process.wait(timeout=20)
