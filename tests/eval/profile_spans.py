"""Hand-made spans.jsonl files: what the recorder writes, in lines that a test can compute by hand.

    path = write_spans(tmp_path / "run", one_step(1, 10.0, span("batch", 2.0, 3.0)))

writes a run folder whose step 1 takes 10 s, of which batch takes 3 s from second 2 on. Times are seconds since `BEGIN`,
so tests read as sums of small numbers; the files hold Unix seconds, as real ones do. Lines are plain dicts: change any
key (`span(...) | {"start": "x"}`), or put a str among the lines to write it as it is.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any  # a JSON line holds anything

BEGIN = 1_763_683_200.0
"""Unix seconds; a power of two divides it, so that small binary fractions stay exact."""
Line = dict[str, Any]


def span(stage: str, start: float, seconds: float, **keys: Any) -> Line:
    """One span of the main thread; any key of the format can be given, such as step, episode, latency or parent.

    The id is made of stage, thread and times, so that it is the same wherever the line stands.
    """
    thread = keys.get("thread", "MainThread")
    line = {"stage": stage, "id": f"{stage}@{thread}@{start}+{seconds}", "parent": "", "start": BEGIN + start}
    return line | {"seconds": seconds, "process": "1", "thread": thread} | keys


def one_step(step: int, wall: float, *inside: Line, start: float = 0.0, ended: bool = True) -> list[Line]:
    """The lines of a step: the spans in it, whose starts count from the step's, and last the step's own.

    `ended=False` leaves the step's own line out, as if the run had been killed before it.
    """
    lines = [line | {"start": line["start"] + start, "step": line.get("step", step)} for line in inside]
    return lines + [span("step", start, wall, step=step, id=f"step{step}@{start}")] * ended


def episode(name: str, *inside: Line, task: str = "demo-1", phase: str = "rollout") -> list[Line]:
    """Spans that belong to one episode, in a thread of its own unless they say another."""
    return [
        line | {"episode": name, "task": task, "phase": phase}
        | {"thread": f"sandbox_{name}" if line["thread"] == "MainThread" else line["thread"]}
        for line in inside
    ]  # fmt: skip


def write_spans(folder: Path, lines: Iterable[Line | str], recipe: str = "demo") -> Path:
    """Write a run folder with spans.jsonl and the config.yaml that names its recipe; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"recipe: {recipe}\n")
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "spans.jsonl").write_text(text, encoding="utf-8")
    return folder


def training_step(step: int, *, start: float = 0.0, slow: float = 0.0) -> list[Line]:
    """A whole step of 2 groups of 2 episodes, 20 + `slow` seconds long, with every kind of span.

    0-12+slow rollout (of it 10 + slow waiting for 1/1, whose bash takes 4 + slow), 12-13 batch, 13-15 old_log_prob,
    15-15.5 aem, 15.5-19 update (forward 1, backward 2), 19-19.5 weight_sync, the rest not attributed.
    """
    lines: list[Line] = []
    for number, name in enumerate(("0/0", "0/1", "1/0", "1/1")):
        tool = 4.0 + slow if name == "1/1" else 1.0 + number
        lines += episode(
            name,
            span("sandbox/create", 0.0, 1.0),
            span("policy/decode", 1.0, 2.0, turn=0, tokens=16 * (number + 1), latency=True),
            span("tool/bash", 3.0, tool, turn=0, tool="bash"),
            span("policy/decode", 3.0 + tool, 1.0, turn=1, tokens=8, latency=True),
            span("reward/tests", 4.0 + tool, 2.0),
            task=f"demo-{name[0]}",
        )
    end = 12.0 + slow
    lines += [
        span("policy/decode", 1.0, 2.0, thread="sampler", rows=4, tokens=160, phase="rollout"),
        span("sandbox/create", 5.0, 1.0, thread="pool", background=True),
        span("wait", 0.0, 10.0 + slow, waits_for="1/1", phase="rollout"),
        span("rollout", 0.0, end, phase="rollout", group_size=2),
        span("batch", end, 1.0),
        span("old_log_prob", end + 1.0, 2.0, gpu_s=1.5, gpu_peak_mb=100.0),
        span("aem", end + 3.0, 0.5),
        span("update/forward", end + 3.5, 1.0, parent=f"update{step}"),
        span("update/backward", end + 4.5, 2.0, parent=f"update{step}"),
        span("update", end + 3.5, 3.5, id=f"update{step}"),
        span("weight_sync", end + 7.0, 0.5),
    ]
    return one_step(step, 20.0 + slow, *lines, start=start)


def run_lines(walls: Sequence[float] = (0.0, 2.0, 1.0)) -> list[Line]:
    """Training steps one after the other, step k being walls[k - 1] seconds slower than 20."""
    lines, start = [], 0.0
    for number, slow in enumerate(walls, 1):
        lines += training_step(number, start=start, slow=slow)
        start += 20.0 + slow
    return lines
