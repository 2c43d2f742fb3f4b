"""Validation: what is tried, what counts, and what a stopped one keeps. Real local sandboxes, the demo's tasks."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aem_swe.errors import ConfigError, TaskError
from aem_swe.sandboxes import Sandbox, Sandboxes, SandboxLimits, open_sandboxes, unavailable_reason
from aem_swe.tasks.demo import make_problem
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.source import grading_programs
from aem_swe.tasks.validate import Trial, digest_of, read_trials, validate
from aem_swe.types import Graded, Task


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandboxes]:
    if reason := unavailable_reason("local"):
        pytest.skip(reason)
    with open_sandboxes("local", limits=SandboxLimits(), programs=grading_programs()) as opened:
        yield opened


def problem(seed: int, *, fixed: bool = True) -> Problem:
    made = make_problem("train", seed)
    file = f"{made.target.module}.py"
    before = made.files()[file]
    fix = made.target.variant.good if fixed else f"({made.bug})"
    after = before.replace(f"return {made.bug}\n", f"return {fix}\n")
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{file}", f"b/{file}")
    patch = "".join(lines).encode()
    return Problem(made.task(), made.grader(), patch)


def test_a_good_task_earns_1_with_its_fix_and_0_without(sandboxes: Sandboxes, tmp_path: Path) -> None:
    seen: list[Trial] = []
    judged = validate(
        [problem(1), problem(2)], sandboxes, repeats=2, workers=2, record=tmp_path / "v.jsonl", observe=seen.append
    )
    assert [(one.verdict, one.gold, one.no_op) for one in judged] == [("good", (1.0, 1.0), (0.0, 0.0))] * 2
    assert len(seen) == 8


def test_a_task_that_never_passes_is_broken_and_says_why(sandboxes: Sandboxes, tmp_path: Path) -> None:
    (judged,) = validate([problem(1, fixed=False)], sandboxes, repeats=1, workers=1, record=tmp_path / "v.jsonl")
    assert judged.verdict == "broken"
    assert judged.reasons[0].startswith("gold: tests_failed: ")


def test_a_task_that_passes_now_and_then_is_flaky(sandboxes: Sandboxes, tmp_path: Path) -> None:
    class Coin:
        calls = 0

        def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
            Coin.calls += bool(diff)
            return Graded(float(bool(diff) and Coin.calls % 2), "tests_failed")

        def __repr__(self) -> str:
            return "Coin()"

    flaky = replace(problem(1), grader=Coin())
    (judged,) = validate([flaky], sandboxes, repeats=3, workers=1, record=tmp_path / "v.jsonl")
    assert (judged.verdict, judged.gold) == ("flaky", (1.0, 0.0, 1.0))


def test_finished_trials_are_not_repeated_and_failed_ones_are(sandboxes: Sandboxes, tmp_path: Path) -> None:
    record, good = tmp_path / "v.jsonl", problem(1)
    validate([good], sandboxes, repeats=2, workers=1, record=record)
    lines = record.read_text().splitlines()
    failed = json.loads(lines[1]) | {"reward": None, "reason": "the engine was away"}
    record.write_text("\n".join([lines[0], json.dumps(failed), *lines[2:], '{"torn']))
    again: list[Trial] = []
    (judged,) = validate([good], sandboxes, repeats=3, workers=1, record=record, observe=again.append)
    assert judged.verdict == "good"
    assert len(again) == 3  # the failed one, and the third repetition of both checks
    changed: list[Trial] = []
    validate(
        [replace(good, gold=good.gold + b"\n")], sandboxes, repeats=1, workers=1, record=record, observe=changed.append
    )
    assert len(changed) == 2


def test_a_task_without_a_fix_or_that_cannot_be_set_up_is_unjudged_and_the_others_go_on(
    sandboxes: Sandboxes, tmp_path: Path
) -> None:
    without = replace(problem(1), gold=b"")
    images = replace(problem(3), task=replace(problem(3).task, image="some/image"))
    judged = validate([without, images, problem(2)], sandboxes, repeats=1, workers=2, record=tmp_path / "v.jsonl")
    assert [one.verdict for one in judged] == ["unjudged", "unjudged", "good"]
    assert "has no reference fix" in judged[0].reasons[0]
    assert "use sandbox=docker" in judged[1].reasons[0]


def test_a_fix_that_is_a_program_is_run_in_a_sandbox_of_its_own(sandboxes: Sandboxes, tmp_path: Path) -> None:
    made = make_problem("train", 1)

    def fix(_: Problem, sandbox: Sandbox) -> bytes:
        file = f"{made.target.module}.py"
        source = sandbox.read(file).decode()
        sandbox.write(file, source.replace(f"return {made.bug}\n", f"return {made.target.variant.good}\n").encode())
        return sandbox.diff()

    bare = replace(problem(1), gold=b"")
    (judged,) = validate([bare], sandboxes, repeats=1, workers=1, record=tmp_path / "v.jsonl", gold=fix)
    assert judged.verdict == "good"


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "notes.jsonl"
    other.write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(ConfigError, match="line 1, is no trial"):
        list(read_trials(other))


def test_the_digest_is_of_the_content() -> None:
    assert digest_of(problem(1)) == digest_of(problem(1)) != digest_of(problem(2))


def test_task_errors_of_a_grader_are_a_trial_too(sandboxes: Sandboxes, tmp_path: Path) -> None:
    class Unfit:
        def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
            raise TaskError(f"{task.id}: no tests")

    (judged,) = validate(
        [replace(problem(1), grader=Unfit())], sandboxes, repeats=1, workers=1, record=tmp_path / "v.jsonl"
    )
    assert (judged.verdict, judged.reasons) == (
        "unjudged", ("gold: demo-train-1: no tests", "no-op: demo-train-1: no tests"),
    )  # fmt: skip
