"""The report's section on time: paths of the runs that recorded spans, and the paper's four rows of all."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

from profile_spans import Line, one_step, span

from aem_swe.eval.report import write_report

WriteRun = Callable[..., Path]
STEP: tuple[Line, ...] = (
    span("rollout", 0.0, 5.0), span("policy/decode", 0.0, 3.0), span("policy/prefill", 3.0, 1.5),
    span("old_log_prob", 5.0, 2.0), span("aem", 7.0, 0.25), span("update", 7.25, 2.75),
    span("update/forward", 7.25, 2.75),
)  # fmt: skip


def section(tmp_path: Path, *runs: Path) -> str:
    """The text of the section, one space between words."""
    write_report(list(runs), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    part = page[page.index("Where the time went") : page.index("One episode of each arm")]
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", part)).split())


def with_spans(run: Path, *lines: Line) -> Path:
    (run / "spans.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_paths_sum_to_the_wall_and_the_papers_rows_to_one(tmp_path: Path, write_run: WriteRun) -> None:
    run = with_spans(write_run(tmp_path / "run"), *one_step(1, 10.0, *STEP), *one_step(2, 10.0, *STEP, start=10.0))
    text = section(tmp_path, run)
    for cell in (
        "policy 4.50 s (45.0%)", "old_log_prob 2.00 s (20.0%)", "aem 250 ms (2.5%)", "update 2.75 s (27.5%)",
        "not attributed 500 ms (5.0%)", "wall time of a step 10.0 s (100.0%)",
        "rollout (paper: 45.9%) 50.0%", "update (paper: 36.0%) 27.5%", "old_log_prob (paper: 16.8%) 20.0%",
        "aem (paper: 1.1%) 2.5%",
    ):  # fmt: skip
        assert cell in text
    assert "Indented stages" not in text


def test_a_run_without_usable_spans_shows_its_sums_and_the_same_four_rows(tmp_path: Path, write_run: WriteRun) -> None:
    run = with_spans(write_run(tmp_path / "run"), span("startup", 0.0, 1.0))
    text = section(tmp_path, run)
    assert "rollout 1.10 s (55.0%)" in text and "Indented stages" in text and "not attributed" in text
    # this arm has no AEM, and shares of three rows cannot stand beside shares of four
    for row in ("rollout (paper: 45.9%)", "update (paper: 36.0%)", "aem (paper: 1.1%)"):
        assert f"{row} not recorded" in text
    with_aem = section(tmp_path, write_run(tmp_path / "aem", aem=True))
    assert "aem (paper: 1.1%) not recorded" not in with_aem and "the row aem is the rescaling alone" in with_aem


def test_an_arm_whose_spans_lack_one_of_the_four_shows_none_of_them(tmp_path: Path, write_run: WriteRun) -> None:
    lines = [line for line in STEP if line["stage"] != "aem"]
    text = section(tmp_path, with_spans(write_run(tmp_path / "run"), *one_step(1, 10.0, *lines)))
    assert "rollout (paper: 45.9%) not recorded" in text and "aem (paper: 1.1%) not recorded" in text


def test_an_arm_without_spans_beside_one_with_them_is_not_recorded(tmp_path: Path, write_run: WriteRun) -> None:
    recorded = with_spans(write_run(tmp_path / "run"), *one_step(1, 10.0, *STEP))
    text = section(tmp_path, recorded, write_run(tmp_path / "other", aem=True))
    assert "policy 4.50 s (45.0%) not recorded" in text
