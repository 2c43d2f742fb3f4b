"""`aem-swe train` with engine=rllm on a machine without a GPU, as a process that can be watched and broken."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vllm_server import MARK, end, environment

HERE = Path(__file__).parent
TIMEOUT_S = 900
"""Two to four minutes on two cores, nearly all of it imports."""


def train(run: Path, *words: str, meddle: Callable[[str], bool] | None = None) -> tuple[int, str]:
    """Run the recipe rllm_on_cpu into `run`; return the exit code and all that was printed.

    meddle: called now and then with the mark of the run's processes, until it returns True.
    """
    paths = [str(HERE), str(HERE.parent / "engines" / "verl"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = environment() | {
        "PYTHONPATH": os.pathsep.join(paths),
        "VERL_USE_EXTERNAL_MODULES": "verl_on_cpu,vllm_on_cpu,record_reads",
        "VERL_PLATFORM": "cpu",
    }
    recipe = HERE / "rllm_on_cpu.yaml"
    command = ["timeout", "--kill-after=20", str(TIMEOUT_S), sys.executable, "-m", "aem_swe.cli", "train", str(recipe)]
    log = run.with_name(f"{run.name}_{time.monotonic_ns()}.log")
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [*command, f"run_dir={run}", *words], env=env, stdout=out, stderr=out, start_new_session=True
        )
        deadline = time.monotonic() + TIMEOUT_S + 60
        try:
            while (code := process.poll()) is None and time.monotonic() < deadline:
                if meddle is not None and meddle(env[MARK]):
                    meddle = None
                time.sleep(0.2)
        finally:
            end(process, env)
    assert code is not None, f"still running\n{log.read_text(errors='replace')[-3000:]}"
    return code, log.read_text(errors="replace")


def kill_worker_after(run: Path, step: int) -> Callable[[str], bool]:
    """A meddler that kills the training worker as soon as the row of `step` is written."""

    def meddle(mark: str) -> bool:
        if not any(row["step"] >= step for row in rows(run)):
            return False
        for number in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
            with suppress(OSError):
                place = Path(f"/proc/{number}")
                title = (place / "cmdline").read_bytes()
                if b"ray::WorkerDict" in title and mark.encode() in (place / "environ").read_bytes():
                    os.kill(number, signal.SIGKILL)
                    return True
        return False

    return meddle


def rows(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
