"""Validation by an evaluation's protocol in the cluster engine: rLLM plays, the official harness grades."""

import contextlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import docker
import pytest
import rllm_chain as chain
from command_line import environment

from aem_swe.engines.rllm.versions import INSTALL, folder_of

pytestmark = [
    pytest.mark.rllm,
    pytest.mark.skipif(not folder_of("rllm"), reason=f"needs rllm: {INSTALL}"),
    pytest.mark.skipif(not folder_of("vllm"), reason="needs vLLM: make test-rllm installs its CPU build"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the SDK leaves
]
STATUSES = {"resolved", "unresolved", "empty", "error"}


def test_a_cluster_run_is_validated_as_an_evaluation_grades(tmp_path: Path) -> None:
    try:
        with contextlib.closing(docker.from_env()) as client:
            client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine ({error}); start one (dockerd) to run this test")
    tasks = [f"demo-train-{number}" for number in range(3)]
    command = [sys.executable, "-m", "aem_swe.cli", "sandbox", "build", *tasks]
    built = subprocess.run(
        [*command, "--out", str(tmp_path / "r2e"), "--swebench-out", str(tmp_path / "swe")],
        env=environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    run = tmp_path / "run"
    code, output = chain.train(
        run, "sandbox=docker", f"data.source={tmp_path / 'r2e/rows.jsonl'}", "data.pool=3", "trainer.steps=1",
        f"data.held_out={tmp_path / 'swe/rows.jsonl'}", "trainer.eval_every=1", "trainer.eval_tasks=3",
        "trainer.eval_rollouts=2", "trainer.eval_protocol=swebench_demo", "trainer.save_every=0",
    )  # fmt: skip
    assert code == 0, output[-6000:]
    episodes = [json.loads(line) for line in (run / "trajectories/eval_000001.jsonl").read_text().splitlines()]
    assert len(episodes) == 6 and {episode["reason"] for episode in episodes} <= STATUSES
    assert all(episode["reward"] == float(episode["reason"] == "resolved") for episode in episodes)
    row = chain.rows(run)[-1]
    assert row["val/pass@1"] == sum(episode["reward"] for episode in episodes) / 6
    reasons = Counter(episode["reason"] for episode in episodes)
    assert {key[11:]: value for key, value in row.items() if key.startswith("val/reason/")} == reasons
    assert (
        list((run / "validation").glob("logs/run_evaluation/validation/policy/*/report.json")) or reasons["empty"] == 6
    )
