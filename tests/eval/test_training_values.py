"""What is read of one training run: by hand, and from folders that are torn, unfinished or of other settings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from training_scene import COMMIT, change_rows, make_plan, write_run

from aem_swe.errors import ConfigError, RunError
from aem_swe.eval.training_plan import Plan
from aem_swe.eval.training_runs import find_runs, read_run
from aem_swe.eval.training_values import RunValues


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path)


def values(plan: Plan, out: Path, arm: str = "plain", seed: int = 1) -> RunValues:
    found = read_run(plan.recipe(arm, seed, out))
    assert isinstance(found, RunValues)
    return found


def test_values_by_hand(plan: Plan, tmp_path: Path) -> None:
    rising = [step / 16 for step in range(1, 17)]  # first 8: mean 4.5 / 16; last 8: 12.5 / 16
    write_run(plan, tmp_path, "plain", 1, held_out=0.75, reward=rising, entropy=[1.0] * 8 + [0.25] * 8,
              truncation=[0.0, 0.5] + [0.0] * 13 + [0.25])  # fmt: skip
    found = values(plan, tmp_path)
    assert (found.held_out_first, found.held_out) == (0.25, 0.75)
    assert (found.reward_first, found.reward) == (4.5 / 16, 12.5 / 16)
    assert (found.truncation, found.truncation_max, found.entropy) == (0.25 / 8, 0.5, 0.25)
    assert (found.step_seconds, found.steps, found.commit, found.alpha) == (32.0, 16, COMMIT, None)
    assert found.series["reward"] == tuple(round(x, 4) for x in rising)
    assert found.series["reward"][0] == 0.0625 and found.series["entropy"][7:9] == (1.0, 0.25)


def test_alphas_are_kept_where_there_are_some(plan: Plan, tmp_path: Path) -> None:
    write_run(plan, tmp_path, "aem", 1)
    alpha = values(plan, tmp_path, "aem").alpha
    assert alpha is not None
    assert (alpha.token, alpha.positive) == (0.75, None)


def test_a_step_without_a_value_is_left_out_of_the_mean_and_a_gap_in_the_series(plan: Plan, tmp_path: Path) -> None:
    folder = write_run(plan, tmp_path, "plain", 1, entropy=[1.0] * 15 + [9.0])
    change_rows(folder, lambda rows: rows[16].update({"actor/entropy": None}))
    found = values(plan, tmp_path)
    assert found.entropy == 1.0
    assert found.series["entropy"][-2:] == (1.0, None)


def test_a_torn_last_line_makes_the_run_unfinished(plan: Plan, tmp_path: Path) -> None:
    folder = write_run(plan, tmp_path, "plain", 1)
    metrics = folder / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-20])
    assert read_run(plan.recipe("plain", 1, tmp_path)) == 15


def test_a_torn_line_in_the_middle_is_a_missing_step(plan: Plan, tmp_path: Path) -> None:
    folder = write_run(plan, tmp_path, "plain", 1)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines[13] = '{"step": 13, "critic/rewa\n'
    (folder / "metrics.jsonl").write_text("".join(lines))
    with pytest.raises(RunError, match=r"plain_seed1': step 13 is missing in its metrics\.jsonl; move the run away"):
        read_run(plan.recipe("plain", 1, tmp_path))


@pytest.mark.parametrize(
    ("place", "values", "said"),
    [
        (16, {"step": 10**7}, r"step 1e\+07 is there, and its recipe has 16"),
        (16, {"val/pass@1": 1.25}, "held_out is 1.25, which is no fraction"),
        (3, {"rollout/truncation_rate": -0.5}, "truncation in its series is -0.5, which is no fraction"),
        (3, {"actor/entropy": -0.5}, "entropy in its series is -0.5, which is less than 0"),
        (3, {"actor/entropy": float("nan")}, "actor/entropy of step 3 is nan, which is no finite number"),
        (0, {"val/pass@1": True}, "val/pass@1 of step 0 is True, which is no finite number"),
        (3, {"critic/rewards/mean": 10**400}, "critic/rewards/mean of step 3 is 1000000.*0, which is no finite number"),
        (3, {"timing_s/step": -99.0}, "step_seconds -69.0 is not usable"),
    ],
)
def test_values_that_cannot_be_are_one_line_with_the_run(
    plan: Plan, tmp_path: Path, place: int, values: dict[str, Any], said: str
) -> None:
    change_rows(write_run(plan, tmp_path, "plain", 1), lambda rows: rows[place].update(values))
    with pytest.raises(RunError, match=said) as caught:
        find_runs(plan, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"run {str(tmp_path / 'plain_seed1')!r}: ") and message.endswith("; move the run away")
    assert "\n" not in message and len(message) < 400


def test_sums_beyond_float64_are_one_line(plan: Plan, tmp_path: Path) -> None:
    write_run(plan, tmp_path, "plain", 1, reward=[1e308] * 16)
    with pytest.raises(RunError, match="reward_first inf is not usable: input should be a finite number; move the run"):
        read_run(plan.recipe("plain", 1, tmp_path))


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ("0123456789abcdef0123456789abcdef01234567", "0123456789abcdef0123456789abcdef01234567"),
        ("0123456-dirty", "0123456-dirty"), ("0123456\n", None), ("012345", None), ("HEAD", None), (None, None),
        (1234567, None), ("0123456 | x", None),
    ],
)  # fmt: skip
def test_what_is_no_commit_is_unknown(plan: Plan, tmp_path: Path, found: object, kept: str | None) -> None:
    folder = write_run(plan, tmp_path, "plain", 1)
    (folder / "manifest.json").write_text(json.dumps({"git_commit": found}))
    assert values(plan, tmp_path).commit == kept


@pytest.mark.parametrize("content", [None, "", '{"step": 0, "val', "[1]\n"])
def test_what_has_not_begun_has_no_step(plan: Plan, tmp_path: Path, content: str | None) -> None:
    assert read_run(plan.recipe("plain", 1, tmp_path)) == 0
    (tmp_path / "plain_seed1").mkdir()
    if content is not None:
        (tmp_path / "plain_seed1" / "metrics.jsonl").write_text(content)
    assert read_run(plan.recipe("plain", 1, tmp_path)) == 0


def test_runs_of_other_settings_are_refused_with_what_differs(plan: Plan, tmp_path: Path) -> None:
    folder = write_run(plan, tmp_path, "plain", 1)
    shutil.copytree(folder, tmp_path / "plain_seed2")
    with pytest.raises(ConfigError, match=r"plain_seed2' was made with other settings: seed is 1, not 2; choose"):
        read_run(plan.recipe("plain", 2, tmp_path))
    shutil.copytree(folder, tmp_path / "drop_seed1")
    with pytest.raises(ConfigError, match=r'other settings: algorithm.filter is "off", not "drop"; choose'):
        read_run(plan.recipe("drop", 1, tmp_path))
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.0004", "lr: 0.5").replace("steps: 16", "steps: 9"))
    with pytest.raises(ConfigError, match=r"optimizer.lr is 0.5, not 0.0004, trainer.steps is 9, not 16"):
        find_runs(plan, tmp_path)


def test_a_config_of_before_a_key_existed_has_its_default(plan: Plan, tmp_path: Path) -> None:
    config = write_run(plan, tmp_path, "plain", 1) / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "analysis" not in line))
    assert values(plan, tmp_path).steps == 16


def test_a_folder_without_a_usable_config_is_one_line(plan: Plan, tmp_path: Path) -> None:
    config = write_run(plan, tmp_path, "plain", 1) / "config.yaml"
    config.write_text("a: [1\nb: }")
    with pytest.raises(RunError, match="is not valid YAML") as caught:
        find_runs(plan, tmp_path)
    assert "\n" not in str(caught.value)
    config.unlink()
    with pytest.raises(RunError, match=r"config\.yaml cannot be read"):
        find_runs(plan, tmp_path)


def test_a_config_with_a_broken_value_is_named_by_its_folder(plan: Plan, tmp_path: Path) -> None:
    config = write_run(plan, tmp_path, "plain", 1) / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.0004", "lr: -1"))
    with pytest.raises(ConfigError, match=r"run '.*plain_seed1' has no usable config\.yaml \(optimizer\.lr -1 is not"):
        find_runs(plan, tmp_path)
