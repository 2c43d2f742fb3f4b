"""`aem-swe eval` of a checkpoint: it starts vLLM, plays with exact ids, grades officially, and leaves no server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended, environment
from vllm_server import environment as small_machine

from aem_swe.eval.swebench.results import Status, load_evaluation

pytestmark = [
    pytest.mark.usefixtures("container_engine"),
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the SDK leaves
]
NAMES = ["aem-swe__demo-0", "aem-swe__demo-1", "aem-swe__demo-2"]
SMALL = [f"--vllm-arg={word}" for word in ("--dtype=float32", "--gpu-memory-utilization=0.3", "--enforce-eager")]
MARK = b"AEM_SWE_SERVER="


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rows")
    tasks = [name.replace("aem-swe__demo-", "demo-train-") for name in NAMES]
    command = [sys.executable, "-m", "aem_swe.cli", "sandbox", "build", *tasks]
    done = subprocess.run(
        [*command, "--out", str(out / "r2e"), "--swebench-out", str(out / "swe")],
        env=environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "swe/rows.jsonl"


def servers() -> list[int]:
    """Processes of servers that an evaluation started."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and MARK in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


def test_a_checkpoint_is_served_played_and_graded_and_a_killed_evaluation_leaves_no_server(
    start: Callable[..., "subprocess.Popen[str]"], rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["eval", "builtin/demo-policy", "-c", "swebench_demo", "-d", str(rows), "-o", str(out), *SMALL]
    assert servers() == []
    process = start(*command, env=small_machine())
    journals = lambda: list(out.glob("run_*/*/journal.jsonl"))  # noqa: E731  # a word for what is waited for
    deadline = time.monotonic() + 900
    while not any('"answered"' in path.read_text() for path in journals()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    while servers():
        assert time.monotonic() < deadline, "the server outlived the evaluation"
        time.sleep(0.5)
    answered = {path: path.read_text().count('"answered"') for path in journals()}

    process = start(*command, env=small_machine())
    text, errors = process.communicate(timeout=900)
    ended = Ended(process.returncode, text, errors)
    assert ended.code == 0, ended.err
    assert servers() == []
    evaluation = load_evaluation(out)
    assert evaluation.complete and evaluation.about["identity"]["mode"] == "tokens"
    assert evaluation.count()[Status.INFRASTRUCTURE] == 0
    assert all(result.prompt_tokens > 100 and result.completion_tokens > 0 for result in evaluation.results.values())
    for path, count in answered.items():
        turns = [json.loads(line) for line in path.read_text().splitlines() if '"answered"' in line]
        assert len(turns) >= count and [turn["answered"] for turn in turns] == list(range(len(turns)))
        assert all(turn["response"]["response_ids"] for turn in turns)
    assert "demo-policy: pass@1" in ended.out and (out / "report.html").is_file()
    assert (out / "vllm.log").stat().st_size > 0
