"""The Chrome trace of a step: valid for any span, also for hostile ones."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # JSON holds anything

from profile_spans import Line, episode, one_step, span, training_step, write_spans

from aem_swe.eval.profile.profile import load_profile
from aem_swe.eval.profile.trace import build_trace


def trace_of(folder: Path, lines: list[Line]) -> dict[str, Any]:
    spans = load_profile(write_spans(folder, lines)).slowest.spans
    trace: dict[str, Any] = json.loads(json.dumps(build_trace(spans), allow_nan=False))
    return trace


def check(trace: Mapping[str, Any]) -> None:
    """What Perfetto and chrome://tracing ask of the JSON format."""
    events = trace["traceEvents"]
    assert all({"ph", "pid", "tid", "ts"} <= event.keys() for event in events)
    assert all(isinstance(event[key], int) for event in events for key in ("pid", "tid"))
    times = [event["ts"] for event in events]
    assert times == sorted(times) and times[0] >= 0
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")
    open_pairs: Counter[tuple[str, int]] = Counter()
    for event in events:
        if event["ph"] in "be":
            open_pairs[event["cat"], event["id"]] += 1 if event["ph"] == "b" else -1
            assert open_pairs[event["cat"], event["id"]] >= 0
    assert not any(open_pairs.values())
    named = {(event["pid"], event["tid"]) for event in events if event["ph"] == "M"}
    assert {(event["pid"], event["tid"]) for event in events if event["ph"] != "M"} <= named


def test_every_span_of_the_step_is_there_in_microseconds(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, training_step(1))
    check(trace)
    kinds = Counter(event["ph"] for event in trace["traceEvents"])
    assert kinds == {"X": 23, "b": 9, "e": 9, "M": 1 + 7}  # 8 latencies and 1 done ahead; 7 threads
    bash = next(event for event in trace["traceEvents"] if event["name"] == "tool/bash")
    assert (bash["ts"], bash["dur"], bash["cat"]) == (3e6, 1e6, "work")
    assert bash["args"]["task"] == "demo-0" and bash["args"]["tool"] == "bash"


def test_processes_and_threads_have_their_names(tmp_path: Path) -> None:
    lines = one_step(1, 2.0, span("batch", 0.0, 1.0, process="host:7", thread="worker"), span("aem", 0.0, 1.0))
    names = [event for event in trace_of(tmp_path, lines)["traceEvents"] if event["ph"] == "M"]
    assert [(event["name"], event["args"]["name"]) for event in names] == [
        ("process_name", "1"), ("process_name", "host:7"), ("thread_name", "MainThread"), ("thread_name", "worker"),
    ]  # fmt: skip


def test_a_hostile_step_still_gives_a_valid_trace(tmp_path: Path) -> None:
    odd = span("tool/\x1b[2J", 0.0, 0.0, latency=True, nan=float("nan"), huge=10**400, deep={"a": [1]}, thread="\x07")
    lines = one_step(1, 2.0, odd, *episode("\u202e/0", span("agent", -5.0, 0.5), task="<script>\ud800"))
    trace = trace_of(tmp_path, lines)
    check(trace)
    assert "\\u001b" not in json.dumps(trace)
