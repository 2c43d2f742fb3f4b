"""The numbers of an evaluation's page as rows that a template can print. Nothing here is HTML.

Positions of bars are percent of the width, as in forest.py: the template draws them with plain boxes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from aem_swe.eval.statistics import Interval
from aem_swe.eval.swebench.hack_survey import Found
from aem_swe.eval.swebench.live import duration, short
from aem_swe.eval.swebench.measures import Group, Summary, distinct, members_of
from aem_swe.eval.swebench.page_plots import STATUS_COLORS
from aem_swe.eval.swebench.results import Evaluation, Result, Status
from aem_swe.eval.wording import counted

MOST_FACTS = 400
MISSING = "missing"
"""The class of a result that is not there."""
MARKS = {
    Status.RESOLVED: "✓",
    Status.UNRESOLVED: "✗",
    Status.EMPTY: "∅",
    Status.ERROR: "!",
    Status.INFRASTRUCTURE: "–",
}
STATUS_TEXTS = {
    Status.RESOLVED: "resolved",
    Status.UNRESOLVED: "unresolved",
    Status.EMPTY: "empty patch",
    Status.ERROR: "error: the patch does not apply, or its tests reach their limit",
    Status.INFRASTRUCTURE: "infrastructure: excluded, in no mean",
}


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval on an axis."""

    label: str
    text: str
    dot: float
    left: float
    width: float
    color: int = 1


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of one instance in the list."""

    run: int
    status: str
    mark: str
    color: int
    result: Result | None
    hits: int
    strong: bool
    file: str


@dataclass(frozen=True, slots=True)
class InstanceRow:
    id: str
    repository: str
    difficulty: str
    repository_class: int
    difficulty_class: int
    runs: tuple[RunRow, ...]
    resolved: int
    graded: int
    hits: int
    strong: bool

    @property
    def differs(self) -> bool:
        return 0 < self.resolved < self.graded

    @property
    def statuses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.status for run in self.runs))


@dataclass(frozen=True, slots=True)
class Instances:
    """The list, and what it can be filtered by."""

    rows: tuple[InstanceRow, ...]
    statuses: tuple[tuple[str, int], ...]
    """(class, how many instances have it in a run); only those that occur."""
    repositories: tuple[str, ...]
    """By class: `r0` is the first."""
    difficulties: tuple[str, ...]
    hits: int
    strong: int
    differing: int


def facts(value: object, name: str = "") -> Iterator[Fact]:
    """Nested values as lines `play.max_steps  100`, in their order, at most MOST_FACTS of them and ten levels deep."""
    for count, fact in enumerate(_facts(value, name, 0)):
        if count == MOST_FACTS:
            yield Fact("...", "more is in evaluation.json")
            return
        yield fact


def _facts(value: object, name: str, depth: int) -> Iterator[Fact]:
    if isinstance(value, Mapping) and value and depth < 10:
        for key, inner in value.items():
            yield from _facts(inner, f"{name}.{key}" if name else str(key), depth + 1)
    else:
        yield Fact(name, "not set" if value is None else _flat(value))


def _flat(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(one)[:200] for one in value[:50]) if value else "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def other_facts(about: Mapping[str, object]) -> list[Fact]:
    """Everything that evaluation.json says beside the protocol."""
    return list(facts({key: value for key, value in about.items() if key != "protocol"}))


def rate_bar(label: str, interval: Interval, text: str = "", color: int = 1) -> Bar:
    """On an axis from 0 to 100%."""
    low, high = max(interval.low, 0.0), min(interval.high, 1.0)
    said = text or f"{interval.value:.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return Bar(label, said, _percent(interval.value), _percent(low), _percent(high - low), color)


def _percent(share: float) -> float:
    return round(100.0 * share, 2)


def run_bars(summary: Summary) -> list[Bar]:
    bars = []
    for run, rate in enumerate(summary.rates_R, 1):
        if rate is not None:
            bars.append(rate_bar(f"run {run}", Interval(rate, rate, rate), f"{rate:.1%}", 3))
    return bars


def group_bars(groups: Sequence[Group]) -> list[Bar]:
    return [rate_bar(f"{group.name} ({group.instances})", group.interval) for group in groups]


def status_facts(summary: Summary) -> list[Fact]:
    """How many results have each status, over all runs."""
    found = [Fact(STATUS_TEXTS[status], str(count)) for status, count in summary.statuses.items()]
    return [*found, *([Fact("not finished", str(summary.unfinished))] if summary.unfinished else [])]


def ending_rows(evaluation: Evaluation) -> list[tuple[str, tuple[int, ...], int]]:
    """(how episodes ended, results by status, all)."""
    counts = Counter((result.termination, result.status) for result in evaluation.results.values())
    rows = []
    for ending in sorted({ending for ending, _ in counts}):
        row = tuple(counts[ending, status] for status in Status)
        rows.append((ending or "no episode", row, sum(row)))
    return rows


def cost_facts(evaluation: Evaluation) -> list[Fact]:
    """Tokens, money and time, of all results."""
    results = list(evaluation.results.values())
    prompt, completion = (sum(one.prompt_tokens for one in results), sum(one.completion_tokens for one in results))
    costs = [one.cost for one in results if one.cost is not None]
    seconds: Counter[str] = Counter()
    for one in results:
        seconds.update({str(kind): float(value) for kind, value in one.seconds.items()})
    found = [
        Fact("Prompt tokens", f"{prompt:,}"),
        Fact("Completion tokens", f"{completion:,}"),
        Fact("Lost tokens", f"{sum(one.lost_tokens for one in results):,} (of answers that became no turn)"),
        Fact("Requests under way at a kill", f"{sum(one.lost_requests for one in results):,}"),
        Fact("Results that took more than one attempt", str(sum(one.attempts > 1 for one in results))),
        Fact("Cost", f"{sum(costs):,.2f}" if costs else "no prices given"),
    ]
    if costs and (solved := sum(one.status is Status.RESOLVED for one in results)):
        found.append(Fact("Cost per resolved result", f"{sum(costs) / solved:,.2f}"))
    return found + [Fact(f"Time, {kind}", f"{duration(value)} in sum") for kind, value in sorted(seconds.items())]


def distribution_rows(evaluation: Evaluation) -> list[tuple[str, int, str, str]]:
    """(status, results, median turns, median tokens) of those that were played."""
    rows = []
    for status in Status:
        played = [one for one in evaluation.results.values() if one.status is status and one.turns]
        if played:
            turns, tokens = median(one.turns for one in played), median(one.completion_tokens for one in played)
            rows.append((str(status), len(played), f"{turns:g}", short(int(tokens))))
    return rows


def instances_of(evaluation: Evaluation, found: Mapping[tuple[int, str], Found]) -> Instances:
    every = list(distinct(evaluation.instances).values())
    repositories = list(members_of({one.id: one.repository for one in every}))
    difficulties = list(members_of({one.id: one.difficulty for one in every}))
    rows = []
    for one in every:
        runs = tuple(_run_row(evaluation, run, one.id, found) for run in range(1, evaluation.runs + 1))
        graded = [run for run in runs if run.result is not None and run.result.status is not Status.INFRASTRUCTURE]
        rows.append(
            InstanceRow(
                one.id, one.repository, one.difficulty, repositories.index(one.repository),
                difficulties.index(one.difficulty), runs, sum(run.status == Status.RESOLVED for run in graded),
                len(graded), sum(run.hits for run in runs), any(run.strong for run in runs),
            )
        )  # fmt: skip
    classes = [*(str(status) for status in Status), MISSING]
    counts = [(name, sum(name in row.statuses for row in rows)) for name in classes]
    return Instances(
        tuple(rows), tuple(pair for pair in counts if pair[1]), tuple(repositories), tuple(difficulties),
        sum(row.hits > 0 for row in rows), sum(row.strong for row in rows), sum(row.differs for row in rows),
    )  # fmt: skip


def _run_row(evaluation: Evaluation, run: int, instance_id: str, found: Mapping[tuple[int, str], Found]) -> RunRow:
    result, hits = evaluation.results.get((run, instance_id)), found.get((run, instance_id))
    status = str(result.status) if result else MISSING
    return RunRow(
        run, status, MARKS[result.status] if result else "·", STATUS_COLORS[result.status] if result else 5, result,
        hits.count if hits else 0, hits.strong if hits else False, f"run_{run}/{instance_id}/",
    )  # fmt: skip


def headline(evaluation: Evaluation, summary: Summary) -> str:
    """ "model: pass@1 42.3% [40.1, 44.5] over 3 runs of 500 instances"."""
    size = f"{counted(evaluation.runs, 'run')} of {counted(summary.instances, 'instance')}"
    found = summary.pass_at_1
    if found is None:
        return f"{evaluation.model}: nothing graded yet in {size}"
    return f"{evaluation.model}: pass@1 {found.value:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}] over {size}"
