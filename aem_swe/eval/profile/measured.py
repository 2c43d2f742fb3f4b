"""All that is said of one run, or of two: as lines and as JSON data from the same figures."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any  # Any: dataclasses.asdict gives it

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

from aem_swe.eval.profile.advice import Advice, advise
from aem_swe.eval.profile.difference import StageDifference, compare_profiles
from aem_swe.eval.profile.figure4 import Figure4, measure_figure4
from aem_swe.eval.profile.growth import Growth, measure_growth
from aem_swe.eval.profile.profile import Profile, load_profile
from aem_swe.eval.profile.step import StepProfile
from aem_swe.eval.profile.text import difference_lines, profile_lines

Data = dict[str, object]
_LARGE = ("segments", "spans", "straggler")
"""The spans are in spans.jsonl, the stragglers in a list of their own."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A profile with what follows from it."""

    profile: Profile
    growth: Growth
    figure4: Figure4
    advice: tuple[Advice, ...]


def measure(folder: Path, show: int | None = None) -> Measured:
    """Read and measure a run folder; raises what `load_profile` raises."""
    profile = load_profile(folder, show)
    growth = measure_growth(profile)
    return Measured(profile, growth, measure_figure4(profile), advise(profile, growth))


@dataclass(frozen=True, slots=True)
class Findings:
    """One run, or two and what is between them."""

    runs: tuple[Measured, ...]
    difference: tuple[StageDifference, ...]
    """Empty for one run."""


def measure_all(folders: Sequence[Path], show: int | None = None) -> Findings:
    """One run folder or two."""
    assert len(folders) in (1, 2), f"{len(folders)} runs"
    runs = tuple(measure(folder, show) for folder in folders)
    return Findings(runs, compare_profiles(*(one.profile for one in runs)) if len(runs) == 2 else ())


def lines(found: Findings) -> Iterator[str]:
    """For the terminal: of one run everything, of two what differs."""
    if len(found.runs) == 1:
        (one,) = found.runs
        advice = [f"{advice.says} ({advice.figure})" for advice in one.advice]
        yield from profile_lines(one.profile, one.growth, one.figure4, advice)
    else:
        first, second = (one.profile for one in found.runs)
        yield from difference_lines(first, second, found.difference)


def data(found: Findings) -> Data:
    """For --json, with names that say their unit: of one run its own figures, of two both and the difference."""
    figures = [_profile_data(one) for one in found.runs]
    if len(figures) == 1:
        return figures[0]
    return {"runs": figures, "difference": {row.stage: _without(row, "stage") for row in found.difference}}


def _profile_data(run: Measured) -> Data:
    """All of one profile. Floats are finite; `step` is the training step."""
    profile = run.profile
    return {
        "run": profile.name,
        "folder": str(profile.folder),
        "recipe": profile.recipe,
        "wall_s": profile.wall_s,
        "residual_s": profile.residual_s,
        "residual_share": profile.residual_share,
        "stages": {name: _without(stage, "stage") for name, stage in profile.stages.items()},
        "steps": [_step_data(step) for step in profile.steps],
        "stragglers": [_plain(step.straggler) for step in profile.steps if step.straggler],
        "growth": _plain(run.growth),
        "figure4": _plain(run.figure4),
        "advice": [_plain(one) for one in run.advice],
        "startup_s": profile.startup_s,
        "before_s": profile.before_s,
        "group_size": profile.group_size,
        "incomplete": _step_data(profile.incomplete) if profile.incomplete else None,
        "incomplete_steps": list(profile.incomplete_steps),
        "unreadable_lines": profile.unreadable_lines,
        "late_spans": profile.late_spans,
        "outside_spans": profile.outside_spans,
    }


def _step_data(step: StepProfile) -> Data:
    fields = [field.name for field in dataclasses.fields(step) if field.name not in _LARGE]
    return {name: getattr(step, name) for name in fields}


def _without(row: "DataclassInstance", key: str) -> Data:
    return {name: value for name, value in _plain(row).items() if name != key}


def _plain(row: "DataclassInstance") -> dict[str, Any]:  # as dataclasses.asdict gives it
    return dataclasses.asdict(row)
