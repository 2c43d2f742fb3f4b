"""The result file of `aem-swe verify training`: everything that its tables and its figure are made of.

Values and series of every run are in it, so verdicts are worked out again when it is read, by `training.judge`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aem_swe.eval.result_files import read_file, require_plain
from aem_swe.eval.statistics import t_interval
from aem_swe.eval.training import TEST, Arm, Json, Judgement, judge
from aem_swe.eval.training_checks import require_absent, require_family, require_runs_of, require_settings
from aem_swe.eval.training_plan import Plan, check_plan
from aem_swe.eval.training_values import RunValues
from aem_swe.section import CountOrZero, Section

SUMMARISED: Final = (
    "held_out_first",
    "held_out",
    "reward_first",
    "reward",
    "truncation",
    "truncation_max",
    "entropy",
)
"""Values of RunValues that an arm has a mean and an interval of."""
_NUMBERS: Final = re.compile(r"\[\n[\s\d.,eE+\-nul]*\]")
"""A list of numbers as json.dumps breaks it over lines; no string has a line break of its own."""


class About(Section):
    """What made a result."""

    aem_swe: str
    command: str
    date: str


class RunName(Section):
    """A run of the plan."""

    arm: str
    seed: CountOrZero


@dataclass(frozen=True, slots=True)
class Result:
    about: About
    plan: Plan
    arms: Mapping[str, Arm]
    family: Mapping[str, int]
    judgements: tuple[Judgement, ...]
    failed: tuple[RunName, ...]
    """Tried and ended with an error, a loss that diverged for example: no values, and no mere absence either."""
    unfinished: tuple[RunName, ...]
    """Begun, and not tried again by the command that made the result."""

    @property
    def step_seconds(self) -> float:
        """What the steps of all runs recorded, summed; not how long it took, which depends on --jobs."""
        return sum(run.step_seconds for arm in self.arms.values() for run in arm.runs)

    @property
    def runs(self) -> int:
        return sum(len(arm.runs) for arm in self.arms.values())

    @property
    def commits(self) -> tuple[str, ...]:
        """Of the code that the runs were made by, shortened, each once."""
        found = [run.commit for arm in self.arms.values() for run in arm.runs]
        return tuple(dict.fromkeys("unknown" if one is None else _shortened(one) for one in found))

    @property
    def pairs(self) -> tuple[Judgement, ...]:
        """Contrasts of held-out success between an arm with AEM and one without: an algorithm with and without it."""
        return tuple(
            one
            for one in self.judgements
            if one.measure == "held_out" and self.arms[one.contrast.arm].aem and not self.arms[one.contrast.against].aem
        )


def make_result(
    about: About,
    plan: Plan,
    arms: Mapping[str, Arm],
    family: Mapping[str, int],
    failed: Sequence[RunName] = (),
    unfinished: Sequence[RunName] = (),
) -> Result:
    return Result(about, plan, arms, family, tuple(judge(plan, arms, family)), tuple(failed), tuple(unfinished))


def sort_into_arms(plan: Plan, found: Mapping[tuple[str, int], RunValues | int], out: Path) -> dict[str, Arm]:
    """The finished runs, arm by arm."""
    arms = {}
    for name in plan.arms:
        runs = tuple(run for seed in plan.seeds if isinstance(run := found[name, seed], RunValues))
        arms[name] = Arm.of(plan.recipe(name, plan.seeds[0], out), runs)
    return arms


def _shortened(commit: str) -> str:
    """Of 40 digits the first ten; "-dirty" stays: such code has no commit of its own."""
    digits, dash, rest = commit.partition("-")
    return f"{digits[:10]}{dash}{rest}"


def as_json(result: Result) -> Json:
    arms = {}
    for name, arm in result.arms.items():
        recipe, *overrides = result.plan.arms[name]
        summaries = {measure: _summary(arm, measure) for measure in SUMMARISED}
        made = {"recipe": recipe, "overrides": overrides}
        arms[name] = {**made, **arm.settings, **summaries, "runs": [run.model_dump() for run in arm.runs]}
    return {
        **result.about.model_dump(),
        "seeds": list(result.plan.seeds),
        "overrides": list(result.plan.overrides),
        "test": TEST,
        "step_seconds": result.step_seconds,
        "failed": [one.model_dump() for one in result.failed],
        "unfinished": [one.model_dump() for one in result.unfinished],
        "family": dict(result.family),
        "contrasts": [one.as_json() for one in result.judgements],
        "arms": arms,
    }


def _summary(arm: Arm, measure: str) -> Json:
    values = arm.values(measure)
    interval = t_interval(values)
    mean = float(values.mean()) if values.size else None
    return {"n": values.size, "mean": mean, "low": interval and interval.low, "high": interval and interval.high}


def to_text(result: Result) -> str:
    """The file: one line for every list of numbers."""
    text = json.dumps(as_json(result), indent=1, allow_nan=False)
    return _NUMBERS.sub(lambda match: f"[{' '.join(match[0][1:-1].split())}]", text) + "\n"


def read_result(path: Path, option: str = "--from") -> Result:
    """Read a result file and judge it again. Raises ConfigError for anything else."""
    return read_file(path, option, "aem-swe verify training", _parse, RunValues)


def _parse(data: Json) -> Result:
    contrasts: Json = {}
    for row in data["contrasts"]:
        sides = {"arm": row["arm"], "against": row["against"], "paper": row["paper"]}
        contrast = contrasts.setdefault(row["name"], {**sides, "of": []})
        if any(contrast[key] != side for key, side in sides.items()):
            raise ValueError(f"contrast {row['name']!r} has other arms, or another paper, in a second row")
        contrast["of"].append(row["measure"])
    arms = data["arms"]
    plan = check_plan(
        {
            "seeds": data["seeds"],
            "overrides": data["overrides"],
            "arms": {name: [arm["recipe"], *arm["overrides"]] for name, arm in arms.items()},
            "contrasts": contrasts,
        }
    )
    about = About.model_validate({key: data[key] for key in About.model_fields})
    require_plain(**about.model_dump())
    read = {name: Arm.of(plan.recipe(name, plan.seeds[0], Path("runs")), arm["runs"]) for name, arm in arms.items()}
    for name, arm in read.items():
        require_settings(name, arm, arms[name])
        require_runs_of(plan, name, arm)
    family = {str(name): count for name, count in data["family"].items()}
    require_family(plan, family)
    absent = [tuple(RunName.model_validate(one) for one in data[key]) for key in ("failed", "unfinished")]
    require_absent(plan, read, [(one.arm, one.seed) for runs in absent for one in runs])
    return make_result(about, plan, read, family, *absent)
