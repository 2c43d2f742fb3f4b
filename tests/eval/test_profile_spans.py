"""Reading spans.jsonl: what counts as a span, and what a killed or resumed run leaves behind."""

import json
from pathlib import Path

import pytest
from profile_spans import BEGIN, Line, episode, one_step, span, write_spans

from aem_swe.errors import RunError
from aem_swe.eval.profile import spans as module
from aem_swe.eval.profile.spans import Counts, StepSpans, read_steps


def read(folder: Path, lines: list[Line | str]) -> tuple[list[StepSpans], Counts]:
    counts = Counts()
    return list(read_steps(write_spans(folder, lines) / "spans.jsonl", counts)), counts


def test_every_key_of_the_format_is_kept_and_others_become_attributes(tmp_path: Path) -> None:
    line = span(
        "tool/bash", 1.5, 0.25, parent="p", process="host:7", thread="t", phase="rollout", episode="0/5", task="demo",
        turn=2, latency=True, background=True, tool="bash", tokens=3, odd={"a": [1]},
    )  # fmt: skip
    (step,), _ = read(tmp_path, [*one_step(3, 2.0, line)])
    found = step.spans[0]
    assert (found.stage, found.parent, found.seconds) == ("tool/bash", "p", 0.25)
    assert found.start - step.start == 1.5
    assert (found.process, found.thread, found.step, found.phase) == ("host:7", "t", 3, "rollout")
    assert (found.episode, found.task, found.turn) == ("0/5", "demo", 2)
    assert found.latency and found.background
    assert found.attributes == {"tool": "bash", "tokens": 3, "odd": {"a": [1]}}


GOOD: Line = span("batch", 0.0, 1.0, step=1)
BAD = [
    "{", '{"stage": "batch", "sta', "[1]", "3", "null", '"text"', "{}", '{"a": 1} {"b": 2}', "[" * 100_000,
    '{"a":' * 100_000, "\x00", "\ufffd\ufffd",
    *(json.dumps(GOOD | change) for change in (
        {"seconds": -0.1}, {"seconds": float("nan")}, {"seconds": float("inf")}, {"seconds": "1"}, {"seconds": None},
        {"seconds": True}, {"seconds": 1e300}, {"seconds": 10**400}, {"seconds": [1]}, {"start": -1.0},
        {"start": float("-inf")}, {"start": 1e15}, {"start": {}}, {"stage": ""}, {"stage": 3}, {"stage": None},
        {"stage": {"a": 1}}, {"step": "1"}, {"step": 1.5}, {"step": -1}, {"step": 10**30}, {"step": True}, {"id": 4},
        {"thread": None}, {"episode": ["0/5"]}, {"task": 17}, {"phase": {}}, {"process": 4711}, {"parent": 1},
    )),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad[:40]))
def test_a_line_that_is_no_span_is_counted_and_skipped(tmp_path: Path, bad: str) -> None:
    batch = span("batch", 0.0, 1.0)
    (step,), counts = read(tmp_path, [bad, *one_step(1, 2.0, batch)])
    assert (len(step.spans), counts.unreadable, counts.late, counts.outside) == (2, 1, 0, 0)


def test_two_torn_lines_that_make_a_whole_one_together_are_still_two(tmp_path: Path) -> None:
    (step,), counts = read(tmp_path, ['{"stage": "batch", "step": 1', '"start": 0, "seconds": 1}', *one_step(1, 2.0)])
    assert (len(step.spans), counts.unreadable) == (1, 2)


@pytest.mark.parametrize("odd", [{"turn": "2"}, {"turn": -1}, {"turn": 10**400}, {"latency": "yes"}, {"background": 1}])
def test_what_is_not_needed_to_place_a_span_may_be_odd(tmp_path: Path, odd: Line) -> None:
    (step,), counts = read(tmp_path, one_step(1, 2.0, span("batch", 0.0, 1.0) | odd))
    assert counts.unreadable == 0
    assert (step.spans[0].turn, step.spans[0].latency, step.spans[0].background) == (None, False, False)


def test_blank_lines_and_foreign_line_ends_are_no_lines(tmp_path: Path) -> None:
    lines = [json.dumps(line) + "\r" for line in one_step(1, 2.0)]
    steps, counts = read(tmp_path, ["", "  ", *lines, "\r"])
    assert (len(steps), counts.unreadable) == (1, 0)


def test_a_step_is_all_that_was_written_up_to_its_own_line(tmp_path: Path) -> None:
    lines = one_step(1, 2.0, span("batch", 0.0, 1.0)) + one_step(2, 2.0, span("aem", 0.0, 1.0), start=2.0)
    steps, counts = read(tmp_path, lines)
    assert [[one.stage for one in step.spans] for step in steps] == [["batch", "step"], ["aem", "step"]]
    assert [step.wall_s for step in steps] == [2.0, 2.0]
    assert (counts.late, counts.outside, counts.startup_s) == (0, 0, None)


def test_spans_after_their_steps_line_are_counted_as_late(tmp_path: Path) -> None:
    steps, counts = read(tmp_path, [*one_step(1, 2.0), span("sandbox/close", 1.0, 1.5, step=1, thread="pool")])
    assert (len(steps), counts.late) == (1, 1)


def test_startup_is_summed_and_other_spans_of_no_step_are_counted(tmp_path: Path) -> None:
    outside = [span("startup", -9.0, 3.0), span("startup", -5.0, 1.0), span("record", -1.0, 0.5)]
    _, counts = read(tmp_path, [*outside, *one_step(1, 2.0)])
    assert (counts.startup_s, counts.outside) == (4.0, 1)


def test_a_killed_step_runs_from_its_first_start_to_its_last_end(tmp_path: Path) -> None:
    killed = one_step(2, 9.0, span("batch", 1.0, 1.0), span("aem", 3.0, 0.5), start=2.0, ended=False)
    _, last = read(tmp_path, [*one_step(1, 2.0), *killed])[0]
    assert (last.step, last.complete, last.wall_s, last.lane) == (2, False, 2.5, ("1", "MainThread"))


def test_a_killed_step_neither_begins_nor_ends_with_what_was_done_ahead(tmp_path: Path) -> None:
    ahead = [span("sandbox/create", at, 30.0, thread="pool", background=True) for at in (-20.0, 3.0)]
    (step,), _ = read(tmp_path / "a", one_step(2, 9.0, *ahead, span("batch", 1.0, 1.0), start=50.0, ended=False))
    assert (step.start, step.wall_s) == (BEGIN + 51.0, 1.0)
    (step,), _ = read(tmp_path / "b", one_step(2, 9.0, *ahead, ended=False))
    assert step.wall_s == 0.0


def test_a_step_that_failed_is_as_long_as_its_own_span_and_not_complete(tmp_path: Path) -> None:
    *lines, own = one_step(1, 9.0, span("batch", 1.0, 1.0))
    (step,), _ = read(tmp_path, [*lines, own | {"failed": True}])
    assert (step.complete, step.start, step.wall_s, step.lane) == (False, BEGIN, 9.0, ("1", "MainThread"))


def test_what_a_killed_attempt_left_behind_is_not_counted_with_the_next(tmp_path: Path) -> None:
    killed = one_step(1, 9.0, span("batch", 1.0, 1.0, process="1"), ended=False)
    ahead = span("sandbox/create", -1.0, 0.5, background=True, process="2")
    again = one_step(1, 3.0, ahead, span("batch", 0.0, 1.0, process="2"), start=50.0)
    (step,), counts = read(tmp_path, [*killed, *again])
    assert ([one.stage for one in step.spans], counts.late) == (["sandbox/create", "batch", "step"], 1)


def test_a_file_is_read_alike_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [one for k in range(6) for one in one_step(k, 1.0, *episode("0/0", span("agent", 0.0, 0.5)), start=k)]
    whole, _ = read(tmp_path, [*lines, "torn"])
    for size in (1, 100, 1000):
        monkeypatch.setattr(module, "BLOCK", size)
        steps, counts = read(tmp_path, [*lines, "torn"])
        assert ([step.spans for step in steps], counts.unreadable) == ([step.spans for step in whole], 1)
        again = list(read_steps(tmp_path / "spans.jsonl", Counts(), steps[3].blocks))
        assert steps[3].spans in [step.spans for step in again]


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        list(read_steps(tmp_path, Counts()))
