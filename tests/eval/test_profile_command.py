"""`aem-swe profile` as a user sees it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended
from profile_spans import Line, episode, one_step, run_lines, span, training_step, write_spans

Invoke = Callable[..., Ended]


def test_one_run_is_a_table_that_sums_to_the_wall_time(tmp_path: Path, invoke: Invoke) -> None:
    write_spans(tmp_path / "a", run_lines())
    ended = invoke("profile", "a")
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.split("\n\n")[1].splitlines()]
    assert rows[0] == ["per", "step", "path", "s", "share", "summed", "s", "n", "p50", "p95", "p99", "max"]
    assert ["tool/bash", "5.00", "23.8%", "11.0", "12", "2.50", "5.45", "5.89", "6.00"] in rows
    assert rows[-3:-1] == [["not", "attributed", "3.00", "14.3%"], ["wall", "21.0", "100.0%"]]
    shares = [float(cell.rstrip("%")) for row in rows[1:-2] for cell in row if cell.endswith("%")]
    assert sum(shares) == pytest.approx(100.0, abs=0.05 * len(shares))
    assert "step 2 (22.0 s): episode 1/1 of demo-1, 12.0 s (median 8.50 s); longest: tool/bash in turn 0" in ended.out
    assert "rollout            45.9%   68.4%" in ended.out
    assert "policy/decode, p50 by turn  0: 2.00 s, 1: 1.00 s" in ended.out
    assert "the slowest of m of a step's episodes, mean over all choices  1: 8.75 s" in ended.out
    assert "AEM needs come out of the old-log-prob pass, so the row aem is the rescaling alone" in ended.out
    assert max(map(len, ended.out.splitlines())) < 500


def test_two_runs_are_shown_side_by_side_with_an_interval(tmp_path: Path, invoke: Invoke) -> None:
    write_spans(tmp_path / "a", run_lines((0.0, 2.0, 1.0)))
    write_spans(tmp_path / "b", run_lines((4.0, 2.0, 6.0, 4.0)))
    ended = invoke("profile", "a", "b", "--json", "both.json")
    assert (ended.code, ended.err) == (0, "")
    bash = next(line.split() for line in ended.out.splitlines() if line.startswith("tool/bash"))
    assert bash == ["tool/bash", "5.00", "23.8%", "8.00", "33.3%", "+3", "+0.415", "to", "+5.585"]
    both = json.loads((tmp_path / "both.json").read_text())
    assert [run["wall_s"] for run in both["runs"]] == [63.0, 96.0]
    assert both["difference"]["wall"]["difference_s"] == pytest.approx(3.0)


def test_a_trend_is_told_from_none(tmp_path: Path, invoke: Invoke) -> None:
    lines: list[Line] = []
    for step, (tokens, falls) in enumerate(((1000, 3.0), (3000, 1.0), (2000, 2.0)), 1):
        inside = (span("old_log_prob", 0.0, falls, tokens=tokens), span("update", 3.0, 1.0 + tokens / 1000))
        lines += one_step(step, 9.0, *inside, start=9.0 * step)
    write_spans(tmp_path / "a", lines)
    out = invoke("profile", "a").out
    assert "update  1.00 s per 1,000 tokens scored + 1.00 s (R2 1.00, 3 steps)" in out
    assert "old_log_prob  no trend with tokens scored (R2 1.00, 3 steps)" in out
    assert invoke("profile", "a", "--html", "a.html").code == 0
    assert "no trend" in (tmp_path / "a.html").read_text()


def test_the_json_holds_what_the_table_says(tmp_path: Path, invoke: Invoke) -> None:
    killed = one_step(3, 9.0, span("batch", 0.0, 1.0), start=99.0, ended=False)
    write_spans(tmp_path / "a", [span("startup", -3.0, 3.0), *run_lines((0.0, 2.0)), *killed, "{torn"])
    assert invoke("profile", "a", "--json", "deep/a.json").code == 0
    data = json.loads((tmp_path / "deep" / "a.json").read_text())
    assert (data["wall_s"], data["residual_s"], data["unreadable_lines"], data["startup_s"]) == (42.0, 6.0, 1, 3.0)
    assert data["residual_share"] == pytest.approx(6.0 / 42.0)
    stages = data["stages"]
    assert set(stages["batch"]) == {"path_s", "share", "work_s", "count", "p50", "p95", "p99", "max"}
    assert sum(stage["share"] for stage in stages.values()) + data["residual_share"] == pytest.approx(1.0)
    assert [step["step"] for step in data["steps"]] == [1, 2]
    assert [one["episode"] for one in data["stragglers"]] == ["1/1", "1/1"]
    assert (data["incomplete"]["step"], data["incomplete"]["complete"]) == (3, False)
    assert {"growth", "figure4", "advice"} <= data.keys()


def test_a_trace_shows_the_slowest_step_or_the_one_that_is_asked_for(tmp_path: Path, invoke: Invoke) -> None:
    write_spans(tmp_path / "a", [*one_step(0, 7.0, span("evaluation", 0.0, 7.0), start=-9.0), *run_lines()])
    for options, step in (((), 2), (("--step", "3"), 3), (("--step", "0"), 0)):
        assert invoke("profile", "a", "--trace", "t.json", *options).code == 0
        events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
        assert {event["args"]["step"] for event in events if event["ph"] == "X"} == {step}


@pytest.mark.parametrize("option", ["--html", "--json", "--trace"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, invoke: Invoke, option: str) -> None:
    write_spans(tmp_path / "a", training_step(1))
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "a"):
        ended = invoke("profile", "a", option, name)
        assert ended.code == 2 and ended.err.count("\n") == 1
        assert f"it is no regular file); choose another {option}" in ended.err
    assert (tmp_path / "pipe").is_fifo()


def test_two_outputs_in_one_file_are_refused(tmp_path: Path, invoke: Invoke) -> None:
    write_spans(tmp_path / "a", training_step(1))
    ended = invoke("profile", "a", "--html", "x", "--json", "./x")
    assert (ended.code, ended.out) == (2, "") and "'x' is --html's file as well; choose another --json" in ended.err
    assert not (tmp_path / "x").exists()


def test_an_unknown_stage_is_refused_before_anything_is_written(tmp_path: Path, invoke: Invoke) -> None:
    write_spans(tmp_path / "a", training_step(1))
    assert invoke("profile", "a", "--html", "x", "--fail-above", "tool/serch=1%").code == 2
    assert not (tmp_path / "x").exists()


def test_a_link_to_itself_is_no_run(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "loop").symlink_to("loop")
    ended = invoke("profile", "loop")
    assert ended.code in (1, 2) and ended.err.count("\n") == 1 and "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ("tool=5%", "tool is 20.00% of the wall time in a, more than 5%"),
        ("tool/bash=3.5s", "tool/bash is 4 s a step in a, more than 3.5 s"),
        ("residual=13.7%", "residual is 13.75% of the wall time in a, more than 13.7%"),
        ("wall=19.9s", "wall is 20 s a step in a, more than 19.9 s"),
        ("update=3s", "update is 3.5 s a step in a, more than 3 s"),
        ("rollout=.5s", "rollout is 12 s a step in a, more than 0.5 s"),
        ("own/thing=.1s", "own/thing is 0.25 s a step in a, more than 0.1 s"),
    ],
)
def test_a_bound_that_is_exceeded_ends_in_1_and_one_that_is_met_in_0(
    tmp_path: Path, invoke: Invoke, bound: str, said: str
) -> None:
    write_spans(tmp_path / "a", [span("own/thing", 19.5, 0.25, step=1), *training_step(1)])
    ended = invoke("profile", "a", "--fail-above", bound, "--fail-above", "diff=1%", "--fail-above", "reward/queue=1%")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.splitlines()[-1] == f"failed: {said}"
    assert invoke("profile", "a", "--fail-above", bound.partition("=")[0] + "=60s").code == 0


def test_a_bound_may_be_on_a_stage_that_only_one_of_two_runs_has(tmp_path: Path, invoke: Invoke) -> None:
    write_spans(tmp_path / "a", training_step(1))
    write_spans(tmp_path / "b", one_step(1, 4.0, span("tool/own", 0.0, 3.0)))
    ended = invoke("profile", "a", "b", "--fail-above", "tool/own=50%")
    assert (ended.code, ended.out.splitlines()[-1]) == (
        1, "failed: tool/own is 75.00% of the wall time in b, more than 50%"
    )  # fmt: skip


@pytest.mark.parametrize("option", ["--html", "--json", "--trace"])
@pytest.mark.parametrize("name", ["spans.jsonl", "metrics.jsonl", "config.yaml", "manifest.json"])
def test_what_a_run_recorded_is_not_overwritten(tmp_path: Path, invoke: Invoke, option: str, name: str) -> None:
    write_spans(tmp_path / "a", training_step(1))
    before = (tmp_path / "a" / "spans.jsonl").read_bytes()
    ended = invoke("profile", "a", option, f"./a/../a/{name}")
    assert (ended.code, ended.out) == (2, "") and ended.err.count("\n") == 1
    assert f"is a file of the run itself; choose another {option}" in ended.err
    assert (tmp_path / "a" / "spans.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        *((bound, "is no bound; write STAGE=5%") for bound in ("tool", "tool=", "=5%", "tool=5", "tool=-5%", "tool=x%",
          "tool=5m", "tool=nan%", "a=b=5%", "tool=1" + "0" * 400 + "s")),
        ("wall=50%", "bound the wall in seconds"),
        ("toll=5%", "stage 'toll' is unknown; did you mean 'tool'?"),
        ("tool/bsh=0%", "stage 'tool/bsh' is unknown; did you mean 'tool/bash'?"),
        ("update/forwards=0%", "stage 'update/forwards' is unknown; did you mean 'update/forward'?"),
        ("xyz\x1b[2J=5%", "is unknown; choose one of"),
    ],
)  # fmt: skip
def test_a_bound_that_cannot_be_read_is_said_in_one_line(tmp_path: Path, invoke: Invoke, bound: str, said: str) -> None:
    write_spans(tmp_path / "a", training_step(1))
    ended = invoke("profile", "a", "--fail-above", bound)
    assert ended.code == 2
    assert said in ended.err and ended.err.count("\n") == 1 and "\x1b" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no",), "run folder 'no' does not exist"),
        (("empty",), "spans.jsonl is missing"),
        (("blank",), "holds no span of a step"),
        (("a", "b", "a"), "takes one, or two"),
        (("a", "./a"), "is given twice"),
        (("a", "b", "--trace", "t.json"), "--trace shows a step of one run"),
        (("a", "--step", "7"), "step 7 is not in"),
        (("a", "--step", "0"), "step 0 is not in"),
        (("a", "--json", "a"), "choose another --json"),
        (("a", "--trace", "a"), "choose another --trace"),
    ],
)
def test_a_mistake_is_said_in_one_line(tmp_path: Path, invoke: Invoke, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "empty").mkdir()
    write_spans(tmp_path / "blank", [])
    for name in ("a", "b"):
        write_spans(tmp_path / name, training_step(1))
    ended = invoke("profile", *arguments)
    assert ended.code == 2
    assert said in ended.err and ended.err.count("\n") == 1


HOSTILE = "\x1b[2J\u202e\x07<script>"


def test_nothing_that_a_run_named_reaches_the_terminal_raw(tmp_path: Path, invoke: Invoke) -> None:
    inside = episode(
        f"0/{HOSTILE}", span(f"tool/{HOSTILE}\n", 0.0, 2.0, turn=1), span(f"policy/{HOSTILE}", 2.0, 1.0, turn=0),
        task=HOSTILE * 50,
    )  # fmt: skip
    lines = one_step(1, 4.0, *inside, span("wait", 0.0, 3.0, waits_for=f"0/{HOSTILE}"), span("rollout", 0.0, 4.0))
    write_spans(tmp_path / "a", lines, recipe=f'"{HOSTILE}"'.encode("unicode_escape").decode())
    write_spans(tmp_path / "b", lines)
    for arguments in (("a",), ("a", "b"), ("a", "--fail-above", "tool=1%")):
        ended = invoke("profile", *arguments)
        assert ended.code in (0, 1)
        assert not set(ended.out + ended.err) & set("\x1b\u202e\x07")
        assert all(len(line) < 600 for line in ended.out.splitlines())
