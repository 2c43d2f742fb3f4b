"""Spans of real training runs: they explain every step, the documented pandas agree, a kill loses little."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from profile_document import assert_agrees
from small_runs import SMALL, train

from aem_swe.eval.profile.profile import Profile, load_profile

Start = Callable[..., "subprocess.Popen[str]"]
POLICY = {"policy/queue", "policy/prefill", "policy/decode"}
WANTED = POLICY | {
    "worker/queue", "sandbox/open", "sandbox/create", "sandbox/start", "sandbox/prepare", "sandbox/close", "agent",
    "diff", "reward/queue", "reward/start", "reward/tests", "batch", "old_log_prob", "filter", "advantage", "aem",
    "update/forward", "update/backward", "update/optimizer", "checkpoint", "evaluation", "record",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the demo with AEM and a reference policy, an evaluation before the first and after the last."""
    folder = tmp_path_factory.mktemp("profiled") / "run"
    train(folder, "algorithm.kl_coefficient=0.01", recipe="demo_aem")
    return folder


@pytest.fixture(scope="module")
def profile(run: Path) -> Profile:
    return load_profile(run)


def spans_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "spans.jsonl").read_text().splitlines()]


def test_the_stages_explain_every_step_but_for_two_percent(profile: Profile) -> None:
    assert [step.step for step in profile.steps] == [1, 2] and profile.unreadable_lines == 0
    for step in profile.steps:
        assert sum(step.path_s.values()) + step.residual_s == pytest.approx(step.wall_s, abs=1e-9)
        assert step.residual_s <= 0.02 * step.wall_s
    assert profile.startup_s is not None and profile.before_s is not None


def test_every_stage_of_a_step_is_there(profile: Profile) -> None:
    assert WANTED | {"ref_log_prob"} <= set(profile.stages)
    assert any(stage.startswith("tool/") for stage in profile.stages)
    assert profile.group_size == 4
    assert all(step.gpu_s is None and step.gpu_peak_mb is None for step in profile.steps)  # on a CPU


def test_every_turn_says_how_long_it_queued_and_decoded(run: Path) -> None:
    spans = spans_of(run)
    lines = [
        json.loads(line)
        for step in (1, 2)
        for line in (run / "trajectories" / f"step_{step:06d}.jsonl").read_text().splitlines()
    ]
    turns = sum(len(line["turns"]) for line in lines)
    tokens = sum(turn["tokens"] for line in lines for turn in line["turns"])
    for stage in POLICY:
        of_turns = [s for s in spans if s["stage"] == stage and s.get("latency") and s.get("phase") == "rollout"]
        assert len({(s["step"], s["episode"], s["turn"]) for s in of_turns}) == len(of_turns) == turns
        work = [s for s in spans if s["stage"] == stage and not s.get("latency")]
        assert all("episode" not in s for s in work) and bool(work) == (stage != "policy/queue")
    rollouts = [s for s in spans if s.get("phase") == "rollout" and s["stage"] == "policy/decode"]
    for latency in (True, None):  # counted once by turn, once by cohort
        assert sum(s["tokens"] for s in rollouts if s.get("latency") is latency) == tokens


def test_tool_spans_are_the_actions_of_the_trajectories(run: Path) -> None:
    row = json.loads((run / "trajectories" / "step_000001.jsonl").read_text().splitlines()[0])
    actions = [
        (number, turn["action"]["name"])
        for number, turn in enumerate(row["turns"])
        if "name" in turn["action"] and turn["action"]["name"] != "finish"
    ]
    key = (1, f"{row['group']}/{row['rollout']}", row["task_id"])
    found = sorted(
        (s["turn"], s["tool"])
        for s in spans_of(run)
        if s["stage"].startswith("tool/")
        and (s.get("step"), s["episode"], s["task"]) == key
        and s["phase"] == "rollout"
    )
    assert actions and found == actions


def test_the_pandas_of_the_documentation_give_the_first_column(
    run: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_agrees(run, profile, monkeypatch, rounding=2e-5)  # starts are whole microseconds


def test_the_pandas_of_the_documentation_bear_a_failed_step_and_a_torn_line(
    run: Path, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = [json.dumps(span | {"step": 3}) for span in spans_of(run) if span.get("step") == 2]
    failed = [json.dumps(span | {"step": 3, "failed": True}) for span in spans_of(run) if span.get("step") == 2][-1:]
    text = (run / "spans.jsonl").read_text() + "".join(f"{line}\n" for line in (*again[:-1], *failed))
    (tmp_path / "spans.jsonl").write_text(text + '{"stage": "tool/se')
    broken = load_profile(tmp_path)
    assert (broken.stages, broken.unreadable_lines, broken.incomplete_steps) == (profile.stages, 1, (3,))
    assert_agrees(tmp_path, broken, monkeypatch, rounding=2e-5)


def test_without_profile_there_is_no_file_and_the_timings_stay(tmp_path: Path) -> None:
    rows = train(tmp_path / "run", "trainer.profile=false", "trainer.steps=1", "trainer.eval_every=0")
    assert not (tmp_path / "run" / "spans.jsonl").exists()
    assert {"timing_s/step", "timing_s/rollout", "timing_s/aem", "timing_s/rollout_tools"} <= rows[-1].keys()


def in_the_middle_of_a_step(run: Path) -> int:
    """The step of which spans are in the file and not its own; 0 if there is none."""
    lines = (run / "spans.jsonl").read_text().split("\n")[:-1]
    seen = {row["step"] for row in map(json.loads, lines) if "step" in row}
    ended = {row["step"] for row in map(json.loads, lines) if row["stage"] == "step"}
    return max(seen - ended, default=0)


def test_a_killed_run_is_profiled_up_to_its_last_line_and_goes_on_in_the_same_file(
    tmp_path: Path, start: Start
) -> None:
    run = tmp_path / "run"
    size = ("sampling.prompts=4", "sampling.rollouts=8", "data.pool=4")  # steps of seconds: spans are kept for one
    command = ("train", "demo", *SMALL, *size, "trainer.eval_every=0", "trainer.steps=4", f"run_dir={run}", "--plain")
    process = start(*command)
    assert process.stdout
    while not process.stdout.readline().startswith("run step 1/"):
        assert process.poll() is None
    deadline = time.monotonic() + 60
    step = 0
    while not step:
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.02)
        assert time.monotonic() < deadline
        os.killpg(process.pid, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])  # or it has ended by itself
        step = in_the_middle_of_a_step(run)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with (run / "spans.jsonl").open("a") as file:
        file.write('{"stage": "tool/se')  # as a kill in the middle of a write leaves it
    killed = load_profile(run)
    assert [one.step for one in killed.steps] == list(range(1, step)) and killed.unreadable_lines == 1
    last = killed.incomplete
    assert last is not None and last.step == step
    assert last.wall_s > 0 and last.path_s and min(last.path_s.values()) >= 0
    assert sum(last.path_s.values()) + last.residual_s == pytest.approx(last.wall_s, abs=1e-9)
    again = start(*command, "--resume")
    assert again.wait(120) == 0
    whole = load_profile(run)
    assert [one.step for one in whole.steps] == [1, 2, 3, 4] and whole.incomplete is None
    assert whole.residual_share <= 0.02
