"""Pages about evaluations: one for an evaluation, one for a comparison. Each is one file that runs and asks nothing.

The two rules of report.py hold for every value: made visible, then escaped. Filters are CSS alone. Trajectories are
read one at a time, first to be scanned for hacks, then those that are shown: as many as fit under a limit of bytes,
those first that are most worth reading. The page says how many it left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # keys of records; jinja's modules have no types

from jinja2 import Environment
from markupsafe import Markup

from aem_swe.eval.plots import Picture
from aem_swe.eval.report import page_environment, write_whole
from aem_swe.eval.swebench import page_data as data
from aem_swe.eval.swebench.comparison_data import Episode, comparison_page
from aem_swe.eval.swebench.contrast import Comparison
from aem_swe.eval.swebench.hack_survey import Found, KindRow, graded_files, kind_rows, survey
from aem_swe.eval.swebench.hacks import HackScore, score_without_hits
from aem_swe.eval.swebench.measures import Summary, summarise
from aem_swe.eval.swebench.page_plots import STATUS_COLORS, pictures_of
from aem_swe.eval.swebench.records import Record, patches_of, read_record
from aem_swe.eval.swebench.results import Evaluation, Status
from aem_swe.eval.wording import counted

MOST_BYTES = 25_000_000
_GOLDEN = 0.6180339887498949
_TRIES = 20
Key = tuple[int, str]
"""(run, instance id)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Characters of a text, of a diff and of the task's statement that are shown."""

    text: int = 2_000
    diff: int = 8_000
    task: int = 3_000


@dataclass(frozen=True, slots=True)
class EvaluationPage:
    """All that the template prints beside trajectories."""

    evaluation: Evaluation
    summary: Summary
    headline: str
    statuses: list[data.Fact]
    warnings: list[str]
    protocol: list[data.Fact]
    others: list[data.Fact]
    network: str | None
    limits: str
    runs: list[data.Bar]
    spread: str
    repositories: list[data.Bar]
    difficulties: list[data.Bar]
    pictures: list[Picture]
    legend: list[tuple[str, int]]
    status_names: list[str]
    endings: list[tuple[str, tuple[int, ...], int]]
    distributions: list[tuple[str, int, str, str]]
    costs: list[data.Fact]
    kinds: list[KindRow]
    hack_sentence: str
    instances: data.Instances
    embedded_sentence: str = ""


def write_evaluation_page(evaluation: Evaluation, out: Path, *, most_bytes: int = MOST_BYTES) -> None:
    """Write the page to `out`, which appears whole or not at all.

    most_bytes: trajectories are left out where the page would become larger; its tables are always whole. Raises
    RunError for a file that cannot be written, or that is in the evaluation's folder and cannot be read.
    """
    found = survey(evaluation)
    page = _page_of(evaluation, found)
    environment = page_environment()
    template = environment.get_template("swebench/evaluation.html.jinja")
    order = reading_order(evaluation, found)
    left = most_bytes - len(template.render(page=page, records={}).encode())
    reader = _Reader(evaluation)
    records = _fitting(environment, ((key, reader.read(*key)) for key in order), left)
    said = left_out_sentence(len(records), len(order), f"in {evaluation.folder}, in the folder named beside them")
    write_whole(out, template.render(page=replace(page, embedded_sentence=said), records=records))


def _page_of(evaluation: Evaluation, found: Mapping[Key, Found]) -> EvaluationPage:
    summary, about = summarise(evaluation), evaluation.about
    harness = about.get("harness")
    network = harness.get("network") if isinstance(harness, dict) else None
    return EvaluationPage(
        evaluation=evaluation,
        summary=summary,
        headline=data.headline(evaluation, summary),
        statuses=data.status_facts(summary),
        warnings=_warnings(evaluation, summary),
        protocol=list(data.facts(about.get("protocol"))) if about.get("protocol") else [],
        others=data.other_facts(about),
        network=None if network is None else str(network),
        limits=", ".join(f"{fact.name} {fact.value}" for fact in data.facts(harness) if fact.name != "network")
        if harness
        else "",
        runs=data.run_bars(summary),
        spread="" if summary.spread is None else _spread(summary),
        repositories=data.group_bars(summary.repositories),
        difficulties=data.group_bars(summary.difficulties),
        pictures=pictures_of(evaluation, summary.pass_at_k),
        legend=[(str(status), color) for status, color in STATUS_COLORS.items()],
        status_names=[str(status) for status in Status],
        endings=data.ending_rows(evaluation),
        distributions=data.distribution_rows(evaluation),
        costs=data.cost_facts(evaluation),
        kinds=kind_rows(evaluation, found),
        hack_sentence=_hack_sentence(score_without_hits(evaluation, {key: one.hits for key, one in found.items()})),
        instances=data.instances_of(evaluation, found),
    )


def _spread(summary: Summary) -> str:
    return f"Mean {summary.mean_rate:.1%}, standard deviation between runs {100 * (summary.spread or 0.0):.1f} points."


def _warnings(evaluation: Evaluation, summary: Summary) -> list[str]:
    warnings = []
    if summary.unfinished:
        warnings.append(f"{counted(summary.unfinished, 'result')} not there: this evaluation is not finished.")
    if evaluation.unreadable_lines:
        warnings.append(f"{counted(evaluation.unreadable_lines, 'unreadable line')} of results.jsonl skipped.")
    if summary.statuses[Status.INFRASTRUCTURE]:
        lost = counted(summary.statuses[Status.INFRASTRUCTURE], "result")
        warnings.append(f"{lost} lost to the infrastructure, in no mean.")
    return warnings


def _hack_sentence(score: HackScore) -> str:
    return (
        f"pass@1: {score.graded:.1%} as graded; {score.without_strong:.1%} where the "
        f"{counted(score.resolved_with_strong, 'resolved result')} with a strong hit counted as unresolved; "
        f"{score.without_any:.1%} where the {counted(score.resolved_with_any, 'resolved result')} with any hit did."
    )


def reading_order(evaluation: Evaluation, found: Mapping[Key, Found]) -> list[Key]:
    """All results, those first that are worth reading: hits, then flips between runs, errors, and the rest evenly."""
    scores: dict[str, set[float]] = {}
    for (_, name), result in evaluation.results.items():
        scores.setdefault(name, set()).add(result.score)

    def rank(key: Key) -> int:
        if key in found:
            return 0 if found[key].strong else 1
        if {0.0, 1.0} <= scores[key[1]]:
            return 2
        return 3 if evaluation.results[key].status in (Status.ERROR, Status.EMPTY, Status.INFRASTRUCTURE) else 4

    # Steps of the golden ratio spread any beginning of the order over all instances and runs.
    places = {key: (place * _GOLDEN) % 1.0 for place, key in enumerate(sorted(evaluation.results))}
    return sorted(places, key=lambda key: (rank(key), places[key]))


def write_comparison_page(comparison: Comparison, out: Path, *, most_bytes: int = MOST_BYTES) -> None:
    """Write the page to `out`, which appears whole or not at all; the clearest flips are shown first.

    most_bytes: trajectories are left out where the page would become larger. Raises RunError for a file that cannot be
    written, or that is in an evaluation's folder and cannot be read.
    """
    page = comparison_page(comparison)
    environment = page_environment()
    template = environment.get_template("swebench/comparison.html.jinja")
    given = {"page": page, "key_of": _episode_key, "embedded_sentence": ""}
    left = most_bytes - len(template.render(given, records={}).encode())
    episodes = {_episode_key(one): one for row in page.flips for one in row.pair if one is not None}
    readers = {str(one.evaluation.folder): _Reader(one.evaluation) for one in episodes.values()}
    views = ((key, readers[key[0]].read(one.run, one.instance_id)) for key, one in episodes.items())
    records = _fitting(environment, views, left)
    said = left_out_sentence(len(records), len(episodes), "in the folders named beside them")
    write_whole(out, template.render({**given, "embedded_sentence": said}, records=records))


def _episode_key(one: Episode) -> tuple[str, int, str]:
    return str(one.evaluation.folder), one.run, one.instance_id


class _Reader:
    """Records of one evaluation; keeps only patches and the names of files."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._test_files = graded_files(evaluation)
        self._patches: dict[int, dict[str, str]] = {}

    def read(self, run: int, name: str) -> Record:
        if run not in self._patches:
            self._patches[run] = patches_of(self._evaluation, run)
        return read_record(self._evaluation, run, name, self._patches[run].get(name), self._test_files.get(name, ()))


def _fitting(environment: Environment, records: Iterable[tuple[Any, Record]], left: int) -> dict[Any, Markup]:
    """By key, what fits into `left` bytes; after _TRIES that do not fit, no more are read."""
    macros: Any = environment.get_template("swebench/parts.html.jinja").module
    shown: dict[Any, Markup] = {}
    tries = _TRIES
    for key, record in records:
        text = macros.record_view(record, Limits())  # made safe by the environment
        if (size := len(text.encode())) <= left:
            shown[key] = text
            left -= size
        elif (tries := tries - 1) == 0:
            break
    return shown


def left_out_sentence(shown: int, there: int, where: str) -> str:
    if shown == there:
        return f"All {counted(there, 'recorded result')} can be read here."
    return (
        f"{shown} of {counted(there, 'recorded result')} can be read here, those first that are most worth it (hits, "
        f"flips, errors). The other {there - shown} are left out to keep this page small; they are {where}."
    )
