"""Validation during training by an evaluation's protocol: its limits, official grading, the same counts."""

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from command_line import Ended, environment

from aem_swe.eval.swebench.results import load_evaluation

pytestmark = [
    pytest.mark.usefixtures("container_engine"),
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the SDK leaves
]
SMALL = ["sampling.prompts=2", "sampling.rollouts=2", "trainer.minibatches=1", "trainer.steps=1", "--plain"]
VALIDATED = ["trainer.eval_every=1", "trainer.eval_tasks=3", "trainer.eval_rollouts=2"]
STATUSES = {"resolved", "unresolved", "empty", "error"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rows")
    command = [sys.executable, "-m", "aem_swe.cli", "sandbox", "build", *(f"demo-train-{n}" for n in range(3))]
    done = subprocess.run(
        [*command, "--out", str(out / "r2e"), "--swebench-out", str(out / "swe")],
        env=environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_a_training_run_is_validated_as_an_evaluation_grades(
    run: Callable[..., Ended], folder: Path, tmp_path: Path
) -> None:
    rows = folder / "swe/rows.jsonl"
    ended = run(
        "train", "demo_docker", f"data.source={folder / 'r2e/rows.jsonl'}", f"data.held_out={rows}", *SMALL, *VALIDATED,
        f"run_dir={tmp_path / 'r'}", "trainer.eval_protocol=swebench_demo",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    metrics = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    for step, row in enumerate(metrics):
        lines = (tmp_path / f"r/trajectories/eval_{step:06d}.jsonl").read_text().splitlines()
        episodes = [json.loads(line) for line in lines]
        assert len(episodes) == 6 and {one["reason"] for one in episodes} <= STATUSES
        assert all(one["reward"] == float(one["reason"] == "resolved") for one in episodes)
        assert row["val/pass@1"] == sum(one["reward"] for one in episodes) / 6
        assert row["val/pass@1_low"] <= row["val/pass@1"] <= row["val/pass@1_high"]
        reasons = Counter(one["reason"] for one in episodes)
        assert {key[11:]: value for key, value in row.items() if key.startswith("val/reason/")} == reasons
    again = [(one["task_id"], one["diff"], one["reason"]) for one in episodes]

    predictions = tmp_path / "preds.jsonl"
    for task, diff, reason in {one[0]: one for one in again if one[1]}.values():
        predictions.write_text(json.dumps({"instance_id": task, "model_patch": diff, "model_name_or_path": "m"}) + "\n")
        graded = run("grade", str(predictions), "--dataset", str(rows), "-o", str(tmp_path / task))
        assert graded.code == 0, graded.err
        results = load_evaluation(tmp_path / task).results
        assert str(results[1, task].status) == reason
    with contextlib.closing(docker.from_env()) as client:
        found = client.api.containers(all=True, filters={"label": "org.aem-swe=container"})
    assert [one for one in found if str(tmp_path) in one["Labels"].get("org.aem-swe.run", "")] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["trainer.eval_protocol=swebench_verifed"], "did you mean 'swebench_verified'?"),
        (["trainer.eval_protocol=swebench_demo", "data.held_out=''"], "trainer.eval_every needs held-out tasks"),
        (["trainer.eval_protocol=swebench_demo", "data.held_out={r2e}"], "holds no usable row of SWE-bench's form"),
    ],
)
def test_a_validation_that_cannot_be_is_said_in_one_line(
    run: Callable[..., Ended], folder: Path, tmp_path: Path, change: list[str], says: str
) -> None:
    r2e = str(folder / "r2e/rows.jsonl")
    given = [f"data.source={r2e}", f"data.held_out={folder / 'swe/rows.jsonl'}", f"run_dir={tmp_path / 'r'}"]
    ended = run("train", "demo_docker", *given, *SMALL, *VALIDATED, *(word.replace("{r2e}", r2e) for word in change))
    assert ended.code == 2 and says in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "r").exists()
