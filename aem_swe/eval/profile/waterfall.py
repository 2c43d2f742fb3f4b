"""One step as a picture: its critical path, what its own thread did, and what every episode did or waited for.

Positions are whole numbers from 0 to WIDTH. What is narrower than a pixel is drawn together with its neighbours, and
the waterfall says how much that was. Not drawn: work that is done ahead, and threads that serve many episodes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aem_swe.eval.profile.axis import Tick, linear_ticks
from aem_swe.eval.profile.episodes import episode_spans
from aem_swe.eval.profile.families import WAIT, family_of, is_queue
from aem_swe.eval.profile.path import NOT_ATTRIBUTED, innermost
from aem_swe.eval.profile.spans import EVALUATION, STEP, Span, StepSpans
from aem_swe.eval.profile.step import StepProfile
from aem_swe.eval.profile.wording import seconds_text, short_name
from aem_swe.eval.wording import counted

WIDTH = 10_000
PIXELS = 1_000
"""A stretch below this part of the step is narrower than a pixel of the picture."""
MOST_EVALUATION = 0.3
"""Of the step: a longer evaluation is left out, because it would leave no room for what can be seen in detail."""
MOST_AFTER = 0.05
"""Of what is drawn: if more than that comes after the evaluation, it is not left out."""
MOST_LANES = 64
MOST_BARS = 9_000
"""Of all waterfalls of a page together: about a megabyte."""


class Piece(NamedTuple):
    """Seconds since the step began."""

    begin: float
    end: float
    stage: str | None
    """None: nothing is recorded; "": not attributed."""
    span: Span | None
    merged: int = 1
    """How many were drawn together in this one."""


@dataclass(frozen=True, slots=True)
class Bar:
    left: int
    width: int
    family: str
    queue: bool
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Waterfall:
    title: str
    step: int
    wall_s: float
    path: Lane
    thread: Lane | None
    """None where the step's own thread is not known."""
    drawn_s: float
    """The width of the picture; less than the wall time where an evaluation is left out."""
    episodes: tuple[Lane, ...]
    """Those that ended first come first."""
    ticks: tuple[Tick, ...]
    notes: tuple[str, ...]


def draw_waterfall(step: StepProfile, title: str, most_bars: int = MOST_BARS) -> Waterfall:
    """Of a step whose spans were kept."""
    assert step.segments, f"the spans of step {step.step} were not kept"
    path = [Piece(one.start, one.start + one.seconds, one.stage, one.span) for one in step.segments]
    episodes = _episodes(step)
    drawn = dict(list(episodes.items())[-MOST_LANES:])
    end = _drawn_until(step)
    lanes = [_until(end, lane) for lane in (path, list(_thread(step)), *drawn.values())]
    least = end / PIXELS
    merged = [merge(lane, least) for lane in lanes]
    while sum(len(lane) for lane in merged) > max(most_bars, len(lanes)) and least < end:
        least *= 2.0
        merged = [merge(lane, least) for lane in lanes]
    names = ("critical path", "the step's thread", *(short_name(name, 24) for name in drawn))
    bars = [Lane(name, tuple(_bars(lane, end))) for name, lane in zip(names, merged, strict=True)]
    return Waterfall(
        title=title,
        step=step.step,
        wall_s=step.wall_s,
        path=bars[0],
        thread=bars[1] if bars[1].bars else None,
        drawn_s=end,
        episodes=tuple(bars[2:]),
        ticks=linear_ticks(end),
        notes=tuple(_notes(step, merged, least, len(episodes) - len(drawn), end)),
    )


def _drawn_until(step: StepProfile) -> float:
    """Where a long evaluation begins after which only as much as is left of a step comes; else the step's end.

    The evaluation before training is all that its step has to show.
    """
    evaluations = [one for one in step.segments if one.stage == EVALUATION]
    if step.step == 0 or not evaluations or sum(one.seconds for one in evaluations) <= MOST_EVALUATION * step.wall_s:
        return step.wall_s
    begin = evaluations[0].start
    after = step.wall_s - begin - sum(one.seconds for one in evaluations)
    return begin if after < MOST_AFTER * begin else step.wall_s


def _until(end: float, pieces: Iterable[Piece]) -> list[Piece]:
    return [one._replace(end=min(end, one.end)) for one in pieces if one.begin < end]


def _notes(
    step: StepProfile, merged: Iterable[Sequence[Piece]], least: float, left_out: int, end: float
) -> Iterator[str]:
    if end < step.wall_s:
        evaluation_s = sum(one.seconds for one in step.segments if one.stage == EVALUATION)
        yield (
            f"Drawn until its evaluation, which took {seconds_text(evaluation_s)};"
            f" the {seconds_text(step.wall_s - end - evaluation_s)} of what else came then are not drawn."
        )
    together = sum(piece.merged for lane in merged for piece in lane if piece.merged > 1)
    if together:
        yield (
            f"{together:,} stretches shorter than {seconds_text(least)} are drawn together with their neighbours, in"
            " the colour of what took longest among them."
        )
    if left_out:
        yield f"{counted(left_out, 'episode')} that ended earlier not drawn."
    background = sum(span.background for span in step.spans)
    if background:
        yield f"{counted(background, 'span')} of work that was done ahead not drawn."


def _thread(step: StepProfile) -> Iterator[Piece]:
    """What the thread that runs the step did."""
    owners = [span for span in step.spans if span.stage == STEP] or [
        span for span in step.spans if family_of(span.stage) in (WAIT, "residual")
    ]
    if not owners:
        return
    lane = (owners[-1].process, owners[-1].thread)
    own = [
        span
        for span in step.spans
        if (span.process, span.thread) == lane and not (span.latency or span.background)
        and (span.phase != EVALUATION or span.stage == EVALUATION)
    ]  # fmt: skip
    for begin, end, span in innermost(own, _as_spans(step)):
        yield Piece(begin, end, span.stage if span else None, span)


def _episodes(step: StepProfile) -> dict[str, list[Piece]]:
    """By episode, in the order in which they ended."""
    found = episode_spans(step.spans)
    window = _as_spans(step)
    ends = {name: max(span.stop for span in spans) for name, spans in found.items()}
    return {
        name: [Piece(one.begin, one.end, one.span.stage if one.span else None, one.span)
               for one in innermost((span for span in found[name] if span.stage != WAIT), window)]
        for name in sorted(found, key=lambda name: (ends[name], name))
    }  # fmt: skip


def _as_spans(step: StepProfile) -> StepSpans:
    return StepSpans(step.step, step.complete, step.start, step.wall_s, step.spans, ("", ""), (0, 0))


def _bars(pieces: Iterable[Piece], end: float) -> Iterator[Bar]:
    for piece in pieces:
        if piece.stage is None:
            continue
        left, right = (round(WIDTH * moment / end) for moment in (piece.begin, piece.end))
        yield Bar(left, max(1, right - left), family_of(piece.stage), is_queue(piece.stage), _title(piece))


def _title(piece: Piece) -> str:
    """Stage, task, episode, turn and seconds; what the step's thread waits for."""
    name = short_name(piece.stage or NOT_ATTRIBUTED, 40)
    parts = [name if piece.merged == 1 else f"{piece.merged} short stretches, mostly {name}"]
    span = piece.span
    if span is not None and piece.merged == 1:
        waits_for = span.attributes.get("waits_for")
        parts += [f"for {short_name(waits_for, 24)}"] if isinstance(waits_for, str) else []
        parts += [short_name(span.task, 40)] if span.task else []
        parts += [f"turn {span.turn}"] if span.turn is not None else []
    parts.append(seconds_text(piece.end - piece.begin))
    return " · ".join(parts)


def merge(pieces: Sequence[Piece], least: float) -> list[Piece]:
    """Join runs of pieces that are each shorter than `least`, until such a run is that long."""
    merged: list[Piece] = []
    run: list[Piece] = []
    for piece in (*pieces, None):
        if piece is not None and piece.end - piece.begin < least:
            run.append(piece)
        if run and (piece is None or run[-1] is not piece or piece.end - run[0].begin >= least):
            merged.append(_joined(run))
            run = []
        if piece is not None and piece.end - piece.begin >= least:
            merged.append(piece)
    return merged


def _joined(run: Sequence[Piece]) -> Piece:
    """One piece of what took longest in the run."""
    if len(run) == 1:
        return run[0]
    seconds: dict[str, float] = {}
    for one in run:
        if one.stage is not None:
            seconds[one.stage] = seconds.get(one.stage, 0.0) + one.end - one.begin
    stage = max(seconds, key=lambda stage: (seconds[stage], stage), default=None)
    same = [one for one in run if one.stage == stage]
    longest = max(same, key=lambda one: one.end - one.begin)
    count = sum(one.merged for one in run if one.stage is not None)
    return Piece(run[0].begin, run[-1].end, stage, longest.span, max(1, count))
