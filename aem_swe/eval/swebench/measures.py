"""What one evaluation of a checkpoint measures: pass@1, pass@k, its runs, its statuses, repositories and difficulties.

Every instance counts the same, however many of its runs were graded; a score that is NaN (infrastructure, or not
finished) is in no mean. Intervals resample instances with all their runs, because the runs of one instance are alike.
Not covered: a run that is worse as a whole, such as one with a slow endpoint; compare its rate with that of the others.
Legend: R run, I instance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.eval.statistics import Floats, Interval, mean_interval
from aem_swe.eval.swebench.results import Evaluation, Instance, Status
from aem_swe.eval.visible import visible_line
from aem_swe.eval.wording import counted

Member = TypeVar("Member")


@dataclass(frozen=True, slots=True)
class Tally:
    """The graded runs of one instance."""

    resolved: int
    graded: int

    @property
    def rate(self) -> float:
        """pass@1 of the instance; asked only where something is graded."""
        return self.resolved / self.graded

    def __str__(self) -> str:
        return f"{self.resolved}/{self.graded}"


@dataclass(frozen=True, slots=True)
class PassAtK:
    k: int
    interval: Interval
    instances: int
    """Those with at least k graded runs; the others cannot say."""


@dataclass(frozen=True, slots=True)
class Group:
    """Instances of one repository or one difficulty."""

    name: str
    instances: int
    interval: Interval


@dataclass(frozen=True, slots=True)
class Summary:
    """One evaluation in numbers; rates are fractions."""

    pass_at_1: Interval | None
    """None where nothing is graded."""
    rates_R: tuple[float | None, ...]
    """Each run over its own graded instances; None where it has none."""
    pass_at_k: tuple[PassAtK, ...]
    """For k = 1 .. the most graded runs of an instance."""
    statuses: Mapping[Status, int]
    instances: int
    graded: int
    """Instances with at least one graded run; the rest is out of every mean."""
    unfinished: int
    """Results that are not there."""
    task_variance: float | None
    """Variance between runs of one instance, averaged over instances; None without two graded runs of any."""
    repositories: tuple[Group, ...]
    difficulties: tuple[Group, ...]
    """Empty where the data set has none."""

    @property
    def mean_rate(self) -> float | None:
        """The mean over runs."""
        rates = [rate for rate in self.rates_R if rate is not None]
        return float(np.mean(rates)) if rates else None

    @property
    def spread(self) -> float | None:
        """Standard deviation between runs, None with one."""
        rates = [rate for rate in self.rates_R if rate is not None]
        return float(np.std(rates, ddof=1)) if len(rates) > 1 else None


def pass_at_k(resolved_I: Sequence[int], graded_I: Sequence[int], k: int) -> Floats:
    """The chance that k of an instance's runs, drawn without replacement, hold at least one that resolves it.

    Chen et al. 2021 (arXiv 2107.03374, eq. 1): 1 - C(n - c, k) / C(n, k), without bias for n >= k.
    """
    assert 1 <= k <= min(graded_I), "an instance with fewer than k graded runs says nothing about pass@k"
    chances: Floats = stats.hypergeom.sf(0, np.asarray(graded_I), np.asarray(resolved_I), k)
    return np.clip(chances, 0.0, 1.0)  # a chance of 1 comes out as 1 + 2e-16


def tallies(evaluation: Evaluation) -> dict[str, Tally]:
    """By instance id, also those with nothing graded; an id that occurs twice is one instance."""
    scores_RI = evaluation.scores_RI()
    resolved_I, graded_I = np.nansum(scores_RI, axis=0), (~np.isnan(scores_RI)).sum(axis=0)
    triples = zip(evaluation.instances, resolved_I, graded_I, strict=True)
    return {one.id: Tally(int(resolved), int(graded)) for one, resolved, graded in triples}


def distinct(instances: Sequence[Instance]) -> dict[str, Instance]:
    """By id, in their order; of an id that occurs twice the first."""
    found: dict[str, Instance] = {}
    for one in instances:
        found.setdefault(one.id, one)
    return found


def summarise(evaluation: Evaluation) -> Summary:
    """Raises nothing for an evaluation that is incomplete, or in which nothing was graded."""
    every = distinct(evaluation.instances)
    found = {name: tally for name, tally in tallies(evaluation).items() if tally.graded}
    rates = {name: tally.rate for name, tally in found.items()}
    repeated = [tally for tally in found.values() if tally.graded > 1]
    wanted = [(run, name) for run in range(1, evaluation.runs + 1) for name in every]
    there = [evaluation.results[key].status for key in wanted if key in evaluation.results]
    variances = [tally.rate * (1.0 - tally.rate) * tally.graded / (tally.graded - 1) for tally in repeated]
    return Summary(
        pass_at_1=mean_interval(np.array(list(rates.values()))) if rates else None,
        rates_R=_rates(evaluation),
        pass_at_k=_pass_at_every_k(list(found.values())),
        statuses={status: there.count(status) for status in Status},
        instances=len(every),
        graded=len(rates),
        unfinished=len(wanted) - len(there),
        task_variance=float(np.mean(variances)) if variances else None,
        repositories=_groups(rates, {name: every[name].repository for name in rates}),
        difficulties=_groups(rates, {name: every[name].difficulty for name in rates}),
    )


def _rates(evaluation: Evaluation) -> tuple[float | None, ...]:
    """An id that occurs twice counts once here too."""
    places = {one.id: place for place, one in enumerate(evaluation.instances)}
    scores_RI = evaluation.scores_RI()[:, sorted(places.values())]
    graded = [scores_I[~np.isnan(scores_I)] for scores_I in scores_RI]
    return tuple(float(scores.mean()) if scores.size else None for scores in graded)


def _pass_at_every_k(found: Sequence[Tally]) -> tuple[PassAtK, ...]:
    curve = []
    for k in range(1, max((tally.graded for tally in found), default=0) + 1):
        enough = [tally for tally in found if tally.graded >= k]
        chances_I = pass_at_k([tally.resolved for tally in enough], [tally.graded for tally in enough], k)
        curve.append(PassAtK(k, mean_interval(chances_I), len(enough)))
    return tuple(curve)


def _groups(rates: Mapping[str, float], names: Mapping[str, str]) -> tuple[Group, ...]:
    """The largest group first; an instance without a name is in none."""
    members = members_of({one: name for one, name in names.items() if name})
    return tuple(
        Group(name, len(ids), mean_interval(np.array([rates[one] for one in ids]))) for name, ids in members.items()
    )


def members_of(names: Mapping[Member, str]) -> dict[str, list[Member]]:
    """From the group of every member to the members of every group, the largest group first."""
    members: dict[str, list[Member]] = {}
    for one, name in names.items():
        members.setdefault(name, []).append(one)
    return dict(sorted(members.items(), key=lambda item: (-len(item[1]), item[0])))


def percent(interval: Interval) -> str:
    return f"{interval.value:.1%} (95% interval {interval.low:.1%} to {interval.high:.1%})"


def summary_text(summary: Summary) -> str:
    """One line: pass@1, the runs, pass@k at the ends of the curve, and what became of every result."""
    if summary.pass_at_1 is None:
        return f"nothing is graded of {counted(summary.instances, 'instance')}"
    parts = [f"pass@1 {percent(summary.pass_at_1)}"]
    if summary.spread is not None:
        rates = ", ".join("none graded" if rate is None else f"{rate:.1%}" for rate in summary.rates_R)
        parts.append(f"runs {rates} (mean {summary.mean_rate:.1%}, sd {100 * summary.spread:.1f} points)")
    last = summary.pass_at_k[-1]
    if last.k > 1:
        some = "" if last.instances == summary.graded else f", of {counted(last.instances, 'instance')}"
        parts.append(f"pass@{last.k} {percent(last.interval)}{some}")
    if summary.task_variance is not None:
        parts.append(f"per-task variance {summary.task_variance:.3f}")
    counts = [f"{count} {status}" for status, count in summary.statuses.items() if count]
    parts.append(", ".join([*counts, *[f"{summary.unfinished} not finished"] * bool(summary.unfinished)]))
    return "; ".join(parts)


def group_text(group: Group) -> str:
    return f"{visible_line(group.name, 60)} ({group.instances}): {percent(group.interval)}"
