"""The critical path of a step: at every moment the one stage that the step waited for; its parts sum to the wall time.

Summed seconds per stage cannot say where a step's time went, because 32 threads work at once. What the thread that runs
the step did, or whom it waited for, can: there is exactly one such thing at a time, or none, and none is the residual.

1) The lane of the step is its own thread's spans. At each moment the innermost of them counts: the one that began last.
2) In an evaluation everything is "evaluation", whatever goes on inside.
3) In a `wait` for an episode, what counts is what that episode did or waited for at that moment.
4) A container (step, rollout, update, a wait for nobody in particular) explains nothing: it is residual.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from aem_swe.eval.profile.intervals import inside, union
from aem_swe.eval.profile.spans import CONTAINERS, EVALUATION, Span, StepSpans

RESIDUAL = ""
NOT_ATTRIBUTED = "not attributed"
"""What the residual is called where it is shown."""
_START = attrgetter("start")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a step in which it waited for one and the same stage."""

    stage: str
    """"" is the residual: no span explains this stretch."""
    start: float
    """Seconds since the step began (not Unix seconds, whose steps are a quarter of a microsecond)."""
    seconds: float
    span: Span | None
    """The span that explains it; where equal neighbours were merged, the longest one. None for the residual."""


class Stretch(NamedTuple):
    """Where one span is the innermost of its lane. Seconds since the step began."""

    begin: float
    end: float
    span: Span | None


def critical_path(step: StepSpans) -> tuple[Segment, ...]:
    """Segments that tile the step: the first starts at 0, each starts where the last one stopped, none is empty."""
    return _merge(_explain(step))


def innermost(spans: Iterable[Span], step: StepSpans) -> list[Stretch]:
    """Tile the step's window with the innermost of `spans` at each moment: the latest start, of those the shortest.

    Equal spans are told apart by their depth, a child inside its parent, and then by their ids: never by line order.
    """
    found: list[Stretch] = []
    open_spans: list[tuple[float, Span]] = []
    now, wall, origin = 0.0, step.wall_s, step.start
    for span in (*_in_order(spans), None):
        begin = wall if span is None else span.start - origin
        until = begin if begin < wall else wall
        while now < until:
            while open_spans and open_spans[-1][0] <= now:
                open_spans.pop()
            end = min(until, open_spans[-1][0]) if open_spans else until
            found.append(Stretch(now, end, open_spans[-1][1] if open_spans else None))
            now = end
        if span is not None:
            open_spans.append((begin + span.seconds, span))
    return found


def _in_order(spans: Iterable[Span]) -> list[Span]:
    """By start; of equal starts the longest first, and what else is equal in an order of its own, not its lines'."""
    ordered = sorted(spans, key=_START)
    begin = 0
    for end in range(1, len(ordered) + 1):
        if end < len(ordered) and ordered[end].start == ordered[begin].start:
            continue
        if end - begin > 1:
            depths = _depths({span.id: span.parent for span in ordered[begin:end]})
            ordered[begin:end] = sorted(
                ordered[begin:end], key=lambda span: (-span.seconds, depths[span.id], span.stage, span.id)
            )
        begin = end
    return ordered


def _depths(parents: dict[str, str]) -> dict[str, int]:
    """How many of these spans each lies in, by id; parents in a circle begin somewhere in it."""
    depths: dict[str, int] = {}
    for first in parents:
        chain: dict[str, None] = {}
        name = first
        while name in parents and name not in depths and name not in chain:
            chain[name] = None
            name = parents[name]
        depth = depths[name] + 1 if name in depths else 0
        for above, one in enumerate(reversed(chain)):
            depths[one] = depth + above
    return depths


def _explain(step: StepSpans) -> Iterator[tuple[str, Stretch]]:
    """The stage that counts in each stretch of the step's lane."""
    own: list[Span] = []
    episodes: dict[str, list[Span]] = {}
    for span in step.spans:
        if span.background:
            continue
        if not span.latency and (span.process, span.thread) == step.lane:
            own.append(span)
        if span.episode and span.phase != EVALUATION and "waits_for" not in span.attributes:
            episodes.setdefault(span.episode, []).append(span)
    evaluations = union(
        [(one.start - step.start, one.stop - step.start) for one in own if one.stage == EVALUATION], 0.0, step.wall_s
    )
    stretches = innermost(own, step)
    windows = _windows(stretches)
    lanes: dict[str, list[Stretch]] = {}
    for stretch in stretches:
        counts = stretch.span
        if counts is None:
            yield RESIDUAL, stretch
        elif counts.phase == EVALUATION or inside(evaluations, stretch.begin):
            yield EVALUATION, stretch
        elif waits_for := _waits_for(counts):
            if waits_for not in lanes:
                lanes[waits_for] = innermost(_within(episodes.get(waits_for, ()), step, windows[waits_for]), step)
            yield from _cut(lanes[waits_for], stretch)
        else:
            yield _stage(counts), stretch


def _waits_for(span: Span) -> str:
    """The episode that a span waits for; empty if it waits for none."""
    episode = span.attributes.get("waits_for") if span.stage == "wait" else None
    return episode if isinstance(episode, str) else ""


def _windows(stretches: Iterable[Stretch]) -> dict[str, tuple[float, float]]:
    """From when to when each episode is waited for, first to last."""
    found: dict[str, tuple[float, float]] = {}
    for begin, end, span in stretches:
        if span is not None and (episode := _waits_for(span)):
            found[episode] = (found.get(episode, (begin,))[0], end)
    return found


def _within(spans: Iterable[Span], step: StepSpans, window: tuple[float, float]) -> list[Span]:
    """The spans that reach into a window. Most of an episode is over before it is waited for: no need to sort that."""
    return [
        span for span in spans if (begin := span.start - step.start) < window[1] and begin + span.seconds > window[0]
    ]


def _stage(span: Span | None) -> str:
    return RESIDUAL if span is None or span.stage in CONTAINERS else span.stage


def _cut(lane: list[Stretch], window: Stretch) -> Iterator[tuple[str, Stretch]]:
    """The part of an episode's lane that lies in the window."""
    index = bisect_right(lane, window.begin, key=lambda stretch: stretch.begin) - 1
    while index < len(lane) and lane[index].begin < window.end:
        begin, end, span = lane[index]
        yield _stage(span), Stretch(max(begin, window.begin), min(end, window.end), span)
        index += 1


def _merge(explained: Iterable[tuple[str, Stretch]]) -> tuple[Segment, ...]:
    """Join neighbours of one stage."""
    merged: list[Segment] = []
    stage, begin, end = RESIDUAL, 0.0, 0.0
    longest: Span | None = None
    length = 0.0
    for name, stretch in explained:
        if name != stage and end > begin:
            merged.append(Segment(stage, begin, end - begin, longest))
        if name != stage:
            stage, begin, longest, length = name, stretch.begin, None, 0.0
        end = stretch.end
        if stage != RESIDUAL and (longest is None or end - stretch.begin > length):
            longest, length = stretch.span, end - stretch.begin
    if end > begin:
        merged.append(Segment(stage, begin, end - begin, longest))
    return tuple(merged)
