"""A profile as lines for the terminal: what a step waits for, who made it wait, and how that grows."""

from collections.abc import Iterable, Iterator, Sequence

from aem_swe.eval.profile.difference import StageDifference
from aem_swe.eval.profile.figure4 import Figure4
from aem_swe.eval.profile.growth import Growth, Turn
from aem_swe.eval.profile.profile import Profile, slowest_steps
from aem_swe.eval.profile.wording import headline, notes, short_name, size_sentence
from aem_swe.eval.wording import counted

STRAGGLERS = 5
MOST_TURNS = 6
NAME, MOST_NAME = 18, 40


def profile_lines(profile: Profile, growth: Growth, figure4: Figure4, advice: Sequence[str]) -> Iterator[str]:
    """Everything about one run."""
    yield from _title(profile)
    yield ""
    yield from _table(profile)
    yield from _block("who the slowest steps waited for last", _stragglers(profile))
    yield from _block("how stages grow", _growth(growth))
    yield from _block("Figure 4 of the paper (shares of these four)", _figure4(figure4))
    yield from _block("advice", advice)
    yield from _block("notes", notes(profile))


def difference_lines(first: Profile, second: Profile, rows: Sequence[StageDifference]) -> Iterator[str]:
    """Two runs side by side."""
    yield from _title(first)
    yield from _title(second)
    yield ""
    width = _width(row.stage for row in rows)
    heads = f"{'first':>10}{'share':>8}{'second':>10}{'share':>8}{'difference':>12}"
    yield f"{'seconds a step':<{width}}{heads}  95% interval"
    walls = [profile.wall_s / len(profile.steps) for profile in (first, second)]
    for row in rows:
        shares = [
            f"{seconds / wall:.1%}" if wall else "-"
            for seconds, wall in zip((row.first_s, row.second_s), walls, strict=True)
        ]
        interval = "needs two steps" if row.low is None or row.high is None else f"{row.low:+.4g} to {row.high:+.4g}"
        stage = short_name(row.stage, MOST_NAME)
        yield (
            f"{stage:<{width}}{_seconds(row.first_s):>10}{shares[0]:>8}{_seconds(row.second_s):>10}{shares[1]:>8}"
            f"{row.difference_s:>+12.4g}  {interval}"
        )
    yield "difference: second less first; the unit is the step, so it is about these two runs as they ran"
    for place, profile in (("first", first), ("second", second)):
        yield from _block(f"notes on the {place}", notes(profile))


def _title(profile: Profile) -> Iterator[str]:
    recipe = f" ({profile.recipe})" if profile.recipe else ""
    yield f"{profile.name}{recipe}: {headline(profile)}"
    yield size_sentence(profile)


def _table(profile: Profile) -> Iterator[str]:
    steps, columns = len(profile.steps), ("path s", "share", "summed s", "n", "p50", "p95", "p99", "max")
    width = _width(profile.stages)
    yield f"{'per step':<{width}}" + "".join(f"{column:>9}" for column in columns)
    for stage in profile.stages.values():
        cells = [_seconds(stage.path_s), f"{stage.share:.1%}", _seconds(stage.work_s), str(stage.count)]
        tail = [_seconds(value) for value in (stage.p50, stage.p95, stage.p99, stage.max)] if stage.count else []
        yield f"{short_name(stage.stage, MOST_NAME):<{width}}" + "".join(f"{cell:>9}" for cell in (*cells, *tail))
    rows = (("not attributed", profile.residual_s, profile.residual_share), ("wall", profile.wall_s, 1.0))
    for row, seconds, share in rows:
        yield f"{row:<{width}}{_seconds(seconds / steps):>9}{share:>9.1%}"
    yield "path: what the step waited for, it sums to the wall; summed: over threads that overlap; p50...: of one span"


def _stragglers(profile: Profile) -> Iterator[str]:
    for step in slowest_steps(profile.steps)[:STRAGGLERS]:
        late = step.straggler
        if late is None:
            continue
        turn = "" if late.turn is None else f" in turn {late.turn}"
        longest = (
            f"; longest: {short_name(late.stage, MOST_NAME)}{turn}, {_seconds(late.stage_s)} s" if late.stage else ""
        )
        task = short_name(late.task) or "no task"
        yield (
            f"step {step.step} ({_seconds(step.wall_s)} s): episode {short_name(late.episode)} of {task}, "
            f"{_seconds(late.seconds)} s (median {_seconds(late.median_s)} s){longest}; "
            f"{_seconds(late.tail_s)} s after 90% had ended"
        )


def _growth(growth: Growth) -> Iterator[str]:
    for stage, turns in growth.turns.items():
        shown = ", ".join(f"{turn.turn}: {_seconds(turn.p50)}" for turn in _spread(turns))
        yield f"{short_name(stage, MOST_NAME)}, p50 s by turn  {shown}"
    if growth.tokens:
        shown = ", ".join(f"{one.low}-{one.high}: {_seconds(one.p50)}" for one in growth.tokens)
        yield f"decode, p50 s a token by tokens  {shown}"
    for name, line in growth.lines.items():
        yield (
            f"{name}  {line.per_token_s * 1000:.3g} s per 1,000 tokens + {line.fixed_s:.3g} s "
            f"(R2 {line.r2:.2f}, {counted(line.steps, 'step')})"
        )
    if growth.slowest:
        shown = ", ".join(f"{one.episodes}: {_seconds(one.seconds)}" for one in growth.slowest)
        yield f"slowest of so many episodes, expected s  {shown}"


def _spread(turns: Sequence[Turn]) -> Sequence[Turn]:
    """A few turns from the first to the last."""
    if len(turns) <= MOST_TURNS:
        return turns
    return [turns[round(index * (len(turns) - 1) / (MOST_TURNS - 1))] for index in range(MOST_TURNS)]


def _figure4(figure4: Figure4) -> Iterator[str]:
    if all(row.share is None for row in figure4.rows):
        return
    yield f"{'':<{NAME - 2}}{'paper':>8}{'here':>8}{'s a step':>10}   over {counted(figure4.steps, 'step')}"
    for row in figure4.rows:
        share = "-" if row.share is None else f"{row.share:.1%}"
        yield f"{row.stage:<{NAME - 2}}{row.paper_share:>8.1%}{share:>8}{_seconds(row.seconds):>10}"


def _block(title: str, lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield f"{title}:"
        yield from (f"  {line}" for line in found)


def _width(names: Iterable[str]) -> int:
    return min(MOST_NAME, max([NAME, *(len(short_name(name)) + 1 for name in names)]))


def _seconds(value: float) -> str:
    """Three digits that count, never an exponent; what is below a tenth of a millisecond is not said in seconds."""
    if value >= 100.0:
        return f"{value:,.0f}"
    for bound, places in ((10.0, 1), (1.0, 2), (0.1, 3)):
        if value >= bound:
            return f"{value:.{places}f}"
    return "<0.0001" if 0.0 < value < 0.0001 else "0" if value == 0.0 else f"{value:.4f}"
