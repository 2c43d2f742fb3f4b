"""The run folder of a cluster run, from made-up rows: same names and files as the embedded engine. No rllm needed."""

import json
from pathlib import Path

import pytest
import torch

from aem_swe.algorithms.aem import modulate
from aem_swe.config import validate_recipe
from aem_swe.engines.rllm.recorder import Recorder, turns_of
from aem_swe.engines.rllm.rows import RowPlan, lay_out
from aem_swe.eval.runs import load_run
from aem_swe.metrics import RunFolder, read_rows
from aem_swe.types import Termination, ToolCall, Trajectory, Turn


def trajectory(task: str, reward: float | None, termination: Termination = Termination.FINISHED) -> Trajectory:
    turn = Turn((1, 2), (3, 4), (0.0, 0.0), "stop", 0, "text", ToolCall("finish", {}))
    reason = "not_graded" if termination is not Termination.FINISHED else "tests"
    return Trajectory(task, 0, 0, (turn, turn), termination, reward, reason)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    recipe = validate_recipe({"run_dir": str(tmp_path), "algorithm": {"filter": "mask"}})
    folder = RunFolder(tmp_path)
    with folder.locked():
        folder.create("seed: 1\n", {"recipe": "x"})
    return Recorder(recipe)


def rows(tmp_path: Path, name: str = "metrics.jsonl") -> list[dict[str, object]]:
    return read_rows(tmp_path / name)


def test_a_step_leaves_its_numbers_its_ledger_and_its_trajectories(recorder: Recorder, tmp_path: Path) -> None:
    played = [
        ("u0", trajectory("a", 1.0)),
        ("u1", trajectory("a", 0.0, Termination.MAX_STEPS)),
        ("u2", trajectory("b", None, Termination.INFRASTRUCTURE_ERROR)),
        ("u3", trajectory("b", 0.0)),
    ]
    per_turn = {("u0", 1): {"entropy": 0.5, "alpha": 1.25, "staleness": 0}}
    metrics = {"actor/entropy": torch.tensor(0.25), "bad": float("nan"), "words": "x", "timing_s/step": 2}
    recorder.step(3, metrics, played, per_turn, {"u0": 1.0, "u1": -1.0})
    (row,) = rows(tmp_path)
    assert row["step"] == 3 and row["actor/entropy"] == 0.25 and row["timing_s/step"] == 2
    assert "bad" not in row and "words" not in row
    assert row["critic/rewards/mean"] == pytest.approx(1 / 3)
    assert row["rollout/truncation_rate"] == 0.25 and row["response/tokens"] == 16
    assert (row["filter/kept"], row["filter/max_steps"], row["filter/infrastructure_error"]) == (1, 1, 1)
    assert row["filter/small_group"] == 1 and row["filter/small_groups"] == 1  # b has one survivor
    lines = rows(tmp_path, "trajectories/step_000003.jsonl")
    assert [(line["group"], line["rollout"]) for line in lines] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [line["verdict"] for line in lines] == ["kept", "max_steps", "infrastructure_error", "small_group"]
    assert [line["advantage"] for line in lines] == [1.0, -1.0, 0.0, 0.0]
    turns = lines[0]["turns"]
    assert isinstance(turns, list)
    assert turns[1]["alpha"] == 1.25 and turns[0]["alpha"] is None


def test_an_evaluation_joins_the_row_of_its_step_or_makes_one(recorder: Recorder, tmp_path: Path) -> None:
    recorder.evaluation(0, [trajectory("t", 0.0), trajectory("t", 1.0)])
    recorder.step(1, {"actor/entropy": 1.0}, [], {}, {})
    recorder.evaluation(1, [trajectory("t", 1.0), trajectory("u", None), trajectory("v", 0.0, Termination.TIMEOUT)])
    first, second = rows(tmp_path)
    assert first == {"step": 0, "val/episodes": 2, "val/infrastructure_error": 0, "val/pass@1": 0.5,
                     "val/unfinished_rate": 0.0, "val/exit/finished": 2, "val/reason/tests": 2}  # fmt: skip
    assert second["actor/entropy"] == 1.0 and second["val/pass@1"] == 0.5
    assert second["val/infrastructure_error"] == 1 and second["val/unfinished_rate"] == 0.5
    assert second["val/pass@1_low"] <= 0.5 <= second["val/pass@1_high"]
    assert (second["val/exit/timeout"], second["val/exit/finished"]) == (1, 2)
    run = load_run(tmp_path)
    assert run.steps == 1 and set(run.evaluation_files()) == {0, 1}


def test_entropy_and_alpha_find_their_turn() -> None:
    plans = {"u": [RowPlan(1, 3, ((0, 1, 0), (1, 3, 1)))]}
    mask_BT = torch.ones(1, 3)
    layout, _ = lay_out(["u"], plans, [["u"]], [], mask_BT)
    modulation = modulate(
        torch.ones(1, 3), torch.tensor([[0.1, 0.9, 0.7]]), layout.response_id_BT, layout.group_B, lam=1
    )
    found = turns_of(layout, modulation, {0: 2, 1: None})
    assert found["u", 0] == {
        "entropy": pytest.approx(0.1),
        "alpha": pytest.approx(modulation.alpha_R[0]),
        "staleness": 2,
    }
    assert found["u", 1]["entropy"] == pytest.approx(0.8) and found["u", 1]["staleness"] is None
    json.dumps(list(found.values()))
