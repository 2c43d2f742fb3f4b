"""Spans as they are written: who lies in whom, what they pass on; and forks, clocks and full disks."""

import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aem_swe.metrics import RunFolder
from aem_swe.profiling import Stopwatch, flush, inherited, record, recording, span


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Recorded into while the test runs; `flush` before it is read."""
    with recording(tmp_path / "spans.jsonl"):
        yield tmp_path / "spans.jsonl"


def test_spans_inside_a_span_know_it_and_have_its_step_and_episode_but_not_its_other_attributes(path: Path) -> None:
    with span("step", step=3, tokens=7) as step:
        with span("agent", episode="0/1", task="t", turn=2):
            with span("tool/search", tool="search"):
                pass
        step.set(rows=5)
    flush()
    tool, agent, whole = lines(path)
    assert [row["stage"] for row in (tool, agent, whole)] == ["tool/search", "agent", "step"]  # written as they end
    assert (tool["parent"], agent["parent"], whole["parent"]) == (agent["id"], whole["id"], "")
    assert {key: tool[key] for key in ("step", "episode", "task", "turn", "tool")} == {
        "step": 3, "episode": "0/1", "task": "t", "turn": 2, "tool": "search",
    }  # fmt: skip
    assert "tokens" not in agent and (whole["tokens"], whole["rows"]) == (7, 5) and "episode" not in whole
    assert whole["start"] <= agent["start"] <= tool["start"]
    assert tool["seconds"] <= agent["seconds"] <= whole["seconds"] < 1


def test_a_span_is_as_long_as_its_block(path: Path) -> None:
    with span("wait"):
        time.sleep(0.05)
    record("tool/x", time.perf_counter() - 2.0, 1.5, episode="0/0")
    flush()
    slept, told = lines(path)
    assert 0.05 <= slept["seconds"] < 0.5
    assert told["seconds"] == 1.5 and told["start"] == pytest.approx(time.time() - 2.0, abs=0.5)


def test_an_error_ends_its_span_and_marks_it(path: Path) -> None:
    with pytest.raises(KeyError):
        with span("step", step=1), span("update"):
            raise KeyError
    with span("step", step=2):
        pass
    flush()
    assert [(row["stage"], row.get("failed"), row["parent"] == "") for row in lines(path)] == [
        ("update", True, False), ("step", True, True), ("step", None, True),
    ]  # fmt: skip


def test_threads_have_spans_of_their_own_and_hand_on_what_they_are_told_to(path: Path) -> None:
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(500):
            with span("agent", **about, episode=f"0/{number}"):
                with span("tool/x"):
                    pass

    with span("step", step=1), span("rollout", phase="rollout"):
        about = inherited()
        with ThreadPoolExecutor(4) as workers:
            list(workers.map(work, range(4)))
    flush()
    rows = lines(path)
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows) == 4 * 1000 + 2
    tools = [row for row in rows if row["stage"] == "tool/x"]
    assert all(by_id[row["parent"]]["thread"] == row["thread"] for row in tools)
    assert all(by_id[row["parent"]]["episode"] == row["episode"] for row in tools)
    assert all((row["step"], row["phase"]) == (1, "rollout") for row in tools)


def test_without_a_recording_nothing_is_written_and_the_stopwatch_still_sums(tmp_path: Path) -> None:
    stopwatch = Stopwatch()
    with recording(None), stopwatch.stage("tools", "tool/x", tool="x") as opened:
        opened.set(rows=1)
        assert not opened.recorded and inherited() == {}
    assert set(stopwatch.seconds) == {"tools"} and not list(tmp_path.iterdir())


def test_a_fork_writes_nothing_and_loses_nothing_of_its_parent(path: Path) -> None:
    with span("step", step=1):
        with span("aem"):
            pass
        child = os.fork()
        if not child:
            with span("tool/x"):
                pass
            flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    flush()
    assert [row["stage"] for row in lines(path)] == ["aem", "step"]


def test_a_clock_that_is_set_back_makes_nothing_negative(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with span("step", step=1):
        with span("batch"):
            monkeypatch.setattr(time, "time", lambda: 0.0)
        with span("aem"):
            pass
    flush()
    batch, aem, step = lines(path)
    assert step["start"] <= batch["start"] <= batch["start"] + batch["seconds"] <= aem["start"] + 2e-6
    assert min(row["seconds"] for row in (batch, aem, step)) >= 0
    record("tool/x", 1.0, -1.0)
    flush()
    assert lines(path)[-1]["seconds"] == 0


def test_half_a_line_of_a_killed_process_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text('{"stage": "aem"}\n{"stage": "st')
    with recording(path), span("step", step=1):
        pass
    first, torn, new = path.read_text().splitlines()
    assert (json.loads(first)["stage"], torn, json.loads(new)["stage"]) == ("aem", '{"stage": "st', "step")


def test_what_ended_a_while_ago_is_in_the_file_before_the_recording_ends(path: Path) -> None:
    with span("aem"):
        pass
    time.sleep(1.05)
    with span("batch"):
        pass
    assert [row["stage"] for row in lines(path)] == ["aem", "batch"]


def test_a_full_disk_ends_the_recording_with_a_warning_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with recording(tmp_path / "spans.jsonl"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            for _ in range(2):
                with span("aem"):
                    pass
                flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caplog.messages) == 1 and "spans are recorded no longer" in caplog.messages[0]


def test_a_rewound_run_forgets_the_spans_of_the_steps_that_run_again(tmp_path: Path) -> None:
    with recording(tmp_path / "spans.jsonl"):
        record("startup", time.perf_counter(), 1.0)
        for step in (0, 1, 2):
            with span("step", step=step), span("aem"):
                pass
    RunFolder(tmp_path).rewind(1)
    assert [(row["stage"], row.get("step")) for row in lines(tmp_path / "spans.jsonl")] == [
        ("startup", None), ("aem", 0), ("step", 0), ("aem", 1), ("step", 1),
    ]  # fmt: skip


def test_a_value_that_json_does_not_know_is_written_as_text_and_costs_no_other_span(path: Path) -> None:
    with span("batch", tokens=Path("x")):  # type: ignore[arg-type]  # as somebody's own code may
        pass
    with span("update", gpu_s=float("nan")):
        pass
    with span("aem"):
        pass
    flush()
    assert [(row["stage"], row.get("tokens")) for row in lines(path)] == [
        ("batch", "x"), ("update", None), ("aem", None),
    ]  # fmt: skip
    assert lines(path)[1]["gpu_s"] == "nan"


def test_a_recording_inside_another_has_its_own_roots(path: Path, tmp_path: Path) -> None:
    with span("step", step=1), recording(tmp_path / "other.jsonl"), span("aem"):
        pass
    flush()
    (inner,) = lines(tmp_path / "other.jsonl")
    assert (inner["stage"], inner["parent"], inner["step"]) == ("aem", "", 1)
    assert [row["stage"] for row in lines(path)] == ["step"]


def test_a_disk_that_takes_only_a_part_is_asked_for_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "spans.jsonl"
    with recording(path):
        for _ in range(100):
            with span("aem"):
                pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        try:
            flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with span("batch"):
            pass
    assert len(caplog.messages) == 1  # the recording has ended, and has said so
    assert path.stat().st_size == 5000
