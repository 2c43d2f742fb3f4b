"""The result file of `aem-swe verify training`: everything that its tables and its figure are made of.

Values and series of every run are in it, so verdicts are worked out again when it is read, by `training.judge`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from aem_swe.config import complaint
from aem_swe.errors import ConfigError
from aem_swe.eval.statistics import t_interval
from aem_swe.eval.training import TEST, Arm, Json, Judgement, judge
from aem_swe.eval.training_plan import Plan, check_plan
from aem_swe.eval.training_runs import RunValues
from aem_swe.section import Section

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


@dataclass(frozen=True, slots=True)
class Result:
    about: About
    plan: Plan
    arms: Mapping[str, Arm]
    family: Mapping[str, int]
    judgements: tuple[Judgement, ...]

    @property
    def step_seconds(self) -> float:
        """What the steps of all runs recorded, summed; not how long it took, which depends on --jobs."""
        return sum(run.step_seconds for arm in self.arms.values() for run in arm.runs)

    @property
    def runs(self) -> int:
        return sum(len(arm.runs) for arm in self.arms.values())

    @property
    def pairs(self) -> tuple[Judgement, ...]:
        """Contrasts of held-out success between an arm with AEM and one without: an algorithm with and without it."""
        return tuple(
            one
            for one in self.judgements
            if one.measure == "held_out" and self.arms[one.contrast.arm].aem and not self.arms[one.contrast.against].aem
        )


def make_result(about: About, plan: Plan, arms: Mapping[str, Arm], family: Mapping[str, int]) -> Result:
    return Result(about, plan, arms, family, tuple(judge(plan, arms, family)))


def sort_into_arms(plan: Plan, found: Mapping[tuple[str, int], RunValues | int], out: Path) -> dict[str, Arm]:
    """The finished runs, arm by arm."""
    arms = {}
    for name in plan.arms:
        runs = tuple(run for seed in plan.seeds if isinstance(run := found[name, seed], RunValues))
        arms[name] = Arm(aem=plan.recipe(name, plan.seeds[0], out).aem.enabled, runs=runs)
    return arms


def as_json(result: Result) -> Json:
    arms = {}
    for name, arm in result.arms.items():
        recipe, *overrides = result.plan.arms[name]
        summaries = {measure: _summary(arm, measure) for measure in SUMMARISED}
        runs = [run.model_dump() for run in arm.runs]
        arms[name] = {"recipe": recipe, "overrides": overrides, "aem": arm.aem, **summaries, "runs": runs}
    return {
        **result.about.model_dump(),
        "seeds": list(result.plan.seeds),
        "overrides": list(result.plan.overrides),
        "test": TEST,
        "step_seconds": result.step_seconds,
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
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{option} {str(path)!r} cannot be read ({error.strerror}); name a file of --json") from error
    except ValidationError as error:
        said = complaint(error, RunValues)
    except KeyError as error:
        said = f"{error} is missing"
    except (ConfigError, ValueError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
    raise ConfigError(f"{option} {str(path)!r} is no result of `aem-swe verify training` ({said}); make it again")


def _parse(data: Json) -> Result:
    contrasts: Json = {}
    for row in data["contrasts"]:
        fresh = {"arm": row["arm"], "against": row["against"], "paper": row["paper"], "of": []}
        contrasts.setdefault(row["name"], fresh)["of"].append(row["measure"])
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
    read = {name: Arm.model_validate({key: arm[key] for key in Arm.model_fields}) for name, arm in arms.items()}
    return make_result(about, plan, read, {str(name): int(count) for name, count in data["family"].items()})
