"""A profile as JSON data: every number of the table, with names that say their unit."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any  # Any: dataclasses.asdict gives it

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

from aem_swe.eval.profile.difference import StageDifference
from aem_swe.eval.profile.figure4 import Figure4
from aem_swe.eval.profile.growth import Growth
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.step import StepProfile

Data = dict[str, object]
_LARGE = ("segments", "spans", "straggler")
"""The spans are in spans.jsonl, the stragglers in a list of their own."""


def profile_data(profile: Profile, growth: Growth, figure4: Figure4, advice: "Sequence[DataclassInstance]") -> Data:
    """All of one profile. Floats are finite; `step` is the training step."""
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
        "growth": _plain(growth),
        "figure4": _plain(figure4),
        "advice": [_plain(one) for one in advice],
        "startup_s": profile.startup_s,
        "before_s": profile.before_s,
        "group_size": profile.group_size,
        "incomplete": _step_data(profile.incomplete) if profile.incomplete else None,
        "incomplete_steps": list(profile.incomplete_steps),
        "unreadable_lines": profile.unreadable_lines,
        "late_spans": profile.late_spans,
        "outside_spans": profile.outside_spans,
    }


def comparison_data(runs: Sequence[Data], difference: Sequence[StageDifference]) -> Data:
    """Two profiles and what is between them, second less first."""
    return {"runs": list(runs), "difference": {row.stage: _without(row, "stage") for row in difference}}


def _step_data(step: StepProfile) -> Data:
    fields = [field.name for field in dataclasses.fields(step) if field.name not in _LARGE]
    return {name: getattr(step, name) for name in fields}


def _without(row: "DataclassInstance", key: str) -> Data:
    return {name: value for name, value in _plain(row).items() if name != key}


def _plain(row: "DataclassInstance") -> dict[str, Any]:  # as dataclasses.asdict gives it
    return dataclasses.asdict(row)
