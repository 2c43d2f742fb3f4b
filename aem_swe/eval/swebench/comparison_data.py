"""The numbers of a comparison's page as rows that a template can print. Nothing here is HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from aem_swe.eval.statistics import Difference
from aem_swe.eval.swebench.arms import Arm
from aem_swe.eval.swebench.contrast import Comparison, Contrast
from aem_swe.eval.swebench.differences import GroupDifference
from aem_swe.eval.swebench.measures import Tally, summarise, summary_text
from aem_swe.eval.swebench.page_data import Bar, facts
from aem_swe.eval.swebench.results import Evaluation
from aem_swe.eval.wording import points


@dataclass(frozen=True, slots=True)
class Axis:
    """Bars of differences on one axis, and where 0 is on it."""

    bars: tuple[Bar, ...]
    zero: float


@dataclass(frozen=True, slots=True)
class Episode:
    """One run of one checkpoint."""

    evaluation: Evaluation
    run: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class FlipRow:
    instance_id: str
    repository: str
    repository_class: int
    gained: bool
    reference: str
    """Resolved and graded runs of every checkpoint."""
    arm: str
    contrast: int
    pair: tuple[Episode | None, Episode | None]
    """Of each side a run that shows it: resolved of the side that mostly resolves it, not resolved of the other."""


@dataclass(frozen=True, slots=True)
class ProtocolRow:
    """A key of the protocol in which evaluations differ, and its value in each."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContrastView:
    contrast: Contrast
    color: int
    repositories: Axis | None
    difficulties: Axis | None


@dataclass(frozen=True, slots=True)
class ComparisonPage:
    """All that the template prints beside trajectories."""

    comparison: Comparison
    checkpoints: tuple[tuple[str, int, str], ...]
    """(name, colour, its numbers)."""
    whole: Axis | None
    contrasts: tuple[ContrastView, ...]
    flips: tuple[FlipRow, ...]
    repositories: tuple[str, ...]
    protocol: tuple[ProtocolRow, ...]
    folders: tuple[str, ...]


def comparison_page(comparison: Comparison) -> ComparisonPage:
    evaluations = [one for arm in comparison.arms for one in arm.evaluations]
    repositories = _flip_repositories(comparison.contrasts)
    return ComparisonPage(
        comparison=comparison,
        checkpoints=tuple(_checkpoints(comparison.arms)),
        whole=_whole(comparison),
        contrasts=tuple(
            ContrastView(item, place, _groups(item.by_repository(), place), _groups(item.by_difficulty(), place))
            for place, item in enumerate(comparison.contrasts, 1)
        ),
        flips=tuple(_flip_rows(comparison.contrasts, repositories)),
        repositories=repositories,
        protocol=tuple(_protocol_rows(evaluations)),
        folders=tuple(str(one.folder) for one in evaluations),
    )


def _checkpoints(arms: Sequence[Arm]) -> list[tuple[str, int, str]]:
    rows = []
    for place, arm in enumerate(arms):
        for one in arm.evaluations:
            seed = "" if one.training_seed is None else f", training seed {one.training_seed}"
            rows.append((f"{arm.label}{seed} ({one.folder})", place % 6, summary_text(summarise(one))))
    return rows


def _whole(comparison: Comparison) -> Axis | None:
    """Every contrast, and where it is about methods, also what is known of these checkpoints alone."""
    found: list[tuple[str, Difference, int]] = []
    for place, item in enumerate(comparison.contrasts, 1):
        name = f"{item.arm.label} minus {item.reference.label}"
        if item.method is not None:
            found.append((f"{name}: methods", item.method, place))
        found.append((f"{name}: these checkpoints", item.these_checkpoints, place))
    return _axis(found)


def _groups(groups: Sequence[GroupDifference], color: int) -> Axis | None:
    return _axis([(f"{one.name} ({one.difference.tasks})", one.difference, color) for one in groups])


def _axis(found: Sequence[tuple[str, Difference, int]]) -> Axis | None:
    if not found:
        return None
    edges = [0.0, *(edge for _, item, _ in found for edge in (item.low, item.high))]
    margin = 0.04 * max(max(edges) - min(edges), 0.01)
    low, high = min(edges) - margin, max(edges) + margin

    def place(value: float) -> float:
        return round(100.0 * (value - low) / (high - low), 2)

    bars = tuple(
        Bar(
            label, f"{points(item.value)} ({points(item.low)} to {points(item.high)})", place(item.value),
            place(item.low), round(place(item.high) - place(item.low), 2), color % 6,
        )
        for label, item, color in found
    )  # fmt: skip
    return Axis(bars, place(0.0))


def _flip_repositories(contrasts: Sequence[Contrast]) -> tuple[str, ...]:
    names = []
    for item in contrasts:
        flipped = {flip.instance_id for flip in (*item.gained, *item.lost)}
        names += [one.repository for one in item.instances if one.id in flipped]
    return tuple(dict.fromkeys(sorted(names)))


def _flip_rows(contrasts: Sequence[Contrast], repositories: Sequence[str]) -> list[FlipRow]:
    rows = []
    for place, item in enumerate(contrasts):
        known = {one.id: one.repository for one in item.instances}
        for flip in (*item.lost, *item.gained):
            gained, repository = flip.change > 0.0, known[flip.instance_id]
            sides = [_shown_run(arm, flip.instance_id, resolved=(arm is item.arm) == gained) for arm in _sides(item)]
            rows.append(
                FlipRow(
                    flip.instance_id, repository, list(repositories).index(repository), gained,
                    _tallies(flip.reference), _tallies(flip.arm), place, (sides[0], sides[1]),
                )
            )  # fmt: skip
    return rows


def _sides(item: Contrast) -> tuple[Arm, Arm]:
    return item.reference, item.arm


def _tallies(side: Sequence[Tally]) -> str:
    return " + ".join(str(tally) for tally in side)


def _shown_run(arm: Arm, instance_id: str, *, resolved: bool) -> Episode | None:
    """The first run of the arm's checkpoints that came out like this."""
    for evaluation in arm.evaluations:
        for run in range(1, evaluation.runs + 1):
            result = evaluation.results.get((run, instance_id))
            if result is not None and result.score == float(resolved):  # NaN, where it is not graded, equals nothing
                return Episode(evaluation, run, instance_id)
    return None


def _protocol_rows(evaluations: Sequence[Evaluation]) -> list[ProtocolRow]:
    """Only keys whose values differ."""
    tables = [{fact.name: fact.value for fact in facts(one.about.get("protocol") or {})} for one in evaluations]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [ProtocolRow(name, tuple(table.get(name, "not recorded") for table in tables)) for name in names if name]
    return [row for row in rows if len(set(row.values)) > 1]
