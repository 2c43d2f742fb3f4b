import json
from collections.abc import Callable
from pathlib import Path
from typing import Any  # JSON rows hold anything

import pytest

from aem_swe.errors import RunError
from aem_swe.eval.runs import load_run
from aem_swe.eval.trajectories import pick_episode, read_evaluation

WriteRun = Callable[..., Path]
Episode = Callable[..., dict[str, Any]]
WriteLines = Callable[[Path, list[dict[str, Any]]], None]


def test_series_hold_only_what_was_recorded(tmp_path: Path, write_run: WriteRun, write_lines: WriteLines) -> None:
    folder = write_run(tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines]
    changed[3].pop("actor/entropy")
    changed[4]["actor/entropy"] = None
    changed[5]["actor/entropy"] = float("nan")
    changed[6]["actor/entropy"] = "0.5"
    changed[7]["actor/entropy"] = True
    write_lines(folder / "metrics.jsonl", changed)
    series = load_run(folder).series("actor/entropy")
    assert series.steps.tolist() == [1, 2, *range(8, 17)]
    assert load_run(folder).series("no/such").values.size == 0


def test_a_torn_last_line_is_skipped_and_counted(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run(tmp_path / "run")
    metrics = folder / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-40])
    run = load_run(folder)
    assert (run.steps, run.unreadable_lines) == (15, 1)


def test_a_step_written_again_after_a_resume_counts_once(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 16, "critic/rewards/mean": 0.125}) + "\n")
    series = load_run(folder).series("critic/rewards/mean")
    assert series.steps.size == 16
    assert series.values[-1] == 0.125


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda folder: (folder / "metrics.jsonl").unlink(), r"metrics\.jsonl is missing"),
        (lambda folder: (folder / "metrics.jsonl").write_text(""), "holds no step"),
        (lambda folder: (folder / "metrics.jsonl").write_text('{"step": 1, "crit'), "holds no step"),
        (lambda folder: (folder / "config.yaml").unlink(), r"config\.yaml cannot be read"),
        (lambda folder: (folder / "config.yaml").write_text("a: [1\nb: }"), "not valid YAML"),
        (lambda folder: (folder / "config.yaml").write_bytes(b"a: \xff\xfe"), "not valid YAML"),
        (lambda folder: (folder / "config.yaml").write_text("- 1"), "holds list, not a mapping"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not readable JSON"),
    ],
)
def test_a_broken_run_is_one_clear_line(tmp_path: Path, write_run: WriteRun, broken: object, message: str) -> None:
    folder = write_run(tmp_path / "run")
    assert callable(broken)
    broken(folder)
    with pytest.raises(RunError, match=message) as caught:
        load_run(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run folder '.*nowhere' does not exist"):
        load_run(tmp_path / "nowhere")


def test_evaluations_average_the_graded_episodes_of_a_task(tmp_path: Path, write_lines: WriteLines) -> None:
    rows = [
        {"task_id": "a", "rollout": 0, "reward": 1},
        {"task_id": "a", "rollout": 1, "reward": 0},
        {"task_id": "b", "rollout": 0, "reward": None},
        {"task_id": "b", "rollout": 1, "reward": 1},
        {"task_id": "c", "rollout": 0, "reward": None},
        {"task_id": "a", "rollout": 1, "reward": 1},  # written again after a resume
    ]
    write_lines(tmp_path / "eval.jsonl", rows)
    with (tmp_path / "eval.jsonl").open("a") as file:
        file.write('[1]\n{"task_id": "c", "rew')
    found = read_evaluation(tmp_path / "eval.jsonl", 8)
    assert found.rewards == {"a": 1.0, "b": 1.0}
    assert (found.episodes, found.ungraded, found.unreadable_lines) == (5, 2, 2)


def test_the_shown_episode_is_the_newest_solved_one(
    tmp_path: Path, write_run: WriteRun, write_lines: WriteLines, episode: Episode
) -> None:
    folder = write_run(tmp_path / "run")
    for step in (15, 16):
        write_lines(folder / f"trajectories/step_{step:06d}.jsonl", [episode("unsolved", 0, 0)])
    shown = pick_episode(load_run(folder))
    assert shown is not None
    assert (shown.step, shown.task_id, shown.reward) == (14, "train-14", 1.0)


def test_without_a_solved_episode_the_last_one_is_shown(
    tmp_path: Path, write_run: WriteRun, write_lines: WriteLines, episode: Episode
) -> None:
    folder = write_run(tmp_path / "run")
    for step in range(1, 17):
        rows = [episode(f"first-{step}", 0, 0), episode(f"last-{step}", 1, None)]
        write_lines(folder / f"trajectories/step_{step:06d}.jsonl", rows)
    shown = pick_episode(load_run(folder))
    assert shown is not None
    assert (shown.task_id, shown.reward) == ("last-16", None)


def test_the_thought_ends_where_the_call_begins_unless_the_call_was_not_understood(
    tmp_path: Path, write_run: WriteRun
) -> None:
    shown = pick_episode(load_run(write_run(tmp_path / "run")))
    assert shown is not None
    assert shown.turns[0].thought == "I look at the function that the issue names first."
    assert shown.turns[1].thought == shown.turns[1].text
