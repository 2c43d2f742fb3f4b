"""The spans of a run: named, nested pieces of time, one JSON line each, read one training step at a time.

A span is written when it ENDS, so children come before their parents and a step's own span comes last. A run may have
been killed at any moment and its lines may be torn or hostile: a line that is no span is counted and skipped.
Not covered: what the spans mean for the step (path.py), and who wrote them (aem_swe/profiling.py).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aem_swe.errors import RunError

SPANS = "spans.jsonl"
STEP, STARTUP, EVALUATION = "step", "startup", "evaluation"
CONTAINERS = frozenset({STEP, "rollout", "update", "wait"})
"""They hold other spans; what no other span covers in them is explained by nothing."""

LATEST = 1e11  # in the year 5138; a later start, or a span of thirty years, is a broken line
LONGEST = 1e9
BLOCK = 1 << 18
_NO_ATTRIBUTES: Mapping[str, object] = {}


class Span(NamedTuple):
    """One piece of time. A named tuple and no dataclass, which takes five times as long to make: there are millions."""

    stage: str
    """Such as tool/search; the part before the slash is its family."""
    id: str
    parent: str
    """The id of the span around it; empty where there is none."""
    start: float
    """Unix seconds; within one process it never steps back."""
    seconds: float
    """Wall time, >= 0."""
    process: str
    thread: str
    step: int | None
    """Training step; 0 is the evaluation before training, None is outside of any step."""
    phase: str
    """rollout, evaluation, or empty."""
    episode: str
    """group/rollout, such as 0/5; empty where the span serves no single episode."""
    task: str
    turn: int | None
    """Counted from 0."""
    latency: bool
    """An episode's own waiting for something shared, not work."""
    background: bool
    """Done ahead of need: nobody waits for it."""
    attributes: Mapping[str, object]
    """All else that the line holds: tool, tokens, rows, waits_for, gpu_s, ... of any JSON type."""

    @property
    def stop(self) -> float:
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class StepSpans:
    """All spans of one step."""

    step: int
    complete: bool
    """False: an exception left the step, or its own span is missing: the run was killed, or that line is broken."""
    start: float
    """Unix seconds; where the step's own span is missing, its first span's start."""
    wall_s: float
    """Where the step's own span is missing: from the first start to the last end of any span. What was done ahead of
    need counts for neither."""
    spans: tuple[Span, ...]
    """As they were written, the step's own span included."""
    lane: tuple[str, str]
    """(process, thread) that runs the step; of an incomplete step, the most likely one."""
    blocks: tuple[int, int]
    """The bytes of the file between which all these spans lie, to read this step again."""


@dataclass(slots=True)
class Counts:
    """What a reader of spans passes by; `read_steps` adds to it as it goes."""

    unreadable: int = 0
    """Lines that are no span."""
    late: int = 0
    """Spans that came after their step was over, or that an attempt at the step left behind when it was killed."""
    outside: int = 0
    """Spans of no step, startup left aside."""
    startup_s: float | None = None
    """Before the first step, summed over a run's resumptions; None where it was not recorded."""


def read_steps(path: Path, counts: Counts, blocks: tuple[int, int] | None = None) -> Iterator[StepSpans]:
    """Yield each step when its own span arrives, and at the end the steps for which none did, in order.

    A step that was taken twice (failed, resumed) is yielded twice if both attempts wrote their own span.
    `blocks` reads only between those two bytes. Raises RunError if the file cannot be read.
    """
    waiting: dict[int, list[Span]] = {}
    first: dict[int, int] = {}
    ended: dict[int, tuple[str, str]] = {}
    begin = stop = 0
    try:
        for begin, stop, lines in _read_blocks(path, blocks):
            for span in _parse(lines):
                if span is None:
                    counts.unreadable += 1
                    continue
                step = span.step
                if step is None or span.stage == STARTUP:
                    _pass_by(span, counts)
                    continue
                if step in waiting:
                    waiting[step].append(span)
                else:
                    waiting[step], first[step] = [span], begin
                if span.stage == STEP:
                    ended[step] = (span.process, span.thread)
                    yield _ended(span, waiting.pop(step), counts, (first[step], stop))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check that the run folder is complete") from error
    counts.late += sum(len(spans) for step, spans in waiting.items() if step in ended)
    usual = list(ended.values())[-1][1] if ended else "MainThread"
    for step in sorted(waiting.keys() - ended.keys()):
        yield _incomplete(step, waiting[step], usual, (first[step], stop))


def _read_blocks(path: Path, blocks: tuple[int, int] | None) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (first byte, byte after the last, lines); a block ends where a line does."""
    with path.open("rb") as file:
        begin = file.seek(blocks[0] if blocks else 0)
        while (blocks is None or begin < blocks[1]) and (block := file.read(BLOCK)):
            block += file.readline()
            yield begin, begin + len(block), block.decode("utf-8", "replace").split("\n")
            begin += len(block)


def _parse(lines: Sequence[str]) -> list[Span | None]:
    """A span per line that is not blank, None for a line that is no span.

    Lines are parsed many at a time, which takes a third less than one by one; unless one of them is torn.
    """
    filled = [line for line in lines if line and not line.isspace()]
    try:
        rows = json.loads(f"[{','.join(filled)}]")
    except (ValueError, RecursionError):
        rows = []
    if len(rows) != len(filled):
        rows = [_parse_row(line) for line in filled]
    return [_make_span(row) for row in rows]


def _parse_row(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # torn, or brackets nested deeper than the parser goes
        return None


NUMBERS = frozenset({int, float})
"""By type() and not isinstance(), because a bool is no number here."""


def _make_span(row: object) -> Span | None:
    """None for what is no span. Millions of rows pass through here."""
    if type(row) is not dict:
        return None
    take = row.pop
    stage, start, seconds, step = take("stage", None), take("start", None), take("seconds", None), take("step", None)
    name, parent, process, thread = take("id", ""), take("parent", ""), take("process", ""), take("thread", "")
    phase, episode, task, turn = take("phase", ""), take("episode", ""), take("task", ""), take("turn", None)
    if (
        type(start) not in NUMBERS
        or type(seconds) not in NUMBERS
        or not (0 <= start <= LATEST and 0 <= seconds <= LONGEST)  # False for NaN too
        or not (step is None or (type(step) is int and 0 <= step <= LONGEST))
        or not stage
    ):
        return None
    try:
        "".join((stage, name, parent, process, thread, phase, episode, task))
    except TypeError:  # the cheapest way to see that one of them is no str
        return None
    return Span(
        stage, name, parent, float(start), float(seconds), process, thread, step, phase, episode, task,
        turn if type(turn) is int and 0 <= turn <= LONGEST else None,
        take("latency", False) is True, take("background", False) is True, row or _NO_ATTRIBUTES,
    )  # fmt: skip


def _pass_by(span: Span, counts: Counts) -> None:
    if span.stage == STARTUP:
        counts.startup_s = (counts.startup_s or 0.0) + span.seconds
    else:
        counts.outside += 1


def _ended(own: Span, spans: list[Span], counts: Counts, blocks: tuple[int, int]) -> StepSpans:
    """Drop what an attempt at the same step left behind when it was killed: all that was over before this one began."""
    kept = [
        span for span in spans if span is own or span.background or span.stop > own.start or span.start == own.start
    ]
    counts.late += len(spans) - len(kept)
    assert own.step is not None, "read_steps has looked"
    complete = own.attributes.get("failed") is not True
    return StepSpans(own.step, complete, own.start, own.seconds, tuple(kept), (own.process, own.thread), blocks)


def _incomplete(step: int, spans: list[Span], usual_thread: str, blocks: tuple[int, int]) -> StepSpans:
    """Its lane is the thread that is named as other steps' is; else the thread in which most time is recorded."""
    needed = [span for span in spans if not span.background]  # a pool may begin before the step and go on after it
    start = min(span.start for span in needed or spans)
    seconds: dict[tuple[str, str], float] = {}
    for span in spans:
        if not (span.latency or span.background):
            lane = (span.process, span.thread)
            seconds[lane] = seconds.get(lane, 0.0) + span.seconds
    lane = max(seconds, key=lambda lane: (lane[1] == usual_thread, seconds[lane], lane), default=("", ""))
    wall = max((span.stop for span in needed), default=start) - start
    return StepSpans(step, False, start, wall, tuple(spans), lane, blocks)
