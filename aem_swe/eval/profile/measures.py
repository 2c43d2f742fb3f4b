"""What can be counted over the spans of one step."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aem_swe.eval.jsonl import number
from aem_swe.eval.profile.intervals import Interval, length, overlap, union
from aem_swe.eval.profile.path import Segment
from aem_swe.eval.profile.spans import CONTAINERS, EVALUATION, Span, StepSpans

MOST = 1e12
"""Tokens, megabytes, seconds on the GPU: a larger number in an attribute is taken as not recorded."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """The spans of a step by what they are."""

    work: Mapping[str, list[Span]]
    """By stage, the evaluation's left out."""
    latency: Mapping[str, list[Span]]
    """By stage, the evaluation's left out."""
    evaluation: Sequence[Span]
    """All work spans in an evaluation, its own span included."""
    inner: Mapping[tuple[str, str, str], float]
    """By (id, process, thread) of a span: seconds of the work inside it, in its own thread."""

    def own_seconds(self, span: Span) -> float:
        """The self time of a span of work: its seconds less those of its children in the same thread."""
        inner = self.inner.get((span.id, span.process, span.thread))
        return span.seconds if inner is None else max(0.0, span.seconds - inner)

    def single(self) -> dict[str, list[tuple[Span, float]]]:
        """By stage, what one use of it took: latencies (one a turn) if there are any, else self times.

        Left out is what nobody waited for, and tools that ran once more to bring a new sandbox to where the old one
        was. An evaluation is opaque, so it is as long as all that lies inside.
        """
        found: dict[str, list[tuple[Span, float]]] = {}
        for stage, spans in self.work.items():
            if stage not in self.latency:
                uses = (span for span in spans if not span.background and span.attributes.get("replay") is not True)
                found[stage] = [(span, self.own_seconds(span)) for span in uses]
        for stage, spans in self.latency.items():
            found[stage] = [(span, span.seconds) for span in spans if not span.background]
        if whole := [(span, span.seconds) for span in self.evaluation if span.stage == EVALUATION]:
            found[EVALUATION] = whole
        return found


def sort_spans(spans: Iterable[Span]) -> Sorted:
    work: dict[str, list[Span]] = {}
    latency: dict[str, list[Span]] = {}
    evaluation: list[Span] = []
    inner: dict[tuple[str, str, str], float] = {}
    for span in spans:
        stage = span.stage
        if span.parent and not (span.latency or span.background):  # neither takes its parent's thread any time
            key = (span.parent, span.process, span.thread)
            inner[key] = inner.get(key, 0.0) + span.seconds
        if span.phase == EVALUATION or stage == EVALUATION:
            if not span.latency:
                evaluation.append(span)
            continue
        kind = latency if span.latency else work
        if stage in kind:
            kind[stage].append(span)
        else:
            kind[stage] = [span]
    return Sorted(work, latency, evaluation, inner)


def sum_path(segments: Iterable[Segment]) -> dict[str, float]:
    """Seconds by stage, the residual ("") included."""
    seconds: dict[str, float] = {}
    for segment in segments:
        seconds[segment.stage] = seconds.get(segment.stage, 0.0) + segment.seconds
    return seconds


def sum_work(kinds: Sorted) -> dict[str, float]:
    """Self times summed by stage. Containers do no work."""
    work_s = {
        stage: sum([kinds.own_seconds(span) for span in spans])
        for stage, spans in kinds.work.items()
        if stage not in CONTAINERS
    }
    if kinds.evaluation:
        work_s[EVALUATION] = sum(kinds.own_seconds(span) for span in kinds.evaluation if span.stage not in CONTAINERS)
    return work_s


def lane_times(step: StepSpans, names: Iterable[str]) -> dict[str, list[Interval]]:
    """When the step's own thread was in each stage or in a part of it, in seconds since the step began."""
    process, thread = step.lane
    lane = [
        span
        for span in step.spans
        if span.thread == thread
        and span.process == process
        and not (span.latency or span.background or span.phase == EVALUATION)
    ]
    found = {}
    for name in names:
        inside = [span for span in lane if span.stage == name or span.stage.startswith(f"{name}/")]
        begins = [span.start - step.start for span in inside]
        ends = [begin + span.seconds for begin, span in zip(begins, inside, strict=True)]
        found[name] = union(zip(begins, ends, strict=True), 0.0, step.wall_s)
    return found


def idle_seconds(step: StepSpans, rollout: Sequence[Interval], kinds: Sorted) -> float:
    """Rollout seconds in which the policy did nothing; to queue is to do nothing."""
    running = [
        (span.start - step.start, span.start - step.start + span.seconds)
        for kind in ([kinds.work] if any(map(_runs, kinds.work)) else [kinds.latency])
        for stage, spans in kind.items()
        if _runs(stage)
        for span in spans
    ]
    return max(0.0, length(rollout) - overlap(rollout, union(running, 0.0, step.wall_s)))


def _runs(stage: str) -> bool:
    return stage.startswith("policy/") and stage != "policy/queue"


def sampled_tokens(kinds: Sorted) -> list[tuple[Span, float]]:
    """Each span that sampled, with its tokens: of policy/decode, else of policy/request; latencies before work."""
    for stage in ("policy/decode", "policy/request"):
        for kind in (kinds.latency, kinds.work):
            found = [(span, amount(span, "tokens")) for span in kind.get(stage, ())]
            if known := [(span, tokens) for span, tokens in found if tokens is not None]:
                return known
    return []


def amount(span: Span, key: str) -> float | None:
    """A number >= 0 among a span's attributes; None where there is none, or none that can be believed."""
    value = number(span.attributes.get(key))
    return value if value is not None and 0.0 <= value <= MOST else None


def amounts(spans: Iterable[Span], key: str) -> list[float]:
    found = [amount(span, key) for span in spans if key in span.attributes]
    return [value for value in found if value is not None]


def gpu_seconds(spans: Sequence[Span], noted: Iterable[Span]) -> float | None:
    """Seconds on the GPU, where a span around others that recorded some is left out: it has counted theirs too.

    `noted` are those of the spans that have attributes.
    """
    timed = [span for span in noted if "gpu_s" in span.attributes and amount(span, "gpu_s") is not None]
    if not timed:
        return None
    parents = {span.id: span.parent for span in spans if span.id}
    around: set[str] = set()
    for span in timed:
        name = span.parent
        while name and name not in around:  # what is in there has its own parents in there too
            around.add(name)
            name = parents.get(name, "")
    return sum(amount(span, "gpu_s") or 0.0 for span in timed if not span.id or span.id not in around)


def by_turn(single: Mapping[str, Iterable[tuple[Span, float]]]) -> dict[str, dict[int, "array[float]"]]:
    """Seconds by stage and turn: of each policy/*, and of all tools together as "tool"."""
    found: dict[str, dict[int, array[float]]] = {}
    for stage, uses in sorted(single.items()):
        family = stage.partition("/")[0]
        if family not in ("policy", "tool"):
            continue
        turns = found.setdefault("tool" if family == "tool" else stage, {})
        for span, seconds in uses:
            if span.turn is not None:
                turns.setdefault(span.turn, array("d")).append(seconds)
    return found
