"""Steps as a Chrome trace: open it in ui.perfetto.dev or chrome://tracing.

Work lies in the row of its thread. What an episode waited for and what was done ahead overlap with that work, which
such a row cannot hold; they are asynchronous pairs (b and e) in rows of their own.
"""

from collections.abc import Sequence

from aem_swe.eval.jsonl import number
from aem_swe.eval.profile.spans import Span
from aem_swe.eval.visible import visible_line

Event = dict[str, object]
SHOWN = ("step", "phase", "episode", "task", "turn")


def build_trace(spans: Sequence[Span]) -> dict[str, object]:
    """The trace of these spans as JSON data; times are microseconds since the first span began."""
    origin = min((span.start for span in spans), default=0.0)
    lanes = sorted({(span.process, span.thread) for span in spans})
    processes = {process: pid for pid, process in enumerate(dict.fromkeys(lane[0] for lane in lanes), 1)}
    threads = {lane: tid for tid, lane in enumerate(lanes, 1)}
    names: list[Event] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "ts": 0, "args": {"name": visible_line(process)}}
        for process, pid in processes.items()
    ]
    names += [
        {"ph": "M", "name": "thread_name", "pid": processes[process], "tid": tid, "ts": 0,
         "args": {"name": visible_line(thread)}}
        for (process, thread), tid in threads.items()
    ]  # fmt: skip
    events: list[tuple[float, int, Event]] = []
    for pair_id, span in enumerate(spans):
        begin, length = (span.start - origin) * 1e6, span.seconds * 1e6
        where: Event = {"pid": processes[span.process], "tid": threads[span.process, span.thread]}
        what: Event = {"name": visible_line(span.stage), "cat": _category(span), "args": _arguments(span)}
        if span.latency or span.background:
            pair: Event = where | what | {"id": pair_id}
            events.append((begin, 0, pair | {"ph": "b", "ts": begin}))
            events.append((begin + length, 1, pair | {"ph": "e", "ts": begin + length, "args": {}}))
        else:
            events.append((begin, 0, where | what | {"ph": "X", "ts": begin, "dur": length}))
    events.sort(key=lambda event: event[:2])  # no end before its beginning where both are at one moment
    return {"traceEvents": [*names, *(event for _, _, event in events)], "displayTimeUnit": "ms"}


def _category(span: Span) -> str:
    return "latency" if span.latency else "background" if span.background else "work"


def _arguments(span: Span) -> dict[str, object]:
    known = {name: getattr(span, name) for name in SHOWN}
    rest = {
        key: value
        for key, value in span.attributes.items()
        if isinstance(value, str | bool) or number(value) is not None
    }
    return {key: value for key, value in (known | rest).items() if value not in (None, "")}
