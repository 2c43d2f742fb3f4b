import json
from collections.abc import Callable
from pathlib import Path
from typing import Any  # JSON rows hold anything

import numpy as np
import pytest

from aem_swe.errors import ConfigError
from aem_swe.eval.comparison import compare
from aem_swe.eval.truncation import truncation_warning

WriteRun = Callable[..., Path]
Episode = Callable[..., dict[str, Any]]
WriteLines = Callable[[Path, list[dict[str, Any]]], None]


def text_of(folders: list[Path]) -> str:
    return "\n".join(compare(folders).summary_lines())


def test_runs_that_differ_in_seed_and_folder_only_are_one_arm(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / f"{aem}{seed}", aem=aem, seed=seed) for seed in (1, 2, 3) for aem in (True, False)]
    comparison = compare(runs)
    base, aem = (outcome.arm for outcome in comparison.outcomes)
    assert (base.label, base.seeds, base.changes) == ("demo", (1, 2, 3), ())
    assert (aem.label, aem.seeds) == ("demo_aem", (1, 2, 3))
    assert [str(change) for change in aem.changes] == ["aem.enabled: false -> true"]


def test_the_arm_without_aem_is_the_reference_whatever_the_order(tmp_path: Path, write_run: WriteRun) -> None:
    aem, base = write_run(tmp_path / "aem", aem=True, gain=0.4), write_run(tmp_path / "base", gain=0.0)
    (contrast,) = compare([aem, base]).contrasts
    assert contrast.reference.arm.label == "demo"
    assert contrast.these_runs.value > 0.1


def test_arms_of_one_recipe_are_told_apart_by_what_was_changed(tmp_path: Path, write_run: WriteRun) -> None:
    small = write_run(tmp_path / "small")
    large = write_run(tmp_path / "large", changes={"algorithm": {"advantage": "leave_one_out", "clip_low": 0.4}})
    labels = [outcome.arm.label for outcome in compare([small, large]).outcomes]
    assert labels == ["demo", "demo (algorithm.clip_low=0.4)"]


def test_two_runs_make_a_claim_about_two_runs_only(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / "base"), write_run(tmp_path / "aem", aem=True)]
    (contrast,) = compare(runs).contrasts
    assert contrast.method is None and contrast.these_runs.unit == "task"
    assert contrast.these_runs.holds_zero
    text = text_of(runs)
    assert "No detectable difference at this scale between demo_aem and demo" in text
    assert "A true difference of" in text and "80% power" in text
    assert "these two runs (one training seed each), not about the method" in text


def test_a_large_difference_is_said_plainly(tmp_path: Path, write_run: WriteRun) -> None:
    text = text_of([write_run(tmp_path / "base", gain=0.0), write_run(tmp_path / "aem", aem=True, gain=0.6)])
    assert "The training of demo_aem seen here is ahead of that of demo on held-out tasks: +" in text


def test_several_seeds_per_arm_are_judged_with_the_seed_as_unit(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / f"{aem}{seed}", aem=aem, seed=seed) for seed in (1, 2, 3) for aem in (False, True)]
    (contrast,) = compare(runs).contrasts
    assert contrast.judged.unit == "task and seed"
    assert contrast.context is not None and "About these 6 runs alone" in contrast.context
    assert "Units: training seeds (3 and 3)" in contrast.claim


def test_copies_of_a_run_are_no_second_seed(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b"), write_run(tmp_path / "aem", aem=True)]
    comparison = compare(runs)
    assert comparison.contrasts[0].method is None
    assert any("do not all have different seeds" in note for note in comparison.notes)


def test_a_killed_run_is_compared_where_both_were_evaluated(tmp_path: Path, write_run: WriteRun) -> None:
    whole, killed = write_run(tmp_path / "whole"), write_run(tmp_path / "killed", aem=True, steps=11)
    half = (killed / "trajectories/eval_000008.jsonl").read_text().splitlines()[:50]
    (killed / "trajectories/eval_000011.jsonl").write_text("\n".join(half) + '\n{"task_id": "hel')
    comparison = compare([whole, killed])
    assert comparison.contrasts[0].step == 8
    notes = "\n".join(comparison.notes)
    assert "killed: stopped after step 11 of 16" in notes
    assert "the evaluation after step 11 holds 50 of 96 episodes" in notes
    assert "demo was evaluated until step 16; compared after step 8" in notes


def test_ungraded_episodes_count_for_nobody_and_are_noted(
    tmp_path: Path, write_run: WriteRun, write_lines: WriteLines, episode: Episode
) -> None:
    base, aem = write_run(tmp_path / "base", gain=0.0), write_run(tmp_path / "aem", aem=True, gain=0.0)
    path = aem / "trajectories/eval_000016.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [row | ({"reward": None} if row["task_id"] == "heldout-3" else {}) for row in rows])
    comparison = compare([base, aem])
    assert comparison.contrasts[0].these_runs.tasks == 23
    assert any("4 held-out episode(s) without a reward" in note for note in comparison.notes)
    assert any("demo: 1 task(s) that are not graded in every compared run" in note for note in comparison.notes)


def test_without_a_shared_evaluation_nothing_is_claimed(tmp_path: Path, write_run: WriteRun) -> None:
    comparison = compare([write_run(tmp_path / "base"), write_run(tmp_path / "aem", aem=True, steps=3)])
    assert comparison.contrasts == ()
    assert "cannot be compared" in comparison.title


def test_other_policies_or_code_are_noted(tmp_path: Path, write_run: WriteRun) -> None:
    base, aem = write_run(tmp_path / "base"), write_run(tmp_path / "aem", aem=True)
    manifest = json.loads((aem / "manifest.json").read_text())
    (aem / "manifest.json").write_text(json.dumps(manifest | {"model_sha256": "other"}))
    assert any("do not share their starting policy" in note for note in compare([base, aem]).notes)


def test_no_run_or_the_same_run_twice_is_the_users_mistake(tmp_path: Path, write_run: WriteRun) -> None:
    with pytest.raises(ConfigError, match="no run folder is given"):
        compare([])
    folder = write_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="given more than once"):
        compare([folder, tmp_path / "." / "run"])


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1] * 20, None),
        ([0.3] * 20, None),
        ([0.1] * 12 + [0.31] * 8, "31% of the episodes of the last 8 steps"),
        ([0.05] * 12 + [0.22] * 8, "rose from 5% to 22%"),
        ([0.05] * 12 + [0.19] * 8, None),
        ([0.9], "90% of the episodes of the only step"),
        ([], None),
    ],
)
def test_truncation_warns_when_it_is_high_or_climbs(rates: list[float], expected: str | None) -> None:
    found = truncation_warning(np.array(rates))
    assert found is None if expected is None else found is not None and expected in found
