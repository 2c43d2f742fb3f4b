"""The page that compares evaluations."""

import re
from collections.abc import Callable
from pathlib import Path

import evaluation_folders as folders
from page_outline import Outline, outline

from aem_swe.eval.swebench.arms import parse_arms
from aem_swe.eval.swebench.contrast import compare_arms
from aem_swe.eval.swebench.page import write_comparison_page
from aem_swe.eval.swebench.results import Status

NAMES = folders.names(12)


def compared(tmp_path: Path, seeds: int = 1, **changes: object) -> Outline:
    words = []
    for model, chance in (("deepswe", 0.2), ("deepswe_aem", 0.9)):
        for seed in range(1, seeds + 1):
            about = changes if model == "deepswe_aem" else None
            folder = tmp_path / f"{model}{seed}"
            folders.write_evaluation(folder, model=model, chance=chance, seed=seed, count=30, about=about)  # type: ignore[arg-type]
            words.append(str(folder))
        words.append("vs")
    write_comparison_page(compare_arms(parse_arms(words[:-1])), tmp_path / "c.html")
    return outline(tmp_path / "c.html")


def test_a_comparison_says_what_it_is_about(tmp_path: Path) -> None:
    page = compared(tmp_path)
    for part in (
        "The checkpoints of deepswe_aem evaluated here are ahead of those of deepswe",
        "points of pass@1 (95% interval",
        "would have been detected with 80% power",
        "This is about these two checkpoints, not about the method.",
        "deepswe_aem minus deepswe: these checkpoints",
        "django/django (10)",
        "Instances that flip",
        "I look at the file.",
    ):
        assert part in page.text, part
    assert "WARNING" not in page.text and "Where the protocols differ" not in page.text
    assert not page.tags & {"script", "iframe", "form", "link"} and page.handlers == []


def test_several_seeds_are_about_methods(tmp_path: Path) -> None:
    page = compared(tmp_path, seeds=3)
    assert "deepswe_aem minus deepswe: methods" in page.text and "This is about the methods" in page.text
    assert "6 checkpoints in 2 arms" in page.text


def test_protocols_that_differ_are_a_warning_and_a_table(tmp_path: Path) -> None:
    page = compared(tmp_path, protocol={"play": {"agent": "r2egym", "max_steps": 50}}, protocol_sha256="other")
    assert "WARNING the evaluations do not share their protocol" in page.text
    assert re.search(r"play.max_steps 100 50", page.text) and "play.agent" not in page.text


def test_both_sides_of_a_flip_show_a_run_that_came_out_like_it(tmp_path: Path) -> None:
    sides: dict[str, Callable[[str], dict[str, object]]] = {"base": folders.honest, "aem": folders.cheat}
    for model, make in sides.items():
        solved = Status.RESOLVED if model == "aem" else Status.UNRESOLVED
        changes = {(run, NAMES[1]): solved for run in (1, 2)} | {(run, NAMES[0]): Status.RESOLVED for run in (1, 2)}
        folders.write_evaluation(
            tmp_path / model, model=model, chance=0.0, changes=changes, trajectories={(1, NAMES[1]): make(NAMES[1])}
        )
    arms = parse_arms([str(tmp_path / "base"), "vs", str(tmp_path / "aem")])
    write_comparison_page(compare_arms(arms), tmp_path / "c.html")
    page = outline(tmp_path / "c.html")
    assert "resolved 0/2, shown: run 1 of" in page.text and "resolved 2/2, shown: run 1 of" in page.text
    assert "I look at the file." in page.text and "I look for the fix." in page.text
    assert (
        "gains (1)" in page.text
        and "loses (0)" in page.text
        and "All 2 recorded results can be read here." in page.text
    )


def test_a_comparison_has_a_limit_too(tmp_path: Path) -> None:
    compared(tmp_path)
    whole = (tmp_path / "c.html").stat().st_size
    arms = parse_arms([str(tmp_path / "deepswe1"), "vs", str(tmp_path / "deepswe_aem1")])
    write_comparison_page(compare_arms(arms), tmp_path / "s.html", most_bytes=0)
    page = outline(tmp_path / "s.html")
    assert (tmp_path / "s.html").stat().st_size < whole
    assert "I look at the file." not in page.text and "Left out to keep this page small: run_1/" in page.text


def test_one_arm_alone_has_a_page(tmp_path: Path) -> None:
    folders.write_evaluation(tmp_path / "a")
    write_comparison_page(compare_arms(parse_arms([str(tmp_path / "a")])), tmp_path / "c.html")
    page = outline(tmp_path / "c.html")
    assert "What deepswe resolves" in page.text and "1 checkpoint in 1 arm" in page.text
