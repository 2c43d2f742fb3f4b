"""Evaluation folders sorted into arms, as a user names them."""

from pathlib import Path

import pytest
from swebench_scene import make_evaluation, numbered, write_evaluation

from aem_swe.cli_compare import compare_evaluations
from aem_swe.errors import ConfigError, RunError
from aem_swe.eval.swebench.arms import parse_arms


def folders(tmp_path: Path, *known: tuple[str, str, object]) -> list[str]:
    """One evaluation folder per (name, arm, training seed)."""
    return [
        str(write_evaluation(tmp_path / name, make_evaluation(numbered("10", "11"), name, arm=arm, training_seed=seed)))
        for name, arm, seed in known
    ]


def test_the_word_vs_separates_arms(tmp_path: Path) -> None:
    a, b, c, d = folders(tmp_path, ("p", "x", 1), ("q", "x", 1), ("r", "y", 1), ("s", "z", 2))
    arms = parse_arms([a, b, "vs", c, d])
    assert [[one.folder.name for one in arm.evaluations] for arm in arms] == [["p", "q"], ["r", "s"]]
    assert [(arm.label, arm.seeds_differ) for arm in arms] == [("x", False), ("y + z", True)]
    assert len(parse_arms([a, "vs", b, "vs", c])) == 3


def test_folders_are_pooled_by_arm_where_their_seeds_differ(tmp_path: Path) -> None:
    words = folders(tmp_path, ("p", "x", 1), ("q", "y", 1), ("r", "x", 2), ("s", "y", 2))
    assert [[one.folder.name for one in arm.evaluations] for arm in parse_arms(words)] == [["p", "r"], ["q", "s"]]


@pytest.mark.parametrize("known", [(("p", "x", 1), ("q", "x", 2)), (("p", "x", 1), ("q", "x", 1), ("r", "y", 1))])
def test_folders_that_make_no_arms_stand_for_themselves(
    tmp_path: Path, known: tuple[tuple[str, str, int], ...]
) -> None:
    arms = parse_arms(folders(tmp_path, *known))
    assert [len(arm.evaluations) for arm in arms] == [1] * len(known)
    assert [arm.label for arm in arms][:2] == ["x (p)", "x (q)"]


def test_arms_that_mix_methods_or_share_one_are_noted(tmp_path: Path) -> None:
    a, b, c, d = folders(tmp_path, ("p", "x", 1), ("q", "y", 2), ("r", "x", 1), ("s", "x", 2))
    assert "x + y: pools the checkpoints of 2 methods, x, y" in compare_evaluations([a, b, "vs", d]).notes
    same = "both are of one method; a difference between them is not one of methods"
    assert f"x (r) and x (s): {same}" in compare_evaluations([c, d]).notes
    assert not any(same in note for note in compare_evaluations([a, b]).notes)


def test_arms_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    (a,) = folders(tmp_path, ("p", "x", 1))
    for words, said in (
        ([], "no evaluation folder is given"),
        ([a, "vs"], "no folder on one side of 'vs'"),
        (["vs", a], "no folder on one side of 'vs'"),
        ([a, f"{a}/../p"], "is given more than once"),
        ([a, "vs", a], "is given more than once"),
    ):
        with pytest.raises(ConfigError, match=said) as refused:
            parse_arms(words)
        assert "\n" not in str(refused.value)
    with pytest.raises(RunError, match=r"evaluation\.json cannot be read"):
        parse_arms([a, str(tmp_path / "nowhere")])
    write_evaluation(tmp_path / "many", make_evaluation(numbered("1"), "many", runs=10**12))
    with pytest.raises(RunError, match="says runs = 1000000000000; it must be 1 to 10000"):
        parse_arms([str(tmp_path / "many")])


def test_folders_are_compared_as_a_user_asks_for_it(tmp_path: Path) -> None:
    words = folders(tmp_path, ("p", "x", 1), ("q", "y", 1))
    lines = compare_evaluations(words).summary_lines()
    assert lines[0].startswith(f"x, {tmp_path / 'p'} (2 runs, seed 1): pass@1 75.0%")
    assert "No detectable difference at this scale between y and x: 75.0% -> 75.0%, +0.0 points" in "\n".join(lines)
    assert compare_evaluations(words[:1]).title == "What x resolves"
