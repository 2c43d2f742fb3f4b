"""What a rule of advice judges (a case), and what it says where it fires (a finding)."""

from dataclasses import dataclass

from aem_swe.eval.profile.growth import Growth
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.settings import Settings
from aem_swe.eval.profile.spans import EVALUATION, Span
from aem_swe.eval.profile.stages import StageProfile
from aem_swe.eval.profile.wording import seconds_text, share_text, short_name


@dataclass(frozen=True, slots=True)
class Finding:
    share: float
    """Of the wall time: the larger, the earlier it is told."""
    says: str
    """What to change, by the keys of the recipe."""
    figure: str
    """What it rests on."""


@dataclass(frozen=True, slots=True)
class Case:
    profile: Profile
    growth: Growth
    settings: Settings

    @property
    def local(self) -> bool:
        return self.settings.engine == "local"

    def members(self, *names: str) -> list[StageProfile]:
        """The stages on the path with one of these names or in one of these families, the largest first."""
        found = [
            stage
            for stage in self.profile.stages.values()
            if stage.path_s > 0.0 and any(stage.stage == name or stage.stage.startswith(f"{name}/") for name in names)
        ]
        return sorted(found, key=lambda stage: -stage.path_s)

    def share(self, *names: str) -> float:
        """Of the wall time, that a step waits for these stages."""
        return sum(stage.share for stage in self.members(*names))

    def shown(self, stage: str) -> list[Span]:
        """Its spans in the rollouts of the steps whose spans are kept: the slowest and the median one."""
        kept = {step.step: step for step in (self.profile.slowest, self.profile.median)}
        return [
            span
            for step in kept.values()
            for span in step.spans
            if span.stage == stage and span.phase != EVALUATION and not span.background
        ]

    @property
    def shown_steps(self) -> str:
        """Which those are, such as "steps 1 and 6"."""
        steps = sorted({self.profile.slowest.step, self.profile.median.step})
        return f"step{'s' if len(steps) > 1 else ''} {' and '.join(map(str, steps))}"

    def figure(self, *names: str) -> str:
        found = self.members(*names)
        said = " + ".join(short_name(stage.stage) for stage in found)
        return f"{said}: {amount(self.share(*names), sum(stage.path_s for stage in found))}"

    def keys(self, *keys: str) -> str:
        """The keys with what they are now, joined by commas and a last "or"."""
        named = [self.settings.named(key) for key in keys]
        return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}"


def amount(share: float, seconds: float) -> str:
    return f"{share_text(share)} of the wall time, {seconds_text(seconds)} a step"
