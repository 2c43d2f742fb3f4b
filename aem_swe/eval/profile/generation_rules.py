"""Rules of advice about generation, in which a step is meant to spend its time: prefill and decoding.

To lengthen what a step is bound by is no advice: more rollouts raise the share of decoding, and the rule would fire for
ever. So the rule of decoding names a comparison where the recorded figures support one, and else says that all is well.
As in rollout_rules.py: at its threshold, a share of the wall time on the critical path, a rule is silent.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import median

from aem_swe.eval.profile.evidence import Case, Finding, amount
from aem_swe.eval.profile.measures import amount as number_of
from aem_swe.eval.profile.spans import Span
from aem_swe.eval.profile.wording import seconds_text

PREFILL_ABOVE = 0.15
"""With a cache every prompt token is read once, and many at a time: much less than what decoding takes."""
DECODE_ABOVE = 0.50
"""More than all the rest together."""
FEWEST = 3
"""Passes or requests on either side of a comparison."""
MUCH = 1.5
"""Rates that differ by less are told apart by chance too."""
ALIKE = 1.2

WELL = "Generation bounds the step, which is where its time should go; nothing that was recorded says how to shorten it"


def prefill(case: Case) -> Finding | None:
    """Of turns after the first: the first prompt is the task's, about which no key of the recipe can do anything."""
    later = _later_turns(case)
    share = case.share("policy/prefill") * later
    if share <= PREFILL_ABOVE:
        return None
    says = f"Reading observations takes long: let tools say less, {case.keys('sandbox.max_output')}, or bound the"
    seconds = case.profile.stages["policy/prefill"].path_s * later
    figure = f"policy/prefill after the first turn: {amount(share, seconds)} (by its part in {case.shown_steps})"
    return Finding(share, f"{says} episodes, {case.keys('agent.response_budget')}.", figure)


def _later_turns(case: Case) -> float:
    """Of the seconds of prefill in the shown steps, the part in turns after the first; passes of no known turn: 0.

    A pass serves a cohort, all of it in one turn, which the latencies recorded in the midst of the pass say.
    """
    found = case.shown("policy/prefill")
    passes = sorted([span for span in found if not span.latency], key=lambda span: span.start)
    turns = [span.turn for span in passes]
    starts = [span.start for span in passes]
    for one in found:
        middle = one.start + one.seconds / 2
        index = bisect_right(starts, middle) - 1
        if one.latency and one.turn is not None and index >= 0 and middle <= passes[index].stop:
            known = turns[index]
            turns[index] = one.turn if known is None else min(one.turn, known)
    whole_s = sum(span.seconds for span in passes)
    later_s = sum(span.seconds for span, turn in zip(passes, turns, strict=True) if turn)
    return later_s / whole_s if whole_s else 0.0


def decode(case: Case) -> Finding | None:
    names = ("policy/decode",) if case.local else ("policy/decode", "policy/request")
    share = case.share(*names)
    if share <= DECODE_ABOVE:
        return None
    compare, rates = _rows(case) if case.local else _servers(case)
    figure = "; ".join(part for part in (case.figure(*names), rates, *_by_length(case)) if part)
    return Finding(share, f"{compare or WELL}.", figure)


def _rows(case: Case) -> tuple[str, str]:
    """What to compare ("" if the figures do not support it), and tokens a second of passes of many and of few rows.

    A pass computes all rows of its cohort, idle ones too. So this says that rows are worth having, and not what a wider
    pass costs: that only a run can tell, and hence no more than a comparison is advised.
    """
    passes = [
        (rows, tokens, span.seconds)
        for span in case.shown("policy/decode")
        if not span.episode
        and (rows := number_of(span, "rows")) is not None
        and (tokens := number_of(span, "tokens")) is not None
        and span.seconds > 0.0
    ]
    half = max((rows for rows, _, _ in passes), default=0.0) / 2
    sides = [[one for one in passes if (one[0] > half) is wide] for wide in (True, False)]
    if min(map(len, sides)) < FEWEST:
        return "", ""
    many, few = (sum(tokens for _, tokens, _ in side) / sum(s for _, _, s in side) for side in sides)
    figure = f"{many:,.0f} tokens a second in passes of more than {half:g} rows, {few:,.0f} in the others"
    figure += f" ({case.shown_steps})"
    if many < MUCH * few or case.settings.value("sampling.cohorts") == 1:
        return "", figure
    says = "Generation bounds the step, and passes of more rows sampled more tokens a second: run as many episodes in"
    says += f" fewer {case.keys('sampling.cohorts')} and compare tokens a second: passes get wider, but hide less of"
    return f"{says} what tools take", figure


def _servers(case: Case) -> tuple[str, str]:
    """The same for requests to servers: whether they slow each other down, or are slow alone."""
    requests = [span for span in case.shown("policy/request") if (number_of(span, "tokens") or 0.0) > 0.0]
    load = _running(requests)
    middle = median(load) if load else 0.0
    sides = [[n for n, running in enumerate(load) if (running > middle) is busy] for busy in (True, False)]
    if min(map(len, sides)) < FEWEST:
        return "", ""
    busy, quiet = (
        median(requests[n].seconds / (number_of(requests[n], "tokens") or 1.0) for n in side) for side in sides
    )
    figure = (
        f"{seconds_text(busy)} a token where more than {middle:g} requests ran, {seconds_text(quiet)} where fewer did"
    )
    figure += f" ({case.shown_steps})"
    gpus, parallel = case.settings.gpus, case.settings.number("cluster.tensor_parallel")
    if busy >= MUCH * quiet:
        says = "Requests slow each other down: serve more replicas, with more"
        says += f" {case.keys('cluster.nodes', 'cluster.gpus_per_node')}"
        says += f" or less {case.keys('cluster.tensor_parallel')}" if parallel is not None and parallel > 1 else ""
        return f"{says}, and compare tokens a second", figure
    if busy <= ALIKE * quiet and gpus is not None and parallel is not None and gpus > parallel:
        says = (
            f"A request is as slow with few others: make each faster with more {case.keys('cluster.tensor_parallel')}"
        )
        return f"{says}, and compare tokens a second, as there will be fewer replicas", figure
    return "", figure


def _running(requests: Sequence[Span]) -> list[int]:
    """How many of the requests ran in the middle of each, itself included."""
    starts = sorted(span.start for span in requests)
    stops = sorted(span.stop for span in requests)
    middles = [span.start + span.seconds / 2 for span in requests]
    return [bisect_right(starts, middle) - bisect_left(stops, middle) for middle in middles]


def _by_length(case: Case) -> list[str]:
    """The time of a token in the shortest and in the longest turns."""
    bins = case.growth.tokens
    return [
        f"{seconds_text(one.p50)} a token in turns of {one.low} to {one.high} tokens"
        for one in dict.fromkeys((*bins[:1], *bins[-1:]))
    ]
