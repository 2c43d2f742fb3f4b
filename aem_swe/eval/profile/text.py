"""A profile as lines for the terminal: what a step waits for, who made it wait, and how that grows."""

from collections.abc import Iterable, Iterator, Sequence

from aem_swe.eval.profile.difference import STEADY, StageDifference
from aem_swe.eval.profile.figure4 import AEM_ALONE, Figure4
from aem_swe.eval.profile.growth import Growth, Turn
from aem_swe.eval.profile.path import NOT_ATTRIBUTED
from aem_swe.eval.profile.profile import Profile, slowest_steps
from aem_swe.eval.profile.wording import headline, notes, seconds_cell, seconds_text, short_name, size_sentence
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
    for row in rows:
        shares = ["-" if share is None else f"{share:.1%}" for share in (row.first_share, row.second_share)]
        interval = "needs two steps" if row.low is None or row.high is None else f"{row.low:+.4g} to {row.high:+.4g}"
        stage = short_name(row.stage, MOST_NAME)
        yield (
            f"{stage:<{width}}{seconds_cell(row.first_s):>10}{shares[0]:>8}{seconds_cell(row.second_s):>10}{shares[1]:>8}"
            f"{row.difference_s:>+12.4g}  {interval}"
        )
    yield "difference: second less first; the unit is the step, so it is about these two runs as they ran"
    yield f"share: of the {STEADY}, which only some steps have"
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
        cells = [seconds_cell(stage.path_s), f"{stage.share:.1%}", seconds_cell(stage.work_s), str(stage.count)]
        tail = [seconds_cell(value) for value in (stage.p50, stage.p95, stage.p99, stage.max)] if stage.count else []
        yield f"{short_name(stage.stage, MOST_NAME):<{width}}" + "".join(f"{cell:>9}" for cell in (*cells, *tail))
    rows = ((NOT_ATTRIBUTED, profile.residual_s, profile.residual_share), ("wall", profile.wall_s, 1.0))
    for row, seconds, share in rows:
        yield f"{row:<{width}}{seconds_cell(seconds / steps):>9}{share:>9.1%}"
    yield "path: what the step waited for, it sums to the wall; summed: over threads that overlap; p50...: of one span"


def _stragglers(profile: Profile) -> Iterator[str]:
    for step in slowest_steps(profile.steps)[:STRAGGLERS]:
        late = step.straggler
        if late is None:
            continue
        turn = "" if late.turn is None else f" in turn {late.turn}"
        longest = (
            f"; longest: {short_name(late.stage, MOST_NAME)}{turn}, {seconds_text(late.stage_s)}" if late.stage else ""
        )
        task = short_name(late.task) or "no task"
        yield (
            f"step {step.step} ({seconds_text(step.wall_s)}): episode {short_name(late.episode)} of {task}, "
            f"{seconds_text(late.seconds)} (median {seconds_text(late.median_s)}){longest}; "
            f"a tail of {seconds_text(late.tail_s)} after 90% had ended"
        )


def _growth(growth: Growth) -> Iterator[str]:
    for stage, turns in growth.turns.items():
        shown = ", ".join(f"{turn.turn}: {seconds_text(turn.p50)}" for turn in _spread(turns))
        yield f"{short_name(stage, MOST_NAME)}, p50 by turn  {shown}"
    if growth.tokens:
        shown = ", ".join(f"{one.low}-{one.high}: {seconds_text(one.p50)}" for one in growth.tokens)
        yield f"decode, p50 a token by tokens  {shown}"
    for name, line in growth.lines.items():
        fit = f"R2 {line.r2:.2f}, {counted(line.steps, 'step')}"
        fixed = f"{'+' if line.fixed_s >= 0.0 else '-'} {seconds_text(abs(line.fixed_s))}"
        rises = f"{seconds_text(1000 * line.per_token_s)} per 1,000 tokens {line.tokens} {fixed}"
        yield f"{name}  {rises} ({fit})" if line.trend else f"{name}  no trend with tokens {line.tokens} ({fit})"
    if growth.slowest:
        shown = ", ".join(f"{one.episodes}: {seconds_text(one.seconds)}" for one in growth.slowest)
        yield f"the slowest of m of a step's episodes, mean over all choices  {shown}"


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
        yield f"{row.stage:<{NAME - 2}}{row.paper_share:>8.1%}{share:>8}{seconds_cell(row.seconds):>10}"
    yield AEM_ALONE


def _block(title: str, lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield f"{title}:"
        yield from (f"  {line}" for line in found)


def _width(names: Iterable[str]) -> int:
    return min(MOST_NAME, max([NAME, *(len(short_name(name)) + 1 for name in names)]))
