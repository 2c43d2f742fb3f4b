"""What lies in a run folder may have been written by a hostile policy: it may not act, hide or vanish in silence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any  # JSON rows hold anything

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types

from aem_swe.eval.report import LONGEST_TEXT, write_report

WriteRun = Callable[..., Path]
Episode = Callable[..., dict[str, Any]]
WriteLines = Callable[[Path, list[dict[str, Any]]], None]

ATTACK = (
    "</pre></title><script>document.title='owned'</script><img src=x onerror=alert(1)>{{ 7*7 }}\x1b[31m\u202e\ud800'\""
)
TURN = {
    "text": ATTACK,
    "action": {"name": ATTACK, "arguments": {ATTACK: ATTACK}},
    "observation": ATTACK,
    "tokens": 5,
    "entropy": 0.1,
    "alpha": 1.0,
}


def page_of(run: Path, out: Path) -> str:
    write_report([run], out)
    return out.read_text(encoding="utf-8")


def test_markup_in_every_field_stays_text(
    tmp_path: Path, write_run: WriteRun, write_lines: WriteLines, episode: Episode
) -> None:
    run = write_run(tmp_path / "run", aem=True)
    broken = TURN | {"action": {"error": ATTACK}}
    row = episode(ATTACK, 0, 1, termination=ATTACK, verdict=ATTACK, diff=f"+{ATTACK}", retries=[ATTACK, {"a": ATTACK}])
    write_lines(run / "trajectories/step_000016.jsonl", [row | {"turns": [TURN, broken]}])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    write_lines(run / "metrics.jsonl", [row | {f"filter/{ATTACK}": 1, f"timing_s/{ATTACK}": 1.0} for row in rows])
    write_lines(run / "trajectories/eval_000016.jsonl", [{"task_id": ATTACK, "rollout": 0, "reward": 1}])
    manifest = {"git_commit": ATTACK, "model_sha256": [ATTACK], "versions": {ATTACK: ATTACK}, "recipe": ATTACK}
    (run / "manifest.json").write_text(json.dumps(manifest))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"recipe": "<script>$x^{$", "seed": "<b>"}))
    page = page_of(run, tmp_path / "report.html")
    assert "<script" not in page.lower() and "<img src=x" not in page and "<b>" not in page
    assert "&lt;script&gt;document.title=" in page and "{{ 7*7 }}" in page
    for hidden in ("\x1b", "\u202e"):
        assert hidden not in page
    assert "\u241b[31m&lt;U+202E&gt;&lt;U+D800&gt;" in page


def test_the_terminal_summary_holds_no_control_characters(tmp_path: Path, write_run: WriteRun) -> None:
    changes = {"recipe": "demo\x1b]0;owned\x07", "seed": "1\n\x1b[2J"}
    lines = write_report([write_run(tmp_path / "run", changes=changes)], tmp_path / "report.html").summary_lines()
    assert all(line.isprintable() for line in lines)


def test_over_long_text_is_clipped_with_a_note(
    tmp_path: Path, write_run: WriteRun, write_lines: WriteLines, episode: Episode
) -> None:
    run = write_run(tmp_path / "run")
    small = len(page_of(run, tmp_path / "report.html"))
    long = "A" * 100_000
    turn = TURN | {"text": long, "observation": long, "action": {"name": long, "arguments": {long: long}}}
    row = episode(long, 0, 1, diff=long, termination=long, verdict=long, retries=[long] * 100)
    write_lines(run / "trajectories/step_000016.jsonl", [row | {"turns": [turn] * 45}])
    page = page_of(run, tmp_path / "report.html")
    assert len(page) < small + 40 * 5 * LONGEST_TEXT  # thought, response, argument and observation of 40 turns
    assert f"[clipped here: {100_000 - LONGEST_TEXT:,} more characters]" in page
    assert "5 more turns are not shown" in page


@pytest.mark.parametrize(
    "row",
    [
        {"task_id": None, "turns": None, "diff": None, "retries": None},
        {"turns": [1, None, [], {"action": 3, "tokens": "x", "entropy": [], "alpha": True, "text": 7}]},
        {"turns": "text", "reward": "1", "retries": {"a": 1}, "diff": {"a": ["b"]}},
        {"turns": [{"action": {"name": ["x"], "arguments": "all", "error": 5}}], "advantage": 1e999, "reward": 10**400},
        {},
    ],
)
def test_rows_of_any_shape_are_shown_or_left_out(
    tmp_path: Path, write_run: WriteRun, write_lines: WriteLines, row: dict[str, Any]
) -> None:
    run = write_run(tmp_path / "run")
    for step in range(1, 17):
        write_lines(run / f"trajectories/step_{step:06d}.jsonl", [row])
    write_lines(run / "trajectories/eval_000016.jsonl", [row])
    assert "not recorded" in page_of(run, tmp_path / "report.html")


def test_lines_that_are_no_objects_are_counted(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'3\nnull\n"x"\n' + b"[" * 100_000 + b'\n{"step": "x"}\n\xff\xfe\n')
    assert "6 unreadable (torn) line(s) of metrics.jsonl skipped" in page_of(run, tmp_path / "report.html")
