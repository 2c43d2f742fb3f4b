import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any  # JSON rows hold anything

import pytest

from aem_swe.errors import RunError
from aem_swe.eval.report import write_report

WriteRun = Callable[..., Path]
WriteLines = Callable[[Path, list[dict[str, Any]]], None]
VOID = {"meta", "img"}


class Outline(HTMLParser):
    """Text, tags and the addresses of a page; fails on a tag that closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "srcset", "href", "action", "data"}]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag]
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def report_of(runs: list[Path], folder: Path) -> Outline:
    write_report(runs, folder / "report.html")
    return outline((folder / "report.html").read_text(encoding="utf-8"))


def test_two_arms_give_one_self_contained_page(tmp_path: Path, write_run: WriteRun) -> None:
    page = report_of([write_run(tmp_path / "deepswe"), write_run(tmp_path / "deepswe_aem", aem=True)], tmp_path)
    assert "script" not in page.tags and page.handlers == []
    assert len(page.addresses) == 12 and all(address.startswith("data:image/svg") for address in page.addresses)
    for part in (
        "No detectable difference at this scale between demo_aem and demo",
        "aem.enabled: false -> true",
        "not about the method",
        "Held-out pass@1",
        "Token entropy",
        "Alpha of responses",
        "Truncated episodes",
        "token_budget",
        "rollout_reward",
        "Indented stages overlap",
        "I look at the function that the issue names first.",
        "+    return n // 7",
        "feedc0defeed",
        "torch 2.10.0",
    ):
        assert part in page.text, part
    assert "WARNING" not in page.text


def test_the_same_runs_give_the_same_bytes(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run", aem=True)
    pages = []
    for _ in range(2):
        write_report([run], tmp_path / "report.html")
        pages.append((tmp_path / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_one_run_gets_a_report_of_its_own(tmp_path: Path, write_run: WriteRun) -> None:
    page = report_of([write_run(tmp_path / "run", gain=0.5)], tmp_path)
    assert "What demo learned" in page.text
    assert "Held-out pass@1 of demo rose" in page.text
    assert "about this run (one training seed), not about the recipe" in page.text
    assert "Alpha of responses: not recorded" in page.text


def test_six_runs_are_two_arms_of_three_seeds(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / f"{aem}{seed}", aem=aem, seed=seed) for seed in (1, 2, 3) for aem in (False, True)]
    page = report_of(runs, tmp_path)
    assert "6 runs in 2 arms" in page.text
    assert page.text.count("3 runs, seeds 1, 2, 3") == 2
    assert "Units: training seeds (3 and 3) and 24 held-out tasks" in page.text


def test_what_is_missing_is_not_recorded_and_never_zero(tmp_path: Path, write_run: WriteRun) -> None:
    missing = ("actor/entropy", "timing_s/rollout_tools", "filter/timeout", "rollout/turns_mean")
    page = report_of([write_run(tmp_path / "run", without=missing)], tmp_path)
    rows = " ".join(page.text.split())
    assert "Token entropy: not recorded" in rows
    assert "Token entropy (nats)not recorded" in rows
    assert "rollout_toolsnot recorded" in rows
    assert "Turns per episodenot recorded" in rows
    assert "timeout" not in rows


def test_a_run_without_trajectories_or_manifest_still_has_a_report(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    for path in (run / "trajectories").iterdir():
        path.unlink()
    (run / "trajectories").rmdir()
    (run / "manifest.json").unlink()
    page = report_of([run], tmp_path)
    assert "Held-out pass@1 of demo is not recorded." in page.text
    assert "As the trainer logged it; without recorded episodes there is no interval." in page.text
    assert "Trajectories: not recorded." in page.text


def test_a_run_that_died_before_its_first_step_still_has_a_report(tmp_path: Path, write_run: WriteRun) -> None:
    page = report_of([write_run(tmp_path / "run", steps=0)], tmp_path)
    assert "Training reward: not recorded." in page.text
    assert "stopped after step 0 of 16" in page.text


def test_a_torn_run_says_what_was_skipped(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 17, "critic/rew')
    page = report_of([run], tmp_path)
    assert "run: 1 unreadable (torn) line(s) of metrics.jsonl skipped" in page.text


def test_climbing_truncation_is_a_visible_warning(tmp_path: Path, write_run: WriteRun, write_lines: WriteLines) -> None:
    run = write_run(tmp_path / "run")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    write_lines(run / "metrics.jsonl", [row | {"rollout/truncation_rate": row["step"] / 20} for row in rows])
    comparison = write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert 'class="warning"' in text and "WARNING" in outline(text).text
    assert any(line.startswith("WARNING: run: 62% of the episodes") for line in comparison.summary_lines())


def test_a_stage_of_few_steps_is_spread_over_all(tmp_path: Path, write_run: WriteRun, write_lines: WriteLines) -> None:
    run = write_run(tmp_path / "run")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[8]["timing_s/evaluation"] = rows[16]["timing_s/evaluation"] = 0.8  # 1.6 s over 16 steps of 2 s each
    write_lines(run / "metrics.jsonl", rows)
    page = report_of([run], tmp_path)
    assert re.search(r"evaluation\s*0\.10 s \(5\.0%\)", page.text)


def test_the_report_replaces_the_old_one_whole_and_leaves_nothing_behind(tmp_path: Path, write_run: WriteRun) -> None:
    out = tmp_path / "new" / "report.html"
    write_report([write_run(tmp_path / "run")], out)
    with out.open() as reader:
        write_report([write_run(tmp_path / "other", seed=2)], out)
        assert "seed 1" in reader.read()  # who has the old report open keeps all of it
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert "seed 2" in out.read_text()


@pytest.mark.parametrize("out", ["run", "run/config.yaml/report.html"])
def test_a_report_that_cannot_be_written_is_one_clear_line(tmp_path: Path, write_run: WriteRun, out: str) -> None:
    run = write_run(tmp_path / "run")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(RunError, match=r"cannot be written .*; choose another --out"):
        write_report([run], tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
