"""Bounds on stages for continuous integration: tool=5% of the wall time, or reward/tests=2s a step."""

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aem_swe.errors import ConfigError
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.stages import ORDER

RESIDUAL_NAME, WALL_NAME = "residual", "wall"
PHASES = ("rollout", "update")
"""Stages that hold others: all of the step's time in them."""
_BOUND = re.compile(r"([^=]+)=(\d+(?:\.\d*)?|\.\d+)(%|s)")


@dataclass(frozen=True, slots=True)
class Bound:
    stage: str
    """A stage, a family of stages such as tool, rollout, update, residual or wall."""
    value: float
    """A fraction of the wall time, or seconds per step."""
    unit: str
    """% or s."""

    @property
    def text(self) -> str:
        return f"{self.value * 100:g}%" if self.unit == "%" else f"{self.value:g} s"


def parse_bounds(texts: Sequence[str]) -> tuple[Bound, ...]:
    """Read STAGE=5% and STAGE=2s. Raises ConfigError in one line for anything else."""
    bounds = []
    for text in texts:
        match = _BOUND.fullmatch(text.strip())
        if match is None or not math.isfinite(float(match[2])):
            raise ConfigError(
                f"--fail-above {text!r} is no bound; write STAGE=5% (of the wall time) or STAGE=2s (a step)"
            )
        stage, unit = match[1].strip(), match[3]
        if stage == WALL_NAME and unit == "%":
            raise ConfigError(f"--fail-above {text!r} always holds or never; bound the wall in seconds, wall=20s")
        bounds.append(Bound(stage, float(match[2]) / (100.0 if unit == "%" else 1.0), unit))
    return tuple(bounds)


def exceeded(profiles: Sequence[Profile], bounds: Sequence[Bound]) -> Iterator[str]:
    """One sentence for each bound that one of these runs breaks; a stage that did not happen took no time.

    Raises ConfigError for a stage that neither a run nor the format knows: a misspelt bound would never be broken.
    """
    known = {*ORDER, RESIDUAL_NAME, WALL_NAME, *PHASES}.union(*(profile.stages for profile in profiles))
    known |= {name.partition("/")[0] for name in known}
    for bound in bounds:
        if bound.stage not in known:
            near = difflib.get_close_matches(bound.stage, sorted(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(known))}"
            raise ConfigError(f"--fail-above: stage {bound.stage!r} is unknown; {hint}")
    for profile in profiles:
        yield from _exceeded(profile, bounds)


def _exceeded(profile: Profile, bounds: Sequence[Bound]) -> Iterator[str]:
    for bound in bounds:
        seconds = path_seconds(profile, bound.stage)
        step_s = profile.wall_s / len(profile.steps)
        share = seconds / step_s if step_s else 0.0
        if (share if bound.unit == "%" else seconds) > bound.value:
            measured = f"{share:.2%} of the wall time" if bound.unit == "%" else f"{seconds:.4g} s a step"
            yield f"{bound.stage} is {measured} in {profile.name}, more than {bound.text}"


def path_seconds(profile: Profile, stage: str) -> float:
    """What a step of this run waits for a stage or a family of stages, in mean seconds."""
    steps = len(profile.steps)
    if stage == WALL_NAME:
        return profile.wall_s / steps
    if stage == RESIDUAL_NAME:
        return profile.residual_s / steps
    if stage in PHASES:
        return sum(step.phases_s[stage] for step in profile.steps) / steps
    return sum(one.path_s for name, one in profile.stages.items() if name == stage or name.startswith(f"{stage}/"))
